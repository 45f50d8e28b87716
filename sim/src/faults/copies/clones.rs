//! A clone: a second process of a node, on a copy of its directory and at another address.

use super::{Copied, Faults, Stage, WITHOUT_SERVER_PER_MILLE, Witness, in_touch, is_well};
use crate::backups;
use crate::cluster::{Cluster, Death};
use crate::observer::{Observations, Order};

/// Ticks in which somebody must notice that a node runs twice, and looks that the administrator
/// then gets to see it: of two, the second has begun later.
const NOTICED_WITHIN: u64 = 4500;
const LOOKS: u64 = 2;
/// Ticks after which the administrator decides.
const DECIDED_AFTER: (u64, u64) = (100, 2500);
/// Ticks in which a process must end that was decided against.
const DISMISSED_WITHIN: u64 = 6000;
/// Ticks after which a clone ends in any case.
const CLONE_ENDS_AFTER: u64 = 25_000;

/// A clone beside its original.
pub(super) struct Beside {
    witness: Witness,
    decision: Decision,
    ends: u64,
    /// When the administrator saw that the node runs twice.
    noticed: Option<u64>,
    /// Ticks in which it could have been noticed, and the administrator's looks by then.
    unnoticed: u64,
    looks: u64,
    ordered: bool,
    /// Ticks for which the clone has gone on since it was decided against.
    dismissed: u64,
}

/// What becomes of two processes of a node once they were noticed.
#[derive(Clone, Copy)]
enum Decision {
    /// The administrator keeps the original, and the clone must end.
    Keep,
    /// The original dies, and starts again after the clone has been alone for a while.
    KillOriginal,
    /// The clone ends, and the administrator keeps the original.
    KillClone,
}

impl Faults {
    /// Starts a second process of a node, on a copy of its directory and at another address.
    pub(in crate::faults) fn begin_clone(
        &mut self,
        node: usize,
        cluster: &mut Cluster,
        observations: &Observations,
    ) {
        let victim = &cluster.nodes[node];
        let is_free = self.copied.is_none() && cluster.has_room_for_clones();
        if !is_free || observations.is_deciding() || victim.leaving || !is_well(victim) {
            return;
        }
        let at = victim.machine.address();
        let is_in_touch = |witness| in_touch(witness, node, at, cluster);
        let without_server = self.random.per_mille(WITHOUT_SERVER_PER_MILLE);
        let witness = match (is_in_touch(Witness::Server), is_in_touch(Witness::Nodes)) {
            (_, true) if without_server => Witness::Nodes,
            (true, _) => Witness::Server,
            (false, _) => return,
        };
        let Some(copy) = self.take_copy(node, cluster) else { return };
        if witness == Witness::Nodes {
            self.take_the_server_down(cluster);
        }
        backups::start_clone(cluster, node, copy);
        let decisions = [Decision::Keep, Decision::KillOriginal, Decision::KillClone];
        let beside = Beside {
            witness,
            decision: *self.random.pick(&decisions).unwrap_or(&Decision::Keep),
            ends: cluster.now + CLONE_ENDS_AFTER,
            noticed: None,
            unnoticed: 0,
            looks: 0,
            ordered: false,
            dismissed: 0,
        };
        self.copied = Some(Copied { node, stage: Stage::Beside(beside) });
    }

    /// Watches a clone beside its original until the administrator has decided.
    pub(super) fn watch_clone(
        &mut self,
        node: usize,
        mut beside: Beside,
        cluster: &mut Cluster,
        observations: &Observations,
    ) -> Option<Stage> {
        let now = cluster.now;
        let original = &cluster.nodes[node];
        let name = original.name.clone();
        let Some(clone) = &cluster.clone else { return None };
        let Beside { witness, .. } = beside;
        let (at, is_up) = (clone.machine.address(), clone.machine.is_up());
        let is_in_touch = in_touch(witness, node, original.machine.address(), cluster)
            && in_touch(witness, node, at, cluster);
        if witness == Witness::Server && clone.serves() && (is_in_touch || beside.noticed.is_some())
        {
            self.wrong.push(format!("a clone of {name} serves"));
            self.end_clone(node, cluster, observations);
            return None;
        }
        let Some(noticed) = beside.noticed else {
            // The original must be there to be told from a node that has moved.
            if !is_in_touch || !is_well(original) || now >= beside.ends {
                self.end_clone(node, cluster, observations);
                return None;
            }
            if observations.runs_twice(&name) {
                cluster.trace.line(format!("the administrator sees that {name} runs twice"));
                self.noticed_clones += 1;
                beside.noticed = Some(now);
                beside.ends = now + self.within(DECIDED_AFTER);
                if matches!(beside.decision, Decision::KillOriginal) {
                    cluster.kill_node(node, Death::Process);
                }
                return Some(Stage::Beside(beside));
            }
            if !administrator_sees(witness, cluster) || beside.unnoticed < NOTICED_WITHIN {
                beside.unnoticed += 1;
                beside.looks = observations.looks();
            } else if observations.looks() >= beside.looks + LOOKS {
                self.wrong.push(format!("nobody noticed a clone of {name}"));
                self.end_clone(node, cluster, observations);
                return None;
            }
            return Some(Stage::Beside(beside));
        };
        if now < beside.ends {
            return Some(Stage::Beside(beside));
        }
        if matches!(beside.decision, Decision::KillClone)
            || !is_up
            || now > noticed + CLONE_ENDS_AFTER
        {
            self.end_clone(node, cluster, observations);
            return None;
        }
        if !std::mem::replace(&mut beside.ordered, true) {
            observations.order(Order::Keep(name, original.listens_at()));
            return Some(Stage::Beside(beside));
        }
        let server_is_in_touch = in_touch(Witness::Server, node, at, cluster);
        if !observations.is_deciding() && server_is_in_touch {
            beside.dismissed += 1;
        }
        if beside.dismissed >= DISMISSED_WITHIN {
            self.wrong.push(format!("a clone of {name} goes on although it was decided against"));
            self.end_clone(node, cluster, observations);
            return None;
        }
        Some(Stage::Beside(beside))
    }

    pub(super) fn end_clone(
        &mut self,
        node: usize,
        cluster: &mut Cluster,
        observations: &Observations,
    ) {
        cluster.kill_clone();
        self.forget_copy(cluster);
        // Once more, if the administrator has decided already: a clone of which the server had not
        // heard then, and which began while the kept process ran, may have stopped it again.
        let original = &cluster.nodes[node];
        observations.order(Order::Keep(original.name.clone(), original.listens_at()));
    }
}

/// Whether the administrator, who uses the first client's machine, is in touch with a witness.
fn administrator_sees(witness: Witness, cluster: &Cluster) -> bool {
    let at = cluster.clients[0].address();
    in_touch(witness, cluster.nodes.len(), at, cluster)
}
