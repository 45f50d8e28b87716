//! A limit of bytes a second.

use std::time::Duration;

use tokio::time::Instant;

/// Longest time that is made up for after a pause.
const CREDIT: Duration = Duration::from_millis(200);

/// Spreads bytes over time.
#[derive(Debug)]
pub(crate) struct Throttle {
    rate: Option<u64>,
    free_at: Instant,
}

impl Throttle {
    /// Creates a throttle for a rate in bytes a second; without one it never waits.
    pub(crate) fn new(rate: Option<u64>) -> Self {
        Self { rate: rate.filter(|rate| *rate > 0), free_at: Instant::now() }
    }

    /// Waits until this many bytes more are within the rate.
    pub(crate) async fn take(&mut self, bytes: u64) {
        let Some(rate) = self.rate else { return };
        let now = Instant::now();
        let earliest = now.checked_sub(CREDIT).unwrap_or(now);
        let time = Duration::from_secs_f64(bytes as f64 / rate as f64);
        self.free_at = self.free_at.max(earliest) + time;
        tokio::time::sleep_until(self.free_at).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn bytes_take_their_time() {
        let (mut throttle, begun) = (Throttle::new(Some(10_000)), Instant::now());
        for _ in 0..60 {
            throttle.take(100).await;
        }
        let took = begun.elapsed();
        assert!(took >= Duration::from_millis(390), "{took:?}");
        Throttle::new(None).take(u64::MAX).await;
    }
}
