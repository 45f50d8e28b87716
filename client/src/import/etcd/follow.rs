//! Follows the members: each change of them, in the order of their revisions.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use bytes::Bytes;
use dkv_console::problem::Problem;
use dkv_etcd::proto::etcdserverpb::WatchResponse;
use dkv_etcd::proto::mvccpb::event::EventType;
use tokio::sync::watch;

use super::source::{EtcdSource, SourceError};
use super::target::{Change, Target, check_key};
use super::{Event, Outcome, Tell, copy};

/// Time between two looks at how far the source is.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// Looks between two comparisons of leases.
const LEASES_EVERY: u32 = 4;
/// How long the end waits for what is missing.
const END_PATIENCE: Duration = Duration::from_secs(60);
/// Time in which a watch has to tell something while there are changes.
const STALL_MAX: Duration = Duration::from_secs(10);
/// Changes that revisions are put together into while the keyspace is behind.
const CHANGES_AT_ONCE: usize = 100;

/// Why following has ended.
enum Ended {
    /// The keyspace has all up to this revision.
    Reached(i64),
    /// All keys have to be compared again, because of this.
    Again(&'static str),
}

/// Copies all keys and follows, until `stopped` or until nothing is missing.
pub(super) async fn run(
    mut source: EtcdSource,
    mut target: Target,
    until_caught_up: bool,
    stopped: watch::Receiver<bool>,
    tell: Tell<'_>,
) -> Result<Outcome, Problem> {
    loop {
        let at = copy::run(&mut source, &mut target, tell).await?;
        tell(Event::Note(format!("copied all keys as of revision {at}; following")));
        let mut following = Following {
            applied: at,
            latest: at,
            source: &mut source,
            target: &mut target,
            pending: BTreeMap::new(),
            others_ended: false,
        };
        match following.run(until_caught_up, stopped.clone(), tell).await? {
            Ended::Again(why) => {
                target.leases.forget_lost();
                tell(Event::Note(format!("{why}; copying what differs")));
            }
            Ended::Reached(revision) => {
                let wanted = match source.sum(revision).await {
                    Ok(sum) => sum,
                    Err(SourceError::Compacted) => {
                        let why = "etcd has compacted the revision to compare";
                        tell(Event::Note(format!("{why}; copying what differs")));
                        target.is_fresh = false;
                        continue;
                    }
                    Err(error) => return Err(error.into()),
                };
                let (found, at) = target.sum().await?;
                target.leases.refresh(&target.client).await?;
                let leases = target.leases.count();
                return Ok(Outcome { revision, at, source: wanted, target: found, leases });
            }
        }
        target.is_fresh = false;
    }
}

/// How long a watch has told nothing although there are changes.
#[derive(Default)]
struct Stall(Option<Instant>);

impl Stall {
    /// Returns whether that is too long by now.
    fn is_over(&mut self, behind: i64, now: Instant) -> bool {
        if behind == 0 {
            self.0 = None;
            return false;
        }
        now.duration_since(*self.0.get_or_insert(now)) > STALL_MAX
    }
}

struct Following<'a> {
    /// The last revision that the keyspace has.
    applied: i64,
    /// The last one that the source had when it was asked.
    latest: i64,
    source: &'a mut EtcdSource,
    target: &'a mut Target,
    /// Changes that are not stored yet: the value and the lease of each key.
    pending: BTreeMap<Bytes, Option<(Bytes, i64)>>,
    /// Whether leases that an interrupted import has left are gone.
    others_ended: bool,
}

impl Following<'_> {
    async fn run(
        &mut self,
        until_caught_up: bool,
        mut stopped: watch::Receiver<bool>,
        tell: Tell<'_>,
    ) -> Result<Ended, Problem> {
        let mut watching = self.source.watch(self.applied + 1).await?;
        let mut looks = tokio::time::interval(LOOK_EVERY);
        looks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let (mut number, mut ending) = (0_u32, None);
        // The revision at which it ends: the source's, once it shall end.
        let mut goal = None;
        let mut stall = Stall::default();
        loop {
            tokio::select! {
                answer = watching.next() => {
                    let Some(answer) = answer else {
                        tell(Event::Note("lost the connection to etcd; connecting again".into()));
                        self.source.disconnect();
                        watching = self.source.watch(self.applied + 1).await?;
                        continue;
                    };
                    stall = Stall::default();
                    if answer.canceled {
                        if answer.compact_revision > 0 {
                            let why = "etcd has compacted the revisions that follow";
                            return Ok(Ended::Again(why));
                        }
                        let why = answer.cancel_reason.escape_debug();
                        return Err(Problem::failed(format!("etcd ends the watch: {why}")));
                    }
                    self.take(answer).await?;
                }
                _ = looks.tick() => {
                    self.latest = self.source.revision().await?.max(self.applied);
                    let behind = self.latest - self.applied;
                    tell(Event::Followed { revision: self.applied, behind });
                    if stall.is_over(behind, Instant::now()) {
                        let why = "a member of etcd does not tell changes that there are";
                        tell(Event::Note(format!("{why}; connecting to another")));
                        self.source.disconnect();
                        watching = self.source.watch(self.applied + 1).await?;
                        stall = Stall::default();
                    }
                    if self.target.leases.has_lost() {
                        let why = "a lease has ended while the network was unavailable";
                        return Ok(Ended::Again(why));
                    }
                    if goal.is_none() && (until_caught_up || ending.is_some()) {
                        goal = Some(self.latest);
                    }
                    let is_last = goal.is_some_and(|goal| self.applied >= goal);
                    if is_last || number.is_multiple_of(LEASES_EVERY) {
                        self.compare_leases().await?;
                    }
                    number = number.wrapping_add(1);
                    if is_last {
                        return Ok(Ended::Reached(self.applied));
                    }
                    if ending.is_some_and(|since: Instant| since.elapsed() > END_PATIENCE) {
                        return Err(Problem::failed(format!(
                            "ended {behind} revisions behind etcd"
                        )));
                    }
                }
                changed = stopped.changed(), if ending.is_none() => {
                    if changed.is_ok() {
                        ending = Some(Instant::now());
                    }
                }
            }
        }
    }

    /// Stores the changes of an answer. A revision is in one answer as a whole, and is stored as a
    /// whole; while the keyspace is behind, several small ones together.
    async fn take(&mut self, answer: WatchResponse) -> Result<(), Problem> {
        let mut events = answer.events.into_iter().peekable();
        while let Some(event) = events.next() {
            let kind = event.r#type();
            let Some(key) = event.kv else { continue };
            let revision = key.mod_revision;
            if revision <= self.applied {
                continue;
            }
            check_key(&key.key)?;
            let put = match kind {
                EventType::Delete => None,
                EventType::Put => {
                    let lease = copy::lease_of(&key, self.source, self.target).await?;
                    Some((key.value, lease))
                }
            };
            self.pending.insert(key.key, put);
            let next = events.peek().and_then(|next| next.kv.as_ref()).map(|kv| kv.mod_revision);
            let is_whole = next != Some(revision);
            if is_whole && (next.is_none() || self.pending.len() >= CHANGES_AT_ONCE) {
                let pending = std::mem::take(&mut self.pending);
                let changes = pending.into_iter().map(|(key, put)| Change { key, put });
                let changes: Vec<Change> = changes.collect();
                self.target.apply(&changes).await?;
                self.applied = revision;
            }
        }
        Ok(())
    }

    /// Grants the leases that are new, keys or not, and ends those that have ended.
    async fn compare_leases(&mut self) -> Result<(), Problem> {
        let (leases, revision) = self.source.leases().await?;
        for &id in &leases {
            if !self.target.leases.has(id)
                && let Some(ttl) = self.source.ttl(id).await?
            {
                self.target.leases.keep(&self.target.client, id, ttl).await?;
            }
        }
        // The keyspace has all that came before they ended, or one may still get a key. A member
        // that lags does not know the newest ones, so they have not ended.
        if revision == self.applied {
            self.target.leases.retain(&leases).await?;
            if !self.target.is_fresh && !self.others_ended {
                self.target.leases.end_others(&self.target.client, &leases).await?;
                self.others_ended = true;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_watch_stalls_only_while_there_are_changes() {
        let (mut stall, now) = (Stall::default(), Instant::now());
        assert!(!stall.is_over(0, now) && !stall.is_over(0, now + STALL_MAX * 2));
        let begun = now + STALL_MAX * 2;
        assert!(!stall.is_over(3, begun) && !stall.is_over(5, begun + STALL_MAX));
        assert!(stall.is_over(1, begun + STALL_MAX + Duration::from_millis(1)));
        assert!(
            !stall.is_over(0, begun + STALL_MAX * 2) && !stall.is_over(1, begun + STALL_MAX * 3)
        );
    }
}
