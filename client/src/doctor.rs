//! Shows likely failures of a network and their remedies: `doctor`.
//!
//! This is the shell: it asks all processes. What their answers mean is decided in [`findings`].

mod findings;

use std::time::{Instant, SystemTime, UNIX_EPOCH};

use dkv_api::{Client, Diagnosis, Error, NetworkStatus, NodeInfo};
use dkv_console::Console;
use dkv_console::problem::{Abort, Failure, Problem};
use dkv_gateway::status::Report;
use serde_json::{Value, json};

use self::findings::{Examined, Finding, Severity, Snapshot};
use crate::store::Store;

/// A network at one moment, and what was found in it.
pub(crate) struct Examination {
    pub(crate) status: NetworkStatus,
    report: Report,
    nodes: Vec<Examined>,
    findings: Vec<Finding>,
}

impl Examination {
    /// Returns the document of `status`.
    pub(crate) fn status_json(&self) -> String {
        dkv_gateway::status::json(&self.report)
    }

    /// Returns the document of `doctor`.
    pub(crate) fn document(&self) -> Value {
        document(&self.findings)
    }

    /// Returns the circumstances of a node, if it told them.
    pub(crate) fn diagnosis(&self, name: &str) -> Option<&Diagnosis> {
        let node = self.nodes.iter().find(|node| node.name == name)?;
        node.diagnosis.as_ref().ok()
    }
}

/// Examines a network and reports what was found.
pub(crate) async fn run(
    store: &impl Store,
    client: &Client,
    console: &mut Console,
) -> Result<(), Abort> {
    let examination = examine(store, client).await?;
    let text = text(&examination.findings);
    console.result(&text, || examination.document())?;
    match examination.findings.first().map(|finding| finding.severity) {
        Some(Severity::Critical) => Err(Abort::Reported(Failure::Critical)),
        Some(Severity::Warning) => Err(Abort::Reported(Failure::Warning)),
        Some(Severity::Hint) | None => Ok(()),
    }
}

/// Examines a network.
///
/// # Errors
/// If no process of it answers.
pub(crate) async fn examine(store: &impl Store, client: &Client) -> Result<Examination, Abort> {
    let address = store.address().to_owned();
    let status = client.status().await;
    let infos: Vec<NodeInfo> = status.nodes.iter().map(|(info, _)| info.clone()).collect();
    let asked = futures::future::join_all(infos.iter().map(|node| ask(client, node)));
    let (nodes, keyspaces) = tokio::join!(asked, client.list_keyspaces());
    if status.server.is_err() && nodes.iter().all(|it| it.diagnosis.is_err()) {
        let why = "neither the server nor a node answers: nothing can be examined";
        return Err(Problem::new(Failure::Unavailable, why).into());
    }
    let report = dkv_gateway::status::report(&status, &address);
    let findings = findings::all(&Snapshot {
        report: &report,
        view: status.view.as_ref(),
        nodes: &nodes,
        keyspaces: keyspaces.map_err(|error| error.to_string()),
        servers: address.split(',').count(),
    });
    Ok(Examination { status, report, nodes, findings })
}

/// Asks a node for its circumstances, and compares its clock with this machine's.
async fn ask(client: &Client, node: &NodeInfo) -> Examined {
    let (begun, before) = (Instant::now(), unix_ms());
    let diagnosis: Result<Diagnosis, Error> = client.diagnose(node.id).await;
    let trip_ms = begun.elapsed().as_millis() as u64;
    let ahead_ms = diagnosis.as_ref().ok().map(|diagnosis| {
        let here = i128::from(before) + i128::from(trip_ms / 2);
        i64::try_from(i128::from(diagnosis.clock_ms) - here).unwrap_or(i64::MAX)
    });
    let diagnosis = diagnosis.map_err(|error| error.to_string());
    Examined { name: node.name.clone(), diagnosis, ahead_ms, trip_ms }
}

fn unix_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis() as u64
}

fn text(findings: &[Finding]) -> String {
    if findings.is_empty() {
        return "no likely failure was found".into();
    }
    let lines = findings.iter().map(|Finding { severity, what, help, .. }| {
        format!("{:<8}  {what}\n          → {help}", severity.word())
    });
    lines.collect::<Vec<_>>().join("\n")
}

fn document(findings: &[Finding]) -> Value {
    let list = findings.iter().map(|finding| {
        json!({
            "severity": finding.severity.word(),
            "about": finding.about,
            "finding": finding.what,
            "help": finding.help,
        })
    });
    json!({ "command": "doctor", "findings": list.collect::<Vec<_>>() })
}
