//! Reads at revisions, and lists of versions.

use super::table::{Changes, Seen};
use crate::finding::{Finding, Kind};
use crate::history::{Action, History, Outcome, PastAnswer, PastRead, VersionList};

pub(super) fn check(history: &History, changes: &Changes<'_>, findings: &mut Vec<Finding>) {
    for read in &history.past_reads {
        if let Some((kind, problem)) = wrong_read(read, changes) {
            let PastRead { client, shard, key, at, answer, .. } = read;
            let text = format!("shard {shard}: client {client} read {key:?} at revision {at}");
            findings.push(Finding::of_lines(kind, text, vec![format!("{answer:?}"), problem]));
        }
    }
    // Versions that were acknowledged before a list began must be in it.
    let mut written: Vec<(u64, u32, &str, u64)> = Vec::new();
    for operation in &history.operations {
        if let (
            Action::Put { .. } | Action::Delete(_),
            Outcome::Written { revision: Some(at), .. },
        ) = (&operation.action, &operation.outcome)
        {
            written.push((operation.end_ns, operation.shard, &operation.key, *at));
        }
    }
    for list in &history.version_lists {
        let newest = list.versions.first().map_or(0, |(revision, _)| *revision);
        let missing = written.iter().find(|(end_ns, shard, key, at)| {
            *end_ns < list.start_ns && *shard == list.shard && *key == list.key && {
                *at > newest && *at > list.floor
            }
        });
        let problem = match missing {
            Some((.., at)) => Some(format!("revision {at} was acknowledged before")),
            None => wrong_list(list, changes),
        };
        if let Some(problem) = problem {
            let VersionList { client, shard, key, floor, versions, .. } = list;
            let text = format!("shard {shard}: client {client} listed the versions of {key:?}");
            let lines = vec![format!("from floor {floor}: {versions:?}"), problem];
            findings.push(Finding::of_lines(Kind::PastMismatch, text, lines));
        }
    }
}

fn wrong_read(read: &PastRead, changes: &Changes<'_>) -> Option<(Kind, String)> {
    let PastRead { shard, key, at, answer, .. } = read;
    let last = changes.before(*shard, key, at.saturating_add(1));
    let mismatch = |problem: String| Some((Kind::PastMismatch, problem));
    match (answer, last) {
        (PastAnswer::Value { revision, .. }, _) if revision > at => {
            mismatch("the value is of a later revision".to_owned())
        }
        (PastAnswer::Value { revision, .. }, Some((known, seen))) if *revision < known => {
            mismatch(format!("it is {seen} since revision {known}"))
        }
        (PastAnswer::Value { value, revision }, _) => changes
            .contradiction(*shard, *revision, key, Some(value))
            .map(|problem| (Kind::PastMismatch, problem)),
        (PastAnswer::Absent, Some((known, seen @ Seen::Value(_)))) => {
            // A deletion that came between may be unknown.
            let is_sure = changes.are_all_known(*shard, known, *at);
            is_sure.then(|| (Kind::PastMismatch, format!("it is {seen} since revision {known}")))
        }
        (PastAnswer::Absent, _) => None,
        (PastAnswer::Compacted(floor), _) if at >= floor => {
            Some((Kind::Compacted, "the history reaches back to it".to_owned()))
        }
        (PastAnswer::Compacted(floor), _) => {
            let asked = changes.floor_asked(*shard).filter(|asked| asked < floor)?;
            Some((Kind::Compacted, format!("no compaction went beyond {asked}")))
        }
    }
}

fn wrong_list(list: &VersionList, changes: &Changes<'_>) -> Option<String> {
    let VersionList { shard, key, floor, versions, .. } = list;
    let is_ordered = versions.windows(2).all(|two| two[0].0 > two[1].0);
    if !is_ordered {
        return Some("they are not in order".to_owned());
    }
    for (revision, value) in versions {
        if let Some(problem) = changes.contradiction(*shard, *revision, key, value.as_deref()) {
            return Some(problem);
        }
    }
    let newest = versions.first().map_or(*floor, |(revision, _)| *revision);
    let is_listed = |at: &u64| versions.iter().any(|(revision, _)| revision == at);
    let missing = changes.of_key(*shard, key, floor + 1, newest).find(|(at, _)| !is_listed(at));
    if let Some((at, seen)) = missing {
        return Some(format!("it is {seen} at revision {at}"));
    }
    // The version that the key had at the floor.
    let at_floor = changes.before(*shard, key, floor + 1);
    let has_one = versions.iter().any(|(revision, _)| revision <= floor);
    match at_floor {
        Some((at, seen @ Seen::Value(_))) if !has_one => changes
            .are_all_known(*shard, at, *floor)
            .then(|| format!("at the floor it is {seen}, since {at}")),
        _ => None,
    }
}
