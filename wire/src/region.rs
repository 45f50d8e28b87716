//! Regions: the rough location of a process.
//!
//! A region is a name that an operator gives to a place. Two processes with the same region count
//! as near each other. Processes without a region count as near each other too.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::limits;

/// The name of a region.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Region(Box<str>);

/// A text that is not a valid region name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} cannot be a region: a region has 1 to {max} lower-case letters, digits, '-', '_' or '.', \
     and begins with a letter or digit",
    max = limits::REGION_BYTES_MAX
)]
pub struct RegionError(String);

impl Region {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Region {
    type Err = RegionError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        // Lower case only: "EU" and "eu" would be a slip, not two places.
        let letter = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
        let fits = (1..=limits::REGION_BYTES_MAX).contains(&text.len());
        if fits
            && text.as_bytes().first().is_some_and(letter)
            && text.bytes().all(|byte| letter(&byte) || b"-_.".contains(&byte))
        {
            return Ok(Self(text.into()));
        }
        Err(RegionError(text.chars().take(limits::REGION_BYTES_MAX).collect()))
    }
}

impl TryFrom<String> for Region {
    type Error = RegionError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<Region> for String {
    fn from(region: Region) -> Self {
        region.0.into()
    }
}

impl fmt::Display for Region {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl fmt::Debug for Region {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::{decode, encode};

    #[test]
    fn region_names_follow_the_rule() {
        let longest = "a".repeat(limits::REGION_BYTES_MAX);
        for good in ["eu", "us-east", "0", "a.b_c-9", &longest] {
            let region: Region = good.parse().unwrap();
            assert_eq!(region.to_string(), good);
            assert_eq!(decode::<Region>(&encode(&region)), Ok(region));
        }
        let longer = "a".repeat(limits::REGION_BYTES_MAX + 1);
        for bad in ["", "EU", "-a", ".", "a b", "ä", "a/b", "a\n", &longer] {
            let said = bad.parse::<Region>().unwrap_err().to_string();
            assert!(said.contains("cannot be a region: a region has 1 to 32"), "{said}");
            // A peer cannot send one either.
            assert!(decode::<Region>(&encode(&bad.to_owned())).is_err(), "{bad:?}");
        }
    }
}
