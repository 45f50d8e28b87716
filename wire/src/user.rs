//! Users: the names by which the directory grants rights to holders.
//!
//! A join token or bearer token may name a user. The server then writes the name into the
//! certificate, or into the signed claims of the bearer token, so that every process knows the user
//! from what it has authenticated. Any number of holders may be the same user.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::limits::USER_BYTES_MAX;

/// The name of a user: 1 to [`USER_BYTES_MAX`] lower-case letters, digits and `-`, the first and
/// the last of them no `-`, so that it is a label of a DNS name.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct User {
    /// The bytes of the name; those after it are zero.
    bytes: [u8; USER_BYTES_MAX],
    length: u8,
}

/// A text that cannot be the name of a user.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} cannot be a user: a user has 1 to {USER_BYTES_MAX} lower-case letters, digits or '-', \
     and begins and ends with a letter or digit"
)]
pub struct InvalidUser(String);

impl User {
    /// The name.
    pub fn as_str(&self) -> &str {
        let name = self.bytes.get(..usize::from(self.length)).unwrap_or_default();
        std::str::from_utf8(name).unwrap_or_default()
    }
}

impl FromStr for User {
    type Err = InvalidUser;

    fn from_str(text: &str) -> Result<Self, InvalidUser> {
        let good = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        let fits = (1..=USER_BYTES_MAX).contains(&text.len());
        if !fits || !text.bytes().all(good) || text.starts_with('-') || text.ends_with('-') {
            return Err(InvalidUser(text.chars().take(USER_BYTES_MAX).collect()));
        }
        let mut bytes = [0; USER_BYTES_MAX];
        for (to, from) in bytes.iter_mut().zip(text.bytes()) {
            *to = from;
        }
        Ok(Self { bytes, length: u8::try_from(text.len()).unwrap_or_default() })
    }
}

impl fmt::Display for User {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl fmt::Debug for User {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Serialize for User {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for User {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;
        impl serde::de::Visitor<'_> for Text {
            type Value = User;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("the name of a user")
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<User, E> {
                text.parse().map_err(E::custom)
            }
        }
        deserializer.deserialize_str(Text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_is_a_label_of_a_dns_name() {
        let longest = "x".repeat(USER_BYTES_MAX);
        for good in ["a", "alice", "svc-7", "7", &longest] {
            let user: User = good.parse().unwrap();
            assert_eq!(user.as_str(), good);
            let encoded = crate::codec::encode(&user);
            assert_eq!(crate::codec::decode::<User>(&encoded), Ok(user));
        }
        let long = "x".repeat(USER_BYTES_MAX + 1);
        for bad in ["", "-", "-a", "a-", "Alice", "a.b", "a b", "a\x1b[2J", "\u{e4}", &long] {
            let error = bad.parse::<User>().unwrap_err().to_string();
            assert!(!error.contains('\x1b'), "{error}");
            let encoded = crate::codec::encode(&bad.to_owned());
            assert!(crate::codec::decode::<User>(&encoded).is_err(), "{bad}");
        }
    }
}
