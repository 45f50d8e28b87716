//! Nodes that are struck in the middle of a transaction over several shards.

use dkv_base::id::GroupId;

use super::{End, Faults, links, place};
use crate::cluster::{Cluster, Death};
use crate::log::{Step, TransactionStep};
use crate::observer::Observations;

/// A node to be struck as soon as somebody comes to a step of a transaction.
#[derive(Clone, Copy, Debug)]
pub(super) struct Strike {
    step: TransactionStep,
    until: u64,
}

impl Faults {
    /// Waits for any step of a transaction until a tick.
    pub(super) fn await_transaction(&mut self, until: u64) {
        let step = self.random.pick(&TransactionStep::ALL).copied();
        self.strike = step.map(|step| Strike { step, until });
    }

    /// Strikes the driver of a transaction, or the primary of any other shard, at the step that is
    /// awaited.
    pub(super) fn strike(
        &mut self,
        cluster: &mut Cluster,
        observations: &Observations,
        steps: &[Step],
    ) {
        let Some(Strike { step, until }) = self.strike else { return };
        if cluster.now > until {
            self.strike = None;
            return;
        }
        let Some(found) = steps.iter().find(|found| found.is_of_transaction(step)) else { return };
        self.strike = None;
        let driver = place(cluster, Some(found.leader.clone()));
        let other = GroupId(self.random.between(1, 5) as u32);
        let other = place(cluster, observations.leader(other)).filter(|it| Some(*it) != driver);
        let victim = if self.random.per_mille(300) { other.or(driver) } else { driver };
        let Some(victim) = victim.filter(|it| cluster.nodes[*it].wanted) else { return };
        let name = cluster.nodes[victim].name.clone();
        cluster.trace.line(format!("{name} is struck at {step:?} of {}", found.leader));
        let until = cluster.now + self.random.between(200, 3000);
        match self.random.below(5) {
            0 => cluster.kill_node(victim, Death::Power),
            1 => {
                links::cut_from_nodes(cluster.nodes[victim].machine.address(), cluster);
                self.ends.push((until, End::Links));
            }
            2 => cluster.nodes[victim].machine.stand_still(until, true),
            _ => cluster.kill_node(victim, Death::Process),
        }
    }
}
