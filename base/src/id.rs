//! Ids and positions, each as a newtype.
//!
//! A bare integer does not say what it counts, and two of them are easily swapped. So every id and
//! every position in a message or a file is a newtype, with one `Display` form that logs, files and
//! certificates share.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::platform;

/// How far a term may be ahead of the known one, in terms. A node that was away for long meets a
/// later term: an election every second for half a year stays below this.
pub const TERMS_AHEAD_MAX: u64 = 1 << 24;
/// Highest term that is accepted where none is known: one election per millisecond for 34 years.
pub const FIRST_TERM_MAX: u64 = 1 << 40;

const _: () = {
    // Where no term is known, all terms are acceptable that are where one is known.
    assert!(TERMS_AHEAD_MAX < FIRST_TERM_MAX);
};

macro_rules! uuid_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
        #[derive(Serialize, Deserialize)]
        pub struct $name(pub Uuid);

        impl $name {
            /// A fresh random id.
            pub fn random() -> Self {
                Self(platform::random_uuid())
            }

            /// The first eight hexadecimal digits, enough for people to tell ids apart.
            pub fn short(&self) -> String {
                let mut text = self.0.simple().to_string();
                text.truncate(8);
                text
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.hyphenated().fmt(f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.short())
            }
        }

        impl FromStr for $name {
            type Err = uuid::Error;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                Uuid::parse_str(text).map(Self)
            }
        }
    };
}

uuid_id! {
    /// Names a network: everything that one registration server admits.
    NetworkId
}
uuid_id! {
    /// Names a node. It lives and dies with the node's data directory and is never given out twice.
    NodeId
}
uuid_id! {
    /// Names the holder of a certificate or bearer token: a node, a client, an administrator, a
    /// server.
    HolderId
}
uuid_id! {
    /// Names a session: one run of a client. Its [`Serial`]s are counted from one.
    SessionId
}

impl From<NodeId> for HolderId {
    fn from(node: NodeId) -> Self {
        Self(node.0)
    }
}

macro_rules! number {
    ($(#[$doc:meta])* $name:ident($inner:ty)) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
        #[derive(Serialize, Deserialize)]
        pub struct $name(pub $inner);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

number! {
    /// Names a Raft group of a network: [`GroupId::CONTROL`], or the group of a shard.
    GroupId(u32)
}
number! {
    /// Names a keyspace of a network. No id is given out twice.
    KeyspaceId(u32)
}
number! {
    /// A Raft term. Each has at most one leader, and terms never go back.
    Term(u64)
}
number! {
    /// The number that a shard gives a write. It only grows; zero means "before any write".
    Revision(u64)
}
number! {
    /// A moment of the network's clock; see [`hlc`](crate::hlc). Zero is before every moment.
    Stamp(u64)
}
number! {
    /// The number that a node's outbox gives an eventual write of a shard, from one. Together with
    /// the node it identifies the write.
    Number(u64)
}
number! {
    /// The number that a session gives a write. A shard executes each at most once.
    Serial(u64)
}

/// Names a lease in a keyspace: 1 to [`LeaseId::LAST`]. Written in hexadecimal. Zero, the default,
/// stands for "no lease".
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct LeaseId(pub u64);

impl LeaseId {
    /// The highest id: one of 63 bits, so that protocols with signed numbers can name it.
    pub const LAST: Self = Self(i64::MAX as u64);

    /// A fresh random id.
    pub fn random() -> Self {
        Self((platform::random_u64() >> 1) | 1)
    }

    /// Whether it names a lease.
    pub fn is_valid(self) -> bool {
        self != Self::default() && self <= Self::LAST
    }
}

impl fmt::Display for LeaseId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl fmt::Debug for LeaseId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for LeaseId {
    type Err = BadLeaseId;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let is_hex = text.bytes().all(|byte| byte.is_ascii_hexdigit());
        let number = u64::from_str_radix(text, 16).ok().filter(|_| is_hex).map(Self);
        number.filter(|id| id.is_valid()).ok_or(BadLeaseId)
    }
}

/// A text that is not the id of a lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a lease id is a hexadecimal number from 1 to 7fffffffffffffff")]
pub struct BadLeaseId;

impl Term {
    /// Whether this term is plausible to a node that knows the term `known`, or none.
    ///
    /// Terms only grow, so accepting one rules out all lower ones for good. Elections raise them by
    /// one at a time; a leap is a forgery or damage, and must be refused.
    pub fn may_follow(self, known: Option<Self>) -> bool {
        match known {
            Some(known) => self.0 <= known.0.saturating_add(TERMS_AHEAD_MAX),
            None => self.0 <= FIRST_TERM_MAX,
        }
    }
}

impl KeyspaceId {
    /// The keyspace that every network has from its founding, and that cannot be dropped.
    pub const DEFAULT: Self = Self(0);
}

impl GroupId {
    /// The greatest id of a shard.
    pub const SHARD_MAX: Self = Self(Self::OUTBOXES - 1);

    /// The group whose state is the directory and whose leader is the coordinator.
    pub const CONTROL: Self = Self(0);

    /// Numbers from here on name no group: a node's log keeps its outboxes under them.
    const OUTBOXES: u32 = 1 << 31;

    /// Whether this group holds keys: whether it is a shard.
    pub fn is_shard(self) -> bool {
        self != Self::CONTROL && self.0 < Self::OUTBOXES
    }

    /// The number under which a node's log keeps the outbox of this shard.
    pub fn outbox(self) -> Self {
        Self(self.0 | Self::OUTBOXES)
    }

    /// The shard whose outbox a node's log keeps under this number, if it is one of an outbox.
    pub fn outbox_shard(self) -> Option<Self> {
        let shard = Self(self.0 & !Self::OUTBOXES);
        (self.0 >= Self::OUTBOXES && shard.is_shard()).then_some(shard)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_id_of_a_lease_is_read_as_it_is_written() {
        let id = LeaseId::random();
        assert!(id.is_valid(), "{id}");
        assert_eq!(id.to_string().parse(), Ok(id));
        assert_eq!("1F".parse(), Ok(LeaseId(31)));
        assert_eq!("7fffffffffffffff".parse(), Ok(LeaseId::LAST));
        for text in ["", "0", "+1", "8000000000000000", "10000000000000000", "g"] {
            assert_eq!(text.parse::<LeaseId>(), Err(BadLeaseId), "{text}");
        }
    }
}
