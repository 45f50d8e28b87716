//! The faults of a run: drawn from the seed, a few at a time.
//!
//! Each fault ends by itself after a while. At the end of a run all faults end ([`Faults::heal`]),
//! and everything must work again.

mod copies;
mod courses;
mod drivers;
mod kinds;
mod links;
mod refill;

use std::collections::BTreeMap;

use dkv_base::id::GroupId;

pub use courses::Course;
pub use kinds::Fault;

use crate::cluster::{Cluster, Death};
use crate::disk::Speed;
use crate::log;
use crate::machine::ClockRate;
use crate::network::Weather;
use crate::observer::{Observations, Order};
use crate::random::Random;
use crate::workload::Workload;
use copies::Copied;
use courses::{Going, Plan};
use drivers::Strike;
use refill::Refill;

/// Most nodes of a network.
const NODES_MAX: usize = 7;
/// Fewest nodes that the administrator leaves in a network.
const NODES_MIN: usize = 3;

/// The faults of one run.
pub struct Faults {
    random: Random,
    next: u64,
    /// Longest pause between two faults, in ticks.
    pause: u64,
    /// Actions that are due, and the tick in which each is.
    ends: Vec<(u64, End)>,
    /// How often each fault has occurred.
    counts: BTreeMap<Fault, u64>,
    /// The course of events that this run has yet to begin.
    plan: Option<Plan>,
    /// A node that is to be taken out of its groups while a leader of one is lost.
    going: Option<Going>,
    /// A node that is to lose its replicas and be given them again.
    refill: Option<Refill>,
    /// A step of a transaction in which a node is to be struck.
    strike: Option<Strike>,
    /// A copy of a node's directory.
    copied: Option<Copied>,
    /// Old copies that were refused or held back, and clones that were noticed.
    refused_copies: u64,
    noticed_clones: u64,
    wrong: Vec<String>,
    /// Whether a node was lost for good; a network must survive one such loss.
    lost: bool,
}

/// An action that is due in a later tick: mostly the end of a fault.
enum End {
    Restart(usize),
    RestartServer,
    Links,
    Weather,
    Clock(usize),
    Disk(usize),
    Drain(usize),
    Empty(usize),
    Remove(usize),
    /// Cuts all links from the first node to other nodes but the second.
    Cut(usize, usize),
    Lose(usize),
    /// Cuts a node off from all other nodes.
    CutOff(usize),
    /// Cuts the power of all nodes, and makes their disks fast again.
    Outage,
    /// Delays all messages to a primary, and leaves one client alone with it.
    HearsLate {
        leader: usize,
        alone: usize,
        late: u64,
    },
}

impl Faults {
    /// Creates the faults of a seed, for `ticks` ticks from a tick on, including a course.
    pub fn new(mut random: Random, from: u64, ticks: u64, course: Option<Course>) -> Self {
        let pause = *random.pick(&[300, 1000, 2500]).unwrap_or(&1000);
        let plan = course.map(|course| Plan::new(course, &mut random, from, ticks));
        Self {
            random,
            next: from,
            pause,
            ends: Vec::new(),
            counts: BTreeMap::new(),
            plan,
            going: None,
            refill: None,
            strike: None,
            copied: None,
            refused_copies: 0,
            noticed_clones: 0,
            wrong: Vec::new(),
            lost: false,
        }
    }

    /// Returns how many old copies were refused or held back, and how many clones were noticed.
    pub fn copies_told_apart(&self) -> (u64, u64) {
        (self.refused_copies, self.noticed_clones)
    }

    /// Returns how often each fault has occurred.
    pub fn counts(&self) -> &BTreeMap<Fault, u64> {
        &self.counts
    }

    /// Carries out what is due, and begins another fault if it is time.
    pub fn tick(
        &mut self,
        cluster: &mut Cluster,
        observations: &Observations,
        workload: &Workload,
    ) {
        let now = cluster.now;
        self.end_due(cluster, observations, workload);
        Self::switch_off(cluster, observations);
        self.keep_to_plan(cluster, observations, workload);
        let steps = log::steps();
        self.ambush(cluster, observations, &steps);
        self.refill(cluster, observations, &steps);
        self.strike(cluster, observations, &steps);
        self.go_on_with_copy(cluster, observations);
        self.plan_restarts(cluster);
        let restarts = |(_, end): &(u64, End)| matches!(end, End::RestartServer);
        if !cluster.server.is_up() && !self.ends.iter().any(restarts) {
            self.ends.push((now + self.random.between(100, 4000), End::RestartServer));
        }
        if now >= self.next {
            self.next = now + self.random.between(50, self.pause);
            let fault = Fault::draw(&mut self.random);
            self.begin(fault, cluster, observations, workload);
        }
    }

    /// Restarts processes that have ended, and begins no fault.
    pub fn restart(
        &mut self,
        cluster: &mut Cluster,
        observations: &Observations,
        workload: &Workload,
    ) {
        self.end_due(cluster, observations, workload);
        Self::switch_off(cluster, observations);
        self.plan_restarts(cluster);
    }

    /// Ends all faults.
    pub fn heal(
        &mut self,
        cluster: &mut Cluster,
        observations: &Observations,
        workload: &Workload,
    ) {
        cluster.trace.line("everything heals");
        (self.plan, self.going, self.refill) = (None, None, None);
        self.end_all(cluster, observations, workload);
    }

    fn end_all(&mut self, cluster: &mut Cluster, observations: &Observations, workload: &Workload) {
        self.strike = None;
        self.end_copy(cluster, observations);
        // A node that was about to be lost is not lost any more.
        self.lost &= !self.ends.iter().any(|(_, end)| matches!(end, End::Lose(_)));
        self.ends.retain(|(_, end)| {
            let begins = matches!(end, End::Cut(..) | End::CutOff(_) | End::HearsLate { .. });
            !begins && !matches!(end, End::Lose(_) | End::Outage)
        });
        for (_, end) in std::mem::take(&mut self.ends) {
            Self::end(&end, cluster, observations, workload);
        }
        Self::end(&End::Links, cluster, observations, workload);
        cluster.network.set_weather(Weather::CALM);
        log::panic_nowhere();
        cluster.server.fail_power_after(None);
        if !cluster.server.is_up() {
            cluster.start_server();
        }
        for index in 0..cluster.nodes.len() {
            for end in [End::Clock(index), End::Disk(index), End::Restart(index)] {
                Self::end(&end, cluster, observations, workload);
            }
        }
    }

    fn end_due(&mut self, cluster: &mut Cluster, observations: &Observations, workload: &Workload) {
        while let Some(place) = self.ends.iter().position(|(at, _)| *at <= cluster.now) {
            let (_, end) = self.ends.remove(place);
            Self::end(&end, cluster, observations, workload);
        }
    }

    /// Restarts processes that have ended, as an operator would.
    fn plan_restarts(&mut self, cluster: &Cluster) {
        for (index, node) in cluster.nodes.iter().enumerate() {
            let restarts = |end: &End| matches!(end, End::Restart(it) if *it == index);
            let planned = self.ends.iter().any(|(_, end)| restarts(end));
            if node.wanted && !node.machine.is_up() && !planned {
                let after = self.random.between(50, 3000);
                self.ends.push((cluster.now + after, End::Restart(index)));
            }
        }
    }

    /// Chooses the node to strike: in half of all cases a leader.
    fn victim(&mut self, cluster: &Cluster, observations: &Observations) -> Option<usize> {
        let wanted = |index: &usize| cluster.nodes[*index].wanted;
        let nodes: Vec<usize> = (0..cluster.nodes.len()).filter(wanted).collect();
        let group = GroupId(self.random.below(2) as u32);
        let any = self.random.pick(&nodes).copied();
        if self.random.per_mille(500)
            && let Some(leader) = observations.leader(group)
        {
            return nodes.into_iter().find(|index| cluster.nodes[*index].name == leader).or(any);
        }
        any
    }

    fn begin(
        &mut self,
        fault: Fault,
        cluster: &mut Cluster,
        observations: &Observations,
        workload: &Workload,
    ) {
        let now = cluster.now;
        let Some(victim) = self.victim(cluster, observations) else { return };
        let name = cluster.nodes[victim].name.clone();
        let length = self.random.between(100, 4000);
        let until = now + length;
        *self.counts.entry(fault).or_default() += 1;
        cluster.trace.line(format!("{fault:?} ({name}, {length} ms)"));
        match fault {
            Fault::Kill => cluster.kill_node(victim, Death::Process),
            Fault::PowerLoss => cluster.kill_node(victim, Death::Power),
            Fault::TornWrite => {
                cluster.nodes[victim].disk.die_in_log(self.random.below(12));
            }
            Fault::TornCheckpoint => {
                let (calls, happens) = (self.random.below(6), self.random.per_mille(500));
                cluster.nodes[victim].disk.die_in_checkpoints(calls, happens);
            }
            Fault::TornFile => {
                cluster.kill_node(victim, Death::Process);
                cluster.nodes[victim].machine.fail_power_after(Some(self.random.below(3)));
            }
            Fault::TornBooks => cluster.server.fail_power_after(Some(self.random.below(4))),
            Fault::Blackout => Self::black_out(cluster),
            Fault::Outage => self.outage(cluster, workload),
            Fault::Stop => cluster.stop_node(victim),
            Fault::ServerKill => {
                cluster.kill_server();
                self.ends.push((until, End::RestartServer));
            }
            Fault::Isolate | Fault::OneWay | Fault::Split | Fault::Bridge | Fault::Ring => {
                links::cut(&mut self.random, fault, victim, cluster);
                self.ends.push((until, End::Links));
            }
            Fault::Late => self.late(cluster, observations, workload),
            Fault::Weather => {
                cluster.network.set_weather(links::weather(&mut self.random));
                self.ends.push((until, End::Weather));
            }
            Fault::Pause => cluster.nodes[victim].machine.stand_still(until, true),
            Fault::Halt => cluster.nodes[victim].machine.stand_still(until, false),
            Fault::Drift => {
                let every = self.random.between(5, 200);
                let fast = self.random.per_mille(500);
                let pace = if fast { ClockRate::Fast(every) } else { ClockRate::Slow(every) };
                cluster.nodes[victim].machine.set_rate(pace);
                self.ends.push((until + 3 * length, End::Clock(victim)));
            }
            Fault::WallJump => {
                // Certificates tolerate an hour between two clocks; two may jump apart.
                let minutes = self.random.between(0, 58) as i64 - 29;
                cluster.nodes[victim].machine.set_wall_offset(minutes * 60_000);
            }
            Fault::SlowDisk => {
                let slowest = self.random.between(5, 60);
                cluster.nodes[victim].disk.set_speed(Speed::Between(1, slowest));
                self.ends.push((until, End::Disk(victim)));
            }
            Fault::Stall => cluster.nodes[victim].disk.set_speed(Speed::Stalled(length)),
            Fault::FailedSync => {
                cluster.nodes[victim].disk.fail_sync_after(self.random.below(8));
            }
            Fault::FullDisk => {
                cluster.nodes[victim].disk.set_free_bytes(Some(self.random.below(1 << 20)));
                self.ends.push((until, End::Disk(victim)));
            }
            Fault::Join if cluster.nodes.len() < NODES_MAX => drop(cluster.add_node()),
            Fault::Remove => {
                if self.may_lose_one(cluster) && !cluster.nodes[victim].leaving {
                    cluster.nodes[victim].leaving = true;
                    // Drawn from nothing, so that the courses of the seeds stay as they are.
                    let at_once = cluster.now.is_multiple_of(3);
                    let order = if at_once { Order::Expel(name) } else { Order::Remove(name) };
                    observations.order(order);
                }
            }
            Fault::Join => {}
            Fault::Drain if cluster.nodes[victim].leaving => {}
            Fault::Drain => {
                observations.order(Order::Drain(name, true));
                self.ends.push((until + 2 * length, End::Drain(victim)));
            }
            Fault::Rebalance => observations.order(Order::Rebalance),
            Fault::Empty => self.empty(victim, cluster, observations, workload),
            Fault::HalfChange => self.half_change(victim, cluster, observations),
            Fault::Panic => self.panic(victim, cluster, observations),
            Fault::Refill => self.begin_refill(cluster, observations),
            Fault::Driver => self.strike_drivers(cluster, workload),
            Fault::OldCopy => self.begin_copy(victim, cluster),
            Fault::Clone => self.begin_clone(victim, cluster, observations),
        }
    }

    fn may_lose_one(&self, cluster: &Cluster) -> bool {
        let stay = cluster.nodes.iter().filter(|node| !node.leaving).count();
        stay > NODES_MIN && !self.lost
    }

    fn end(end: &End, cluster: &mut Cluster, observations: &Observations, workload: &Workload) {
        match end {
            End::Restart(index) => {
                let node = &cluster.nodes[*index];
                if node.wanted && !node.machine.is_up() {
                    cluster.start_node(*index);
                }
            }
            End::RestartServer => {
                if !cluster.server.is_up() {
                    cluster.start_server();
                }
            }
            End::Links => {
                cluster.network.mend();
                workload.focus_on_nothing();
            }
            End::Weather => cluster.network.set_weather(Weather::CALM),
            End::Clock(index) => cluster.nodes[*index].machine.set_rate(ClockRate::Exact),
            End::Disk(index) => {
                let disk = &cluster.nodes[*index].disk;
                disk.set_speed(Speed::Between(0, 1));
                disk.set_free_bytes(None);
                cluster.nodes[*index].machine.fail_power_after(None);
            }
            End::Drain(index) => {
                let name = cluster.nodes[*index].name.clone();
                observations.order(Order::Drain(name, false));
            }
            End::Empty(index) => {
                observations.order(Order::Empty(cluster.nodes[*index].name.clone()));
            }
            // It stays if it was to be lost, and was not.
            End::Remove(index) if !cluster.nodes[*index].leaving => {}
            End::Remove(index) => {
                observations.order(Order::Remove(cluster.nodes[*index].name.clone()));
            }
            End::Cut(from, but) => {
                let address = |index: usize| cluster.nodes[index].machine.address();
                for other in (0..cluster.nodes.len()).filter(|it| it != from && it != but) {
                    cluster.network.cut(address(*from), address(other));
                }
            }
            End::CutOff(index) => {
                links::cut_from_nodes(cluster.nodes[*index].machine.address(), cluster);
            }
            End::Outage => {
                cluster.trace.line("all power fails");
                Self::black_out(cluster);
                workload.focus_on_nothing();
                for node in &cluster.nodes {
                    node.disk.set_speed(Speed::Between(0, 1));
                }
            }
            End::HearsLate { leader, alone, late } => {
                Self::hears_late(*leader, *alone, *late, cluster);
            }
            End::Lose(index) => {
                cluster.trace.line("the leader is lost for good");
                let node = &mut cluster.nodes[*index];
                (node.wanted, node.leaving) = (false, true);
                cluster.kill_node(*index, Death::Power);
            }
        }
    }
}

/// Returns the index of the node called `name`.
fn place(cluster: &Cluster, name: Option<String>) -> Option<usize> {
    let name = name?;
    cluster.nodes.iter().position(|node| node.name == name)
}
