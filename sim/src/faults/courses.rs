//! Courses of events: several things that go wrong one after the other, at moments that fit.
//!
//! Some bugs show only so, with milliseconds between the steps and nothing else meanwhile; drawn
//! one by one and among all the others, the steps meet too seldom to count on. Each course is a
//! [`Fault`] too, and comes among the others. Besides, most seeds have one of them in quiet:
//! everything else has ended a while before it begins, and begins again after it. Who is struck,
//! when, and for how long is drawn from the seed all the same.

use std::str::FromStr;

use dkv_base::id::GroupId;

use super::{End, Fault, Faults, NODES_MAX, NODES_MIN, links, place, refill};
use crate::cluster::{Cluster, Death};
use crate::log::{self, Step};
use crate::observer::{Observations, Order};
use crate::random::Random;
use crate::workload::{Focus, Shared};

/// Ticks for which all is well before a course begins: time to elect, to catch up, and to join.
const CALM: u64 = 2000;
/// Earliest tick of those with faults in which a course begins.
const EARLIEST: u64 = 1000 + CALM;

/// Ticks in which the clients get to know the keys that they keep to.
const KNOWN_AFTER: (u64, u64) = (50, 500);
/// Ticks for which what is sent to a primary is late: longer than an election takes, and a client
/// to find who was elected.
const LATE: (u64, u64) = (1500, 3000);
/// Most by which some of it is later than the rest, in ticks: less than an election takes.
const LATER: u64 = 100;
/// Ticks after which nothing that it sends gets through: by then it takes no more writes itself, as
/// nobody answers.
const LATE_CUT_AFTER: (u64, u64) = (20, 350);

/// Of a thousand nodes that are to be emptied for good, those that are cut off from the other nodes
/// as the order is given.
const CUT_OFF_PER_MILLE: u64 = 700;
/// Ticks for which they are: longer than what a coordinator has heard counts.
const CUT_OFF: (u64, u64) = (7000, 8000);
/// Ticks after which the order is given: by then it has taken some writes.
const ORDERED_AFTER: (u64, u64) = (500, 2500);

/// Ticks for which answers to a leader that is to be lost are late.
const LATE_ANSWERS: u64 = 400;
/// Ticks after which what it sends does not get through any more: its last entry has, but to the
/// farthest regions.
const CUT_AFTER: u64 = 150;
/// Ticks after which it is lost: the answers have come, and another entry has gone out.
const LOST_AFTER: u64 = 650;
/// Ticks in which a leader has to begin to change voters once it is to.
const CHANGE_WITHIN: u64 = 6000;

/// A course that a run has in quiet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Course {
    /// A deposed primary gets late what was sent to it before; see [`Fault::Late`].
    LateAnswers,
    /// A change of voters is half made; see [`Fault::HalfChange`].
    HalfChange,
    /// A node is emptied that the others do not reach; see [`Fault::Empty`].
    Emptied,
    /// A replica comes after one that was deleted in its place; see [`Fault::Refill`].
    Refilled,
    /// The coordinator's node loses a task; see [`Fault::Panic`].
    DeadTask,
}

impl Course {
    /// All of them, with how often each comes. Of as many runs as there are in all, some have none.
    const ALL: [(Self, u64); 5] = [
        (Self::LateAnswers, 3),
        (Self::HalfChange, 3),
        (Self::Emptied, 3),
        (Self::Refilled, 3),
        (Self::DeadTask, 2),
    ];
    const NONE: u64 = 2;

    /// That of a run, if it has one.
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
        }
    }

    /// Ticks after which other faults begin again.
    fn lasts(self) -> u64 {
        match self {
            Self::LateAnswers => LATE.1 + 2000,
            Self::HalfChange | Self::DeadTask => 5000,
            Self::Emptied => CUT_OFF.1,
            Self::Refilled => refill::WITHIN,
        }
    }
}

/// When a run has its course.
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
    /// Has everything end before the course of this run, and the course begin.
    pub(super) fn keep_to_plan(
        &mut self,
        cluster: &mut Cluster,
        observations: &Observations,
        shared: &Shared,
    ) {
        let Some(Plan { course, at, is_calm }) = &mut self.plan else { return };
        let (now, course, at) = (cluster.now, *course, *at);
        if now >= at {
            cluster.trace.line(format!("{course:?} begins"));
            (self.plan, self.next) = (None, now + course.lasts());
            self.begin(course.fault(), cluster, observations, shared);
        } else if now + CALM >= at && !std::mem::replace(is_calm, true) {
            cluster.trace.line("it is calm for a while");
            (self.next, self.going, self.refill) = (at, None, None);
            self.end_all(cluster, observations, shared);
            let stay = cluster.nodes.iter().filter(|node| !node.leaving).count();
            if stay <= NODES_MIN && cluster.nodes.len() < NODES_MAX {
                cluster.add_node();
            }
        }
    }

    /// A primary hears late what the others send, soon they do not hear it any more, and they elect
    /// another. Some clients write a key on their side while another reads it at the old one.
    pub(super) fn late(&mut self, cluster: &Cluster, observations: &Observations, shared: &Shared) {
        let key = self.random.below(shared.keys());
        let leader = observations.leader(shared.shard_of(&Shared::key(key)));
        let leader = place(cluster, leader);
        let Some(leader) = leader.filter(|leader| cluster.nodes[*leader].machine.is_up()) else {
            return;
        };
        cluster.trace.line(format!("{} hears late", cluster.nodes[leader].name));
        let alone = self.random.below(cluster.clients.len() as u64) as usize;
        for client in 0..cluster.clients.len() {
            let focus = if client == alone { Focus::Read(key) } else { Focus::Write(key) };
            shared.focus(client, focus);
        }
        let begins = cluster.now + self.within(KNOWN_AFTER);
        let late = self.within(LATE);
        self.ends.push((begins, End::HearsLate { leader, alone, late }));
        let cut = begins + self.within(LATE_CUT_AFTER);
        self.ends.push((cut, End::Cut(leader, leader)));
        let links = begins + late + self.random.between(500, 1500);
        self.ends.push((links, End::Links));
    }

    /// What the nodes send to a primary is late from now on, of some of them a little more than of
    /// others. One client reaches nobody else any more.
    pub(super) fn hears_late(leader: usize, alone: usize, late: u64, cluster: &Cluster) {
        let struck = cluster.nodes[leader].machine.address();
        let others = cluster.nodes.iter().map(|node| node.machine.address());
        for (place, other) in others.filter(|other| *other != struck).enumerate() {
            let later = (late + 37 * place as u64) % LATER;
            cluster.network.set_late(other, struck, late + later);
        }
        links::leave_alone(cluster.clients[alone].address(), leader, cluster);
    }

    /// A node is emptied for good. Mostly the other nodes do not reach it, and it hears nothing of
    /// the order, while a client that reaches nobody else has it take eventual writes.
    pub(super) fn empty(
        &mut self,
        victim: usize,
        cluster: &mut Cluster,
        observations: &Observations,
        shared: &Shared,
    ) {
        // One whose replicas clients ask.
        let victim = place(cluster, observations.follower(GroupId(1))).unwrap_or(victim);
        if cluster.nodes[victim].leaving || !self.may_lose_one(cluster) {
            return;
        }
        cluster.trace.line(format!("{} is emptied for good", cluster.nodes[victim].name));
        // Nobody takes it back any more.
        self.ends.retain(|(_, end)| !matches!(end, End::Drain(it) if *it == victim));
        cluster.nodes[victim].leaving = true;
        let mut ordered = cluster.now;
        let mut removed = cluster.now + self.random.between(500, 30_000);
        if self.random.per_mille(CUT_OFF_PER_MILLE) {
            links::cut_from_nodes(cluster.nodes[victim].machine.address(), cluster);
            // The first is the administrator's.
            let alone = self.random.between(1, cluster.clients.len() as u64 - 1) as usize;
            links::leave_alone(cluster.clients[alone].address(), victim, cluster);
            shared.focus(alone, Focus::Deposit);
            ordered += self.within(ORDERED_AFTER);
            removed += CUT_OFF.1;
            let links = cluster.now + self.within(CUT_OFF);
            self.ends.push((links, End::Links));
        }
        self.ends.push((ordered, End::Empty(victim)));
        self.ends.push((removed, End::Remove(victim)));
    }

    /// A voter is to go from its groups. The leader that begins to see to it is lost.
    pub(super) fn half_change(
        &mut self,
        victim: usize,
        cluster: &Cluster,
        observations: &Observations,
    ) {
        if !self.may_lose_one(cluster) || some_leave(cluster) || self.going.is_some() {
            return;
        }
        let victim = place(cluster, observations.follower(GroupId(1))).unwrap_or(victim);
        let until = cluster.now + CHANGE_WITHIN;
        self.going = Some((victim, until));
        observations.order(Order::Drain(cluster.nodes[victim].name.clone(), true));
        self.ends.push((until + self.random.between(100, 4000), End::Drain(victim)));
    }

    /// Has a leader be lost in the middle of the change of voters that it begins.
    pub(super) fn ambush(
        &mut self,
        cluster: &Cluster,
        observations: &Observations,
        steps: &[Step],
    ) {
        let Some((going, until)) = self.going else { return };
        if cluster.now > until || !cluster.nodes[going].machine.is_up() {
            self.going = None;
            return;
        }
        let changes = steps.iter().filter(|step| step.changes_voters());
        let leaders = changes.filter_map(|step| place(cluster, Some(step.leader.clone())));
        let Some(leader) = leaders.into_iter().find(|it| *it != going) else { return };
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

    /// A task of a node panics, mostly of the coordinator's, as it sees to a node that is to be
    /// emptied for a while.
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

    /// Takes who says that a node may be switched off at his word: it never comes back, nor does
    /// its disk.
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

/// Whether a node leaves that has not left yet.
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
