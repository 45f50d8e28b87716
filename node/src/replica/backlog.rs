//! Admission of writes: how many wait for a batch, and whether more may.
//!
//! A long queue delays every request and benefits none, so a shard refuses a write on arrival once
//! it would have to wait longer than [`WAIT_MAX`]. Accepted writes keep their latency, and a
//! refusal says when to retry. The expected wait follows from the waiting commands and from the
//! duration of batches, that is, from the slowest of disks, network and processors.
//!
//! [`BYTES_MAX`] bounds memory separately.
//!
//! Once a bound is reached, the shard refuses only holders that have at least an average share of
//! the waiting commands. A holder with fewer gets in, up to twice the bounds, so a client that
//! floods a shard is held up by its own writes.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use dkv_base::sync::lock;
use tokio::time::Instant;

use dkv_base::id::HolderId;
use dkv_wire::limits::{BATCH_BYTES_TARGET, BATCH_COMMANDS_MAX};

/// Batches of one shard in flight at once, among nearby members.
///
/// With one, the disk idles while a batch travels; more than two or three spread the same commands
/// over more fsyncs. Measured: docs/decisions.md.
pub(crate) const IN_FLIGHT_MAX: usize = 2;

/// Longest time that a write should wait for its batch to begin. A loaded disk takes this long for
/// a few batches; a failover, during which writes wait at their clients, takes about as long.
const WAIT_MAX: Duration = Duration::from_millis(500);
/// Limit on the commands that wait at a shard, in bytes.
const BYTES_MAX: usize = 64 * 1024 * 1024;
/// Shortest and longest time after which a refused client is asked to retry.
const RETRY: (Duration, Duration) = (Duration::from_millis(20), Duration::from_secs(1));

/// The commands that wait at a shard. Clones share their state.
#[derive(Clone, Default)]
pub(crate) struct Backlog(Arc<Mutex<BacklogState>>);

#[derive(Default)]
struct BacklogState {
    commands: usize,
    bytes: usize,
    holders: HashMap<HolderId, Waiting>,
    /// Average duration of a batch, from its beginning until it is applied. Zero before the first.
    batch: Duration,
    /// When the batches in flight began.
    begun: Vec<Instant>,
}

/// The waiting commands of one holder.
#[derive(Clone, Copy, Default)]
struct Waiting {
    commands: usize,
    bytes: usize,
}

/// The place of a waiting command, freed on drop.
#[derive(Default)]
pub(crate) struct Place(Option<(Backlog, HolderId, usize)>);

impl Drop for Place {
    fn drop(&mut self) {
        if let Some((backlog, holder, bytes)) = self.0.take() {
            let mut state = backlog.lock();
            state.commands -= 1;
            state.bytes -= bytes;
            if let Some(own) = state.holders.get_mut(&holder) {
                own.commands -= 1;
                own.bytes -= bytes;
                if own.commands == 0 {
                    state.holders.remove(&holder);
                }
            }
        }
    }
}

impl Backlog {
    /// Reserves a place for a holder's command of `bytes` bytes that is of use until `expires`.
    ///
    /// # Errors
    /// Returns the time after which to retry, if too much waits already.
    pub(crate) fn enter(
        &self,
        holder: HolderId,
        bytes: usize,
        expires: Instant,
        now: Instant,
    ) -> Result<Place, Duration> {
        let mut state = self.lock();
        let wait = state.wait(now);
        // A write that begins and does not end in time has an outcome that its client cannot know.
        // Batches differ in duration, so this leaves one to spare.
        let late = !wait.is_zero() && now + wait + 2 * state.batch > expires;
        let most = if state.is_modest(holder) { 2 } else { 1 };
        let too_much = state.bytes > 0 && state.bytes + bytes > most * BYTES_MAX;
        if wait > WAIT_MAX * most as u32 || late || too_much {
            // By then about half of the queue has drained.
            return Err((wait / 2).clamp(RETRY.0, RETRY.1));
        }
        state.commands += 1;
        state.bytes += bytes;
        let own = state.holders.entry(holder).or_default();
        own.commands += 1;
        own.bytes += bytes;
        Ok(Place(Some((self.clone(), holder, bytes))))
    }

    /// Records that a batch begins.
    pub(super) fn begin(&self, now: Instant) {
        self.lock().begun.push(now);
    }

    /// Records that the batch begun at `begun` has ended, whatever its outcome.
    pub(super) fn end(&self, begun: Instant, now: Instant) {
        let mut state = self.lock();
        if let Some(place) = state.begun.iter().position(|one| *one == begun) {
            state.begun.swap_remove(place);
        }
        // Half the old average, half the new value: two fast batches make up for a slow one.
        state.batch = (state.batch + now.duration_since(begun)) / 2;
    }

    fn lock(&self) -> MutexGuard<'_, BacklogState> {
        lock(&self.0)
    }
}

impl BacklogState {
    /// Returns whether a holder has less than an average share of the waiting commands and bytes.
    fn is_modest(&self, holder: HolderId) -> bool {
        let own = self.holders.get(&holder).copied().unwrap_or_default();
        let holders = self.holders.len() + usize::from(own.commands == 0);
        own.commands * holders < self.commands && own.bytes * holders < self.bytes
    }

    /// Time that a command arriving now would wait until its batch begins.
    fn wait(&self, now: Instant) -> Duration {
        let ahead = (self.commands / BATCH_COMMANDS_MAX).max(self.bytes / BATCH_BYTES_TARGET);
        if ahead == 0 {
            // It joins the next batch.
            return Duration::ZERO;
        }
        // A stuck batch takes at least as long as it has taken so far.
        let oldest = self.begun.iter().min().map(|begun| now.duration_since(*begun));
        let batch = self.batch.max(oldest.unwrap_or_default());
        let rounds = u32::try_from(ahead.div_ceil(IN_FLIGHT_MAX)).unwrap_or(u32::MAX);
        batch.saturating_mul(rounds)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KIB: usize = 1024;

    /// The holder that sends most of these commands.
    fn attacker() -> HolderId {
        HolderId(uuid::Uuid::from_u128(1))
    }

    fn now() -> Instant {
        Instant::now()
    }

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn later() -> Instant {
        Instant::now() + Duration::from_secs(3600)
    }

    /// A backlog whose batches take `batch`, the places of those of `writes` writes of 64 KiB that
    /// got in, and the time to retry after a refusal.
    fn filled(batch: Duration, writes: usize) -> (Backlog, Vec<Place>, Option<Duration>) {
        let (backlog, now) = (Backlog::default(), Instant::now());
        for _ in 0..20 {
            backlog.begin(now);
            backlog.end(now, now + batch);
        }
        let mut places = Vec::new();
        for _ in 0..writes {
            match backlog.enter(attacker(), 64 * KIB, later(), now) {
                Ok(place) => places.push(place),
                Err(retry) => return (backlog, places, Some(retry)),
            }
        }
        (backlog, places, None)
    }

    #[test]
    fn as_much_may_wait_as_goes_in_time() {
        // Sixteen writes make a batch, two batches are in flight, and ten times 100 ms is too long.
        let (backlog, mut places, retry) = filled(ms(100), 1000);
        assert!((150..=180).contains(&places.len()), "{}", places.len());
        assert!(retry.is_some_and(|retry| retry > ms(200) && retry < ms(400)), "{retry:?}");
        // It admits more as soon as some have left.
        drop(places.drain(..40));
        assert!(backlog.enter(attacker(), 64 * KIB, later(), Instant::now()).is_ok());
        // A write that would end too late does not even begin.
        assert!(backlog.enter(attacker(), 64 * KIB, now() + ms(400), now()).is_err());
        assert!(backlog.enter(attacker(), 64 * KIB, now() + ms(700), now()).is_ok());
        // On a fast disk, memory is the only bound.
        let (_, places, _) = filled(ms(2), 5000);
        assert_eq!(places.len() * 64 * KIB, BYTES_MAX);
    }

    #[test]
    fn a_batch_that_is_stuck_is_slow_before_it_ends() {
        let (backlog, now) = (Backlog::default(), Instant::now());
        backlog.begin(now);
        let places: Vec<_> =
            (0..64).map(|_| backlog.enter(attacker(), 64 * KIB, later(), now).ok()).collect();
        assert!(places.iter().all(Option::is_some));
        assert!(backlog.enter(attacker(), KIB, later(), now + ms(100)).is_ok());
        assert_eq!(backlog.enter(attacker(), KIB, later(), now + ms(3000)).err(), Some(RETRY.1));
        // A command that joins the next batch is always admitted: there may be no other way to find
        // out that the shard works again.
        drop(places);
        assert!(backlog.enter(attacker(), KIB, later(), now + ms(3000)).is_ok());
    }

    #[test]
    fn one_command_is_welcome_however_long() {
        let backlog = Backlog::default();
        let place = backlog.enter(attacker(), BYTES_MAX + 1, later(), Instant::now());
        assert!(place.is_ok());
        assert!(backlog.enter(attacker(), 1, later(), Instant::now()).is_err());
    }

    #[test]
    fn a_holder_that_floods_a_shard_does_not_keep_others_out() {
        let (backlog, places, retry) = filled(ms(100), 1000);
        assert!(retry.is_some());
        let other = HolderId(uuid::Uuid::from_u128(2));
        let of_other = |bytes| backlog.enter(other, bytes, later(), Instant::now());
        let mut taken = Vec::new();
        while let Ok(place) = of_other(64 * KIB) {
            taken.push(place);
        }
        // About as much again, and then neither of them gets in.
        assert!(taken.len() * 3 > places.len() * 2, "{} of {}", taken.len(), places.len());
        assert!(backlog.enter(attacker(), KIB, later(), Instant::now()).is_err());
        drop((places, taken));
        assert!(backlog.lock().holders.is_empty());
    }
}
