//! The rates of events that anybody can cause: of denials, and of acts of those who are no
//! administrators. A sender that causes them over and over must not fill the disk, nor push what
//! others did out of the file.
//!
//! Each sender has a bucket of tokens, and an event that finds none is only counted. A sender is a
//! credential and the user for whom it asks, or an address if it has shown no credential. What does
//! not fit into the table, of one credential or of all, shares a bucket.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

use tokio::time::Instant;
use uuid::Uuid;

use super::event::Who;

/// Events of a sender that the log has at once.
const BURST: u32 = 30;
/// Time after which it has one more.
const EVERY: Duration = Duration::from_secs(10);
/// Time between two looks for senders that have stopped.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Senders that have buckets of their own.
const SENDERS_MAX: usize = 1024;
/// Buckets of one credential, which may ask for many users.
const USERS_MAX: usize = 64;

/// Who has a bucket.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum SenderKey {
    /// All who have none of their own.
    Others,
    /// A credential, and the user for whom it asks.
    Holder(Uuid, Option<String>),
    /// An address, or the network of 64 bits of one of IPv6.
    Address(IpAddr),
    /// Somebody of whom nothing is known but a name.
    Name(Option<String>),
}

impl SenderKey {
    fn of(who: &Who) -> Self {
        match (who.holder, who.address) {
            (Some(holder), _) => Self::Holder(holder, who.user.clone()),
            (None, Some(address)) => Self::Address(match address.ip().to_canonical() {
                IpAddr::V6(ip) => Ipv6Addr::from(u128::from(ip) >> 64 << 64).into(),
                ip => ip,
            }),
            (None, None) => Self::Name(who.user.clone()),
        }
    }
}

#[derive(Debug)]
struct Bucket {
    tokens: u32,
    /// When the last token was added.
    filled: Instant,
    /// When the last event came.
    last: Instant,
    suppressed: u64,
    who: Who,
}

impl Bucket {
    fn fill(&mut self, now: Instant) {
        let times = now.saturating_duration_since(self.filled).as_millis() / EVERY.as_millis();
        let times = u32::try_from(times).unwrap_or(u32::MAX);
        self.filled += EVERY.saturating_mul(times.min(BURST));
        self.tokens = self.tokens.saturating_add(times);
        if self.tokens >= BURST {
            (self.tokens, self.filled) = (BURST, now);
        }
    }
}

/// What becomes of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// The log has it, and it stands for this many before it.
    Told { suppressed: u64 },
    /// It is counted.
    Counted,
}

/// The rates of all senders.
#[derive(Debug)]
pub(super) struct SenderRates {
    buckets: BTreeMap<SenderKey, Bucket>,
    /// Events that were ever counted only.
    suppressed: u64,
    /// When the senders that have stopped were looked for.
    looked: Option<Instant>,
}

impl SenderRates {
    pub(super) const fn new() -> Self {
        Self { buckets: BTreeMap::new(), suppressed: 0, looked: None }
    }

    /// Events that were counted and not told.
    pub(super) fn suppressed(&self) -> u64 {
        self.suppressed
    }

    /// Notes an event.
    pub(super) fn note(&mut self, who: &Who, now: Instant) -> Verdict {
        let key = self.key_for(who, now);
        let fresh = || Bucket {
            tokens: BURST,
            filled: now,
            last: now,
            suppressed: 0,
            who: if key == SenderKey::Others { Who::default() } else { who.clone() },
        };
        let bucket = self.buckets.entry(key.clone()).or_insert_with(fresh);
        bucket.fill(now);
        bucket.last = now;
        match bucket.tokens.checked_sub(1) {
            Some(rest) => {
                bucket.tokens = rest;
                Verdict::Told { suppressed: std::mem::take(&mut bucket.suppressed) }
            }
            None => {
                bucket.suppressed += 1;
                self.suppressed += 1;
                Verdict::Counted
            }
        }
    }

    /// Returns the senders that have stopped, each with what was counted of it and not told. Looks
    /// for them once a second at most: it takes a walk through all.
    pub(super) fn take_quiet(&mut self, now: Instant) -> Vec<(Who, u64)> {
        if self.looked.is_some_and(|last| now.saturating_duration_since(last) < LOOK_EVERY) {
            return Vec::new();
        }
        self.looked = Some(now);
        self.take(|bucket| now.saturating_duration_since(bucket.last) >= EVERY)
    }

    /// Returns all senders of which something was counted and not told.
    pub(super) fn take_all(&mut self) -> Vec<(Who, u64)> {
        self.take(|_| true)
    }

    fn take(&mut self, of: impl Fn(&Bucket) -> bool) -> Vec<(Who, u64)> {
        let is_quiet = |bucket: &&mut Bucket| bucket.suppressed > 0 && of(bucket);
        let quiet = self.buckets.values_mut().filter(is_quiet);
        quiet.map(|bucket| (bucket.who.clone(), std::mem::take(&mut bucket.suppressed))).collect()
    }

    /// Returns the bucket of a sender: its own, unless there are too many.
    fn key_for(&mut self, who: &Who, now: Instant) -> SenderKey {
        let key = SenderKey::of(who);
        if self.buckets.contains_key(&key) {
            return key;
        }
        if let SenderKey::Holder(holder, Some(_)) = key {
            let first = SenderKey::Holder(holder, None);
            let of_holder =
                |key: &SenderKey| matches!(key, SenderKey::Holder(id, _) if *id == holder);
            let users = self.buckets.range(first.clone()..);
            let users = users.take_while(|(key, _)| of_holder(key));
            if users.count() >= USERS_MAX {
                return first;
            }
        }
        if self.buckets.len() >= SENDERS_MAX {
            self.make_room(now);
        }
        if self.buckets.len() >= SENDERS_MAX { SenderKey::Others } else { key }
    }

    /// Forgets the senders whose buckets are full, which are as good as none. Their counts that the
    /// log does not have fall to all others.
    fn make_room(&mut self, now: Instant) {
        let mut untold = 0;
        self.buckets.retain(|_, bucket| {
            bucket.fill(now);
            let stays = bucket.tokens < BURST;
            if !stays {
                untold += bucket.suppressed;
            }
            stays
        });
        if untold > 0 {
            let fresh = || Bucket {
                tokens: BURST,
                filled: now,
                last: now,
                suppressed: 0,
                who: Who::default(),
            };
            self.buckets.entry(SenderKey::Others).or_insert_with(fresh).suppressed += untold;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn holder(number: u128) -> Who {
        Who { holder: Some(Uuid::from_u128(number)), ..Who::default() }
    }

    fn told(rates: &mut SenderRates, who: &Who, now: Instant, times: u32) -> u32 {
        let is_told = |_: &u32| rates.note(who, now) != Verdict::Counted;
        u32::try_from((0..times).filter(is_told).count()).unwrap()
    }

    #[test]
    fn a_sender_has_a_burst_and_a_rate_and_hides_no_other() {
        let (mut rates, start) = (SenderRates::new(), Instant::now());
        assert_eq!(told(&mut rates, &holder(1), start, 1000), BURST);
        assert_eq!(told(&mut rates, &holder(2), start, 1), 1);
        let next = rates.note(&holder(1), start + EVERY);
        assert_eq!(next, Verdict::Told { suppressed: 1000 - u64::from(BURST) });
        assert_eq!(rates.note(&holder(1), start + EVERY), Verdict::Counted);
        // However often it comes, tokens are added at their pace.
        let mut more = 0;
        for step in 0..1000 {
            more += told(&mut rates, &holder(1), start + EVERY + EVERY * step / 100, 1);
        }
        assert_eq!(more, 9);
        assert_eq!(rates.suppressed(), 1000 - u64::from(BURST) + 1 + 991);
    }

    #[test]
    fn what_was_counted_of_a_sender_that_stops_is_told_once() {
        let (mut rates, start) = (SenderRates::new(), Instant::now());
        told(&mut rates, &holder(1), start, BURST + 5);
        assert_eq!(rates.take_quiet(start + EVERY / 2), []);
        assert_eq!(rates.take_quiet(start + EVERY), [(holder(1), 5)]);
        assert_eq!(rates.take_quiet(start + EVERY * 2), []);
    }

    #[test]
    fn a_crowd_shares_a_bucket_and_users_of_one_holder_do() {
        let (mut rates, start) = (SenderRates::new(), Instant::now());
        let named = |user: u32| Who { user: Some(user.to_string()), ..holder(7) };
        for user in 0..10_000 {
            rates.note(&named(user), start);
        }
        assert_eq!(rates.buckets.len(), USERS_MAX + 1);
        for sender in 8..10_000 {
            rates.note(&holder(sender), start);
        }
        assert_eq!(rates.buckets.len(), SENDERS_MAX + 1);
        assert_eq!(told(&mut rates, &holder(20_000), start, 1), 0);
        // Full buckets make room.
        let later = start + EVERY * BURST;
        assert_eq!(told(&mut rates, &holder(20_000), later, BURST), BURST);
        assert!(rates.buckets.len() <= 4, "{}", rates.buckets.len());
    }

    #[test]
    fn senders_that_were_denied_often_and_went_away_make_room_although_nobody_asks_for_them() {
        let (mut rates, start) = (SenderRates::new(), Instant::now());
        let crowd = u128::try_from(SENDERS_MAX).unwrap();
        for sender in 0..crowd {
            told(&mut rates, &holder(sender), start, BURST + 1);
        }
        let later = start + EVERY * BURST;
        for sender in crowd..2 * crowd - 1 {
            assert_eq!(told(&mut rates, &holder(sender), later, BURST), BURST, "{sender}");
        }
        // Their counts are not lost.
        let untold: u64 = rates.buckets.values().map(|bucket| bucket.suppressed).sum();
        assert_eq!(untold, u64::try_from(SENDERS_MAX).unwrap());
        assert_eq!(rates.take_quiet(later + EVERY), [(Who::default(), untold)]);
    }

    #[test]
    fn an_address_of_ipv6_counts_by_its_network() {
        let (mut rates, now) = (SenderRates::new(), Instant::now());
        let from = |ip: &str| {
            let address = super::super::CallerAddress::Ip(ip.parse().unwrap());
            Who { address: Some(address), ..Who::default() }
        };
        assert_eq!(told(&mut rates, &from("2001:db8::1"), now, BURST), BURST);
        assert_eq!(told(&mut rates, &from("2001:db8::2:1"), now, 1), 0);
        assert_eq!(told(&mut rates, &from("2001:db8:0:1::1"), now, 1), 1);
        assert_eq!(told(&mut rates, &from("10.0.0.1"), now, BURST), BURST);
        assert_eq!(told(&mut rates, &from("::ffff:10.0.0.1"), now, 1), 0);
    }
}
