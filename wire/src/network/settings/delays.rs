//! Emulated distances: how long every process holds back what it sends to others.
//!
//! A network on one machine, or in one room, can be given the distances of a network that spans the
//! world. [`Delays`] is the part of the settings that says how far apart regions, or single nodes,
//! are. The socket that holds the datagrams back is `delayed_socket`.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::SettingsError;
use crate::limits;
use crate::name::{NAME_RULE, NameError, check_name};
use crate::region::Region;

/// Average delays, one way, between regions or single nodes. If empty, nothing is delayed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Delays {
    /// Names of regions or nodes. A node listed by name has its own delays instead of those of its
    /// region. The server, and a node listed neither way, have no delay to anyone.
    pub between: Vec<String>,
    /// The delay from each of them to each of them, in milliseconds.
    pub average_ms: Vec<Vec<u32>>,
    /// Whether delays wander between zero and twice their average, instead of being constant.
    pub vary: bool,
}

/// How long datagrams to and from one address are held back, on average.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LinkDelay {
    /// Delay of what is sent there.
    pub to: Duration,
    /// Delay of what arrives from there, if the sender does not hold it back itself.
    pub from: Duration,
}

impl Delays {
    /// Whether nothing is delayed.
    pub fn is_empty(&self) -> bool {
        self.between.is_empty()
    }

    /// Checks the names and numbers.
    pub(super) fn check(&self) -> Result<(), SettingsError> {
        let fail = |setting, problem: String| Err(SettingsError { setting, problem });
        let count = self.between.len();
        if count > limits::DELAYS_MAX {
            return fail("delays_between", format!("must be at most {}", limits::DELAYS_MAX));
        }
        for (index, name) in self.between.iter().enumerate() {
            // Every region name is a valid node name too.
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

    /// The position in [`between`](Self::between) of a process with this name and region.
    pub fn place(&self, name: Option<&str>, region: Option<&Region>) -> Option<usize> {
        let find = |wanted: &str| self.between.iter().position(|name| name == wanted);
        name.and_then(find).or_else(|| find(region?.as_str()))
    }

    /// Checks that a process in a region has delays, if there are any: without them its
    /// measurements would be misleading.
    ///
    /// # Errors
    /// If the network has delays, and none for the region.
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

    /// The average delay from one [place](Self::place) to another.
    pub fn average(&self, from: usize, to: usize) -> Duration {
        let ms = self.average_ms.get(from).and_then(|row| row.get(to)).copied().unwrap_or_default();
        Duration::from_millis(u64::from(ms))
    }
}

/// A region that is missing in the delays of the network.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("this network has delays between {known}, and none for the region {region}")]
pub struct UnknownRegion {
    region: Region,
    known: String,
}

#[cfg(test)]
mod tests;
