//! Reports of the coordinator, and the status that the server shows.

use dkv_base::id::{HolderId, NodeId};
use dkv_base::mutants::{Mutant, planted};
use dkv_wire::limits;
use dkv_wire::message::{Confirmation, CoordinatorReport, NodeReport, ServerRefusal, ServerStatus};
use dkv_wire::name::check_name;
use dkv_wire::network::NodeState;

use super::nodes::NodeRecord;
use super::{Confirmed, Effects, Registry};
use crate::limits::{DOWN_AFTER_MS, SUSPECT_AFTER_MS};

impl Registry {
    /// Handles a report of a node that claims to be the coordinator.
    ///
    /// # Errors
    /// `Denied` for a removed node and for one that is not a voter of the control group; `Invalid`
    /// for a report that contradicts itself, its sender or the limits. An error changes nothing.
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
            // Raft rules out two leaders of one term; if two claim it, the first stands.
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
        effects.save |= self.adopt_control_group(&report.control);
        if self.view.as_ref() != Some(&report.view) {
            effects.save = true;
            effects.deny = self.deny(&report.view.denied);
            self.apply_view(&report.view);
        }
        // Not worth a write: a periodic report without news costs none.
        self.mark_live(node, now_ms);
        debug_assert!(
            self.coordinator.is_some_and(|it| it.node == node && it.term == report.term)
                || planted(Mutant::OlderCoordinator),
            "only the confirmed coordinator gets a confirmation"
        );
        (Ok(Confirmation::Confirmed), effects)
    }

    fn check_report(&self, node: NodeId, report: &CoordinatorReport) -> Result<(), ServerRefusal> {
        self.check_not_removed(node)?;
        if self.runs_twice(node) {
            return Err(ServerRefusal::Denied(
                "two processes of this node are running, and no administrator has chosen one"
                    .into(),
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
            || view.keyspaces.len() > limits::KEYSPACES_MAX
            || view.shards.len() > limits::SHARDS_MAX as usize
            || view.denied.len() > limits::DENIED_MAX
            || view.servers.len() > limits::SERVERS_MAX
        {
            return wrong(
                "the report has more nodes, keyspaces, shards, denied ids or servers than a \
                 network can have",
            );
        }
        if view.nodes.iter().any(|node| check_name(&node.name).is_err()) {
            return wrong("the report has a node with an invalid name");
        }
        if view.keyspaces.iter().any(|keyspace| check_name(&keyspace.name).is_err()) {
            return wrong("the report has a keyspace with an invalid name");
        }
        self.check_sender(node, report)
    }

    pub(super) fn check_not_removed(&self, node: NodeId) -> Result<(), ServerRefusal> {
        if self.denied.contains(&node.into()) {
            return Err(ServerRefusal::Denied(
                "this node was removed from the network and its identity cannot come back; keep its \
                 data directory until nothing is missed, and start it with another, empty one to join \
                 anew"
                    .into(),
            ));
        }
        Ok(())
    }

    /// Adds to the deny list. Entries never leave it: ids are never reused, and a late report must
    /// not readmit a removed holder. True if the list has changed.
    pub(super) fn deny(&mut self, reported: &[HolderId]) -> bool {
        let before = self.denied.len();
        self.denied.extend(reported);
        if self.denied.len() > limits::DENIED_MAX {
            // The coordinator drops holders whose certificates have expired; follow it.
            self.denied = reported.iter().copied().collect();
            return true;
        }
        self.denied.len() > before
    }

    /// Returns the server's view of the network, for people.
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
        // Sorts n2 before n10.
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
            now_ms,
            server: self.server(),
            books: self.books_version().map(|version| version.number),
        }
    }

    /// Returns the state of a node. The coordinator reports the state of all nodes but cannot
    /// report its own death, so the server judges it by its silence. Time before this process
    /// started does not count as silence.
    pub(super) fn state_of(&self, id: NodeId, record: &NodeRecord, now_ms: u64) -> NodeState {
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
