//! Leases and expiry: answers to questions about them, and what is to be ended.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use dkv_base::id::{LeaseId, Term};
use dkv_base::sync::lock;
use dkv_wire::limits::{EXPIRE_KEYS_MAX, SCAN_BYTES_MAX, SCAN_KEYS_MAX};
use dkv_wire::message::{Answer, Expire, KeyExpiry, LeaseStatus, Receipt, Refusal};
use tokio::time::Instant;

use super::StateMachineHandle;
use crate::raft::fifo_watch;
use crate::raft::lease_times::{LeaseTimes, NotKept};
use dkv_state::{FoundExpiry, FoundLease, ShardState};

/// Most leases that end in one entry of the log.
const ENDS_MAX: usize = 1024;

/// A question about leases or expiry, which only the primary answers.
#[derive(Clone, Debug)]
pub(crate) enum LeaseQuery {
    /// Gives a lease its full time again.
    KeepAlive(LeaseId),
    /// The leases after one.
    Leases { after: LeaseId, leases_max: u32 },
    /// A lease, and its keys after one.
    Lease { lease: LeaseId, after: Bytes, keys_max: u32 },
    /// How long a key will live.
    Key(Bytes),
}

/// What a primary is to end now.
#[derive(Debug, Default)]
pub(crate) struct Ends {
    /// The commands for one entry of the log.
    pub(crate) commands: Vec<Expire>,
    leases: Vec<FoundLease>,
}

impl StateMachineHandle {
    /// Returns a receiver for the number of the news about leases, and its changes.
    pub(crate) fn lease_news(&self) -> fifo_watch::Receiver<u64> {
        self.shared.lease_news.receiver()
    }

    /// Takes note of the news that an entry has made.
    pub(super) fn note_lease_news(&self, shard: Option<&ShardState>) {
        if let Some(news) = shard.map(ShardState::lease_news)
            && news != self.shared.lease_news.get()
        {
            self.shared.lease_news.set(news);
        }
    }

    /// Returns whether the shard has anything that may end.
    pub(crate) fn has_leases(&self) -> bool {
        let has = |shard: &ShardState| {
            shard.next_deadline_ms().is_some() || shard.leases_after(LeaseId(0)).next().is_some()
        };
        self.with_shard(has).unwrap_or_default()
    }

    /// Calls `act` with the shard and the times of its leases in this term; `None` if this replica
    /// leads no shard, or a later term has begun.
    fn with_times<T>(
        &self,
        term: Term,
        act: impl FnOnce(&ShardState, &mut LeaseTimes, Instant) -> T,
    ) -> Option<T> {
        let current = self.read();
        let shard = current.state.as_shard()?;
        let mut times = lock(&self.shared.lease_times);
        let now = Instant::now();
        times.follow(term, shard, now).then(|| act(shard, &mut times, now))
    }

    /// Answers a question in the term of the receipt, in which this replica has been confirmed as
    /// the primary.
    pub(crate) fn answer_about_leases(
        &self,
        query: &LeaseQuery,
        receipt: Receipt,
    ) -> Result<Answer, Refusal> {
        let answer = self.with_times(receipt.term, |shard, times, now| {
            let receipt = Receipt { revision: shard.revision(), stamp: shard.stamp(), ..receipt };
            self.answer_with(shard, times, now, query, receipt)
        });
        answer.unwrap_or(Err(Refusal::NotPrimary { primary: None }))
    }

    fn answer_with(
        &self,
        shard: &ShardState,
        times: &mut LeaseTimes,
        now: Instant,
        query: &LeaseQuery,
        receipt: Receipt,
    ) -> Result<Answer, Refusal> {
        let find = |lease| shard.lease(lease).ok_or(Refusal::NoLease { lease });
        match query {
            LeaseQuery::KeepAlive(id) => {
                let lease = find(*id)?;
                match times.keep_alive(&lease, now) {
                    Ok(()) => Ok(Answer::KeptAlive { receipt, ttl_ms: lease.ttl_ms }),
                    Err(NotKept::Ended) => Err(Refusal::NoLease { lease: *id }),
                    // If its end is not committed, the next primary keeps it alive.
                    Err(NotKept::Ending) => {
                        Err(Refusal::Unavailable("the lease is about to end".into()))
                    }
                }
            }
            LeaseQuery::Leases { after, leases_max } => {
                let most = (*leases_max as usize).clamp(1, SCAN_KEYS_MAX);
                let mut rest = shard.leases_after(*after);
                let found = rest.by_ref().take(most);
                let leases = found.map(|lease| status(&lease, times, now)).collect();
                Ok(Answer::Leases { receipt, leases, more: rest.next().is_some() })
            }
            LeaseQuery::Lease { lease, after, keys_max } => {
                let status = status(&find(*lease)?, times, now);
                let most = (*keys_max as usize).clamp(1, SCAN_KEYS_MAX);
                let (mut keys, mut bytes, mut more) = (Vec::new(), 0, false);
                for key in shard.lease_keys(*lease, after) {
                    bytes += key.len();
                    if keys.len() == most || bytes > SCAN_BYTES_MAX {
                        more = true;
                        break;
                    }
                    keys.push(Bytes::from_owner(Arc::clone(key)));
                }
                Ok(Answer::Lease { receipt, status, keys, more })
            }
            LeaseQuery::Key(key) => {
                let expiry = match shard.expiry(key) {
                    FoundExpiry::Absent => KeyExpiry::Absent,
                    FoundExpiry::Never => KeyExpiry::Never,
                    FoundExpiry::At { deadline_ms, ttl_ms } => {
                        let remaining_ms = deadline_ms.saturating_sub(self.clock_ms());
                        KeyExpiry::Ttl { ttl_ms, remaining_ms }
                    }
                    FoundExpiry::Lease(lease) => KeyExpiry::Lease(status(&lease, times, now)),
                };
                Ok(Answer::KeyExpiry(receipt, expiry))
            }
        }
    }

    /// Returns when the primary of this term has something to end; `None` if there is nothing.
    pub(crate) fn next_end(&self, term: Term) -> Option<Instant> {
        self.with_times(term, |shard, times, now| {
            if shard.ending_leases().next().is_some() {
                return Some(now);
            }
            let deadline = shard.next_deadline_ms().map(|deadline_ms| {
                now + Duration::from_millis(deadline_ms.saturating_sub(self.clock_ms()))
            });
            deadline.into_iter().chain(times.next_end()).min()
        })?
    }

    /// Returns what the primary of this term is to end now. What it returns has to be handed to
    /// [`Self::ended`].
    pub(crate) fn ends(&self, term: Term) -> Ends {
        let ends = self.with_times(term, |shard, times, now| {
            let mut ends = Ends::default();
            let mut keys = 0;
            for FoundLease { id, grant, keys: left, .. } in shard.ending_leases().take(ENDS_MAX) {
                if keys >= EXPIRE_KEYS_MAX {
                    break;
                }
                keys += left;
                ends.commands.push(Expire::Lease { lease: id, grant });
            }
            if keys < EXPIRE_KEYS_MAX {
                let most = EXPIRE_KEYS_MAX - keys;
                ends.leases = times.propose_ends(shard, now, ENDS_MAX, most);
                for FoundLease { id, grant, keys: more, .. } in &ends.leases {
                    keys += more;
                    ends.commands.push(Expire::Lease { lease: *id, grant: *grant });
                }
            }
            let is_due = |deadline_ms| deadline_ms <= self.clock_ms();
            if keys < EXPIRE_KEYS_MAX && shard.next_deadline_ms().is_some_and(is_due) {
                ends.commands.push(Expire::Keys);
            }
            ends
        });
        ends.unwrap_or_default()
    }

    /// Takes note that the proposal of these ends is over: it was applied, or it failed.
    pub(crate) fn ended(&self, term: Term, ends: &Ends) {
        self.with_times(term, |shard, times, _| times.proposed(&ends.leases, shard));
    }

    /// Gives every lease its full time again, in this term. Returns whether there are any.
    pub(crate) fn keep_all_alive(&self, term: Term) -> bool {
        let kept = self.with_times(term, |_, times, now| {
            times.keep_all_alive(now);
            times.next_end().is_some()
        });
        kept.unwrap_or_default()
    }
}

fn status(lease: &FoundLease, times: &LeaseTimes, now: Instant) -> LeaseStatus {
    let remaining = times.remaining(lease, now);
    LeaseStatus {
        lease: lease.id,
        ttl_ms: lease.ttl_ms,
        remaining_ms: remaining.as_millis() as u64,
        keys: lease.keys as u64,
    }
}
