//! Watchers: each watches a range of keys for a while, drops the watch, and resumes it or begins
//! another one. All that a watch shows is recorded.
//!
//! At the end of a run each watcher must come as far as its shards are.

use std::time::Duration;

use bytes::Bytes;
use dkv_api::{Client, Error, KeyRange, Revision, Watch, WatchEvent, WatchOptions, WatchToken};
use dkv_base::id::GroupId;
use dkv_check as check;
use dkv_check::{PreviousVersion, WatchNote, WatchedKeys};
use tokio::time::{Instant, timeout_at};

use super::{Phase, Workload, name_of};
use crate::random::Random;

/// Least and most time for which a watch is open, in milliseconds.
const OPEN_MS: (u64, u64) = (300, 4000);
/// The same for the watcher that follows everything.
const FOLLOW_MS: (u64, u64) = (2000, 8000);
/// Longest time between two opened watches, in milliseconds.
const CLOSED_MS_MAX: u64 = 1500;
/// Revisions before the latest at which a watch begins.
const BACK_MAX: u64 = 80;
/// Time between two looks at the phase.
const LOOK: Duration = Duration::from_millis(200);

/// A watcher of a client machine.
pub(super) struct Watcher {
    pub(super) id: u64,
    pub(super) client: Client,
    pub(super) random: Random,
    pub(super) workload: Workload,
    /// Whether it watches all keys, all the time and from the beginning.
    pub(super) follows_all: bool,
}

/// A watch to be opened.
#[derive(Clone)]
struct Plan {
    keys: KeyRange,
    previous: bool,
    from: Option<WatchToken>,
}

impl Watcher {
    /// Watches until the run probes, and then until it has seen everything.
    pub(super) async fn run(mut self) {
        let mut plan = self.plan();
        while self.workload.is(Phase::Load) {
            let (low, high) = if self.follows_all { FOLLOW_MS } else { OPEN_MS };
            let open_for = Duration::from_millis(self.random.between(low, high));
            plan.from = self.watch(&plan, Some(open_for)).await;
            if !self.follows_all {
                let closed_ms = self.random.below(CLOSED_MS_MAX);
                tokio::time::sleep(Duration::from_millis(closed_ms)).await;
            }
            if plan.from.is_none() || !self.follows_all && self.random.per_mille(400) {
                plan = self.plan();
            }
        }
        while !self.workload.is(Phase::Probe) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        while !self.workload.is(Phase::Rest) {
            plan.from = self.watch(&plan, None).await;
            if plan.from.as_ref().is_some_and(|token| self.has_everything(token)) {
                break;
            }
            tokio::time::sleep(LOOK).await;
        }
        self.workload.caller_has_probed();
    }

    fn plan(&mut self) -> Plan {
        let groups = self.workload.list_groups();
        let group = self.random.pick(&groups).map(|group| group.prefix.clone());
        let key = Workload::key(self.random.below(self.workload.load().keys));
        let prefix = |prefix: &str| KeyRange::Prefix(Bytes::copy_from_slice(prefix.as_bytes()));
        let mut keys = match self.random.below(6) {
            0 => KeyRange::Key(key.clone().into()),
            1 => KeyRange::Range(key.clone().into(), "k~".into()),
            2 => prefix("k"),
            3 => prefix(&group.unwrap_or_default()),
            _ => prefix(""),
        };
        let (mut previous, from_now) = (self.random.per_mille(600), self.random.per_mille(500));
        let back = self.random.below(BACK_MAX);
        if self.follows_all {
            (keys, previous) = (prefix(""), true);
        }
        let all = (1..=self.workload.load().shards).map(GroupId);
        let shards: Vec<GroupId> = match &keys {
            KeyRange::Key(_) => vec![self.workload.shard_of(&key)],
            _ => all.collect(),
        };
        let position = |shard: GroupId| {
            let latest = self.workload.latest(shard);
            let back = if self.follows_all { u64::MAX } else { back };
            (shard, Revision(latest.0.saturating_sub(back)))
        };
        let from = (!from_now || self.follows_all)
            .then(|| shards.into_iter().map(position).collect::<WatchToken>());
        Plan { keys, previous, from }
    }

    /// Watches for a while, or until everything was shown. Returns where to go on; `None` if the
    /// history there is gone, or the watch never began.
    async fn watch(&mut self, plan: &Plan, open_for: Option<Duration>) -> Option<WatchToken> {
        let mut options = WatchOptions::default().previous(plan.previous);
        if let Some(from) = &plan.from {
            options = options.from(from.clone());
        }
        let mut watch = match self.client.watch(plan.keys.clone(), options).await {
            Ok(watch) => watch,
            Err(error) => {
                self.ended(&error);
                return plan.from.clone();
            }
        };
        let keys = match &plan.keys {
            KeyRange::Key(key) => Some(WatchedKeys::Key(text(key))),
            KeyRange::Prefix(prefix) if prefix.is_empty() => None,
            KeyRange::Prefix(prefix) => Some(WatchedKeys::Prefix(text(prefix))),
            KeyRange::Range(from, to) => Some(WatchedKeys::Range(text(from), text(to))),
        };
        let line = format!("watcher {} opens {:?} at {}", self.id, plan.keys, watch.token());
        self.workload.trace().line(line);
        for (shard, after) in watch.token().iter() {
            let (keys, previous) = (keys.clone(), plan.previous);
            self.note(shard, check::WatchEvent::Opened { after: after.0, keys, previous });
        }
        let until = open_for.map(|open_for| Instant::now() + open_for);
        match self.follow(&mut watch, until).await {
            Ok(()) => {
                self.note_token(&watch);
                self.workload.trace().line(format!("watcher {} at {}", self.id, watch.token()));
                Some(watch.token().clone())
            }
            Err(error) => {
                if let Error::Compacted { floor } = error {
                    let mut shards = watch.token().iter();
                    if let (Some((only, _)), None) = (shards.next(), shards.next()) {
                        self.note(only, check::WatchEvent::Compacted(floor.0));
                    }
                }
                self.ended(&error);
                None
            }
        }
    }

    /// Reads a watch until a time, or until it has shown everything.
    async fn follow(&mut self, watch: &mut Watch, until: Option<Instant>) -> Result<(), Error> {
        loop {
            let look = Instant::now() + LOOK;
            if let Ok(event) = timeout_at(until.unwrap_or(look).min(look), watch.next()).await {
                self.handle(event?);
                if self.random.per_mille(300) {
                    self.note_token(watch);
                }
                if self.random.per_mille(30) {
                    let pause_ms = self.random.below(400);
                    tokio::time::sleep(Duration::from_millis(pause_ms)).await;
                }
            }
            let is_over = match until {
                Some(until) => Instant::now() >= until || !self.workload.is(Phase::Load),
                None => self.has_everything(watch.token()) || self.workload.is(Phase::Rest),
            };
            if is_over {
                return Ok(());
            }
        }
    }

    fn handle(&mut self, event: WatchEvent) {
        let (shard, event) = match event {
            WatchEvent::Change(change) => {
                let previous = change.previous.and_then(|version| {
                    let (revision, value) = (version.revision.0, name_of(&version.value?));
                    Some(PreviousVersion { revision, value })
                });
                let (key, revision) = (text(&change.key), change.revision.0);
                let value = change.value.map(|value| name_of(&value));
                let line = format!("watcher {} {key} {}:{revision}", self.id, change.shard);
                self.workload.trace().line(line);
                self.workload.note_revision(change.shard, change.revision);
                (change.shard, check::WatchEvent::Change { revision, key, value, previous })
            }
            WatchEvent::Progress { shard, revision } => {
                (shard, check::WatchEvent::Progress(revision.0))
            }
            other => return self.workload.note_wrong(format!("an event of a new kind: {other:?}")),
        };
        self.note(shard, event);
    }

    fn note_token(&self, watch: &Watch) {
        for (shard, revision) in watch.token().iter() {
            self.note(shard, check::WatchEvent::Token(revision.0));
        }
    }

    fn note(&self, shard: GroupId, event: check::WatchEvent) {
        let note = WatchNote { watcher: self.id, shard: shard.0, event };
        self.workload.recorder().note(|history| history.watches.push(note));
    }

    /// Notes why a watch ended, or did not begin.
    fn ended(&self, error: &Error) {
        let line = format!("watcher {}: {error}", self.id);
        match error {
            Error::Compacted { .. } | Error::Unavailable(_) => self.workload.trace().line(line),
            _ => self.workload.note_wrong(line),
        }
    }

    fn has_everything(&self, token: &WatchToken) -> bool {
        token.iter().all(|(shard, revision)| revision >= self.workload.latest(shard))
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
