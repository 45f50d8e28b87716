//! The limits of users at this node: requests and bytes a second, and connections.
//!
//! A user has one share, whichever of its holders ask and through whichever face, so a client that
//! asks for more is refused before any shard hears of it, and takes nothing from others. The limits
//! are those of the directory at the moment of each request; what was used is kept here, and a
//! restart forgets it.
//!
//! A bucket of tokens is filled at the rate of the limit up to what a second gives. A request is
//! taken while there are tokens, and may leave a debt: how many bytes an answer has is known only
//! afterwards. The next request then waits until the debt is paid.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use dkv_base::sync::lock;
use dkv_wire::message::{LimitKind, PolicyLimits, Refusal};
use dkv_wire::user::User;
use tokio::time::Instant;

/// Users whose shares are kept although they are whole.
const IDLE_MAX: usize = 1024;
/// Longest time that a user is told to wait.
const WAIT_MAX: Duration = Duration::from_secs(60);

/// The shares of all users that have limits.
#[derive(Debug, Default)]
pub(crate) struct UserLimits(Mutex<HashMap<User, Arc<UserShare>>>);

/// What a user has left.
#[derive(Debug)]
pub(crate) struct UserShare {
    buckets: Mutex<Buckets>,
    connections: AtomicU32,
}

#[derive(Debug)]
struct Buckets {
    requests: TokenBucket,
    bytes: TokenBucket,
}

/// The place of a connection among those of its user.
#[derive(Debug)]
pub(crate) struct ConnectionPlace(Arc<UserShare>);

/// The shares from which a request that was taken pays for its answer.
pub(crate) type Charged = Vec<Arc<UserShare>>;

/// The shares of some users.
pub(crate) type SharesOfUsers = Vec<(User, Arc<UserShare>)>;

#[derive(Clone, Copy, Debug)]
struct TokenBucket {
    tokens: f64,
    filled: Instant,
    /// The limit at that time, a second.
    rate: Option<f64>,
}

impl TokenBucket {
    /// A bucket that nothing limits: it has more than any limit leaves it, and whatever is taken
    /// from it, it stays so.
    fn unlimited(now: Instant) -> Self {
        Self { tokens: f64::MAX, filled: now, rate: None }
    }

    /// Adds what a limit gives since the last time. Without a limit nothing is owed, so that one
    /// that is set later begins with a full bucket.
    fn fill(&mut self, rate: Option<f64>, now: Instant) {
        *self = match rate {
            None => Self::unlimited(now),
            Some(rate) => Self { tokens: self.tokens_at(rate, now), filled: now, rate: Some(rate) },
        };
    }

    fn tokens_at(&self, rate: f64, now: Instant) -> f64 {
        let passed = now.saturating_duration_since(self.filled).as_secs_f64();
        (self.tokens + passed * rate).min(rate.max(1.0))
    }

    /// Whether it is full by the limit of the last time.
    fn is_full(&self, now: Instant) -> bool {
        self.rate.is_none_or(|rate| self.tokens_at(rate, now) >= rate.max(1.0))
    }

    /// Returns the time after which there will be this many tokens, if there are fewer.
    fn lacks(&self, tokens: f64) -> Option<Duration> {
        let (rate, missing) = (self.rate?, tokens - self.tokens);
        let wait = Duration::try_from_secs_f64(missing / rate).unwrap_or(WAIT_MAX).min(WAIT_MAX);
        (missing > 0.0).then(|| wait.max(Duration::from_millis(1)))
    }
}

impl UserShare {
    fn new(now: Instant) -> Self {
        let bucket = TokenBucket::unlimited(now);
        let buckets = Mutex::new(Buckets { requests: bucket, bytes: bucket });
        Self { buckets, connections: AtomicU32::new(0) }
    }

    /// Takes a request with a frame of `bytes` bytes.
    fn take(&self, limits: PolicyLimits, bytes: usize, now: Instant) -> Result<(), Refusal> {
        let buckets = &mut *lock(&self.buckets);
        let limited = |limit, wait: Duration| {
            let retry_after_ms = u32::try_from(wait.as_millis()).unwrap_or(u32::MAX).max(1);
            Refusal::Limited { limit, retry_after_ms }
        };
        buckets.requests.fill(limits.requests.map(f64::from), now);
        buckets.bytes.fill(limits.bytes.map(|rate| rate as f64), now);
        if let Some(wait) = buckets.requests.lacks(1.0) {
            return Err(limited(LimitKind::Requests, wait));
        }
        // Any number will do: a request that is longer than the limit must be possible.
        if let Some(wait) = buckets.bytes.lacks(1.0) {
            return Err(limited(LimitKind::Bytes, wait));
        }
        buckets.requests.tokens -= 1.0;
        buckets.bytes.tokens -= bytes as f64;
        Ok(())
    }

    /// Takes back what a request of `bytes` bytes took, which another user's limits refuse.
    pub(crate) fn give_back(&self, bytes: usize) {
        let buckets = &mut *lock(&self.buckets);
        buckets.requests.tokens += 1.0;
        buckets.bytes.tokens += bytes as f64;
    }

    /// Pays for bytes that were sent.
    pub(crate) fn pay(&self, bytes: usize) {
        lock(&self.buckets).bytes.tokens -= bytes as f64;
    }

    /// Returns how long a sender that nobody asks again, as a watch is, has to wait before it goes
    /// on.
    pub(crate) fn debt(&self, limits: PolicyLimits, now: Instant) -> Option<Duration> {
        let bytes = &mut lock(&self.buckets).bytes;
        bytes.fill(limits.bytes.map(|rate| rate as f64), now);
        bytes.lacks(0.0)
    }

    /// Whether nothing would be lost if it were forgotten.
    fn is_whole(self: &Arc<Self>, now: Instant) -> bool {
        let buckets = lock(&self.buckets);
        Arc::strong_count(self) == 1 && buckets.requests.is_full(now) && buckets.bytes.is_full(now)
    }
}

impl UserLimits {
    /// Returns the share of a user.
    pub(crate) fn of(&self, user: User, now: Instant) -> Arc<UserShare> {
        let mut shares = lock(&self.0);
        if shares.len() >= IDLE_MAX && !shares.contains_key(&user) {
            shares.retain(|_, share| !share.is_whole(now));
        }
        let share = shares.entry(user).or_insert_with(|| Arc::new(UserShare::new(now)));
        Arc::clone(share)
    }

    /// Takes a request of a user with limits, and returns the share that pays for its answer.
    ///
    /// # Errors
    /// [`Refusal::Limited`].
    pub(crate) fn take(
        &self,
        user: User,
        limits: PolicyLimits,
        bytes: usize,
        now: Instant,
    ) -> Result<Option<Arc<UserShare>>, Refusal> {
        if limits.requests.is_none() && limits.bytes.is_none() {
            return Ok(None);
        }
        let share = self.of(user, now);
        share.take(limits, bytes, now)?;
        Ok(Some(share))
    }

    /// Counts a connection of a user, if it may have one more.
    pub(crate) fn connect(&self, user: User, limits: PolicyLimits) -> Option<ConnectionPlace> {
        let most = limits.connections.unwrap_or(u32::MAX);
        let share = self.of(user, Instant::now());
        let more = |open: u32| (open < most).then_some(open + 1);
        let count = &share.connections;
        count.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).ok()?;
        Some(ConnectionPlace(share))
    }
}

impl Drop for ConnectionPlace {
    fn drop(&mut self) {
        self.0.connections.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(name: &str) -> User {
        name.parse().unwrap()
    }

    fn wait_of(refusal: &Refusal) -> Duration {
        let Refusal::Limited { retry_after_ms, .. } = refusal else { panic!("{refusal:?}") };
        Duration::from_millis(u64::from(*retry_after_ms))
    }

    #[test]
    fn a_user_gets_its_rate_however_it_asks_and_others_theirs() {
        let (all, start) = (UserLimits::default(), Instant::now());
        let limits = PolicyLimits { requests: Some(10), ..PolicyLimits::default() };
        let ask = |name: &str, now| all.take(user(name), limits, 100, now).map(|_| ());
        assert_eq!((0..1000).filter(|_| ask("alice", start).is_ok()).count(), 10);
        assert_eq!((0..1000).filter(|_| ask("bob", start).is_ok()).count(), 10);
        // As told, and no earlier.
        let wait = wait_of(&ask("alice", start).unwrap_err());
        assert_eq!(wait, Duration::from_millis(100));
        assert!(ask("alice", start + wait / 2).is_err() && ask("alice", start + wait).is_ok());
        let mut taken = 0;
        for step in 1..=10_000_u32 {
            taken +=
                u32::from(ask("alice", start + wait + Duration::from_millis(1) * step).is_ok());
        }
        assert_eq!(taken, 100);
        // A pause saves up a second's worth and no more.
        let later = start + Duration::from_secs(3600);
        assert_eq!((0..1000).filter(|_| ask("alice", later).is_ok()).count(), 10);
    }

    #[test]
    fn a_debt_of_bytes_is_paid_before_the_next_request() {
        let (all, start) = (UserLimits::default(), Instant::now());
        let limits = PolicyLimits { bytes: Some(1000), ..PolicyLimits::default() };
        let ask = |bytes, now| all.take(user("alice"), limits, bytes, now);
        let share = ask(500, start).unwrap().unwrap();
        assert_eq!(share.debt(limits, start), None);
        share.pay(2500);
        let debt = share.debt(limits, start).unwrap();
        assert_eq!(debt.as_millis(), 2000);
        assert!(wait_of(&ask(1, start).unwrap_err()) >= debt);
        assert!(ask(5000, start + Duration::from_millis(2002)).is_ok(), "longer than the limit");
        assert!(ask(1, start + Duration::from_millis(2003)).is_err());
        // A limit that is taken away holds nobody up.
        assert!(all.take(user("alice"), PolicyLimits::default(), 1, start).unwrap().is_none());
    }

    #[test]
    fn what_is_used_without_a_limit_is_not_owed_once_there_is_one_again() {
        let (all, start) = (UserLimits::default(), Instant::now());
        let both =
            PolicyLimits { requests: Some(10), bytes: Some(1000), ..PolicyLimits::default() };
        let requests = PolicyLimits { bytes: None, ..both };
        let bytes = PolicyLimits { requests: None, ..both };
        let ask = |limits, bytes, now| all.take(user("alice"), limits, bytes, now);
        ask(both, 500, start).unwrap();
        for step in 1..1000 {
            let now = start + Duration::from_secs(1) * step;
            ask(requests, 1_000_000, now).unwrap().unwrap().pay(1_000_000);
        }
        let then = start + Duration::from_secs(1000);
        assert!(ask(both, 500, then).is_ok() && ask(both, 500, then).is_ok());
        assert!(wait_of(&ask(both, 1, then).unwrap_err()) <= Duration::from_secs(1));
        let then = then + Duration::from_secs(10);
        for _ in 0..1000 {
            ask(bytes, 0, then).unwrap();
        }
        assert_eq!((0..100).filter(|_| ask(both, 0, then).is_ok()).count(), 10);
        // A watch goes on sending while there is no limit at all.
        let share = all.of(user("bob"), then);
        assert_eq!(share.debt(both, then), None);
        share.pay(1_000_000);
        assert!(share.debt(both, then).is_some());
        for _ in 0..2 {
            assert_eq!(share.debt(PolicyLimits::default(), then), None);
            share.pay(1_000_000);
        }
        assert_eq!(share.debt(both, then), None);
    }

    #[test]
    fn what_is_given_back_can_be_taken_again() {
        let (all, now) = (UserLimits::default(), Instant::now());
        let limits =
            PolicyLimits { requests: Some(2), bytes: Some(1000), ..PolicyLimits::default() };
        let ask = |bytes| all.take(user("alice"), limits, bytes, now);
        for _ in 0..10 {
            ask(5000).unwrap().unwrap().give_back(5000);
        }
        assert!(ask(1).is_ok() && ask(1).is_ok() && ask(1).is_err());
    }

    #[test]
    fn connections_are_counted_while_they_last() {
        let all = UserLimits::default();
        let limits = PolicyLimits { connections: Some(2), ..PolicyLimits::default() };
        let connect = |name: &str| all.connect(user(name), limits);
        let (first, second) = (connect("alice"), connect("alice"));
        assert!(first.is_some() && second.is_some() && connect("alice").is_none());
        assert!(connect("bob").is_some());
        drop(second);
        let again = connect("alice");
        assert!(again.is_some() && connect("alice").is_none());
    }

    #[test]
    fn shares_of_users_that_left_are_forgotten() {
        let (all, start) = (UserLimits::default(), Instant::now());
        for number in 0..10 * IDLE_MAX {
            let now = start + WAIT_MAX * 2 * u32::try_from(number / IDLE_MAX).unwrap();
            drop(all.of(user(&format!("u{number}")), now));
        }
        assert!(lock(&all.0).len() <= IDLE_MAX);
    }

    #[test]
    fn a_debt_is_not_forgotten_before_it_is_paid() {
        let (all, start) = (UserLimits::default(), Instant::now());
        let limits = PolicyLimits { bytes: Some(1000), ..PolicyLimits::default() };
        all.take(user("alice"), limits, 1_000_000, start).unwrap();
        let later = start + WAIT_MAX * 2;
        for number in 0..2 * IDLE_MAX {
            drop(all.of(user(&format!("u{number}")), later));
        }
        assert!(all.take(user("alice"), limits, 1, later).is_err());
        assert!(all.take(user("alice"), limits, 1, start + WAIT_MAX * 20).is_ok());
    }
}
