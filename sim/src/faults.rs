//! What goes wrong in a run, and when: drawn from the seed, a few things at a time.
//!
//! Each fault ends by itself after a while. At the end of a run all of them end ([`Faults::heal`]), and
//! everything has to work again.

use std::net::IpAddr;

use dkv_wire::id::GroupId;

use crate::cluster::{Cluster, Death};
use crate::disk::Speed;
use crate::log;
use crate::machine::Pace;
use crate::network::Weather;
use crate::observer::{Observations, Order};
use crate::random::Random;

/// Most nodes of a network.
const NODES_MAX: usize = 7;
/// Fewest nodes that an administrator leaves.
const NODES_MIN: usize = 3;

/// Of a thousand nodes that are to be emptied for good, those that are cut off from the other nodes as the order is
/// given.
const CUT_OFF_PER_MILLE: u64 = 700;
/// How long at least: longer than what a coordinator has heard counts.
const CUT_OFF_MS: u64 = 7000;

/// What can go wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// A node's process is killed.
    Kill,
    /// A node loses its power; what was not synced is lost.
    PowerLoss,
    /// A node loses its power in the middle of a write, which is torn.
    TornWrite,
    /// A node loses its power in the middle of a checkpoint or an installation.
    TornCheckpoint,
    /// A node loses its power in the middle of the replacement of a small file, as it starts.
    TornFile,
    /// The server's machine does.
    TornBooks,
    /// All nodes lose their power at once.
    Blackout,
    /// A node is stopped in good order.
    Stop,
    /// The server is killed.
    ServerKill,
    /// A node hears and reaches nobody.
    Isolate,
    /// A node is heard and hears nobody, or the other way round.
    OneWay,
    /// The nodes are in two parts.
    Split,
    /// The nodes are in two parts, with one node in both.
    Bridge,
    /// Each node reaches its two neighbours only.
    Ring,
    /// What is sent to a node arrives seconds late, over connections that outlive the cut by which soon nothing
    /// that it sends gets through.
    Late,
    /// Datagrams are lost, late, doubled and out of order.
    Weather,
    /// A node's process stands still, and its clock goes on.
    Pause,
    /// A node's machine stands still, with its clock.
    Halt,
    /// A node's clock runs fast or slow.
    Drift,
    /// A node's clock on the wall jumps.
    WallJump,
    /// A node's disk is slow.
    SlowDisk,
    /// A write of a node's disk does not end for a while.
    Stall,
    /// A sync of a node's disk fails.
    FailedSync,
    /// A node's disk is full.
    FullDisk,
    /// A node joins.
    Join,
    /// A node is removed.
    Remove,
    /// A node is to be emptied: for a while, or to be switched off for good once it is said that it may.
    Drain,
    /// Replicas and primaries are to be evened out.
    Rebalance,
    /// A group's voters change, and its leader is lost for good when the last entry of that has reached the one
    /// who goes, and nobody else.
    HalfChange,
}

/// All of them, with how often each comes.
const FAULTS: &[(Fault, u64)] = &[
    (Fault::Kill, 10),
    (Fault::PowerLoss, 8),
    (Fault::TornWrite, 8),
    (Fault::TornCheckpoint, 3),
    (Fault::TornFile, 4),
    (Fault::TornBooks, 4),
    (Fault::Blackout, 2),
    (Fault::Stop, 5),
    (Fault::ServerKill, 3),
    (Fault::Isolate, 8),
    (Fault::OneWay, 6),
    (Fault::Split, 5),
    (Fault::Bridge, 4),
    (Fault::Ring, 3),
    (Fault::Late, 6),
    (Fault::Weather, 8),
    (Fault::Pause, 6),
    (Fault::Halt, 4),
    (Fault::Drift, 3),
    (Fault::WallJump, 2),
    (Fault::SlowDisk, 4),
    (Fault::Stall, 4),
    (Fault::FailedSync, 4),
    (Fault::FullDisk, 4),
    (Fault::Join, 4),
    (Fault::Remove, 3),
    (Fault::Drain, 7),
    (Fault::Rebalance, 2),
    (Fault::HalfChange, 4),
];

/// Time for which answers to a leader that is to be lost are late.
const LATE_ANSWERS: u64 = 400;
/// Time after which what it sends does not get through any more: its last entry has, but to the farthest regions.
const CUT_AFTER: u64 = 150;
/// Time after which it is lost: the answers have come, and another entry has gone out.
const LOST_AFTER: u64 = 650;
/// Time in which a leader has to begin to change voters once it is to.
const CHANGE_WITHIN: u64 = 6000;

/// The faults of one run.
pub struct Faults {
    random: Random,
    next: u64,
    /// Longest pause between two, in ticks.
    pause: u64,
    /// What ends when.
    ends: Vec<(u64, End)>,
    /// How often each has come.
    counts: std::collections::BTreeMap<Fault, u64>,
    /// A node that is to go from a group, and until when that may begin.
    going: Option<(usize, u64)>,
    /// Whether a node was lost for good: one is what a network must bear.
    lost: bool,
}

enum End {
    Restart(usize),
    RestartServer,
    Links,
    Weather,
    Clock(usize),
    Disk(usize),
    Drain(usize),
    Remove(usize),
    /// Nothing that the first sends reaches anybody but the second.
    Cut(usize, usize),
    Lose(usize),
}

impl Faults {
    /// The faults of a seed, from a tick on.
    pub fn new(mut random: Random, from: u64) -> Self {
        let pause = *random.pick(&[300, 1000, 2500]).unwrap_or(&1000);
        let (ends, counts, going, lost) = Default::default();
        Self { random, next: from, pause, ends, counts, going, lost }
    }

    /// How often each has come.
    pub fn counts(&self) -> &std::collections::BTreeMap<Fault, u64> {
        &self.counts
    }

    /// Ends what is due, and begins another if it is time.
    pub fn tick(&mut self, cluster: &mut Cluster, observations: &Observations) {
        let now = cluster.now;
        self.end_due(cluster, observations);
        Self::switch_off(cluster, observations);
        self.ambush(cluster);
        self.plan_restarts(cluster);
        let restarts = |(_, end): &(u64, End)| matches!(end, End::RestartServer);
        if !cluster.server.is_up() && !self.ends.iter().any(restarts) {
            self.ends.push((now + self.random.between(100, 4000), End::RestartServer));
        }
        if now >= self.next {
            self.next = now + self.random.between(50, self.pause);
            let fault = self.draw();
            self.begin(fault, cluster, observations);
        }
    }

    /// Starts again what has ended, and begins nothing.
    pub fn restart(&mut self, cluster: &mut Cluster, observations: &Observations) {
        self.end_due(cluster, observations);
        Self::switch_off(cluster, observations);
        self.plan_restarts(cluster);
    }

    /// Ends everything.
    pub fn heal(&mut self, cluster: &mut Cluster, observations: &Observations) {
        cluster.trace.line("everything heals");
        self.ends.retain(|(_, end)| !matches!(end, End::Cut(..) | End::Lose(_)));
        for (_, end) in std::mem::take(&mut self.ends) {
            Self::end(&end, cluster, observations);
        }
        cluster.network.mend();
        cluster.network.set_weather(Weather::CALM);
        cluster.server.fail_power_after(None);
        if !cluster.server.is_up() {
            cluster.start_server();
        }
        for index in 0..cluster.nodes.len() {
            for end in [End::Clock(index), End::Disk(index), End::Restart(index)] {
                Self::end(&end, cluster, observations);
            }
        }
    }

    fn end_due(&mut self, cluster: &mut Cluster, observations: &Observations) {
        while let Some(place) = self.ends.iter().position(|(at, _)| *at <= cluster.now) {
            let (_, end) = self.ends.remove(place);
            Self::end(&end, cluster, observations);
        }
    }

    /// A process that has ended is started again, as its operator would.
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

    fn draw(&mut self) -> Fault {
        let mut at = self.random.below(FAULTS.iter().map(|(_, weight)| weight).sum());
        for (fault, weight) in FAULTS {
            match at.checked_sub(*weight) {
                Some(left) => at = left,
                None => return *fault,
            }
        }
        Fault::Kill
    }

    /// A node to be struck, often one that leads.
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

    fn begin(&mut self, fault: Fault, cluster: &mut Cluster, observations: &Observations) {
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
            Fault::Blackout => {
                for index in 0..cluster.nodes.len() {
                    if cluster.nodes[index].machine.is_up() {
                        cluster.kill_node(index, Death::Power);
                    }
                }
            }
            Fault::Stop => cluster.stop_node(victim),
            Fault::ServerKill => {
                cluster.kill_server();
                self.ends.push((until, End::RestartServer));
            }
            Fault::Isolate | Fault::OneWay | Fault::Split | Fault::Bridge | Fault::Ring => {
                self.cut(fault, victim, cluster);
                self.ends.push((until, End::Links));
            }
            Fault::Late => {
                // A primary, if one is known: others believe theirs.
                let primary = observations.leader(GroupId(1));
                let primary =
                    cluster.nodes.iter().position(|it| Some(&it.name) == primary.as_ref());
                let victim = primary.unwrap_or(victim);
                let struck = cluster.nodes[victim].machine.address();
                let nodes = cluster.nodes.iter().map(|node| node.machine.address());
                let late = self.random.between(1500, 3000);
                // Some clients go on with the others, some with the one that is struck.
                for client in &cluster.clients {
                    if self.random.per_mille(500) {
                        cluster.network.cut(client.address(), struck);
                    }
                }
                for other in nodes.filter(|node| *node != struck) {
                    let late = late + self.random.below(100);
                    cluster.network.set_late(other, struck, late);
                }
                self.ends.push((now + self.random.between(20, 300), End::Cut(victim, victim)));
                self.ends.push((now + late + self.random.between(500, 1500), End::Links));
            }
            Fault::Weather => {
                cluster.network.set_weather(self.weather());
                self.ends.push((until, End::Weather));
            }
            Fault::Pause => cluster.nodes[victim].machine.stand_still(until, true),
            Fault::Halt => cluster.nodes[victim].machine.stand_still(until, false),
            Fault::Drift => {
                let every = self.random.between(5, 200);
                let fast = self.random.per_mille(500);
                let pace = if fast { Pace::Fast(every) } else { Pace::Slow(every) };
                cluster.nodes[victim].machine.set_pace(pace);
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
                    observations.order(Order::Remove(name));
                }
            }
            Fault::Join => {}
            Fault::Drain if cluster.nodes[victim].leaving => {}
            Fault::Drain if length.is_multiple_of(2) && self.may_lose_one(cluster) => {
                // Nobody takes it back any more.
                self.ends.retain(|(_, end)| !matches!(end, End::Drain(it) if *it == victim));
                cluster.nodes[victim].leaving = true;
                observations.order(Order::Empty(name));
                self.ends.push((until + 8 * length, End::Remove(victim)));
                if self.random.per_mille(CUT_OFF_PER_MILLE) {
                    // Clients still reach it, and it takes their eventual writes: it hears of nothing.
                    Self::cut_from_nodes(victim, cluster);
                    self.ends.push((until + CUT_OFF_MS, End::Links));
                }
            }
            Fault::Drain => {
                observations.order(Order::Drain(name, true));
                self.ends.push((until + 2 * length, End::Drain(victim)));
            }
            Fault::Rebalance => observations.order(Order::Rebalance),
            Fault::HalfChange => {
                let some_leave = cluster.nodes.iter().any(|node| node.leaving);
                if self.may_lose_one(cluster) && !some_leave && self.going.is_none() {
                    self.going = Some((victim, now + CHANGE_WITHIN));
                    drop(log::changes_voters());
                    observations.order(Order::Drain(name, true));
                    self.ends.push((now + CHANGE_WITHIN + length, End::Drain(victim)));
                }
            }
        }
    }

    fn may_lose_one(&self, cluster: &Cluster) -> bool {
        let stay = cluster.nodes.iter().filter(|node| !node.leaving).count();
        stay > NODES_MIN && !self.lost
    }

    /// Has a leader be lost in the middle of the change of voters that it begins.
    fn ambush(&mut self, cluster: &Cluster) {
        let Some((going, until)) = self.going else { return };
        if cluster.now > until || !cluster.nodes[going].machine.is_up() {
            self.going = None;
            return;
        }
        let Some(leader) = log::changes_voters() else { return };
        let leader = cluster.nodes.iter().position(|node| node.name == leader);
        let some_leave = cluster.nodes.iter().any(|node| node.leaving);
        let Some(leader) = leader.filter(|leader| *leader != going) else { return };
        if some_leave || !self.may_lose_one(cluster) {
            return;
        }
        (self.going, self.lost) = (None, true);
        let name = &cluster.nodes[leader].name;
        cluster.trace.line(format!("{name} changes voters, and is to be lost"));
        let address = |index: usize| cluster.nodes[index].machine.address();
        for other in (0..cluster.nodes.len()).filter(|other| ![leader, going].contains(other)) {
            cluster.network.set_late(address(other), address(leader), LATE_ANSWERS);
        }
        self.ends.push((cluster.now + CUT_AFTER, End::Cut(leader, going)));
        self.ends.push((cluster.now + LOST_AFTER, End::Lose(leader)));
        self.ends.push((cluster.now + LOST_AFTER, End::Links));
        let removed = cluster.now + LOST_AFTER + self.random.between(500, 3000);
        self.ends.push((removed, End::Remove(leader)));
    }

    /// Takes who says that a node may be switched off at his word: it never comes back, nor does its disk.
    fn switch_off(cluster: &mut Cluster, observations: &Observations) {
        for index in 0..cluster.nodes.len() {
            if observations.may_be_switched_off(&cluster.nodes[index].name) {
                cluster.trace.line("what may be switched off is switched off for good");
                cluster.nodes[index].wanted = false;
                cluster.nodes[index].promised = true;
                cluster.kill_node(index, Death::Power);
            }
        }
    }

    fn cut_from_nodes(victim: usize, cluster: &Cluster) {
        let address = |index: usize| cluster.nodes[index].machine.address();
        for other in (0..cluster.nodes.len()).filter(|other| *other != victim) {
            cluster.network.cut(address(victim), address(other));
            cluster.network.cut(address(other), address(victim));
        }
    }

    fn cut(&mut self, fault: Fault, victim: usize, cluster: &Cluster) {
        let network = &cluster.network;
        let address = |index: usize| cluster.nodes[index].machine.address();
        let mut nodes: Vec<IpAddr> = (0..cluster.nodes.len()).map(address).collect();
        let both = |one: IpAddr, other: IpAddr| {
            network.cut(one, other);
            network.cut(other, one);
        };
        let struck = address(victim);
        // The clients and the server are with the others, or with the one that is cut off.
        let mut outside: Vec<IpAddr> = cluster.clients.iter().map(|c| c.address()).collect();
        outside.push(cluster.server.address());
        match fault {
            Fault::Isolate => {
                nodes.iter().filter(|it| **it != struck).for_each(|it| both(struck, *it));
                for machine in outside {
                    if self.random.per_mille(500) {
                        both(struck, machine);
                    }
                }
            }
            Fault::OneWay => {
                let deaf = self.random.per_mille(500);
                for it in nodes.into_iter().filter(|it| *it != struck) {
                    if deaf { network.cut(it, struck) } else { network.cut(struck, it) }
                }
            }
            Fault::Split | Fault::Bridge => {
                self.random.shuffle(&mut nodes);
                if fault == Fault::Bridge {
                    nodes.pop();
                }
                let (one, other) = nodes.split_at(nodes.len() / 2);
                one.iter().for_each(|a| other.iter().for_each(|b| both(*a, *b)));
                for machine in outside {
                    let side = if self.random.per_mille(500) { one } else { other };
                    if self.random.per_mille(500) {
                        side.iter().for_each(|it| both(*it, machine));
                    }
                }
            }
            _ => {
                self.random.shuffle(&mut nodes);
                let count = nodes.len();
                for (a, one) in nodes.iter().enumerate() {
                    for (b, other) in nodes.iter().enumerate().skip(a + 1) {
                        if b - a != 1 && b - a != count - 1 {
                            both(*one, *other);
                        }
                    }
                }
            }
        }
    }

    fn weather(&mut self) -> Weather {
        let delay_min = self.random.between(1, 5);
        Weather {
            delay_min,
            delay_max: delay_min + self.random.below(20),
            held_up: (self.random.below(50), self.random.between(50, 500)),
            lost: self.random.below(200),
            doubled: self.random.below(100),
            mtu: *self.random.pick(&[1300, 1500, 9000]).unwrap_or(&1500),
        }
    }

    fn end(end: &End, cluster: &mut Cluster, observations: &Observations) {
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
            End::Links => cluster.network.mend(),
            End::Weather => cluster.network.set_weather(Weather::CALM),
            End::Clock(index) => cluster.nodes[*index].machine.set_pace(Pace::Exact),
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
            End::Remove(index) => {
                observations.order(Order::Remove(cluster.nodes[*index].name.clone()));
            }
            End::Cut(from, but) => {
                let address = |index: usize| cluster.nodes[index].machine.address();
                for other in (0..cluster.nodes.len()).filter(|it| it != from && it != but) {
                    cluster.network.cut(address(*from), address(other));
                }
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
