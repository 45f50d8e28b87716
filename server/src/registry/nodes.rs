//! The nodes: registration, names, and the state that the coordinator reports.

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

/// A node that registered or was reported.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct NodeRecord {
    pub(super) name: String,
    pub(super) address: SocketAddr,
    pub(super) region: Option<Region>,
    pub(super) state: NodeState,
    /// When it last registered or was reported live. On disk as of the last write.
    pub(super) heard_ms: u64,
    /// Whether a report has named it. After that, a report without it means that it was removed.
    pub(super) reported: bool,
}

impl Registry {
    /// Registers a node: finds it a name, and tells the very first node to bootstrap the network.
    ///
    /// The grant to bootstrap is permanent. The server repeats it to the same node until that node
    /// says that it has a control group, or a coordinator reports: from then on the network exists,
    /// and another bootstrap could only create a second one. A server that was restored from before
    /// the first registration grants it to nobody once it has learned that: the operator has to
    /// name a voter ([`Registry::trust`]).
    ///
    /// # Errors
    /// `Denied` for a removed node, `NameTaken`, and `Invalid` for an invalid name, address or
    /// region. An error changes nothing.
    pub fn handle_register(
        &mut self,
        node: NodeId,
        requested_name: Option<&str>,
        address: SocketAddr,
        region: Option<Region>,
        now_ms: u64,
    ) -> (Result<Admission, ServerRefusal>, Effects) {
        let name = match self.check_register(node, requested_name, address, now_ms) {
            Ok(name) => name,
            Err(refusal) => return (Err(refusal), Effects::NONE),
        };
        if let Err(error) =
            self.settings_in_force().delays.check_place(Some(&name), region.as_ref())
        {
            return (Err(ServerRefusal::Invalid(error.to_string())), Effects::NONE);
        }
        let mut effects = Effects::NONE;
        if self.bootstrap.is_none() && !self.is_kept_by_control_group() {
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
        effects.save |= self.reassign_name(node, &name);
        let admission = Admission {
            network: self.network,
            name,
            bootstrap: self.bootstrap == Some(node) && !self.has_bootstrapped(),
            settings: self.settings_in_force().clone(),
            view: self.view.clone(),
            peers: self.nodes.iter().map(|(&id, record)| (id, record.address)).collect(),
            vouched: self.vouched(),
        };
        (Ok(admission), effects)
    }

    /// Whether the node that was told to bootstrap has done so, or another control group is known
    /// for sure.
    fn has_bootstrapped(&self) -> bool {
        self.coordinator.is_some() || self.has_obeyed || !self.voters.is_empty()
    }

    /// Returns the settings that the network was created with, or will be.
    fn settings_in_force(&self) -> &Settings {
        self.view.as_ref().map_or(&self.settings, |view| &view.settings)
    }

    /// Checks a registration, and finds the name of the node.
    fn check_register(
        &self,
        node: NodeId,
        requested_name: Option<&str>,
        address: SocketAddr,
        now_ms: u64,
    ) -> Result<String, ServerRefusal> {
        self.check_not_removed(node)?;
        if address.ip().is_unspecified() || address.port() == 0 {
            return Err(ServerRefusal::Invalid(format!(
                "{address} is not an address that others can connect to; register the one at which \
                 they reach this node"
            )));
        }
        let known = self.nodes.get(&node);
        if known.is_none() && self.nodes.len() >= limits::NODES_MAX {
            return Err(ServerRefusal::Invalid(format!(
                "the network has {} nodes already, the most it can have; remove one first",
                limits::NODES_MAX
            )));
        }
        if let Some(name) = requested_name {
            check_name(name).map_err(|error| ServerRefusal::Invalid(error.to_string()))?;
            if self.directory_name(node) == Some(name) || !self.is_name_taken(name, node, now_ms) {
                return Ok(name.to_owned());
            }
            // A node of the directory always has a name: losing it to another node must not stop
            // this one.
            return match self.directory_name(node) {
                Some(listed) => Ok(listed.to_owned()),
                None => Err(ServerRefusal::NameTaken(name.to_owned())),
            };
        }
        match known {
            Some(record) if self.directory_name(node) == Some(&record.name) => {
                Ok(record.name.clone())
            }
            // Another node may have taken its name while it was down.
            Some(record) if !self.is_name_taken(&record.name, node, now_ms) => {
                Ok(record.name.clone())
            }
            _ => Ok(self.free_name(node)),
        }
    }

    /// Returns the name of a node in the directory, as the coordinator last reported it.
    fn directory_name(&self, node: NodeId) -> Option<&str> {
        Some(self.view.as_ref()?.node(node)?.name.as_str())
    }

    /// Renames other nodes that were given the name of a node of the directory while that one was
    /// away. True if there were any.
    fn reassign_name(&mut self, node: NodeId, name: &str) -> bool {
        if self.directory_name(node) != Some(name) {
            return false;
        }
        let is_other = |(&id, record): (&NodeId, &NodeRecord)| {
            (id != node && record.name == name && self.directory_name(id) != Some(name))
                .then_some(id)
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

    /// Whether another node, which may be running, has the name.
    fn is_name_taken(&self, name: &str, node: NodeId, now_ms: u64) -> bool {
        self.nodes.iter().any(|(&id, record)| {
            id != node
                && record.name == name
                && !matches!(self.state_of(id, record, now_ms), NodeState::Down | NodeState::Left)
        })
    }

    /// Returns the first of "n1", "n2", … that no other node has, not even one that is down.
    fn free_name(&self, node: NodeId) -> String {
        let is_free = |name: &String| {
            self.nodes.iter().all(|(&id, record)| id == node || record.name != *name)
        };
        let mut names = (1..).map(|number: u32| format!("n{number}"));
        // There are more numbers than nodes, so one is free.
        names.find(is_free).unwrap_or_default()
    }

    /// Replaces the node table with the one that the coordinator reports.
    ///
    /// Registered nodes that no report has named yet stay. A name, address or region that a node
    /// gave when it registered also stays until the directory's value changes, because until then
    /// the change has not reached the directory.
    pub(super) fn apply_view(&mut self, view: &NetworkView) {
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

    /// Records that the coordinator, and all nodes that it sees live, were heard from.
    pub(super) fn mark_live(&mut self, coordinator: NodeId, now_ms: u64) {
        for (&id, record) in &mut self.nodes {
            if id == coordinator || (record.reported && record.state == NodeState::Live) {
                record.heard_ms = now_ms;
            }
        }
    }
}
