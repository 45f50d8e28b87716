//! A delay that varies and never lets a later datagram overtake an earlier one.
//!
//! Delays drawn for each datagram by itself would either overtake each other, which QUIC takes for
//! loss, or add up to more than their average. So a varying delay wanders between zero and twice
//! its average, every value equally likely, and never changes faster than time passes.

use std::time::Duration;

/// The delay of one direction of a link, which changes over time.
///
/// It rises or falls by half a millisecond per millisecond, turns at zero and at twice its average,
/// and may turn in between. Unfolded, that is a walk on a circle that spends the same time at every
/// point: in the long run every delay between the two ends is equally likely.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wander {
    average: Duration,
    vary: bool,
    /// Position on a circle of four averages: the delay rises on the first half and falls on the
    /// second.
    position: Duration,
    forward: bool,
    /// The time at which the position was computed.
    at: Duration,
    /// The time until which the direction stays.
    until: Duration,
}

impl Wander {
    /// A delay with this average: constant, unless it varies.
    pub(super) fn new(average: Duration, vary: bool) -> Self {
        let zero = Duration::ZERO;
        Self { average, vary, position: zero, forward: true, at: zero, until: zero }
    }

    /// Whether it is always zero.
    pub(super) fn is_zero(&self) -> bool {
        self.average.is_zero()
    }

    /// The delay at `now`. Calls must not go back in time.
    pub(super) fn delay(&mut self, now: Duration, mut random: impl FnMut() -> u64) -> Duration {
        if !self.vary || self.is_zero() {
            return self.average;
        }
        let circle = self.average * 4;
        let part = |random: u64| circle.mul_f64((random >> 11) as f64 / (1_u64 << 53) as f64);
        if now >= self.until + circle * 2 {
            // Nothing that was sent before the pause can still be under way, so the walk may start
            // anywhere.
            self.position = part(random());
            self.at = now;
            self.until = now;
        }
        while self.at < now {
            if self.at >= self.until {
                let drawn = random();
                self.forward = drawn & 1 == 0;
                self.until = self.at + part(drawn).max(Duration::from_millis(1));
            }
            let step = now.min(self.until) - self.at;
            let moved = step / 2;
            let moved = if self.forward { moved } else { circle - moved };
            self.position = remainder(self.position + moved, circle);
            self.at += step;
        }
        self.position.min(circle - self.position)
    }
}

/// The remainder of a duration after division by `whole`.
fn remainder(mut duration: Duration, whole: Duration) -> Duration {
    while duration >= whole {
        duration -= whole;
    }
    duration
}

#[cfg(test)]
mod tests;
