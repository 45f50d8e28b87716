//! Receipts in header fields.
//!
//! | field | value |
//! |---|---|
//! | `Dkv-Revision` | revision of the write; of a read, the revision of the value, or the shard's latest if the key does not exist |
//! | `Dkv-Shard` | number of the shard |
//! | `Dkv-Term` | term of the shard |
//! | `Dkv-Node` | id of the node that answered |
//! | `Dkv-Level` | level at which the request was served |
//! | `Dkv-Staleness-Ms` | greatest possible age of the answer; absent if unknown |
//! | `Dkv-Expires-Ms` | with `ttl=true`: time after which the key or its lease ends; absent if it does not |
//! | `Dkv-Lease` | with `ttl=true`: the lease of the key, if it has one |
//! | `Dkv-Pending` | number in the node's outbox of an eventual write that has no revision yet |

use axum::http::{HeaderMap, HeaderName, HeaderValue};
use dkv_api::{Lifetime, Receipt};

use crate::lease_json::whole_ms;

/// Inserts how long a key will live into header fields.
pub fn insert_lifetime(headers: &mut HeaderMap, lifetime: &Lifetime) {
    let (remaining, lease) = match lifetime {
        Lifetime::Ttl { remaining, .. } => (*remaining, None),
        Lifetime::Lease { lease, remaining, .. } => (*remaining, Some(*lease)),
        _ => return,
    };
    headers.insert("dkv-expires-ms", HeaderValue::from(whole_ms(remaining)));
    if let Some(lease) = lease.and_then(|lease| HeaderValue::from_str(&lease.to_string()).ok()) {
        headers.insert("dkv-lease", lease);
    }
}

/// Inserts a receipt into header fields.
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
