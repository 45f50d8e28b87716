//! Transactions and their results in JSON, over HTTP as on the command line.
//!
//! ```json
//! {"if": [{"key": "order/17", "exists": false}, {"key": "stock", "relation": ">", "value": "0"}],
//!  "then": [{"op": "put", "key": "order/17", "value": "bolt"},
//!           {"op": "increment", "key": "stock", "by": -1}],
//!  "else": [{"op": "get", "key": "order/17"}]}
//! ```
//!
//! A condition has a key and one of `exists`, `value`, `revision`, `created_revision` and
//! `version`; all but the first take a `relation`: `=` (the default), `!=`, `<` or `>`.
//!
//! An operation is one of `get`, `put`, `delete`, `increment` (`by` is 1 by default), `append`,
//! `list` (`limit` keys at most) and `delete-all`. The last two, and conditions, may have a
//! `prefix` instead of the key, or `from` and `to`. A put may have a `ttl_ms` or a `lease`. Bytes
//! that are not text are under names that end in `_base64`.

mod members;
mod parse;
mod results;
#[cfg(test)]
mod tests;

use dkv_api::Transaction;

pub use self::parse::{TransactionJsonError, parse};
pub use self::results::results;
use crate::bytes_json::Encoding;

/// A transaction that was parsed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParsedTransaction {
    /// The transaction.
    pub transaction: Transaction,
    /// Whether it says what to do if a condition does not hold.
    pub has_else: bool,
    /// How its results are to be written.
    pub encoding: Encoding,
}

/// Returns the name of the list of operations that was executed.
pub fn branch(succeeded: bool) -> &'static str {
    if succeeded { "then" } else { "else" }
}
