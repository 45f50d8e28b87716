//! The books of a network: its join tokens and the holders that they admitted, as registration
//! servers and the coordinator exchange them.
//!
//! The control group keeps the books and orders their changes. What a record says is the servers'
//! business: to the control group it is bytes under a key. A change names the version that it was
//! decided on, and takes effect only if no other change came first; so no two servers decide on
//! the same use of a token.

use std::net::SocketAddr;

use bytes::Bytes;
use dkv_base::id::HolderId;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// What a record of the books is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum BookKey {
    /// A join token.
    Token(Uuid),
    /// The holder of a certificate or bearer token.
    Holder(HolderId),
}

/// One state of the books.
///
/// Its number alone does not tell which one it is: a control group that has lost its latest entries
/// counts to the same number again, by other changes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BooksVersion {
    /// How many changes made it, and a leap for each offline recovery.
    pub number: u64,
    /// The id of the last change; nil if there was none, or after an offline recovery.
    pub change: Uuid,
}

/// A change of the books.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BooksChange {
    /// Chosen at random by the server, so that it can find out whether a change whose answer was
    /// lost took effect.
    pub id: Uuid,
    /// The version that the change was decided on. The change makes the next one.
    pub at: BooksVersion,
    /// Whether the books are complete after the change. The founding server hands them over in
    /// several changes; until the last one, no other server may go by them.
    pub complete: bool,
    /// The new records, of at most [`BOOK_RECORD_BYTES_MAX`](crate::limits::BOOK_RECORD_BYTES_MAX)
    /// bytes each; `None` removes one.
    pub records: Vec<(BookKey, Option<Bytes>)>,
    /// New registration servers and their addresses; `None` removes one.
    pub servers: Vec<(HolderId, Option<SocketAddr>)>,
}

/// A part of the books, in the order of the keys.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BooksPage {
    /// The version of the books.
    pub version: BooksVersion,
    /// Whether the founding server has handed over all of them.
    pub complete: bool,
    /// The ids of the latest changes, the newest last.
    pub recent: Vec<Uuid>,
    /// The registration servers.
    pub servers: Vec<(HolderId, SocketAddr)>,
    /// The records; none if the asker knows this version.
    pub records: Vec<(BookKey, Bytes)>,
    /// Whether there are more records after these.
    pub more: bool,
}
