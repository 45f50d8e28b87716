//! Ranges of keys that a role or a user may read or write.

use std::collections::BTreeMap;
use std::ops::Bound;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::proto::authpb;
use crate::proto::authpb::permission::Type;

/// A way to use keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Access {
    /// Their values or versions are shown.
    Read,
    /// They are put or deleted.
    Write,
}

/// What a permission allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Allowed {
    Read,
    Write,
    ReadWrite,
}

impl Allowed {
    fn allows(self, access: Access) -> bool {
        match self {
            Self::Read => access == Access::Read,
            Self::Write => access == Access::Write,
            Self::ReadWrite => true,
        }
    }
}

/// A permission of a role.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Permission {
    pub(crate) allowed: Allowed,
    #[serde(serialize_with = "to_base64", deserialize_with = "from_base64")]
    pub(crate) key: Vec<u8>,
    /// As in a request for a range: empty for one key, and a zero byte for no end.
    #[serde(serialize_with = "to_base64", deserialize_with = "from_base64")]
    pub(crate) range_end: Vec<u8>,
}

impl Permission {
    /// Returns the permission of a message; `None` if its range has no keys or its kind is unknown.
    pub(crate) fn new(message: &authpb::Permission) -> Option<Self> {
        let allowed = match Type::try_from(message.perm_type).ok()? {
            Type::Read => Allowed::Read,
            Type::Write => Allowed::Write,
            Type::Readwrite => Allowed::ReadWrite,
        };
        let (key, end) = (&message.key[..], &message.range_end[..]);
        let is_range = !key.is_empty() && (end.is_empty() || end == [0] || key < end);
        is_range.then(|| Self { allowed, key: key.to_vec(), range_end: end.to_vec() })
    }

    /// Returns its message.
    pub(crate) fn message(&self) -> authpb::Permission {
        let perm_type = match self.allowed {
            Allowed::Read => Type::Read,
            Allowed::Write => Type::Write,
            Allowed::ReadWrite => Type::Readwrite,
        };
        authpb::Permission {
            perm_type: perm_type.into(),
            key: self.key.clone().into(),
            range_end: self.range_end.clone().into(),
        }
    }
}

/// The end of a range: the first key behind it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum End {
    Before(Vec<u8>),
    /// After all keys.
    Open,
}

impl End {
    /// Returns the end of the range of a request.
    fn of(key: &[u8], range_end: &[u8]) -> Self {
        match range_end {
            [] => Self::Before([key, &[0]].concat()),
            [0] => Self::Open,
            end => Self::Before(end.to_vec()),
        }
    }
}

/// The keys that somebody may access in one way: ranges that neither meet nor overlap, by their
/// first keys.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Ranges {
    ranges: BTreeMap<Vec<u8>, End>,
}

impl Ranges {
    fn new(permissions: &[&Permission], access: Access) -> Self {
        let allowing = permissions.iter().filter(|permission| permission.allowed.allows(access));
        let mut all: Vec<_> = allowing
            .map(|permission| {
                (permission.key.clone(), End::of(&permission.key, &permission.range_end))
            })
            .collect();
        all.sort();
        let mut ranges = BTreeMap::<Vec<u8>, End>::new();
        for (first, end) in all {
            match ranges.last_entry() {
                Some(mut last) if *last.get() >= End::Before(first.clone()) => {
                    if *last.get() < end {
                        last.insert(end);
                    }
                }
                _ => {
                    ranges.insert(first, end);
                }
            }
        }
        Self { ranges }
    }

    fn contain(&self, key: &[u8], range_end: &[u8]) -> bool {
        let before =
            self.ranges.range::<[u8], _>((Bound::Unbounded, Bound::Included(key))).next_back();
        before.is_some_and(|(_, end)| {
            *end > End::Before(key.to_vec()) && *end >= End::of(key, range_end)
        })
    }
}

/// All keys that a user may access, by all of the user's roles.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Granted {
    read: Ranges,
    write: Ranges,
}

impl Granted {
    pub(crate) fn new(permissions: &[&Permission]) -> Self {
        Self {
            read: Ranges::new(permissions, Access::Read),
            write: Ranges::new(permissions, Access::Write),
        }
    }

    /// Returns whether they cover the range of a request.
    pub(crate) fn allow(&self, access: Access, key: &[u8], range_end: &[u8]) -> bool {
        match access {
            Access::Read => self.read.contain(key, range_end),
            Access::Write => self.write.contain(key, range_end),
        }
    }
}

fn to_base64<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&data_encoding::BASE64.encode(bytes))
}

fn from_base64<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
    let text = String::deserialize(deserializer)?;
    data_encoding::BASE64.decode(text.as_bytes()).map_err(serde::de::Error::custom)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn permission(allowed: Allowed, key: &str, end: &str) -> Permission {
        Permission { allowed, key: key.into(), range_end: end.into() }
    }

    fn grants(permissions: &[Permission]) -> Granted {
        Granted::new(&permissions.iter().collect::<Vec<_>>())
    }

    #[test]
    fn ranges_that_meet_allow_a_request_over_both() {
        let grants = grants(&[
            permission(Allowed::Read, "a", "c"),
            permission(Allowed::ReadWrite, "c", "e"),
            permission(Allowed::Read, "x", ""),
        ]);
        let reads =
            |key: &str, end: &str| grants.allow(Access::Read, key.as_bytes(), end.as_bytes());
        assert!(reads("a", "e") && reads("b", "d") && reads("a", "") && reads("x", ""));
        assert!(reads("x", "x\0"), "a range of one key");
        assert!(!reads("a", "f") && !reads("e", "") && !reads("x", "y") && !reads("a", "\0"));
        assert!(!grants.allow(Access::Write, b"b", b""));
        assert!(grants.allow(Access::Write, b"c", b"e"));
    }

    #[test]
    fn a_zero_byte_is_no_end() {
        let grants = grants(&[permission(Allowed::Write, "m", "\0")]);
        assert!(grants.allow(Access::Write, b"m", b"\0"));
        assert!(grants.allow(Access::Write, b"zz", b""));
        assert!(!grants.allow(Access::Write, b"l", b"\0"));
    }

    #[test]
    fn ranges_without_keys_are_no_permissions() {
        let message = |key: &'static str, range_end: &'static str| authpb::Permission {
            perm_type: 0,
            key: key.into(),
            range_end: range_end.into(),
        };
        assert!(Permission::new(&message("a", "b")).is_some());
        assert!(Permission::new(&message("b", "\0")).is_some());
        assert!(Permission::new(&message("", "\0")).is_none());
        assert!(Permission::new(&message("b", "a")).is_none());
        assert!(Permission::new(&message("b", "b")).is_none());
        let unknown = authpb::Permission { perm_type: 9, ..message("a", "") };
        assert!(Permission::new(&unknown).is_none());
    }

    const KEYS: [&str; 7] = ["a", "b", "c", "d", "e", "f", "g"];

    fn range() -> impl Strategy<Value = (String, String)> {
        (0..6usize, 0..8usize).prop_map(|(first, end)| {
            let key = KEYS[first].to_owned();
            match end {
                0 => (key, String::new()),
                7 => (key, "\0".to_owned()),
                end => (key, KEYS[(first + end).min(6)].to_owned()),
            }
        })
    }

    /// Returns the single keys of a range, of those that the test knows and some between them.
    fn keys_of((key, end): &(String, String)) -> Vec<String> {
        let all = KEYS.iter().flat_map(|key| [(*key).to_owned(), format!("{key}5")]);
        let all = all.chain(["z".to_owned()]);
        match end.as_str() {
            "" => vec![key.clone()],
            "\0" => all.filter(|it| it >= key).collect(),
            end => all.filter(|it| it >= key && it.as_str() < end).collect(),
        }
    }

    proptest! {
        #[test]
        fn a_range_is_allowed_if_each_of_its_keys_is(
            allowed in prop::collection::vec(range(), 0..5),
            wanted in range(),
        ) {
            let permissions: Vec<_> = allowed
                .iter()
                .map(|(key, end)| permission(Allowed::ReadWrite, key, end))
                .collect();
            let granted: Vec<_> = allowed.iter().flat_map(keys_of).collect();
            let expected = keys_of(&wanted).iter().all(|key| granted.contains(key));
            let (key, end) = &wanted;
            let got = grants(&permissions).allow(Access::Read, key.as_bytes(), end.as_bytes());
            prop_assert_eq!(got, expected);
        }
    }
}
