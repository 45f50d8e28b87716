//! Samples of messages about what a process logs, and about a node's circumstances.

use dkv_base::id::{GroupId, Term};

use crate::message::*;

fn change() -> LogChange {
    LogChange { filter: "dkv_node=debug,info".into(), for_ms: Some(600_000) }
}

fn filter() -> LogFilter {
    LogFilter { filter: "debug".into(), then: Some(("info".into(), 599_000)) }
}

pub(super) fn requests() -> Vec<RequestBody> {
    vec![RequestBody::Log(Some(change())), RequestBody::Log(None), RequestBody::Diagnose]
}

pub(super) fn answers() -> Vec<Answer> {
    let reasons = [
        ChangeReason::FirstSeen,
        ChangeReason::Unknown,
        ChangeReason::Silent,
        ChangeReason::ProcessGone,
        ChangeReason::HandedOver,
        ChangeReason::Stopping,
        ChangeReason::DiskStalled,
        ChangeReason::Moved,
    ];
    let changes = reasons.into_iter().map(|why| LeaderChange {
        group: GroupId(3),
        term: Term(7),
        leader: super::node('a'),
        before: (why != ChangeReason::FirstSeen).then(|| super::node('b')),
        at_ms: 1_700_000_000_000,
        why,
    });
    let diagnosis = Diagnosis {
        clock_ms: 1_700_000_000_000,
        certificate_ends_ms: Some(1_700_000_000_001),
        disk: Some(DiskFacts { bytes: 1 << 40, free_bytes: 1 << 39, is_memory: false }),
        files: Some((100, 65536)),
        connections: 3,
        leases: vec![(GroupId(3), 9)],
        slow_requests: vec![("sync".into(), 4)],
        leader_changes: changes.collect(),
    };
    vec![
        Answer::Log(filter()),
        Answer::Log(LogFilter { filter: "info".into(), then: None }),
        Answer::Diagnosis(Box::new(diagnosis)),
    ]
}

pub(super) fn server_requests() -> Vec<ServerRequest> {
    vec![ServerRequest::Log(Some(change())), ServerRequest::Log(None)]
}

pub(super) fn server_answers() -> Vec<ServerAnswer> {
    vec![ServerAnswer::Log(filter())]
}
