//! What an answer says about itself, in header fields.
//!
//! | field | |
//! |---|---|
//! | `Dkv-Revision` | of a write its number, of a read that of the write which stored the value, or for a key that does not exist the shard's latest |
//! | `Dkv-Shard` | number of the shard |
//! | `Dkv-Term` | the shard's term |
//! | `Dkv-Node` | id of the node that answered |
//! | `Dkv-Level` | the level that was given |
//! | `Dkv-Staleness-Ms` | how old the answer may be; left out if the node cannot know |
//! | `Dkv-Pending` | of an eventual write that is not ordered yet, and so has no revision: its number in the outbox of the node |

use axum::http::{HeaderMap, HeaderName, HeaderValue};
use dkv_api::Receipt;

/// Puts a receipt into header fields.
pub fn insert(headers: &mut HeaderMap, receipt: &Receipt) {
    let mut put = |name: &'static str, text: String| {
        if let Ok(value) = HeaderValue::from_str(&text) {
            headers.insert(HeaderName::from_static(name), value);
        }
    };
    match receipt.pending {
        None => put("dkv-revision", receipt.revision.to_string()),
        Some(number) => put("dkv-pending", number.to_string()),
    }
    put("dkv-shard", receipt.shard.to_string());
    put("dkv-term", receipt.term.to_string());
    put("dkv-node", receipt.node.to_string());
    put("dkv-level", receipt.level.word().to_owned());
    if let Some(staleness_ms) = receipt.staleness_ms {
        put("dkv-staleness-ms", staleness_ms.to_string());
    }
}
