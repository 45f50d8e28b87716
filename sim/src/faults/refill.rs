//! A node that loses its replicas and is given them again.
//!
//! The log of a replica that comes after another one is filled from its beginning. Before it knows
//! who votes now, it knows who voted once; of a network's first node that is this node alone. It is
//! cut off from the others then.

use dkv_base::id::{GroupId, NodeId};

use super::{End, Faults, place};
use crate::cluster::Cluster;
use crate::log::Step;
use crate::observer::{Observations, Order};

/// Ticks that the whole course may take.
pub(super) const WITHIN: u64 = 8000;
/// Ticks by which messages to the node and back are delayed while its log is filled.
const FAR: (u64, u64) = (10, 40);
/// Bytes that the links to the node carry in a tick meanwhile.
const ROOM: (u64, u64) = (50, 300);
/// Ticks after which the node is cut off.
const CUT_OFF_AFTER: (u64, u64) = (50, 600);
/// Ticks for which it is cut off: longer than it waits for a leader.
const CUT_OFF_FOR: (u64, u64) = (400, 1500);

/// The state of the course.
pub(super) struct Refill {
    node: usize,
    until: u64,
    /// The node's id, once it has no replica left and is to be given some.
    empty: Option<NodeId>,
}

impl Faults {
    /// Drains the first node of all its replicas.
    pub(super) fn begin_refill(&mut self, cluster: &Cluster, observations: &Observations) {
        let (node, until) = (0, cluster.now + WITHIN);
        let first = &cluster.nodes[node];
        if self.refill.is_some() || first.leaving || !first.machine.is_up() {
            return;
        }
        observations.order(Order::Drain(first.name.clone(), true));
        self.ends.push((until, End::Drain(node)));
        self.refill = Some(Refill { node, until, empty: None });
    }

    /// Uses the node again, in the place of another, once it has no replica left; and cuts it off
    /// once a leader begins to fill its log.
    pub(super) fn refill(
        &mut self,
        cluster: &Cluster,
        observations: &Observations,
        steps: &[Step],
    ) {
        let Some(Refill { node, until, empty }) = &mut self.refill else { return };
        let (node, now) = (*node, cluster.now);
        let name = &cluster.nodes[node].name;
        if now > *until || !cluster.nodes[node].machine.is_up() {
            self.refill = None;
            return;
        }
        let Some(id) = *empty else {
            let Some((id, false)) = observations.holds(name) else { return };
            *empty = Some(id);
            observations.order(Order::Drain(name.clone(), false));
            let other = place(cluster, observations.follower(GroupId(1)));
            if let Some(other) = other.filter(|other| !cluster.nodes[*other].leaving) {
                observations.order(Order::Drain(cluster.nodes[other].name.clone(), true));
                self.ends.push((now + WITHIN, End::Drain(other)));
            }
            observations.order(Order::Rebalance);
            return;
        };
        let Some(step) = steps.iter().find(|step| step.adds(id)) else { return };
        cluster.trace.line(format!("{} gives {name} a replica again", step.leader));
        self.refill = None;
        let address = |index: usize| cluster.nodes[index].machine.address();
        let (far, room) = (self.within(FAR), self.within(ROOM) as usize);
        for other in (0..cluster.nodes.len()).filter(|other| *other != node) {
            cluster.network.set_late(address(other), address(node), far);
            cluster.network.set_late(address(node), address(other), far);
            cluster.network.set_narrow(address(other), address(node), room);
        }
        let cut = now + self.within(CUT_OFF_AFTER);
        let mended = cut + self.within(CUT_OFF_FOR);
        self.ends.push((cut, End::CutOff(node)));
        self.ends.push((mended, End::Links));
    }
}
