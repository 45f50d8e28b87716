//! Groups: opening them, and noticing when one breaks.

use std::sync::{Arc, PoisonError};

use dkv_wire::id::{GroupId, NodeId};
use dkv_wire::platform::run_blocking;

use super::Node;
use crate::data_dir::{self, DataDir};
use crate::group::{Group, GroupParts};
use crate::peers::Peers;
use crate::raft::{self, Machine, Pulses};
use crate::state::{Engine, EngineError};
use crate::stewards;
use crate::wal::Wal;

impl Node {
    pub(super) async fn open_group(self: &Arc<Self>, id: GroupId) -> Result<(), String> {
        let opener = Opener {
            me: self.me.id,
            directory: &self.directory,
            config: &self.config,
            wal: &self.wal,
            engine: &self.engine,
            peers: &self.peers,
            pulses: &self.pulses,
            log_bytes_max: self.settings().log_bytes_max,
        };
        let group = Arc::new(opener.open(id).await?);
        self.groups.write().unwrap_or_else(PoisonError::into_inner).insert(id, Arc::clone(&group));
        self.attend(&group);
        Ok(())
    }

    /// Starts what goes with every group: its steward, and those who notice if it breaks.
    pub(super) fn attend(self: &Arc<Self>, group: &Arc<Group>) {
        self.spawn(stewards::run(Arc::clone(self), Arc::clone(group)));
        let (node, replica) = (Arc::clone(self), Arc::clone(group));
        self.spawn(async move {
            let problem = replica.promises().broken().await;
            let directory = node.directory.path().to_owned();
            let marked = run_blocking(move || data_dir::condemn(&directory, &problem));
            match marked.await {
                Ok(why) => node.fail(why),
                Err(error) => node.fail(error.to_string()),
            }
        });
        let (node, group) = (Arc::clone(self), Arc::clone(group));
        self.spawn(async move {
            let mut metrics = group.metrics();
            let broken = metrics.wait_for(|metrics| metrics.running_state.is_err()).await;
            let why = match broken {
                Ok(()) => metrics.borrow().running_state.as_ref().err().map(ToString::to_string),
                // A stop in good order leaves a last word.
                Err(_) => Some("it panicked".to_owned()),
            };
            if let Some(why) = why {
                node.fail(format!("group {} has stopped: {why}", group.id()));
            }
        });
    }
}

/// Opens groups.
pub(super) struct Opener<'a> {
    pub(super) me: NodeId,
    pub(super) directory: &'a DataDir,
    pub(super) config: &'a Arc<raft::Config>,
    pub(super) wal: &'a Wal,
    pub(super) engine: &'a Engine,
    pub(super) peers: &'a Peers,
    pub(super) pulses: &'a Pulses,
    pub(super) log_bytes_max: u64,
}

impl Opener<'_> {
    pub(super) async fn open(&self, id: GroupId) -> Result<Group, String> {
        let engine = self.engine.clone();
        let loaded = run_blocking(move || Machine::load(engine.group(id)?));
        let damaged = |problem: String| self.directory.damaged(problem).to_string();
        let machine =
            loaded.await.map_err(|error| error.to_string())?.map_err(|error| match error {
                EngineError::Damaged { .. } => damaged(error.to_string()),
                error => error.to_string(),
            })?;
        let log = self.wal.group(id);
        check_fit(id, &machine, &log).map_err(damaged)?;
        Group::start(GroupParts {
            id,
            me: self.me,
            config: Arc::clone(self.config),
            log,
            machine,
            peers: self.peers.clone(),
            pulses: self.pulses.clone(),
            log_bytes_max: self.log_bytes_max,
        })
        .await
    }
}

/// A log that begins after the state ends has lost entries in between.
fn check_fit(id: GroupId, machine: &Machine, log: &crate::wal::GroupLog) -> Result<(), String> {
    let applied = machine.handle().summary().applied_index;
    match log.state().purged {
        Some((purged, _)) if purged > applied => Err(format!(
            "the checkpoint of group {id} in state ends at entry {applied}, and its log begins after \
             entry {purged}"
        )),
        _ => Ok(()),
    }
}
