//! Everything the server knows and decides, as plain data.
//!
//! The [`Registry`] holds all of the server's decisions: which node was told to bootstrap, who the
//! coordinator is, which nodes exist, which tokens admit, who is denied. Its methods take a message
//! and the time, and return the answer and its [`Effects`]; the caller (`registry_store`) makes the
//! effects happen *before* it sends the answer. So the server gives the same answer again after a
//! crash.
//!
//! ```text
//! let mut next = registry.clone();
//! let (answer, effects) = next.handle_register(node, name, address, region, now_ms);
//! if effects.save { registry_file::save(&next)? }  // on failure `next` is dropped
//! registry = next;
//! send(answer);
//! ```
//!
//! Four rules, each with tests of its own:
//! - One node id gets the right to bootstrap, once in the life of a network.
//! - The confirmed term never goes back, and one term has one coordinator.
//! - A holder on the deny list stays there.
//! - The server believes only the voters of the control group about the network (see
//!   `control_group`).
//!
//! Deliberately missing: sockets, files, clocks and random numbers (times and fresh ids are
//! arguments), and any influence on the network. The Raft logs are the law; this is a directory
//! that may lag behind.

mod books;
mod control_group;
mod holders;
mod nodes;
mod reports;
mod runs;
mod tokens;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use dkv_base::id::{HolderId, NetworkId, NodeId, Term};
use dkv_wire::network::{NetworkView, Settings};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use books::BooksState;
use control_group::ConfigClaim;
use holders::HolderRecord;
use nodes::NodeRecord;
use runs::Runs;
use tokens::TokenRecord;

pub use books::{BooksCopy, RecordChanges, RecordError};

/// What must happen before an answer is sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Effects {
    /// Durable state has changed: the registry must be written.
    pub save: bool,
    /// The deny list has changed: it must be enforced on open connections.
    pub deny: bool,
}

impl Effects {
    const NONE: Self = Self { save: false, deny: false };
    const SAVE: Self = Self { save: true, deny: false };
}

/// The coordinator confirmed last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Confirmed {
    node: NodeId,
    term: Term,
    at_ms: u64,
}

/// The server's records, and its decisions on them.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Registry {
    network: NetworkId,
    bootstrap: Option<NodeId>,
    coordinator: Option<Confirmed>,
    nodes: BTreeMap<NodeId, NodeRecord>,
    denied: BTreeSet<HolderId>,
    tokens: BTreeMap<Uuid, TokenRecord>,
    holders: BTreeMap<HolderId, HolderRecord>,
    view: Option<NetworkView>,
    /// The voters of the control group, whose reports are accepted; empty before the first report.
    #[serde(default)]
    voters: BTreeSet<NodeId>,
    /// Log index of the entry that names them.
    #[serde(default)]
    voters_index: u64,
    /// The latest claim of each node about the control group.
    #[serde(skip)]
    claims: BTreeMap<NodeId, ConfigClaim>,
    /// The runs of each node.
    #[serde(default)]
    runs: Runs,
    /// Facts about the books beside their records.
    #[serde(default)]
    books: BooksState,
    /// Whether a node has said that the network has a control group, before the first report: this
    /// server was restored from a backup of before.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    has_begun: bool,
    /// The configured settings; not persisted.
    #[serde(skip)]
    settings: Settings,
    /// When this process began to accept reports, in milliseconds since 1970.
    #[serde(skip)]
    started_ms: u64,
    /// Time of the last report since then, in milliseconds since 1970.
    #[serde(skip)]
    reported_ms: Option<u64>,
}

impl Registry {
    /// Creates the registry of a network that has no members yet.
    pub fn new(network: NetworkId, settings: Settings, now_ms: u64) -> Self {
        Self {
            network,
            bootstrap: None,
            coordinator: None,
            nodes: BTreeMap::new(),
            denied: BTreeSet::new(),
            tokens: BTreeMap::new(),
            holders: BTreeMap::new(),
            view: None,
            voters: BTreeSet::new(),
            voters_index: 0,
            claims: BTreeMap::new(),
            runs: Runs::default(),
            books: BooksState::default(),
            has_begun: false,
            settings,
            started_ms: now_ms,
            reported_ms: None,
        }
    }

    /// Initializes what a registry read from disk does not contain.
    pub fn resume(&mut self, settings: Settings, now_ms: u64) {
        self.settings = settings;
        self.started_ms = now_ms;
        self.reported_ms = None;
        self.claims.clear();
    }

    /// Returns the id of the network.
    pub fn network(&self) -> NetworkId {
        self.network
    }

    /// Returns the network as last reported; `None` until a coordinator has reported.
    pub fn view(&self) -> Option<&NetworkView> {
        self.view.as_ref()
    }

    /// Returns the deny list: every process must refuse these holders.
    pub fn denied(&self) -> impl Iterator<Item = HolderId> {
        self.denied.iter().copied()
    }

    /// Returns the name and the term of the coordinator confirmed last.
    pub fn coordinator(&self) -> Option<(String, Term)> {
        let confirmed = self.coordinator?;
        let name = self.nodes.get(&confirmed.node).map(|record| record.name.clone());
        Some((name.unwrap_or_else(|| confirmed.node.short()), confirmed.term))
    }

    /// Returns the coordinator confirmed last.
    pub fn coordinator_id(&self) -> Option<NodeId> {
        self.coordinator.map(|confirmed| confirmed.node)
    }

    /// Returns the number of nodes, without the removed ones.
    pub fn node_count(&self) -> usize {
        self.nodes.len()
    }
}
