//! Nodes that are struck in the middle of a transaction over several shards.

use dkv_base::id::GroupId;

use super::{End, Faults, links, place};
use crate::cluster::{Cluster, Death};
use crate::log::{Step, TransactionStep};
use crate::observer::Observations;
use crate::workload::{Focus, Workload};

/// Ticks in which nodes are struck.
pub(super) const WITHIN: u64 = 7000;
/// How often, and ticks between two strikes.
const STRIKES: u64 = 4;
const PAUSE: (u64, u64) = (600, 1800);

/// A node to be struck as soon as somebody comes to a step of a transaction.
#[derive(Clone, Copy, Debug)]
pub(super) struct Strike {
    step: TransactionStep,
    /// In which ticks.
    from: u64,
    until: u64,
    /// Strikes that follow.
    left: u64,
}

impl Faults {
    /// Makes all clients execute transactions, and strikes nodes in the middle of some.
    pub(super) fn strike_drivers(&mut self, cluster: &Cluster, workload: &Workload) {
        for client in 0..cluster.clients.len() {
            workload.focus(client, Focus::Transact);
        }
        let until = cluster.now + WITHIN;
        self.ends.push((until, End::Links));
        self.await_step(cluster.now, until, STRIKES);
    }

    fn await_step(&mut self, from: u64, until: u64, strikes: u64) {
        let left = strikes.checked_sub(1);
        let step = self.random.pick(&TransactionStep::ALL).copied();
        let strike = step.zip(left);
        self.strike = strike.map(|(step, left)| Strike { step, from, until, left });
    }

    /// Strikes the driver of a transaction, or the primary of any other shard, at the step that is
    /// awaited.
    pub(super) fn strike(
        &mut self,
        cluster: &mut Cluster,
        observations: &Observations,
        steps: &[Step],
    ) {
        let Some(Strike { step, from, until, left }) = self.strike else { return };
        if cluster.now < from {
            return;
        }
        if cluster.now > until {
            self.strike = None;
            return;
        }
        let Some(found) = steps.iter().find(|found| found.is_of_transaction(step)) else { return };
        let (low, high) = PAUSE;
        let next = cluster.now + self.random.between(low, high);
        self.await_step(next, until, left);
        let driver = place(cluster, Some(found.leader.clone()));
        let other = GroupId(self.random.between(1, 5) as u32);
        let other = place(cluster, observations.leader(other)).filter(|it| Some(*it) != driver);
        let victim = if self.random.per_mille(300) { other.or(driver) } else { driver };
        let Some(victim) = victim.filter(|it| cluster.nodes[*it].wanted) else { return };
        let name = cluster.nodes[victim].name.clone();
        cluster.trace.line(format!("{name} is struck at {step:?} of {}", found.leader));
        let until = cluster.now + self.random.between(200, 2000);
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
