//! What a request to create a watch asks for.

use std::cmp::Ordering;

use bytes::Bytes;
use dkv_api::{KeyRange, Revision};

use crate::etcd::own_revision;
use crate::hub::Interest;
use crate::proto::etcdserverpb::WatchCreateRequest;
use crate::proto::etcdserverpb::watch_create_request::FilterType;

/// A checked request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Wanted {
    pub(super) keys: KeyRange,
    /// The first revision to show; none to show what comes next.
    start: Option<Revision>,
    pub(super) puts: bool,
    pub(super) deletes: bool,
    pub(super) previous: bool,
    /// Whether a revision may be divided over several answers.
    pub(super) fragments: bool,
    /// Whether to tell of progress from time to time.
    pub(super) progress: bool,
}

impl Wanted {
    /// Checks a request.
    ///
    /// # Errors
    /// The text says why there is no such watch.
    pub(super) fn new(create: &WatchCreateRequest) -> Result<Self, String> {
        // The watch outlives its request, and copies would keep the whole message in memory.
        let own = |bytes: &Bytes| Bytes::copy_from_slice(bytes);
        // etcd takes the first of all keys for one that is missing.
        let key = if create.key.is_empty() { Bytes::from_static(&[0]) } else { own(&create.key) };
        let end = &own(&create.range_end);
        let keys = match (&end[..], key.cmp(end)) {
            ([], _) => KeyRange::Key(key),
            ([0], _) => KeyRange::Range(key, Bytes::new()),
            (_, Ordering::Less) => KeyRange::Range(key, end.clone()),
            _ => return Err("mvcc: watcher range is empty".to_owned()),
        };
        let without = |filter: FilterType| create.filters.contains(&filter.into());
        Ok(Self {
            keys,
            // Zero asks for what comes next, and everything begins after the first revision.
            start: own_revision(create.start_revision),
            puts: !without(FilterType::Noput),
            deletes: !without(FilterType::Nodelete),
            previous: create.prev_kv,
            fragments: create.fragment,
            progress: create.progress_notify,
        })
    }

    /// Returns the revision after which the network is watched, and the first one to show, if the
    /// latest is `latest`. A watch of the future begins now and shows nothing earlier.
    pub(super) fn position(&self, latest: Revision) -> (Revision, Revision) {
        let next = Revision(latest.0.saturating_add(1));
        let first = self.start.unwrap_or(next);
        (Revision(first.0.saturating_sub(1)).min(latest), first)
    }

    /// Returns what concerns the watch, if it shows a revision first.
    pub(super) fn interest(&self, first: Revision) -> Interest {
        let Self { keys, puts, deletes, previous, .. } = self;
        let (puts, deletes, previous) = (*puts, *deletes, *previous);
        Interest { keys: keys.clone(), first, puts, deletes, previous }
    }

    /// Returns the least revision at which the watch has progress to tell of, if the latest was
    /// `latest` when it began. One of the future has none before it begins.
    pub(super) fn progress_from(&self, latest: Revision) -> Revision {
        self.start.unwrap_or(latest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(key: &'static str, end: &'static str) -> Result<KeyRange, String> {
        let create = WatchCreateRequest {
            key: key.into(),
            range_end: end.into(),
            ..WatchCreateRequest::default()
        };
        Wanted::new(&create).map(|wanted| wanted.keys)
    }

    #[test]
    fn ranges_are_those_of_etcd() {
        let range = |from: &'static str, to: &'static str| KeyRange::Range(from.into(), to.into());
        assert_eq!(wanted("a", ""), Ok(KeyRange::Key("a".into())));
        assert_eq!(wanted("a", "b"), Ok(range("a", "b")));
        assert_eq!(wanted("a", "\0"), Ok(range("a", "")));
        assert_eq!(wanted("", "\0"), Ok(range("\0", "")));
        assert_eq!(wanted("", ""), Ok(KeyRange::Key("\0".into())));
        assert!(wanted("b", "b").is_err());
        assert!(wanted("b", "a").is_err());
    }

    #[test]
    fn a_watch_begins_where_it_is_asked_to() {
        let from = |start_revision| {
            let create = WatchCreateRequest {
                key: "a".into(),
                start_revision,
                ..WatchCreateRequest::default()
            };
            let wanted = Wanted::new(&create).unwrap();
            let (after, first) = wanted.position(Revision(10));
            (after.0, first.0, wanted.progress_from(Revision(10)).0)
        };
        // The shard is at 10, and etcd's revision is 11.
        assert_eq!(from(0), (10, 11, 10));
        assert_eq!(from(12), (10, 11, 11));
        assert_eq!(from(11), (9, 10, 10));
        assert_eq!(from(2), (0, 1, 1));
        assert_eq!(from(1), (0, 0, 0));
        assert_eq!(from(20), (10, 19, 19));
    }
}
