//! Who may do what: users, roles, passwords, tokens, and alarms that stand.
//!
//! All of it is plain data or a computation; [`store`] has what the faces of a network share of it.
//! The service and the check of each request are in [`auth`](crate::auth).

pub(crate) mod alarms;
pub(crate) mod passwords;
pub(crate) mod permissions;
pub(crate) mod state;
pub(crate) mod store;
#[cfg(test)]
mod tests;
pub(crate) mod tokens;

use self::passwords::Hashing;
pub(crate) use self::store::{Rules, Shared, SharedState};
use self::tokens::{TokenKind, Tokens};
use crate::error::EtcdError;

/// Whether a change has changed anything.
pub(crate) type Change = Result<bool, EtcdError>;

/// The tokens and passwords of a face.
pub(crate) struct Auth {
    pub(crate) tokens: Tokens,
    pub(crate) hashing: Hashing,
}

impl Auth {
    pub(crate) fn new(tokens: TokenKind) -> Self {
        Self { tokens: Tokens::new(tokens), hashing: Hashing::default() }
    }
}
