//! Courses of events: several faults in a row, at moments that fit.
//!
//! Some bugs show only when certain faults follow one another within milliseconds and nothing else
//! goes wrong meanwhile. Faults that are drawn one by one meet like that too seldom. Each course is
//! a [`Fault`] too, and occurs among the others. Besides, most seeds have one course in quiet: all
//! other faults end a while before it begins, and begin again after it. The seed still decides whom
//! the course strikes, when, and for how long.

use std::str::FromStr;

use dkv_base::id::GroupId;

use super::{End, Fault, Faults, NODES_MAX, NODES_MIN, copies, drivers, links, place, refill};
use crate::cluster::{Cluster, Death};
use crate::disk::Speed;
use crate::log::{self, Step};
use crate::observer::{Observations, Order};
use crate::random::Random;
use crate::workload::{Focus, Workload};

/// Ticks without faults before a course begins: time to elect, to catch up, and to join.
const CALM: u64 = 2000;
/// Earliest tick, counted from the first fault, in which a course begins.
const EARLIEST: u64 = 1000 + CALM;

/// Ticks that clients get to find the primary of the key that they keep to.
const KNOWN_AFTER: (u64, u64) = (50, 500);
/// Ticks by which messages to a primary are late: longer than it takes to elect another one and a
/// client to find it.
const LATE: (u64, u64) = (1500, 3000);
/// Most ticks by which some of these messages are later than others: less than an election takes.
const LATER: u64 = 100;
/// Ticks after which nothing that the primary sends gets through. By then it takes no more writes,
/// since it gets no answers.
const LATE_CUT_AFTER: (u64, u64) = (20, 350);

/// Most ticks that a write to any disk takes before all nodes lose their power.
const OUTAGE_SYNC: (u64, u64) = (20, 80);
/// Ticks after which they lose it.
const OUTAGE_AFTER: (u64, u64) = (300, 1500);

/// Chance that a node which is emptied for good is cut off from the other nodes when the order is
/// given, in a thousand.
const CUT_OFF_PER_MILLE: u64 = 850;
/// Ticks for which it is cut off: longer than a coordinator counts on its last reports.
const CUT_OFF: (u64, u64) = (7000, 8000);
/// Ticks after which the order is given: by then the node has taken some writes.
const ORDERED_AFTER: (u64, u64) = (500, 2500);

/// Ticks by which answers to a leader that is to be lost are late. They must come within its lease,
/// or it does not propose the last entry of the change.
const LATE_ANSWERS: u64 = 180;
/// Ticks after which nothing that the leader sends gets through. Its first entry has, except to the
/// farthest regions.
const CUT_AFTER: u64 = 130;
/// Ticks after which the leader is lost: the answers have come, and the last entry has gone out.
const LOST_AFTER: u64 = 450;
/// Ticks in which a leader has to begin to change voters after the order.
const CHANGE_WITHIN: u64 = 6000;

/// A course that a run has in quiet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Course {
    /// A deposed primary gets earlier messages late; see [`Fault::Late`].
    LateAnswers,
    /// A change of voters stays half made; see [`Fault::HalfChange`].
    HalfChange,
    /// A node that the others do not reach is emptied; see [`Fault::Empty`].
    Emptied,
    /// A replica follows one that was deleted on the same node; see [`Fault::Refill`].
    Refilled,
    /// The coordinator's node loses a task; see [`Fault::Panic`].
    DeadTask,
    /// All power fails while many writes wait for their sync; see [`Fault::Outage`].
    Outage,
    /// Nodes are lost in the middle of transactions; see [`Fault::Driver`].
    Drivers,
    /// An old copy of a node's directory is put back; see [`Fault::OldCopy`].
    OldCopy,
    /// A node runs twice; see [`Fault::Clone`].
    Clone,
}

impl Course {
    /// All courses with their weights.
    const ALL: [(Self, u64); 9] = [
        (Self::LateAnswers, 3),
        (Self::HalfChange, 5),
        (Self::Emptied, 5),
        (Self::Refilled, 5),
        (Self::DeadTask, 2),
        (Self::Outage, 3),
        (Self::Drivers, 5),
        (Self::OldCopy, 4),
        (Self::Clone, 4),
    ];
    /// Weight of no course.
    const NONE: u64 = 1;

    /// Draws the course of a run, if it has one.
    pub fn draw(random: &mut Random) -> Option<Self> {
        let all: u64 = Self::ALL.iter().map(|(_, weight)| weight).sum();
        let mut at = random.below(all + Self::NONE);
        for (course, weight) in Self::ALL {
            match at.checked_sub(weight) {
                Some(left) => at = left,
                None => return Some(course),
            }
        }
        None
    }

    fn fault(self) -> Fault {
        match self {
            Self::LateAnswers => Fault::Late,
            Self::HalfChange => Fault::HalfChange,
            Self::Emptied => Fault::Empty,
            Self::Refilled => Fault::Refill,
            Self::DeadTask => Fault::Panic,
            Self::Outage => Fault::Outage,
            Self::Drivers => Fault::Driver,
            Self::OldCopy => Fault::OldCopy,
            Self::Clone => Fault::Clone,
        }
    }

    /// Ticks after which other faults begin again.
    fn lasts(self) -> u64 {
        match self {
            Self::LateAnswers => LATE.1 + 2000,
            Self::HalfChange | Self::DeadTask | Self::Outage => 5000,
            Self::Emptied => CUT_OFF.1,
            Self::Drivers => drivers::WITHIN,
            Self::Refilled => refill::WITHIN,
            Self::OldCopy | Self::Clone => copies::WITHIN,
        }
    }
}

/// A voter that is to be taken out of its groups.
pub(super) struct Going {
    node: usize,
    /// Until when that may begin.
    until: u64,
    is_ordered: bool,
}

/// The course of a run, and when it begins.
pub(super) struct Plan {
    course: Course,
    at: u64,
    is_calm: bool,
}

impl Plan {
    pub(super) fn new(course: Course, random: &mut Random, from: u64, ticks: u64) -> Self {
        let latest = ticks.saturating_sub(course.lasts()).max(EARLIEST);
        Self { course, at: from + random.between(EARLIEST, latest), is_calm: false }
    }
}

impl Faults {
    /// Ends all faults a while before the course of this run, and begins the course in its tick.
    pub(super) fn keep_to_plan(
        &mut self,
        cluster: &mut Cluster,
        observations: &Observations,
        workload: &Workload,
    ) {
        let Some(Plan { course, at, is_calm }) = &mut self.plan else { return };
        let (now, course, at) = (cluster.now, *course, *at);
        if now >= at {
            cluster.trace.line(format!("{course:?} begins"));
            (self.plan, self.next) = (None, now + course.lasts());
            self.begin(course.fault(), cluster, observations, workload);
        } else if now + CALM >= at && !std::mem::replace(is_calm, true) {
            cluster.trace.line("it is calm for a while");
            (self.next, self.going, self.refill) = (at, None, None);
            self.end_all(cluster, observations, workload);
            let stay = cluster.nodes.iter().filter(|node| !node.leaving).count();
            if stay <= NODES_MIN && cluster.nodes.len() < NODES_MAX {
                cluster.add_node();
            }
        }
    }

    /// Makes messages to a primary late, and soon cuts it off from the others, which elect another
    /// one. Some clients write a key on their side while another client reads it at the old
    /// primary.
    pub(super) fn late(
        &mut self,
        cluster: &Cluster,
        observations: &Observations,
        workload: &Workload,
    ) {
        let key = self.random.below(workload.keys());
        let leader = observations.leader(workload.shard_of(&Workload::key(key)));
        let leader = place(cluster, leader);
        let Some(leader) = leader.filter(|leader| cluster.nodes[*leader].machine.is_up()) else {
            return;
        };
        cluster.trace.line(format!("{} hears late", cluster.nodes[leader].name));
        let alone = self.random.below(cluster.clients.len() as u64) as usize;
        for client in 0..cluster.clients.len() {
            let focus = if client == alone { Focus::Read(key) } else { Focus::Write(key) };
            workload.focus(client, focus);
        }
        let begins = cluster.now + self.within(KNOWN_AFTER);
        let late = self.within(LATE);
        self.ends.push((begins, End::HearsLate { leader, alone, late }));
        let cut = begins + self.within(LATE_CUT_AFTER);
        self.ends.push((cut, End::Cut(leader, leader)));
        let links = begins + late + self.random.between(500, 1500);
        self.ends.push((links, End::Links));
    }

    /// Delays all messages from nodes to a primary, some more than others, and cuts one client off
    /// from all other nodes.
    pub(super) fn hears_late(leader: usize, alone: usize, late: u64, cluster: &Cluster) {
        let struck = cluster.nodes[leader].machine.address();
        let others = cluster.nodes.iter().map(|node| node.machine.address());
        for (place, other) in others.filter(|other| *other != struck).enumerate() {
            let later = (late + 37 * place as u64) % LATER;
            cluster.network.set_late(other, struck, late + later);
        }
        links::leave_alone(cluster.clients[alone].address(), leader, cluster);
    }

    /// Makes all disks slow and all clients write, until all nodes lose their power.
    pub(super) fn outage(&mut self, cluster: &Cluster, workload: &Workload) {
        let slowest = self.within(OUTAGE_SYNC);
        for node in &cluster.nodes {
            node.disk.set_speed(Speed::Between(1, slowest));
        }
        for client in 0..cluster.clients.len() {
            workload.focus(client, Focus::Write(self.random.below(workload.keys())));
        }
        let after = self.within(OUTAGE_AFTER);
        self.ends.push((cluster.now + after, End::Outage));
    }

    /// Cuts the power of all nodes, which lose all data that was not synced.
    pub(super) fn black_out(cluster: &mut Cluster) {
        for index in 0..cluster.nodes.len() {
            if cluster.nodes[index].machine.is_up() {
                cluster.kill_node(index, Death::Power);
            }
        }
    }

    /// Empties a node for good. Mostly the other nodes do not reach it, so it does not hear of the
    /// order, while a client that reaches no other node deposits eventual writes there.
    pub(super) fn empty(
        &mut self,
        victim: usize,
        cluster: &mut Cluster,
        observations: &Observations,
        workload: &Workload,
    ) {
        // Preferably one that holds a shard, so that clients ask it.
        let victim = place(cluster, observations.follower(GroupId(1))).unwrap_or(victim);
        if cluster.nodes[victim].leaving || !self.may_lose_one(cluster) {
            return;
        }
        cluster.trace.line(format!("{} is emptied for good", cluster.nodes[victim].name));
        // An earlier fault must not take the order back.
        self.ends.retain(|(_, end)| !matches!(end, End::Drain(it) if *it == victim));
        cluster.nodes[victim].leaving = true;
        let mut ordered = cluster.now;
        let mut removed = cluster.now + self.random.between(500, 30_000);
        if self.random.per_mille(CUT_OFF_PER_MILLE) {
            links::cut_from_nodes(cluster.nodes[victim].machine.address(), cluster);
            // The administrator uses the first client's machine.
            let alone = self.random.between(1, cluster.clients.len() as u64 - 1) as usize;
            links::leave_alone(cluster.clients[alone].address(), victim, cluster);
            workload.focus(alone, Focus::Deposit);
            ordered += self.within(ORDERED_AFTER);
            removed += CUT_OFF.1;
            let links = cluster.now + self.within(CUT_OFF);
            self.ends.push((links, End::Links));
        }
        self.ends.push((ordered, End::Empty(victim)));
        self.ends.push((removed, End::Remove(victim)));
    }

    /// Takes a voter out of its groups. The leader that begins the change is lost.
    pub(super) fn half_change(
        &mut self,
        victim: usize,
        cluster: &Cluster,
        observations: &Observations,
    ) {
        if !self.may_lose_one(cluster) || some_leave(cluster) || self.going.is_some() {
            return;
        }
        let node = place(cluster, observations.follower(GroupId(1))).unwrap_or(victim);
        let until = cluster.now + CHANGE_WITHIN;
        self.going = Some(Going { node, until, is_ordered: false });
    }

    /// Orders the voter to be taken out once the network can survive the loss of a leader.
    fn order_to_go(&mut self, cluster: &Cluster, observations: &Observations) {
        let Some(Going { node, until, is_ordered }) = &mut self.going else { return };
        if *is_ordered || some_leave(cluster) || !observations.bears_a_loss() {
            return;
        }
        *is_ordered = true;
        let (node, until) = (*node, *until);
        observations.order(Order::Drain(cluster.nodes[node].name.clone(), true));
        self.ends.push((until + self.random.between(100, 4000), End::Drain(node)));
    }

    /// Loses a leader in the middle of the change of voters that it begins.
    pub(super) fn ambush(
        &mut self,
        cluster: &Cluster,
        observations: &Observations,
        steps: &[Step],
    ) {
        self.order_to_go(cluster, observations);
        let Some(Going { node: going, until, .. }) = self.going else { return };
        if cluster.now > until || !cluster.nodes[going].machine.is_up() {
            self.going = None;
            return;
        }
        // Only a group in which the node votes counts; a change of another group does not concern
        // it.
        let name = &cluster.nodes[going].name;
        let takes_out = |step: &&Step| {
            let voter = step.group.and_then(|group| observations.voter(name, group));
            voter.is_some_and(|voter| step.leaves_out(voter))
        };
        let steps = steps.iter().filter(takes_out);
        let mut leaders = steps.filter_map(|step| place(cluster, Some(step.leader.clone())));
        let Some(leader) = leaders.find(|it| *it != going) else { return };
        if some_leave(cluster) || !self.may_lose_one(cluster) || !observations.bears_a_loss() {
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

    /// Makes a task of a node panic, mostly of the coordinator's, while another node is drained for
    /// a while.
    pub(super) fn panic(&mut self, victim: usize, cluster: &Cluster, observations: &Observations) {
        let coordinator = place(cluster, observations.leader(GroupId::CONTROL));
        log::panic_at(&cluster.nodes[coordinator.unwrap_or(victim)].name);
        let other = place(cluster, observations.follower(GroupId(1))).unwrap_or(victim);
        if !cluster.nodes[other].leaving {
            observations.order(Order::Drain(cluster.nodes[other].name.clone(), true));
            let taken_back = cluster.now + self.random.between(1000, 4000);
            self.ends.push((taken_back, End::Drain(other)));
        }
    }

    /// Switches off every node of which the network says that it may be switched off: neither the
    /// node nor its disk comes back.
    pub(super) fn switch_off(cluster: &mut Cluster, observations: &Observations) {
        for index in 0..cluster.nodes.len() {
            if observations.may_be_switched_off(&cluster.nodes[index].name) {
                cluster.trace.line("what may be switched off is switched off for good");
                cluster.nodes[index].wanted = false;
                cluster.nodes[index].promised = true;
                cluster.kill_node(index, Death::Power);
            }
        }
    }

    pub(super) fn within(&mut self, (low, high): (u64, u64)) -> u64 {
        self.random.between(low, high)
    }
}

/// Returns whether some node is leaving and has not left yet.
fn some_leave(cluster: &Cluster) -> bool {
    cluster.nodes.iter().any(|node| node.leaving && node.wanted)
}

impl FromStr for Course {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let all = || Self::ALL.iter().map(|(course, _)| *course);
        let names = || all().map(|course| format!("{course:?}")).collect::<Vec<_>>().join(", ");
        all()
            .find(|course| format!("{course:?}") == name)
            .ok_or_else(|| format!("no course of that name; there are {}", names()))
    }
}
