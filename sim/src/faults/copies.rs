//! Copies of a node's data directory: one that is put back, and one that is started beside the
//! original.
//!
//! A copy is what the disk of a running node would have after a crash. The network must tell it
//! apart as long as somebody who knows better is in touch: so the copy is put back, or the clone
//! started, only while the server or all other nodes know how far the node has come, and the fault
//! ends at once when they are lost. The administrator does what docs/operations.md says: the right
//! directory is put back, and of two processes the original is kept.

mod clones;

use std::net::IpAddr;

use super::{End, Faults};
use crate::backups::{self, Backup};
use crate::cluster::{Cluster, Death, Node};
use crate::observer::Observations;
use clones::Beside;

/// Ticks that an old copy and a clone may take.
pub(super) const WITHIN: u64 = 9000;

/// Ticks for which somebody must have been in touch with a node to know how far it has come: the
/// server hears it every half second and has it on disk within two, and other nodes hear it every
/// two seconds.
const KNOWN_AFTER: u64 = 3000;
/// Ticks at the beginning of these in which the node must have written something.
const GROWN_WITHIN: u64 = 1500;
/// Ticks for which a node goes on after its directory was copied.
const GOES_ON: (u64, u64) = (KNOWN_AFTER, 5000);
/// Ticks after that in which somebody must know better, or the copy is forgotten.
const GIVEN_UP_AFTER: u64 = 6000;
/// Ticks for which the node is down, and then has the old directory.
const DOWN_FOR: (u64, u64) = (50, 1000);
const OLD_FOR: (u64, u64) = (1500, 9500);
/// Ticks after which a node must have ended that the server has found to be on an old copy.
const REFUSED_WITHIN: u64 = 9000;
/// Chance that the server is down while the copy is there, in a thousand; and for how many ticks.
const WITHOUT_SERVER_PER_MILLE: u64 = 300;
const SERVER_DOWN_FOR: (u64, u64) = (3000, 6000);

/// Who knows better than a copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Witness {
    Server,
    /// All other nodes; the server is down.
    Nodes,
}

/// For how long a witness has been in touch with a node without a break.
#[derive(Clone, Copy, Default)]
struct Touch {
    ticks: u64,
    syncs: u64,
}

impl Touch {
    fn tick(&mut self, in_touch: bool, syncs: u64) {
        if self.ticks == 0 {
            self.syncs = syncs;
        }
        let has_not_grown = self.ticks == GROWN_WITHIN && syncs == self.syncs;
        if !in_touch || has_not_grown {
            *self = Self { ticks: 0, syncs };
        } else {
            self.ticks += 1;
        }
    }

    /// Whether the witness knows that the node has written something since the touch began.
    fn knows(self) -> bool {
        self.ticks >= KNOWN_AFTER
    }
}

/// A copy of a node's directory.
pub(super) struct Copied {
    node: usize,
    stage: Stage,
}

enum Stage {
    /// The node goes on after its directory was copied.
    Taken { old: Backup, dies: u64, server: Touch, nodes: Touch, without_server: bool },
    /// The node has its old directory.
    Old { right: Backup, witness: Witness, starts: u64, ends: u64 },
    /// A second process runs on the copy.
    Beside(Beside),
}

fn in_touch(witness: Witness, node: usize, at: IpAddr, cluster: &Cluster) -> bool {
    let network = &cluster.network;
    match witness {
        Witness::Server => cluster.server.is_up() && network.is_clear(at, cluster.server.address()),
        Witness::Nodes => {
            let others = cluster.nodes.iter().enumerate();
            let mut others = others.filter(|(index, other)| *index != node && other.wanted);
            others.all(|(_, other)| is_well(other) && network.is_clear(at, other.machine.address()))
        }
    }
}

fn is_well(node: &Node) -> bool {
    node.machine.is_up() && !node.machine.stands_still() && node.serves()
}

impl Faults {
    /// Returns what was seen of copies and must not be.
    pub fn wrong(&self) -> impl Iterator<Item = String> {
        self.wrong.iter().cloned()
    }

    /// Copies the directory of a node, which is to be put back later.
    pub(super) fn begin_copy(&mut self, node: usize, cluster: &Cluster) {
        let victim = &cluster.nodes[node];
        if self.copied.is_some() || victim.leaving || !is_well(victim) {
            return;
        }
        let Some(old) = self.take_copy(node, cluster) else { return };
        let dies = cluster.now + self.within(GOES_ON);
        let without_server = self.random.per_mille(WITHOUT_SERVER_PER_MILLE);
        let (server, nodes) = Default::default();
        let stage = Stage::Taken { old, dies, server, nodes, without_server };
        self.copied = Some(Copied { node, stage });
    }

    fn take_copy(&mut self, node: usize, cluster: &Cluster) -> Option<Backup> {
        let power = self.random.per_mille(500).then(|| self.random.draw());
        let taken = backups::take_after_crash(cluster, node, "copied", power, self.random.fork());
        cluster.trace.line(format!("the directory of {} is copied", cluster.nodes[node].name));
        self.try_to(taken)
    }

    fn take_the_server_down(&mut self, cluster: &mut Cluster) {
        if cluster.server.is_up() {
            cluster.kill_server();
        }
        self.ends.retain(|(_, end)| !matches!(end, End::RestartServer));
        let until = cluster.now + self.within(SERVER_DOWN_FOR);
        self.ends.push((until, End::RestartServer));
    }

    fn try_to<T>(&mut self, done: std::io::Result<T>) -> Option<T> {
        done.map_err(|error| self.wrong.push(format!("a directory was not copied: {error}"))).ok()
    }

    /// Goes on with the copy that there is.
    pub(super) fn go_on_with_copy(&mut self, cluster: &mut Cluster, observations: &Observations) {
        let Some(Copied { node, stage }) = self.copied.take() else { return };
        let stage = match stage {
            Stage::Taken { .. } => self.await_death(node, stage, cluster),
            Stage::Old { .. } => self.watch_old_copy(node, stage, cluster),
            Stage::Beside(beside) => self.watch_clone(node, beside, cluster, observations),
        };
        self.copied = stage.map(|stage| Copied { node, stage });
    }

    /// Ends the copy that there is.
    pub(super) fn end_copy(&mut self, cluster: &mut Cluster, observations: &Observations) {
        let Some(Copied { node, stage }) = self.copied.take() else { return };
        match stage {
            Stage::Taken { .. } => self.forget_copy(cluster),
            Stage::Old { right, .. } => self.put_right(node, right, cluster),
            Stage::Beside(_) => self.end_clone(node, cluster, observations),
        }
    }

    fn forget_copy(&mut self, cluster: &Cluster) {
        let dropped = backups::drop_backup(cluster, "copied");
        self.try_to(dropped);
    }

    /// Puts the copy back once somebody knows that it is old.
    fn await_death(&mut self, node: usize, stage: Stage, cluster: &mut Cluster) -> Option<Stage> {
        let Stage::Taken { old, dies, mut server, mut nodes, without_server } = stage else {
            return Some(stage);
        };
        let now = cluster.now;
        let victim = &cluster.nodes[node];
        if !victim.wanted || victim.leaving || now > dies + GIVEN_UP_AFTER {
            self.forget_copy(cluster);
            return None;
        }
        let (at, syncs) = (victim.machine.address(), victim.disk.syncs());
        let is_well = is_well(victim);
        server.tick(is_well && in_touch(Witness::Server, node, at, cluster), syncs);
        nodes.tick(is_well && in_touch(Witness::Nodes, node, at, cluster), syncs);
        let witness = match (server.knows(), nodes.knows()) {
            _ if now < dies => None,
            (_, true) if without_server => Some(Witness::Nodes),
            (true, _) => Some(Witness::Server),
            (false, _) => None,
        };
        let Some(witness) = witness else {
            return Some(Stage::Taken { old, dies, server, nodes, without_server });
        };
        if witness == Witness::Nodes {
            self.take_the_server_down(cluster);
        }
        let death = if self.random.per_mille(500) { Death::Process } else { Death::Power };
        cluster.kill_node(node, death);
        let right = backups::take(cluster, node, "right");
        let right = self.try_to(right)?;
        let done = backups::put_back(cluster, node, old);
        self.try_to(done)?;
        let victim = &mut cluster.nodes[node];
        (victim.wanted, victim.on_copy) = (false, true);
        let starts = now + self.within(DOWN_FOR);
        Some(Stage::Old { right, witness, starts, ends: starts + self.within(OLD_FOR) })
    }

    /// Watches a node on an old copy of its directory until the right one is put back.
    fn watch_old_copy(
        &mut self,
        node: usize,
        stage: Stage,
        cluster: &mut Cluster,
    ) -> Option<Stage> {
        let Stage::Old { right, witness, starts, ends } = stage else { return Some(stage) };
        let now = cluster.now;
        if now == starts {
            cluster.start_node(node);
        }
        let victim = &cluster.nodes[node];
        let name = &victim.name;
        let is_in_touch = in_touch(witness, node, victim.machine.address(), cluster);
        let mut seen = None;
        let is_refused = victim.ended_saying("is an older copy");
        if !is_refused && victim.ended_saying("has acknowledged entry") {
            seen = Some(format!("{name} took part on an old copy of its directory"));
        } else if is_in_touch && witness == Witness::Server && victim.serves() {
            seen = Some(format!("{name} serves on an old copy of its directory"));
        } else if is_in_touch
            && witness == Witness::Server
            && victim.machine.is_up()
            && now >= starts + REFUSED_WITHIN
        {
            seen = Some(format!("{name} goes on with an old copy of its directory"));
        }
        if !is_in_touch || now >= ends || seen.is_some() {
            // It ends only once it is sure not to be one of two that run, and is held back before.
            let is_running = victim.machine.is_up() && !victim.machine.stands_still();
            let is_held_back = now >= starts + OLD_FOR.0 && is_running && !victim.serves();
            if is_refused || is_held_back {
                self.refused_copies += 1;
            }
            self.wrong.extend(seen);
            self.put_right(node, right, cluster);
            return None;
        }
        Some(Stage::Old { right, witness, starts, ends })
    }

    fn put_right(&mut self, node: usize, right: Backup, cluster: &mut Cluster) {
        if cluster.nodes[node].machine.is_up() {
            cluster.kill_node(node, Death::Process);
        }
        let done = backups::put_back(cluster, node, right);
        self.try_to(done);
        let victim = &mut cluster.nodes[node];
        victim.on_copy = false;
        victim.wanted = !victim.leaving;
        if victim.wanted {
            cluster.start_node(node);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_witness_knows_of_what_was_written_while_it_was_in_touch() {
        let after = |synced: fn(u64) -> u64| {
            let mut touch = Touch::default();
            (0..=KNOWN_AFTER).for_each(|tick| touch.tick(true, synced(tick)));
            touch.knows()
        };
        assert!(!after(|_| 7));
        assert!(after(|tick| 7 + tick / 1000));
        assert!(!after(|tick| if tick < GROWN_WITHIN + 100 { 7 } else { 8 }));
    }
}
