//! Changes to the directory, and their effects on this node.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use dkv_base::id::GroupId;
use dkv_base::sync::lock;
use dkv_wire::message::{Answer, Refusal, RequestBody};
use dkv_wire::network::NetworkView;

use super::error::GroupError;
use super::{Me, Node};
use crate::common::unix_time::unix_ms;
use crate::net::peers::Lane;
use crate::net::rpc::ask;
use crate::raft::ProposeError;
use dkv_state::{Announcement, DirectoryCommand, DirectoryEntry, DirectoryResult, Observed};

/// Time for the coordinator to say how far the directory is, and again for this node to get as far.
const PATIENCE: Duration = Duration::from_secs(2);

impl Node {
    /// Changes the directory, if this node is the coordinator.
    pub(crate) async fn change_directory(
        &self,
        command: DirectoryCommand,
    ) -> Result<DirectoryResult, ProposeError> {
        if let Some(why) = self.connections.incarnations.held() {
            return Err(ProposeError::Unavailable(why.to_string()));
        }
        if !self.control().leads() {
            return Err(ProposeError::NotLeader(self.control().leader()));
        }
        let begins = matches!(command, DirectoryCommand::Create { .. });
        if !begins && !self.replicas.with_directory(|found| found.exists()).unwrap_or(false) {
            // A leader applies the existing entries before it is of use; a founder has to begin
            // first.
            return Err(ProposeError::Unavailable("the network has not begun yet".into()));
        }
        let entry = DirectoryEntry { time_ms: unix_ms(), command };
        self.control().propose_directory(&entry).await
    }

    /// Waits until the directory here is as new as it was anywhere at the time of the call.
    ///
    /// # Errors
    /// Fails if the coordinator is not known, does not answer, or cannot confirm its leadership.
    pub(crate) async fn catch_up_with_directory(&self) -> Result<(), Refusal> {
        let control = self.control();
        if control.leads() {
            control.confirm_leadership().await?;
            return Ok(());
        }
        let Some(coordinator) = control.leader() else {
            return Err(Refusal::Unavailable("no coordinator is known".into()));
        };
        let body = RequestBody::Committed { shard: GroupId::CONTROL, followed: None };
        let asked = ask(&self.connections.peers, coordinator, Lane::Urgent, body, PATIENCE).await?;
        let Answer::Committed { index, .. } = asked else {
            return Err(Refusal::Unavailable("unexpected answer".into()));
        };
        let mut applied = control.state_machine().applied();
        let caught_up = applied.wait_for(|applied| *applied >= index);
        match tokio::time::timeout(PATIENCE, caught_up).await {
            Ok(Ok(_)) => Ok(()),
            _ => Err(Refusal::Unavailable(
                "this node is not receiving the coordinator's changes".into(),
            )),
        }
    }

    /// Returns the first entry of a network that this node founds and that has no entry yet.
    pub(crate) fn creation(&self) -> Option<DirectoryCommand> {
        let exists = self.replicas.with_directory(|directory| directory.exists()).unwrap_or(true);
        if exists || !self.coordination.founder {
            return None;
        }
        Some(DirectoryCommand::Create {
            network: self.me.network,
            settings: self.settings(),
            founder: self.announcement(),
        })
    }

    /// Returns this node's announcement of itself.
    pub(crate) fn announcement(&self) -> Announcement {
        let Me { id, name, address, region, network: _ } = self.me.clone();
        Announcement { id, name, address, region }
    }

    /// Applies the parts of the directory that concern this node: sets addresses and the deny list,
    /// and opens the groups that this node shall hold.
    pub(crate) async fn follow_directory(self: &Arc<Self>) -> Result<(), GroupError> {
        let news = self.control().state_machine().with_directory(|directory| {
            let addresses: Vec<_> =
                directory.nodes().iter().map(|(id, member)| (*id, member.address)).collect();
            let wanted: BTreeSet<GroupId> = directory
                .groups()
                .iter()
                .filter(|(_, plan)| plan.has(self.me.id))
                .map(|(id, _)| *id)
                .collect();
            let denied: Vec<_> = directory.denied().iter().copied().collect();
            let view = directory.to_view(&Observed::default());
            (addresses, wanted, denied, view)
        });
        let Some((addresses, wanted, denied, view)) = news else { return Ok(()) };
        if denied.contains(&self.me.id.into()) {
            self.tasks.fail(format!(
                "this node was removed from the network; to join again, start it with an empty \
                 data directory (this one is {})",
                self.store.data_dir.path().display()
            ));
            return Ok(());
        }
        self.name_members();
        for (id, address) in addresses {
            // Only changed addresses: for an unchanged one, the server may have newer information.
            let before = lock(&self.coordination.listed).insert(id, address);
            if id != self.me.id && before != Some(address) {
                self.connections.peers.learn(id, address);
            }
        }
        self.connections.acceptor.set_denied(denied);
        if let Some(NetworkView { settings, nodes, .. }) = view {
            self.connections.keep_apart(&self.me, &settings.delays, &nodes);
            self.coordination.set_settings(settings);
        }
        self.follow_keyspaces();
        self.delete_dropped().await?;
        for id in wanted {
            self.open_group(id).await?;
        }
        Ok(())
    }
}
