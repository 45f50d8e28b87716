//! The rate at which a peer reads answers, and frames of streams. Those of which it reads less than
//! the least rate keep room that others need, however short each is.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use dkv_base::sync::lock;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep};

use crate::limits::{ANSWER_RATE_BYTES, ANSWER_RATE_CHECK, ANSWER_RATE_GRACE};

/// The answers and frames that a connection keeps.
#[derive(Default)]
pub(super) struct ReadingRates {
    all: Mutex<Vec<Weak<ReadingRate>>>,
    begun: Notify,
}

/// How far an answer or frame is, until this is dropped.
pub(super) struct ReadingRate {
    begun: Instant,
    bytes: AtomicUsize,
}

impl Default for ReadingRate {
    fn default() -> Self {
        Self { begun: Instant::now(), bytes: AtomicUsize::new(0) }
    }
}

impl ReadingRate {
    /// Notes that the connection has taken bytes.
    pub(super) fn note(&self, bytes: usize) {
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    fn is_overdue(&self, now: Instant) -> bool {
        let seconds = self.bytes.load(Ordering::Relaxed) / ANSWER_RATE_BYTES;
        let until = self.begun + ANSWER_RATE_GRACE + Duration::from_secs(seconds as u64);
        until <= now
    }
}

impl ReadingRates {
    /// Begins an answer or frame.
    pub(super) fn begin(&self) -> Arc<ReadingRate> {
        let rate = Arc::<ReadingRate>::default();
        let mut all = lock(&self.all);
        if all.len() == all.capacity() {
            all.retain(|rate| rate.strong_count() > 0);
            // However many are left, the next such look is as many answers away.
            let left = all.len();
            all.reserve(left);
        }
        all.push(Arc::downgrade(&rate));
        self.begun.notify_one();
        rate
    }

    /// Completes once one is behind the least rate for too long.
    pub(super) async fn overdue(&self) {
        loop {
            self.begun.notified().await;
            while let Some(is_overdue) = self.look() {
                if is_overdue {
                    return;
                }
                sleep(ANSWER_RATE_CHECK).await;
            }
        }
    }

    /// Returns whether one is overdue; `None` if there is none at all.
    fn look(&self) -> Option<bool> {
        let mut all = lock(&self.all);
        all.retain(|rate| rate.strong_count() > 0);
        let now = Instant::now();
        let alive = all.iter().filter_map(Weak::upgrade);
        (!all.is_empty()).then(|| alive.into_iter().any(|rate| rate.is_overdue(now)))
    }
}
