//! Changes: what a watch shows of a keyspace, collected until it is written.
//!
//! The collector stops reading while it holds much unwritten data. The watch then waits, and the
//! shards have what comes in their histories.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};

use dkv_api::{
    Client, Error, GroupId, KeyRange, Revision, SnapshotToken, WatchEvent, WatchOptions, WatchToken,
};
use dkv_base::supervise::caught;
use dkv_base::sync::lock;
use tokio::sync::Notify;
use tokio::task::JoinHandle;

use super::chunk::CHUNK_BYTES;
use super::clock::now_ms;
use super::marker;
use super::record::Record;

/// Bytes of keys and values that wait at most to be written.
const WAITING_BYTES_MAX: u64 = 32 << 20;
/// Bytes that a record takes beside its key and value, about.
const RECORD_BYTES: u64 = 48;

/// The changes of a keyspace after a position.
pub(crate) struct Changes {
    shared: Arc<Shared>,
    task: JoinHandle<()>,
}

#[derive(Default)]
struct Shared {
    waiting: Mutex<Waiting>,
    /// Changes came, or the watch has ended.
    news: Notify,
    /// Changes were taken.
    room: Notify,
}

#[derive(Default)]
struct Waiting {
    records: Vec<Record>,
    bytes: u64,
    position: BTreeMap<GroupId, Revision>,
    /// A change attached a key to a lease.
    leases: bool,
    ended: Option<Error>,
}

/// Changes that are to be written.
#[derive(Debug, Default)]
pub(crate) struct Taken {
    pub(crate) records: Vec<Record>,
    pub(crate) position: String,
}

impl Shared {
    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        lock(&self.waiting)
    }
}

/// Whether a collector goes on.
enum Taking {
    More,
    /// After there is room.
    Full,
    Ended,
}

impl Shared {
    /// Takes what a watch has shown, which then has this position.
    fn take(&self, event: Result<WatchEvent, Error>, position: &WatchToken) -> Taking {
        let mut waiting = self.waiting();
        let shard = match event {
            Ok(WatchEvent::Change(change)) => {
                let shard = change.shard;
                if change.key != marker::KEY {
                    waiting.leases |= change.lease.is_valid();
                    let record = Record::of_change(*change, now_ms());
                    waiting.bytes += record.bytes() + RECORD_BYTES;
                    waiting.records.push(record);
                }
                shard
            }
            Ok(WatchEvent::Progress { shard, .. }) => shard,
            Ok(_) => return Taking::More,
            Err(error) => {
                drop(waiting);
                self.end(error);
                return Taking::Ended;
            }
        };
        if let Some(revision) = position.revision(shard) {
            waiting.position.insert(shard, revision);
        }
        self.news.notify_one();
        if waiting.bytes >= WAITING_BYTES_MAX { Taking::Full } else { Taking::More }
    }

    /// Notes why the watch has ended.
    fn end(&self, error: Error) {
        self.waiting().ended = Some(error);
        self.news.notify_one();
    }

    /// Waits until what was collected is taken.
    async fn room(&self) {
        loop {
            let room = self.room.notified();
            if self.waiting().bytes < WAITING_BYTES_MAX {
                return;
            }
            room.await;
        }
    }
}

/// Collects until the end, and notes a panic as the end: nobody else would learn of it.
async fn watched(shared: Arc<Shared>, collecting: impl Future<Output = ()>) {
    if let Err(panicked) = caught(collecting).await {
        let why = format!("the task that collects the changes {panicked}; this is a bug in dkv");
        tracing::error!("{why}");
        shared.end(Error::Unavailable(why));
    }
}

impl Drop for Changes {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Changes {
    /// Begins to watch after a position.
    ///
    /// # Errors
    /// The watch cannot begin.
    pub(crate) async fn after(client: &Client, position: WatchToken) -> Result<Self, Error> {
        let shared = Arc::new(Shared::default());
        shared.waiting().position = position.iter().collect();
        let everything = KeyRange::Prefix(Default::default());
        let mut watch = client.watch(everything, WatchOptions::default().from(position)).await?;
        let collecting = Arc::clone(&shared);
        let task = tokio::spawn(watched(Arc::clone(&shared), async move {
            loop {
                let event = watch.next().await;
                match collecting.take(event, watch.token()) {
                    Taking::More => {}
                    Taking::Full => collecting.room().await,
                    Taking::Ended => return,
                }
            }
        }));
        Ok(Self { shared, task })
    }

    /// Returns whether a key was attached to a lease since this was last asked.
    pub(crate) fn take_leases(&self) -> bool {
        std::mem::take(&mut self.shared.waiting().leases)
    }

    /// Takes what is collected.
    pub(crate) fn take(&self) -> Taken {
        let mut waiting = self.shared.waiting();
        waiting.bytes = 0;
        let records = std::mem::take(&mut waiting.records);
        let position: WatchToken = waiting.position.iter().map(|(&s, &r)| (s, r)).collect();
        drop(waiting);
        self.shared.room.notify_one();
        Taken { records, position: position.to_string() }
    }

    /// Returns why the watch has ended, if it has.
    pub(crate) fn ended(&self) -> Option<Error> {
        self.shared.waiting().ended.clone()
    }

    /// Waits until there is enough for a chunk, or the watch has ended.
    pub(crate) async fn much(&self) {
        self.until(|waiting| waiting.bytes >= CHUNK_BYTES as u64).await;
    }

    /// Waits until there is something, or the watch has ended.
    pub(crate) async fn some(&self) {
        self.until(|waiting| !waiting.records.is_empty()).await;
    }

    /// Waits until everything up to a cut was shown, or there is enough for a chunk, or the watch
    /// has ended. Returns whether everything was shown.
    pub(crate) async fn reached(&self, cut: &SnapshotToken) -> bool {
        let is_reached = |waiting: &Waiting| {
            let reached = |shard: GroupId| waiting.position.get(&shard).copied();
            cut.cuts().all(|cut| reached(cut.shard) >= Some(cut.revision))
        };
        let enough = |waiting: &Waiting| is_reached(waiting) || waiting.bytes >= CHUNK_BYTES as u64;
        self.until(enough).await;
        is_reached(&self.shared.waiting())
    }

    async fn until(&self, holds: impl Fn(&Waiting) -> bool) {
        loop {
            let news = self.shared.news.notified();
            {
                let waiting = self.shared.waiting();
                if holds(&waiting) || waiting.ended.is_some() {
                    return;
                }
            }
            news.await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn who_waits_for_changes_learns_that_their_task_has_panicked() {
        let shared = Arc::new(Shared::default());
        let panicking = watched(Arc::clone(&shared), async { panic!("planted") });
        let changes = Changes { shared, task: tokio::spawn(panicking) };
        changes.some().await;
        let why = changes.ended().unwrap().to_string();
        assert!(why.contains("panicked: planted"), "{why}");
    }
}
