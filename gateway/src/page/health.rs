//! The health of a network: one word, and the reasons for it.

use dkv_api::{Error, NodeState};
use serde::Serialize;

use crate::status::{Report, tolerated_failures};

/// The state of a network.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum State {
    /// The network has not been sampled yet.
    #[default]
    Unknown,
    /// Every key can be read and written, and at least one more node may fail.
    Available,
    /// Every key can be read and written, but something needs attention.
    Degraded,
    /// Some keys cannot be read or written.
    Unavailable,
}

/// The health of a network.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Health {
    pub(crate) state: State,
    /// Why the state is not `available`, the gravest reason first.
    pub(crate) reasons: Vec<String>,
    /// Why strong reads fail; `None` if they succeed.
    pub(crate) read_error: Option<String>,
}

/// Judges a network by a report and by a strong read; either may be missing.
pub(crate) fn judge(report: Option<&Report>, read: Option<&Result<u64, Error>>) -> Health {
    let read_error = read.and_then(|read| read.as_ref().err().map(Error::to_string));
    let (mut lost, mut worse) = (Vec::new(), Vec::new());
    if let Some(error) = &read_error {
        lost.push(format!("strong reads fail: {error}"));
    }
    let Some(report) = report else {
        let state = match read {
            None => State::Unknown,
            Some(Err(_)) => State::Unavailable,
            Some(Ok(_)) => State::Available,
        };
        return Health { state, reasons: lost, read_error };
    };
    let without_majority = report.groups.iter().filter(|it| it.spare.is_some_and(|it| it < 0));
    let without_primary =
        report.groups.iter().filter(|it| it.primary.is_none() && it.spare.is_none_or(|it| it >= 0));
    let of = |count: usize, what: &str| match (count, report.groups.len()) {
        (0, _) => None,
        (1, _) => Some(format!("1 group has no {what}")),
        (count, all) => Some(format!("{count} of {all} groups have no {what}")),
    };
    lost.extend(of(without_majority.count(), "majority"));
    lost.extend(of(without_primary.count(), "primary"));
    for node in report.nodes.iter().filter(|node| node.state != NodeState::Left) {
        if !node.reachable {
            worse.push(format!("{} does not answer", node.name));
        }
        if node.disk_full {
            worse.push(format!("{} refuses writes: its disk is full", node.name));
        }
    }
    if report.may_fail == Some(0) {
        worse.push(tolerated_failures(0));
    }
    if !report.server.reachable {
        worse.push("the registration server does not answer".to_owned());
    }
    let state = match (lost.is_empty(), worse.is_empty()) {
        (true, true) => State::Available,
        (true, false) => State::Degraded,
        (false, _) => State::Unavailable,
    };
    lost.append(&mut worse);
    Health { state, reasons: lost, read_error }
}
