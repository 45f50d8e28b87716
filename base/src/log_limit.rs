//! A limit of log lines by who causes them.
//!
//! A peer that can cause a line of the log can fill the disk with it, and hide other lines. Each
//! sender gets a line at a time, which says how many there were before, and only so many senders
//! get any.
//!
//! Deliberately missing: the clock, and the log itself.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// Shortest time between two log lines about one sender.
pub const TELL_EVERY: Duration = Duration::from_secs(10);

/// Recent lines by sender.
#[derive(Debug)]
pub struct LogLimit<K> {
    by_sender: BTreeMap<K, Sender>,
    most: usize,
}

#[derive(Debug)]
struct Sender {
    told: Instant,
    since: u64,
}

impl<K: Ord> LogLimit<K> {
    /// A limit that tracks `most` senders at a time. There are no lines about further ones.
    pub fn new(most: usize) -> Self {
        Self { by_sender: BTreeMap::new(), most }
    }

    /// Counts an event. Returns `Some` if it should be logged, with the number of unlogged events
    /// of this sender before it.
    pub fn note(&mut self, sender: K, now: Instant) -> Option<u64> {
        let is_old = |told: Instant| now.saturating_duration_since(told) >= TELL_EVERY;
        if let Some(known) = self.by_sender.get_mut(&sender) {
            if !is_old(known.told) {
                known.since += 1;
                return None;
            }
            let untold = std::mem::take(&mut known.since);
            known.told = now;
            return Some(untold);
        }
        if self.by_sender.len() >= self.most {
            self.by_sender.retain(|_, sender| !is_old(sender.told));
        }
        if self.by_sender.len() >= self.most {
            return None;
        }
        self.by_sender.insert(sender, Sender { told: now, since: 0 });
        Some(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sender_is_told_of_now_and_then_and_a_crowd_is_not() {
        let (mut told, start) = (LogLimit::new(64), Instant::now());
        let sender = (0, None);
        assert_eq!(told.note(sender, start), Some(0));
        for _ in 0..1000 {
            assert_eq!(told.note(sender, start + TELL_EVERY / 2), None);
        }
        assert_eq!(told.note(sender, start + TELL_EVERY), Some(1000));
        for number in 1..640 {
            told.note((number, None), start + TELL_EVERY);
        }
        assert_eq!(told.by_sender.len(), 64);
        assert_eq!(told.note((640, None), start + TELL_EVERY * 2), Some(0));
        assert!(told.by_sender.len() <= 64);
        // The caller chooses what makes a sender.
        let later = start + TELL_EVERY * 2;
        assert_eq!(told.note((640, Some("alice")), later), Some(0));
        assert_eq!(told.note((640, Some("alice")), later), None);
    }
}
