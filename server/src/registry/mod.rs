//! What the server knows and decides, as plain data.
//!
//! The [`Registry`] is the whole of the server's judgement: who was told to bootstrap, who the
//! coordinator is, which nodes there are, which tokens admit whom, who is refused. Its methods
//! take what somebody says and the time, and give the answer and its [`Effects`]; the caller
//! (`keeper`) makes the effects happen *before* the answer goes out. So whatever
//! was answered once is answered again after a crash.
//!
//! ```text
//! let mut next = registry.clone();
//! let (answer, effects) = next.handle_register(node, name, address, region, now_ms);
//! if effects.save { books::save(&next)? }      // on failure `next` is dropped, nothing happened
//! registry = next;
//! send(answer);
//! ```
//!
//! Four rules, each with tests of its own:
//! - The right to bootstrap is granted once in the life of a network, to one node id.
//! - The confirmed term never goes back, and one term has one coordinator.
//! - Who is on the deny list stays there.
//! - What is said of the network is believed of the control group's voters only (see `control`).
//!
//! Deliberately missing: sockets, files, clocks and random numbers (times and fresh ids come in as
//! arguments), and any influence on the network. The Raft logs are the law; this is a directory
//! that can be late.

mod control;
mod holders;
mod nodes;
mod runs;
mod tokens;

#[cfg(test)]
mod properties;
#[cfg(test)]
mod script;

use std::collections::{BTreeMap, BTreeSet};

use dkv_base::id::{HolderId, NetworkId, NodeId, Term};
use dkv_base::mutants::{Mutant, planted};
use dkv_wire::limits;
use dkv_wire::message::{Confirmation, CoordinatorReport, NodeReport, ServerRefusal, ServerStatus};
use dkv_wire::name::check_name;
use dkv_wire::network::{NetworkView, NodeState, Settings};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::limits::{DOWN_AFTER_MS, SUSPECT_AFTER_MS};
use control::Said;
use holders::HolderRecord;
use nodes::NodeRecord;
use runs::Runs;
use tokens::TokenRecord;

/// What must happen before an answer is sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Effects {
    /// Something durable has changed: the books must be written.
    pub save: bool,
    /// The deny list has grown: it must be enforced on open connections.
    pub deny: bool,
}

impl Effects {
    const NONE: Self = Self { save: false, deny: false };
    const SAVE: Self = Self { save: true, deny: false };
}

/// The coordinator that was confirmed last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Confirmed {
    node: NodeId,
    term: Term,
    at_ms: u64,
}

/// The server's books, and its decisions on them.
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
    /// The voters of the control group, whose reports are taken, and the entry that names them.
    #[serde(default)]
    voters: BTreeSet<NodeId>,
    #[serde(default)]
    voters_index: u64,
    /// What the nodes say of the control group.
    #[serde(skip)]
    said: BTreeMap<NodeId, Said>,
    /// Which run of which node was heard.
    #[serde(default)]
    runs: Runs,
    /// What the configuration says; not in the books.
    #[serde(skip)]
    settings: Settings,
    /// When this process began to listen to reports, in milliseconds since 1970.
    #[serde(skip)]
    started_ms: u64,
    /// When the last report came, if one came since then.
    #[serde(skip)]
    reported_ms: Option<u64>,
}

impl Registry {
    /// The books of a network that nobody has joined yet.
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
            said: BTreeMap::new(),
            runs: Runs::default(),
            settings,
            started_ms: now_ms,
            reported_ms: None,
        }
    }

    /// Gives books that were read from disk what is not kept there.
    pub fn resume(&mut self, settings: Settings, now_ms: u64) {
        self.settings = settings;
        self.started_ms = now_ms;
        self.reported_ms = None;
        self.said.clear();
    }

    /// The network.
    pub fn network(&self) -> NetworkId {
        self.network
    }

    /// The network as last reported; `None` until a coordinator has reported.
    pub fn view(&self) -> Option<&NetworkView> {
        self.view.as_ref()
    }

    /// Whom every process must refuse.
    pub fn denied(&self) -> impl Iterator<Item = HolderId> {
        self.denied.iter().copied()
    }

    /// The coordinator that was confirmed last, by the name that people call it, and its term.
    pub fn coordinator(&self) -> Option<(String, Term)> {
        let confirmed = self.coordinator?;
        let name = self.nodes.get(&confirmed.node).map(|record| record.name.clone());
        Some((name.unwrap_or_else(|| confirmed.node.short()), confirmed.term))
    }

    /// Number of nodes that were not removed.
    pub fn node_count(&self) -> usize {
        self.nodes.len()
    }

    /// Takes a report of a node that says it is the coordinator.
    ///
    /// # Errors
    /// `Denied` for a removed node and for one that is no voter of the control group, `Invalid` for
    /// a report that contradicts itself, its sender or the limits. Then nothing has changed.
    pub fn handle_report(
        &mut self,
        node: NodeId,
        report: &CoordinatorReport,
        now_ms: u64,
    ) -> (Result<Confirmation, ServerRefusal>, Effects) {
        if let Err(refusal) = self.check_report(node, report) {
            return (Err(refusal), Effects::NONE);
        }
        let mut effects = Effects::NONE;
        match self.coordinator {
            // Equal terms of two nodes cannot be, by Raft; the one that came first stands.
            Some(Confirmed { node: other, term, .. })
                if (term > report.term || (term == report.term && other != node))
                    && !planted(Mutant::OlderCoordinator) =>
            {
                return (Ok(Confirmation::Outdated { confirmed: term }), Effects::NONE);
            }
            Some(Confirmed { term, .. }) if term == report.term => {}
            _ => {
                self.coordinator = Some(Confirmed { node, term: report.term, at_ms: now_ms });
                effects.save = true;
            }
        }
        self.reported_ms = Some(now_ms);
        effects.save |= self.take_control(&report.control);
        if self.view.as_ref() != Some(&report.view) {
            effects.save = true;
            effects.deny = self.deny(&report.view.denied);
            self.take_view(&report.view);
        }
        // A periodic report that says nothing new costs no write.
        self.note_live(node, now_ms);
        (Ok(Confirmation::Confirmed), effects)
    }

    fn check_report(&self, node: NodeId, report: &CoordinatorReport) -> Result<(), ServerRefusal> {
        self.check_not_removed(node)?;
        if self.runs_twice(node) {
            return Err(ServerRefusal::Denied(
                "two processes of this node run, and nobody has said which is to go on".into(),
            ));
        }
        let view = &report.view;
        let wrong = |what: &str| Err(ServerRefusal::Invalid(what.to_owned()));
        if view.network != self.network {
            return wrong("the report is of another network");
        }
        if view.coordinator != Some(node) {
            return wrong("the report does not name its sender as the coordinator");
        }
        if view.term != report.term {
            return wrong("the report and the view in it are of different terms");
        }
        if view.nodes.len() > limits::NODES_MAX
            || view.shards.len() > limits::SHARDS_MAX as usize
            || view.denied.len() > limits::DENIED_MAX
        {
            return wrong(
                "the report has more nodes, shards or denied ids than a network can have",
            );
        }
        if view.nodes.iter().any(|node| check_name(&node.name).is_err()) {
            return wrong("the report has a node with a name that cannot be one");
        }
        self.check_reporter(node, report)
    }

    fn check_not_removed(&self, node: NodeId) -> Result<(), ServerRefusal> {
        if self.denied.contains(&node.into()) {
            return Err(ServerRefusal::Denied(
                "this node was removed from the network and its identity cannot come back; start \
                 it with an empty data directory to join anew"
                    .into(),
            ));
        }
        Ok(())
    }

    /// Adds to the deny list. Nobody leaves it: ids are never given out twice, and a late report
    /// must not let anybody back in.
    fn deny(&mut self, reported: &[HolderId]) -> bool {
        let before = self.denied.len();
        self.denied.extend(reported);
        if self.denied.len() > limits::DENIED_MAX {
            // The coordinator forgets those whose certificates have expired; follow it.
            self.denied = reported.iter().copied().collect();
            return true;
        }
        self.denied.len() > before
    }

    /// The server's books, for people.
    pub fn status(&self, version: &str, uptime_ms: u64, now_ms: u64) -> ServerStatus {
        let coordinator = self.coordinator;
        let mut nodes: Vec<NodeReport> = self
            .nodes
            .iter()
            .map(|(&id, record)| NodeReport {
                id,
                name: record.name.clone(),
                address: record.address,
                region: record.region.clone(),
                coordinator: coordinator.is_some_and(|confirmed| confirmed.node == id),
                state: self.state_of(id, record, now_ms),
                last_report_ms: record.heard_ms,
            })
            .collect();
        // n2 before n10.
        nodes.sort_by(|a, b| (a.name.len(), &a.name).cmp(&(b.name.len(), &b.name)));
        ServerStatus {
            network: self.network,
            version: version.to_owned(),
            uptime_ms,
            bootstrap: self.bootstrap,
            coordinator: coordinator.map(|confirmed| (confirmed.node, confirmed.term)),
            confirmed_at_ms: coordinator.map(|confirmed| confirmed.at_ms),
            report_age_ms: self.reported_ms.map(|at_ms| now_ms.saturating_sub(at_ms)),
            nodes,
            view: self.view.clone(),
            settings: self.settings.clone(),
            runs: self.run_reports(now_ms),
        }
    }

    /// The coordinator reports everybody's state but cannot report its own death: its silence is
    /// the server's to notice. Time before this process started is no silence.
    fn state_of(&self, id: NodeId, record: &NodeRecord, now_ms: u64) -> NodeState {
        if self.coordinator.is_none_or(|confirmed| confirmed.node != id)
            || record.state == NodeState::Left
        {
            return record.state;
        }
        let silent_ms = now_ms.saturating_sub(self.reported_ms.unwrap_or(self.started_ms));
        if silent_ms > DOWN_AFTER_MS {
            NodeState::Down
        } else if silent_ms > SUSPECT_AFTER_MS {
            NodeState::Suspect
        } else {
            record.state
        }
    }
}
