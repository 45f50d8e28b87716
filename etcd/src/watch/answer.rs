//! Events, and how they are divided over answers.

use dkv_api::KeyChange;
use prost::Message;

use crate::etcd::etcd_revision;
use crate::kv::pages::{key_at, key_value};
use crate::proto::etcdserverpb::{ResponseHeader, WatchResponse};
use crate::proto::mvccpb::event::EventType;
use crate::proto::mvccpb::{Event, KeyValue};

/// Returns the event of a change, with the version before it or without. It shares its bytes.
pub(super) fn event(change: &KeyChange, previous: bool) -> Event {
    let KeyChange { key, value, revision, created, version, lease, .. } = change;
    let before = change.previous.as_ref().filter(|_| previous);
    let prev_kv = before.map(|before| key_at(key.clone(), before.clone()));
    let key = key.clone();
    let (kind, kv) = match value {
        Some(value) => {
            let numbers = (*created, *revision, *version);
            (EventType::Put, key_value(key, value.clone(), numbers, *lease))
        }
        None => {
            let mod_revision = etcd_revision(*revision);
            (EventType::Delete, KeyValue { key, mod_revision, ..KeyValue::default() })
        }
    };
    Event { r#type: kind.into(), kv: Some(kv), prev_kv }
}

/// Divides events over answers of at most so many bytes, each with one event at least; one answer
/// unless the watch permits fragments.
pub(super) fn answers(
    header: ResponseHeader,
    watch_id: i64,
    events: Vec<Event>,
    fragments: bool,
    bytes_max: usize,
) -> Vec<WatchResponse> {
    let answer = |events| WatchResponse {
        header: Some(header),
        watch_id,
        events,
        ..WatchResponse::default()
    };
    let sizes: Vec<usize> = events.iter().map(|event| event.encoded_len() + 8).collect();
    if !fragments || sizes.iter().sum::<usize>() <= bytes_max {
        return vec![answer(events)];
    }
    let mut all = vec![answer(Vec::new())];
    let mut bytes = 0;
    for (event, size) in events.into_iter().zip(sizes) {
        if bytes > 0 && bytes + size > bytes_max {
            all.push(answer(Vec::new()));
            bytes = 0;
        }
        bytes += size;
        if let Some(last) = all.last_mut() {
            last.events.push(event);
        }
    }
    let last = all.len() - 1;
    all[..last].iter_mut().for_each(|answer| answer.fragment = true);
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    fn some(count: usize) -> Vec<Event> {
        let kv = |n: usize| KeyValue {
            key: format!("key {n}").into(),
            value: vec![b'v'; 100].into(),
            ..KeyValue::default()
        };
        (0..count).map(|n| Event { r#type: 0, kv: Some(kv(n)), prev_kv: None }).collect()
    }

    #[test]
    fn events_are_divided_only_if_that_is_permitted_and_needed() {
        let divided = |fragments, bytes_max| {
            answers(ResponseHeader::default(), 7, some(10), fragments, bytes_max)
        };
        assert_eq!(divided(false, 300).len(), 1);
        assert_eq!(divided(true, 10_000).len(), 1);
        let parts = divided(true, 300);
        assert_eq!(parts.len(), 5);
        assert!(parts.iter().rev().skip(1).all(|part| part.fragment) && !parts[4].fragment);
        let all: Vec<Event> = parts.into_iter().flat_map(|part| part.events).collect();
        assert_eq!(all, some(10));
        // One that does not fit comes alone.
        assert_eq!(divided(true, 1).len(), 10);
    }
}
