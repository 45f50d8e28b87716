//! A watcher that follows everything that the clients change, through all faults.
//!
//! It drops its watch again and again and resumes it from its token. What it has seen, replayed in
//! order, must in the end be what a scan shows.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use dkv_api::{
    Client, Error, GroupId, KeyChange, KeyRange, KeyspaceId, Revision, ScanOptions, Watch,
    WatchEvent, WatchOptions, WatchToken,
};
use dkv_base::sync::lock;
use dkv_check::{PreviousVersion, Recorder, WatchNote, WatchedKeys};
use tokio::sync::watch;
use tokio::time::timeout;

use super::{SplitMix64, recorded};

/// Number of the only watcher.
const WATCHER: u64 = 1;
/// Least and most time for which a watch is open, in milliseconds.
const OPEN_MS: (u64, u64) = (500, 2500);
/// Time between two looks whether the clients have stopped.
const LOOK: Duration = Duration::from_millis(100);

/// The result of following.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Followed {
    /// Number of changes that were shown.
    pub changes: u64,
    /// How often the watch was dropped and resumed.
    pub resumed: u64,
    /// Whether their replay equals a scan.
    pub is_equal: bool,
}

/// See the [module](self).
pub(super) struct Follower {
    prefix: String,
    recorder: Recorder,
    stop: AtomicBool,
    /// Where the watch began.
    begun: watch::Sender<Option<WatchToken>>,
    /// Revision and value of each key that exists.
    replay: Mutex<BTreeMap<Bytes, (Revision, Arc<str>)>>,
    changes: AtomicU64,
    resumed: AtomicU64,
}

impl Follower {
    pub(super) fn new(prefix: &str, recorder: Recorder) -> Self {
        Self {
            prefix: prefix.to_owned(),
            recorder,
            stop: AtomicBool::new(false),
            begun: watch::Sender::default(),
            replay: Mutex::default(),
            changes: AtomicU64::default(),
            resumed: AtomicU64::default(),
        }
    }

    /// Waits until the watch has begun, or for so long.
    pub(super) async fn begun(&self, within: Duration) {
        let mut begun = self.begun.subscribe();
        // Clients begin their work in either case; the watch is missed at the end.
        let _ = timeout(within, begun.wait_for(Option::is_some)).await;
    }

    /// Watches until it is stopped. Returns the error that ended the watch for good.
    pub(super) async fn follow(&self, client: Client, seed: u64) -> Result<(), Error> {
        let (mut random, mut token) = (SplitMix64(seed), None);
        while !self.stop.load(Ordering::Relaxed) {
            let keys = KeyRange::Prefix(self.prefix.clone().into());
            let mut options = WatchOptions::default().previous(true);
            if let Some(token) = token.clone() {
                options = options.from(token);
            }
            let mut watch = match client.watch(keys, options).await {
                Ok(watch) => watch,
                Err(error @ (Error::Denied(_) | Error::Invalid(_))) => return Err(error),
                Err(_) => {
                    tokio::time::sleep(LOOK).await;
                    continue;
                }
            };
            match token.is_some() {
                true => _ = self.resumed.fetch_add(1, Ordering::Relaxed),
                false => _ = self.begun.send_replace(Some(watch.token().clone())),
            }
            let keys = Some(WatchedKeys::Prefix(self.prefix.clone()));
            let keys = keys.filter(|_| !self.prefix.is_empty());
            for (shard, after) in watch.token().iter() {
                let (after, keys) = (after.0, keys.clone());
                self.note(shard, dkv_check::WatchEvent::Opened { after, keys, previous: true });
            }
            let (low, high) = OPEN_MS;
            let open_for = Duration::from_millis(low + random.below(high - low));
            let read = self.read(&mut watch, Instant::now() + open_for).await;
            for (shard, revision) in watch.token().iter() {
                self.note(shard, dkv_check::WatchEvent::Token(revision.0));
            }
            token = Some(watch.token().clone());
            match read {
                Ok(()) | Err(Error::Unavailable(_)) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    async fn read(&self, watch: &mut Watch, until: Instant) -> Result<(), Error> {
        while Instant::now() < until && !self.stop.load(Ordering::Relaxed) {
            match timeout(LOOK, watch.next()).await {
                Err(_) => {}
                Ok(event) => match event? {
                    WatchEvent::Change(change) => self.apply(*change),
                    WatchEvent::Progress { shard, revision } => {
                        self.note(shard, dkv_check::WatchEvent::Progress(revision.0));
                    }
                    _ => {}
                },
            }
        }
        Ok(())
    }

    fn apply(&self, change: KeyChange) {
        let KeyChange { shard, key, value, revision, previous, .. } = change;
        self.changes.fetch_add(1, Ordering::Relaxed);
        let value = value.map(|value| recorded(&value));
        let previous = previous.and_then(|version| {
            let value = recorded(&version.value?).to_string();
            Some(PreviousVersion { revision: version.revision.0, value })
        });
        let event = dkv_check::WatchEvent::Change {
            revision: revision.0,
            key: String::from_utf8_lossy(&key).into_owned(),
            value: value.as_deref().map(str::to_owned),
            previous,
        };
        self.note(shard, event);
        let mut replay = lock(&self.replay);
        match value {
            Some(value) => _ = replay.insert(key, (revision, value)),
            None => _ = replay.remove(&key),
        }
    }

    fn note(&self, shard: GroupId, event: dkv_check::WatchEvent) {
        let note = WatchNote { watcher: WATCHER, shard: shard.0, event };
        self.recorder.note(|history| history.watches.push(note));
    }

    /// Compares the replay with a scan until they are equal or it is too late, and stops. To be
    /// called when nothing is written any more. Returns how they differ.
    pub(super) async fn finish(
        &self,
        client: &Client,
        deadline: Instant,
    ) -> (Followed, Option<String>) {
        let mut difference;
        loop {
            difference = match self.scan(client).await {
                Ok(scanned) => {
                    let replay = lock(&self.replay);
                    differing(&replay, &scanned)
                }
                Err(error) => Some(error.to_string()),
            };
            if difference.is_none() || Instant::now() > deadline {
                break;
            }
            tokio::time::sleep(LOOK).await;
        }
        self.stop.store(true, Ordering::Relaxed);
        let followed = Followed {
            changes: self.changes.load(Ordering::Relaxed),
            resumed: self.resumed.load(Ordering::Relaxed),
            is_equal: difference.is_none(),
        };
        (
            followed,
            difference.map(|why| format!("the watch does not show what a scan shows: {why}")),
        )
    }

    /// Scans what was written since the watch began.
    async fn scan(&self, client: &Client) -> Result<BTreeMap<Bytes, (Revision, Arc<str>)>, Error> {
        let begun = self.begun.borrow().clone();
        let begun = begun.ok_or_else(|| Error::Unavailable("the watch did not begin".into()))?;
        let view = client.refresh().await?;
        let mut scan = client.scan(ScanOptions::prefix(self.prefix.clone()));
        let mut found = BTreeMap::new();
        while let Some(pair) = scan.next().await? {
            let shard = view.shard_of(KeyspaceId::DEFAULT, &pair.key).map(|shard| shard.group);
            let since = shard.and_then(|shard| begun.revision(shard));
            if since.is_none_or(|since| pair.revision > since) {
                let value = recorded(&pair.value.unwrap_or_default());
                found.insert(pair.key, (pair.revision, value));
            }
        }
        Ok(found)
    }
}

/// Returns how a replay differs from a scan.
fn differing(
    replay: &BTreeMap<Bytes, (Revision, Arc<str>)>,
    scanned: &BTreeMap<Bytes, (Revision, Arc<str>)>,
) -> Option<String> {
    let shown = |found: Option<&(Revision, Arc<str>)>| match found {
        Some((revision, value)) => format!("{value:?} of revision {revision}"),
        None => "nothing".to_owned(),
    };
    let mut keys = scanned.keys().chain(replay.keys());
    let key = keys.find(|key| replay.get(*key) != scanned.get(*key))?;
    let (watched, scanned) = (shown(replay.get(key)), shown(scanned.get(key)));
    Some(format!("{} is {watched} to the watch, and {scanned} to the scan", key.escape_ascii()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_replay_that_lacks_a_change_differs() {
        let map = |pairs: &[(&str, u64, &str)]| -> BTreeMap<Bytes, (Revision, Arc<str>)> {
            let pair = |(key, revision, value): &(&str, u64, &str)| {
                (Bytes::copy_from_slice(key.as_bytes()), (Revision(*revision), (*value).into()))
            };
            pairs.iter().map(pair).collect()
        };
        let scanned = map(&[("a", 1, "x"), ("b", 3, "y")]);
        assert_eq!(differing(&scanned, &scanned), None);
        let expected = "b is nothing to the watch, and \"y\" of revision 3 to the scan";
        assert_eq!(differing(&map(&[("a", 1, "x")]), &scanned).unwrap(), expected);
        let more = map(&[("a", 1, "x"), ("b", 3, "y"), ("c", 2, "z")]);
        assert!(differing(&more, &scanned).unwrap().starts_with("c is \"z\" of revision 2"));
    }
}
