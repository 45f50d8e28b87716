//! Checks that leases end neither too early nor too late.
//!
//! A lease that was granted or kept alive has its whole time from then on. So as long as its time
//! has not passed since the *beginning* of an acknowledged call, nobody may find it or a key of it
//! gone, unless it may have been revoked. Once its time has passed since the *end* of every call
//! that may have renewed it, and a bound on top of that, nobody may find it there. After a time
//! without service a lease may have its whole time again, so its end moves with it.
//!
//! Times are those of the clients. A store whose own clocks run faster ends leases earlier, which
//! counts as too early.

use std::collections::BTreeMap;

use crate::finding::{Finding, Kind};
use crate::history::{Disruption, History, LeaseEvent, LeaseNote};

/// Findings that are reported; more say nothing new.
const FINDINGS_MAX: usize = 32;

/// Finds leases that ended too early or, if there is a bound, more than that too late.
pub fn check(history: &History, late_ns_max: Option<u64>) -> Vec<Finding> {
    let mut leases: BTreeMap<u64, Vec<&LeaseNote>> = BTreeMap::new();
    for note in &history.leases {
        leases.entry(note.lease).or_default().push(note);
    }
    let mut disruptions = history.disruptions.clone();
    disruptions.sort_by_key(|disruption| disruption.start_ns);
    let mut findings = Vec::new();
    for notes in leases.values() {
        check_early(notes, &mut findings);
        if let Some(late_ns_max) = late_ns_max {
            check_late(notes, &disruptions, late_ns_max, &mut findings);
        }
    }
    findings.truncate(FINDINGS_MAX);
    findings
}

fn ttl_ns(note: &LeaseNote) -> Option<u64> {
    match note.event {
        LeaseEvent::Renewed { ttl_ms } => Some(ttl_ms.saturating_mul(1_000_000)),
        _ => None,
    }
}

fn check_early(notes: &[&LeaseNote], findings: &mut Vec<Finding>) {
    let of = |is: fn(&LeaseEvent) -> bool| notes.iter().filter(move |note| is(&note.event));
    let revoked = of(|event| matches!(event, LeaseEvent::Revoked)).map(|note| note.start_ns).min();
    for gone in of(|event| matches!(event, LeaseEvent::Gone { .. })) {
        let end_ns = gone.end_ns.unwrap_or(u64::MAX);
        if revoked.is_some_and(|from_ns| from_ns <= end_ns) {
            continue;
        }
        for renewed in of(|event| matches!(event, LeaseEvent::Renewed { .. })) {
            let (Some(ttl_ns), Some(_)) = (ttl_ns(renewed), renewed.end_ns) else { continue };
            let (kind, text) = if renewed.start_ns > end_ns {
                (Kind::LeaseRevived, "it was kept alive after it had ended")
            } else if end_ns < renewed.start_ns.saturating_add(ttl_ns) {
                (Kind::LeaseEarly, "it ended before its time")
            } else {
                continue;
            };
            let text = format!("lease {}: {text}", gone.lease);
            findings.push(Finding::of_lines(kind, text, vec![shown(renewed), shown(gone)]));
            break;
        }
    }
}

fn check_late(
    notes: &[&LeaseNote],
    disruptions: &[Disruption],
    late_ns_max: u64,
    findings: &mut Vec<Finding>,
) {
    let is_present = |note: &&&LeaseNote| matches!(note.event, LeaseEvent::Present { .. });
    for present in notes.iter().filter(is_present) {
        // The call that may have renewed it last; one without an answer may do so at any time.
        let renewed = notes.iter().filter(|note| {
            ttl_ns(note).is_some() && note.start_ns <= present.end_ns.unwrap_or(u64::MAX)
        });
        let end = |note: &&&LeaseNote| {
            let ttl_ns = ttl_ns(note).unwrap_or_default();
            note.end_ns.map_or(u64::MAX, |end_ns| end_ns.saturating_add(ttl_ns))
        };
        let Some(last) = renewed.max_by_key(end) else { continue };
        let ttl_ns = ttl_ns(last).unwrap_or_default();
        let mut end_ns = end(&last).saturating_add(late_ns_max);
        for disruption in disruptions {
            if disruption.start_ns <= end_ns {
                let again_ns = disruption.end_ns.saturating_add(ttl_ns).saturating_add(late_ns_max);
                end_ns = end_ns.max(again_ns);
            }
        }
        if present.start_ns > end_ns {
            let text = format!("lease {}: it is there after its time", present.lease);
            let lines = vec![shown(last), shown(present)];
            findings.push(Finding::of_lines(Kind::LeaseLate, text, lines));
            return;
        }
    }
}

fn shown(note: &LeaseNote) -> String {
    let ms = |ns: u64| ns as f64 / 1e6;
    let end = note.end_ns.map_or("?".to_owned(), |end_ns| format!("{:.3} ms", ms(end_ns)));
    let event = match &note.event {
        LeaseEvent::Renewed { ttl_ms } => format!("renewed for {ttl_ms} ms"),
        LeaseEvent::Revoked => "revoked".to_owned(),
        LeaseEvent::Present { key } => format!("{key:?} is there"),
        LeaseEvent::Gone { key } if key.is_empty() => "the lease is gone".to_owned(),
        LeaseEvent::Gone { key } => format!("{key:?} is gone"),
    };
    format!("{:.3} ms to {end}  {event}", ms(note.start_ns))
}

#[cfg(test)]
mod tests;
