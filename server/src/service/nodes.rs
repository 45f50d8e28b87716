//! Requests of nodes: registration, reports of the coordinator, and checks of runs.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Mutex;

use dkv_base::id::NodeId;
use dkv_base::sync::lock;
use dkv_wire::identity::{Identity, Role};
use dkv_wire::incarnation::{BootId, PAST_MAX, Verdict};
use dkv_wire::message::{ControlGroup, CoordinatorReport, ServerAnswer, ServerRefusal, Stand};
use dkv_wire::region::Region;
use tracing::{info, warn};

use super::{Service, denied, flatten};
use crate::clock;
use crate::limits::RUNS_MAX;
use crate::registry::Effects;

/// The verdict last logged for each run of each node, so that repeated ones are logged once.
#[derive(Default)]
pub(super) struct LoggedVerdicts {
    runs: Mutex<HashMap<NodeId, Vec<(BootId, Verdict)>>>,
}

impl LoggedVerdicts {
    /// Records a verdict. False if it is the one recorded last for this run.
    fn is_new(&self, node: NodeId, boot: BootId, verdict: Verdict) -> bool {
        let mut logged = lock(&self.runs);
        let runs = logged.entry(node).or_default();
        if runs.contains(&(boot, verdict)) {
            return false;
        }
        runs.retain(|(run, _)| *run != boot);
        if runs.len() == RUNS_MAX {
            runs.remove(0);
        }
        runs.push((boot, verdict));
        true
    }
}

impl Service {
    pub(super) async fn register(
        &self,
        identity: Identity,
        name: Option<String>,
        address: SocketAddr,
        region: Option<Region>,
        control: Option<ControlGroup>,
    ) -> Result<ServerAnswer, ServerRefusal> {
        let node = require_node(identity)?;
        let registered = self.store.update(move |next| {
            let (name, now_ms) = (name.as_deref(), clock::now_ms());
            let claimed = control.as_ref().map_or(Effects::default(), |control| {
                next.handle_control_claim(node, control, now_ms)
            });
            let (answer, mut effects) =
                next.handle_register(node, name, address, region.clone(), now_ms);
            effects.save |= claimed.save;
            (answer, effects)
        });
        let admission = flatten(registered.await)?;
        self.reachability.probe(node, address);
        Ok(ServerAnswer::Admitted(Box::new(admission)))
    }

    pub(super) async fn report(
        &self,
        identity: Identity,
        report: CoordinatorReport,
    ) -> Result<ServerAnswer, ServerRefusal> {
        let node = require_node(identity)?;
        let reported =
            self.store.update(move |next| next.handle_report(node, &report, clock::now_ms()));
        flatten(reported.await).map(ServerAnswer::Confirmed)
    }

    /// Judges a run of a node, and logs what an administrator should know.
    pub(super) async fn check_run(
        &self,
        identity: Identity,
        stand: Stand,
    ) -> Result<ServerAnswer, ServerRefusal> {
        let node = require_node(identity)?;
        if stand.run.past.len() > PAST_MAX {
            return Err(ServerRefusal::Invalid("it names too many earlier runs".into()));
        }
        let (server, boot, run, address) =
            (self.run, stand.run.boot, stand.run.start, stand.address);
        let checked = self
            .store
            .update(move |next| next.handle_run_check(node, &stand, server, clock::now_ms()));
        let standing = flatten(checked.await)?;
        if self.logged_verdicts.is_new(node, boot, standing.verdict) {
            match standing.verdict {
                Verdict::Sound => {}
                Verdict::Older { start, .. } => {
                    warn!(%node, %address, start = run, known = start, "a node runs on an older copy of its data directory");
                }
                Verdict::Twice { start } => {
                    warn!(%node, %address, start = run, other = start, "two processes of one node are running");
                }
                Verdict::Dismissed { start } => {
                    info!(%node, %address, start = run, kept = start, "an administrator dismissed this run");
                }
            }
        }
        Ok(ServerAnswer::Stands(Box::new(standing)))
    }
}

fn require_node(identity: Identity) -> Result<NodeId, ServerRefusal> {
    identity.as_node().ok_or_else(|| denied(Role::Node, identity.role))
}
