//! Delays for rehearsal: how long what one process sends to another is held back.
//!
//! A network on one machine, or in one room, can be given the distances of a network that spans the
//! world. [`Delays`] is the part of the settings that says how far apart regions, or single nodes,
//! are; a `Wander` makes of an average the delay of each moment. What holds datagrams back is
//! `line`.
//!
//! Order is kept: of two datagrams on one way the later one never arrives earlier. Delays that are
//! drawn for each datagram would either overtake each other, which QUIC takes for loss, or add up
//! to more than their average. So a delay that varies wanders: between zero and twice its average,
//! each as likely as the other, and never faster than time passes.

use std::net::SocketAddr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::limits;
use crate::name::{NAME_RULE, NameError, check_name};
use crate::network::{NodeInfo, SettingsError};
use crate::region::Region;

/// Average delays, one way, between regions or single nodes. Empty: nothing is held back.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Delays {
    /// Names of regions or of nodes. A node that has its own name here is not in its region as far
    /// as delays go; one that is not here at all, and the server, are next to everybody.
    pub between: Vec<String>,
    /// From each of them, to each of them, in milliseconds.
    pub average_ms: Vec<Vec<u32>>,
    /// Whether a delay wanders between zero and twice its average; if not, it is its average.
    pub vary: bool,
}

/// How long datagrams to and from one address are held back, on average.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Way {
    /// What is sent there.
    pub to: Duration,
    /// What comes from there, if the sender does not do it.
    pub from: Duration,
}

impl Delays {
    /// Whether nothing is held back.
    pub fn is_empty(&self) -> bool {
        self.between.is_empty()
    }

    /// Checks names and numbers.
    pub(crate) fn check(&self) -> Result<(), SettingsError> {
        let fail = |setting, problem: String| Err(SettingsError { setting, problem });
        let count = self.between.len();
        if count > limits::DELAYS_MAX {
            return fail("delays_between", format!("must be at most {}", limits::DELAYS_MAX));
        }
        for (index, name) in self.between.iter().enumerate() {
            // Every region could be the name of a node.
            if let Err(NameError(name)) = check_name(name) {
                let why = format!("{name:?} cannot be a region or a node's name: {NAME_RULE}");
                return fail("delays_between", why);
            }
            if self.between[..index].contains(name) {
                return fail("delays_between", format!("names {name} twice"));
            }
        }
        if count == 0 && self.vary {
            let problem = "must be false without delays_between: there is no delay that could vary";
            return fail("delays_vary", problem.into());
        }
        if self.average_ms.len() != count {
            let rows = self.average_ms.len();
            return fail(
                "delays_ms",
                format!(
                    "must have a row for each of delays_between, that is {count}, and has {rows}"
                ),
            );
        }
        for (name, row) in self.between.iter().zip(&self.average_ms) {
            if row.len() != count {
                return fail(
                    "delays_ms",
                    format!(
                        "must have {count} numbers in the row of {name}, one for each of \
                         delays_between, and has {}",
                        row.len()
                    ),
                );
            }
            if let Some(ms) = row.iter().find(|ms| **ms > limits::DELAY_MS_MAX) {
                return fail(
                    "delays_ms",
                    format!("must be at most {} each; {name} has {ms}", limits::DELAY_MS_MAX),
                );
            }
        }
        Ok(())
    }

    /// Where in [`between`](Self::between) a process is that has this name and is in this region.
    pub fn place(&self, name: Option<&str>, region: Option<&Region>) -> Option<usize> {
        let find = |wanted: &str| self.between.iter().position(|name| name == wanted);
        name.and_then(find).or_else(|| find(region?.as_str()))
    }

    /// What is said to a process in a region that has no delays.
    ///
    /// # Errors
    /// If there are delays, and none for it: what it measures would not be what it is there for.
    pub fn check_place(
        &self,
        name: Option<&str>,
        region: Option<&Region>,
    ) -> Result<(), UnknownRegion> {
        match region {
            Some(region) if !self.is_empty() && self.place(name, Some(region)).is_none() => {
                Err(UnknownRegion { region: region.clone(), known: self.between.join(", ") })
            }
            _ => Ok(()),
        }
    }

    /// From one [place](Self::place) to another.
    pub fn average(&self, from: usize, to: usize) -> Duration {
        let ms = self.average_ms.get(from).and_then(|row| row.get(to)).copied().unwrap_or_default();
        Duration::from_millis(u64::from(ms))
    }

    /// The ways between a process at `own` and these nodes.
    pub fn ways<'a>(
        &self,
        own: Option<usize>,
        nodes: impl IntoIterator<Item = &'a NodeInfo>,
    ) -> Vec<(SocketAddr, Way)> {
        let Some(own) = own else { return Vec::new() };
        let ways = nodes.into_iter().filter_map(|node| {
            let there = self.place(Some(&node.name), node.region.as_ref())?;
            let way = Way { to: self.average(own, there), from: self.average(there, own) };
            (way != Way::default()).then_some((node.address, way))
        });
        ways.collect()
    }
}

/// A region that the delays of the network do not have.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("this network has delays between {known}, and none for the region {region}")]
pub struct UnknownRegion {
    region: Region,
    known: String,
}

/// The delay of one way, as it changes.
///
/// It goes up or down by half a millisecond in each, turns where it meets zero or twice its
/// average, and may turn in between. Unfolded, that is a walk on a circle, at no point of which it
/// is longer than at any other: in the long run each delay in between is as likely as any other.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wander {
    average: Duration,
    vary: bool,
    /// On a circle of four averages: up on its first half, down on its second.
    position: Duration,
    forward: bool,
    /// When the position was that, and until when the direction stays.
    at: Duration,
    until: Duration,
}

impl Wander {
    /// A delay with this average, which is always that unless it varies.
    pub(crate) fn new(average: Duration, vary: bool) -> Self {
        let zero = Duration::ZERO;
        Self { average, vary, position: zero, forward: true, at: zero, until: zero }
    }

    /// Whether it is nothing, for good.
    pub(crate) fn is_zero(&self) -> bool {
        self.average.is_zero()
    }

    /// The delay at `now`, which never goes back.
    pub(crate) fn delay(&mut self, now: Duration, mut random: impl FnMut() -> u64) -> Duration {
        if !self.vary || self.is_zero() {
            return self.average;
        }
        let circle = self.average * 4;
        let part = |random: u64| circle.mul_f64((random >> 11) as f64 / (1_u64 << 53) as f64);
        if now >= self.until + circle * 2 {
            // So long ago that nothing which was sent then is still under way.
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
            self.position = rest(self.position + moved, circle);
            self.at += step;
        }
        self.position.min(circle - self.position)
    }
}

/// What is left of a duration when `whole` is taken away as often as it is in it.
fn rest(mut duration: Duration, whole: Duration) -> Duration {
    while duration >= whole {
        duration -= whole;
    }
    duration
}

#[cfg(test)]
mod tests;
