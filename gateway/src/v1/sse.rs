//! The form of server-sent events (WHATWG HTML, section 9.2).

use serde_json::Value;

/// Time after which a client reconnects a lost stream, in milliseconds.
const RECONNECT_MS: u64 = 1000;

/// A comment, which clients ignore.
pub(super) const COMMENT: &str = ":\n\n";

/// Formats an event. `id` is what the client sends as `Last-Event-ID` when it reconnects.
pub(super) fn event(name: &str, id: Option<&str>, data: &Value) -> String {
    // JSON in this form holds no line feed, which would end the data.
    let id = id.map(|id| format!("id: {id}\n")).unwrap_or_default();
    format!("event: {name}\n{id}data: {data}\n\n")
}

/// Formats the first event, which also says when to reconnect.
pub(super) fn first_event(name: &str, id: &str, data: &Value) -> String {
    format!("retry: {RECONNECT_MS}\n{}", event(name, Some(id), data))
}
