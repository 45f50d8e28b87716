//! Ids and positions, each a type of its own.
//!
//! A bare integer says nothing about what it counts, and two bare integers can be exchanged by
//! mistake. So every id and every position that crosses a process boundary is a newtype here, with
//! one `Display` form that logs, files and certificates share.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::platform;

/// How far a term may be past the one that is known, in terms. Somebody who was away meets a later
/// one: an election every second for half a year is less than this.
pub const TERMS_AHEAD_MAX: u64 = 1 << 24;
/// Highest term that is taken by somebody who knows none: an election a millisecond for 34 years.
pub const FIRST_TERM_MAX: u64 = 1 << 40;

const _: () = {
    // Whoever begins can follow whoever has been there.
    assert!(TERMS_AHEAD_MAX < FIRST_TERM_MAX);
};

macro_rules! uuid_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
        pub struct $name(pub Uuid);

        impl $name {
            /// A fresh random id.
            pub fn random() -> Self {
                Self(platform::random_uuid())
            }

            /// The first eight hexadecimal digits, enough for a person to tell ids apart.
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
    /// A network: everything that one registration server admits.
    NetworkId
}
uuid_id! {
    /// A node. It lives and dies with the node's data directory and is never given out twice.
    NodeId
}
uuid_id! {
    /// The holder of a certificate that is not a node: a client, an administrator, a server.
    HolderId
}
uuid_id! {
    /// One run of a client. Its serials are counted from one; see [`Serial`].
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
        #[derive(
            Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize,
        )]
        pub struct $name(pub $inner);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

number! {
    /// A Raft group of a network: [`GroupId::CONTROL`], or one for each shard.
    GroupId(u32)
}
number! {
    /// A Raft term: at most one leader each, never going back.
    Term(u64)
}
number! {
    /// The number that a shard gives a write. It only grows; zero means "before any write".
    Revision(u64)
}
number! {
    /// A moment of the network's clock; see [`hlc`](crate::hlc). Zero: before all of them.
    Stamp(u64)
}
number! {
    /// The number that a node's outbox gives an eventual write of a shard, from one; together with
    /// the node it names the write.
    Number(u64)
}
number! {
    /// The number that a session gives a write. A shard executes each at most once.
    Serial(u64)
}

impl Term {
    /// Whether a message may speak of this term to somebody who knows of `known`, or of none.
    ///
    /// Terms only grow, so one that is taken once rules all lower ones out for good. By what it
    /// takes to be elected they grow by one at a time; a leap is a lie or damage, and is to be
    /// refused.
    pub fn may_follow(self, known: Option<Self>) -> bool {
        match known {
            Some(known) => self.0 <= known.0.saturating_add(TERMS_AHEAD_MAX),
            None => self.0 <= FIRST_TERM_MAX,
        }
    }
}

impl GroupId {
    /// The group whose state is the directory and whose leader is the coordinator.
    pub const CONTROL: Self = Self(0);

    /// Numbers from here on are those of no group: a node's log has its outboxes under them.
    const OUTBOXES: u32 = 1 << 31;

    /// Whether this group holds keys, that is, whether it is a shard.
    pub fn is_shard(self) -> bool {
        self != Self::CONTROL && self.0 < Self::OUTBOXES
    }

    /// What the outbox of this shard goes by in a node's log.
    pub fn outbox(self) -> Self {
        Self(self.0 | Self::OUTBOXES)
    }

    /// The shard whose outbox goes by this in a node's log.
    pub fn outbox_shard(self) -> Option<Self> {
        let shard = Self(self.0 & !Self::OUTBOXES);
        (self.0 >= Self::OUTBOXES && shard.is_shard()).then_some(shard)
    }
}
