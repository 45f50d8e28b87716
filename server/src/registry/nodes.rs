//! The nodes: who registers, under which name, and what the coordinator says of them.

use std::collections::HashMap;
use std::net::SocketAddr;

use dkv_base::id::NodeId;
use dkv_wire::limits;
use dkv_wire::message::{Admission, ServerRefusal};
use dkv_wire::name::check_name;
use dkv_wire::network::{NetworkView, NodeInfo, NodeState, Settings};
use dkv_wire::region::Region;
use serde::{Deserialize, Serialize};

use super::{Effects, Registry};

/// A node that has registered or was reported.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct NodeRecord {
    pub(super) name: String,
    pub(super) address: SocketAddr,
    pub(super) region: Option<Region>,
    pub(super) state: NodeState,
    /// When it last registered or was reported live. In the books as of their last change.
    pub(super) heard_ms: u64,
    /// Whether a report has named it. Once one has, a report that does not means it was removed.
    pub(super) reported: bool,
}

impl Registry {
    /// Takes a node in: finds it a name, and tells the very first one to bootstrap the network.
    ///
    /// The grant is for good. The same node is told again until a coordinator has reported: from
    /// then on the network exists, and to bootstrap again could only make a second one.
    ///
    /// # Errors
    /// `Denied` for a removed node, `NameTaken`, and `Invalid` for a name, an address or a region
    /// that cannot be. Then nothing has changed.
    pub fn handle_register(
        &mut self,
        node: NodeId,
        wanted: Option<&str>,
        address: SocketAddr,
        region: Option<Region>,
        now_ms: u64,
    ) -> (Result<Admission, ServerRefusal>, Effects) {
        let name = match self.check_register(node, wanted, address, now_ms) {
            Ok(name) => name,
            Err(refusal) => return (Err(refusal), Effects::NONE),
        };
        if let Err(error) =
            self.settings_in_force().delays.check_place(Some(&name), region.as_ref())
        {
            return (Err(ServerRefusal::Invalid(error.to_string())), Effects::NONE);
        }
        let mut effects = Effects::NONE;
        if self.bootstrap.is_none() && self.coordinator.is_none() {
            self.bootstrap = Some(node);
            effects.save = true;
        }
        let known = self.nodes.get(&node);
        let same = |record: &NodeRecord| {
            record.name == name && record.address == address && record.region == region
        };
        if !known.is_some_and(same) {
            effects.save = true;
        }
        let (state, reported) =
            known.map_or((NodeState::Joining, false), |record| (record.state, record.reported));
        let heard_ms = now_ms;
        let record = NodeRecord { name: name.clone(), address, region, state, heard_ms, reported };
        self.nodes.insert(node, record);
        effects.save |= self.take_name_from_others(node, &name);
        let admission = Admission {
            network: self.network,
            name,
            bootstrap: self.bootstrap == Some(node) && self.coordinator.is_none(),
            settings: self.settings.clone(),
            view: self.view.clone(),
            peers: self.nodes.iter().map(|(&id, record)| (id, record.address)).collect(),
            vouched: self.vouched(),
        };
        (Ok(admission), effects)
    }

    /// What the network runs with: what it was created with, or will be.
    fn settings_in_force(&self) -> &Settings {
        self.view.as_ref().map_or(&self.settings, |view| &view.settings)
    }

    /// Finds the name of a node that may register.
    fn check_register(
        &self,
        node: NodeId,
        wanted: Option<&str>,
        address: SocketAddr,
        now_ms: u64,
    ) -> Result<String, ServerRefusal> {
        self.check_not_removed(node)?;
        if address.ip().is_unspecified() || address.port() == 0 {
            return Err(ServerRefusal::Invalid(format!(
                "{address} is not an address that others can connect to; register the one that \
                 they reach this node at"
            )));
        }
        let known = self.nodes.get(&node);
        if known.is_none() && self.nodes.len() >= limits::NODES_MAX {
            return Err(ServerRefusal::Invalid(format!(
                "the network has {} nodes already, the most it can have; remove one first",
                limits::NODES_MAX
            )));
        }
        if let Some(name) = wanted {
            check_name(name).map_err(|error| ServerRefusal::Invalid(error.to_string()))?;
            if self.listed_name(node) == Some(name) || !self.is_taken(name, node, now_ms) {
                return Ok(name.to_owned());
            }
            // A node of the directory has a name in any case: that it was given away is no reason
            // to stop it.
            return match self.listed_name(node) {
                Some(listed) => Ok(listed.to_owned()),
                None => Err(ServerRefusal::NameTaken(name.to_owned())),
            };
        }
        match known {
            Some(record) if self.listed_name(node) == Some(&record.name) => Ok(record.name.clone()),
            // While it was down another node may have taken its name.
            Some(record) if !self.is_taken(&record.name, node, now_ms) => Ok(record.name.clone()),
            _ => Ok(self.free_name(node)),
        }
    }

    /// The name that a node has in the directory, by the last word of a coordinator.
    fn listed_name(&self, node: NodeId) -> Option<&str> {
        Some(self.view.as_ref()?.node(node)?.name.as_str())
    }

    /// Gives another name to whoever was given that of a node of the directory while it was away;
    /// says whether there was anybody.
    fn take_name_from_others(&mut self, node: NodeId, name: &str) -> bool {
        if self.listed_name(node) != Some(name) {
            return false;
        }
        let is_other = |(&id, record): (&NodeId, &NodeRecord)| {
            (id != node && record.name == name && self.listed_name(id) != Some(name)).then_some(id)
        };
        let others: Vec<NodeId> = self.nodes.iter().filter_map(is_other).collect();
        for other in &others {
            let free = self.free_name(*other);
            if let Some(record) = self.nodes.get_mut(other) {
                record.name = free;
            }
        }
        !others.is_empty()
    }

    /// Whether another node that may be running has the name.
    fn is_taken(&self, name: &str, node: NodeId, now_ms: u64) -> bool {
        self.nodes.iter().any(|(&id, record)| {
            id != node
                && record.name == name
                && !matches!(self.state_of(id, record, now_ms), NodeState::Down | NodeState::Left)
        })
    }

    /// The first of "n1", "n2", … that no other node has, not even one that is down.
    fn free_name(&self, node: NodeId) -> String {
        let is_free = |name: &String| {
            self.nodes.iter().all(|(&id, record)| id == node || record.name != *name)
        };
        let mut names = (1..).map(|number: u32| format!("n{number}"));
        // There are more numbers than nodes.
        names.find(is_free).unwrap_or_default()
    }

    /// Replaces the node table by what the coordinator says.
    ///
    /// Nodes that registered and that no report has named yet stay. A name, an address or a region
    /// that a node itself gave us when it registered stays too, until the directory's word about it
    /// changes: until then the directory has not heard of it yet.
    pub(super) fn take_view(&mut self, view: &NetworkView) {
        let previous = self.view.replace(view.clone());
        let previous: HashMap<NodeId, &NodeInfo> =
            previous.iter().flat_map(|view| &view.nodes).map(|info| (info.id, info)).collect();
        let mut registered = std::mem::take(&mut self.nodes);
        for info in &view.nodes {
            let before = previous.get(&info.id);
            let mut record = registered.remove(&info.id).unwrap_or_else(|| NodeRecord {
                name: info.name.clone(),
                address: info.address,
                region: info.region.clone(),
                state: info.state,
                heard_ms: 0,
                reported: true,
            });
            if before.is_none_or(|before| before.name != info.name) {
                record.name.clone_from(&info.name);
            }
            if before.is_none_or(|before| before.address != info.address) {
                record.address = info.address;
            }
            if before.is_none_or(|before| before.region != info.region) {
                record.region.clone_from(&info.region);
            }
            record.state = info.state;
            record.reported = true;
            self.nodes.insert(info.id, record);
        }
        registered.retain(|_, record| !record.reported);
        self.nodes.append(&mut registered);
        self.nodes.retain(|&id, _| !self.denied.contains(&id.into()));
    }

    /// Notes that the coordinator and all that it sees live were heard of.
    pub(super) fn note_live(&mut self, coordinator: NodeId, now_ms: u64) {
        for (&id, record) in &mut self.nodes {
            if id == coordinator || (record.reported && record.state == NodeState::Live) {
                record.heard_ms = now_ms;
            }
        }
    }
}
