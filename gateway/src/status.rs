//! The status of a network, computed from the answers of its processes.
//!
//! [`report()`] turns the answers of the server and the nodes into one [`Report`]; it is plain code
//! over plain data. [`json`] turns a report into a document for programs; its fields are those of
//! the structs, and never change their meaning.
//!
//! The parts of a report come from different processes at slightly different moments. Where they
//! disagree, the authoritative process wins: for a shard its leader, the one of the highest term if
//! two claim to lead; for a node the node itself; for the confirmation of a coordinator the server.

mod answers;
mod build;
mod report;
mod warnings;

pub use build::report;
pub use report::{
    Coordinator, Group, ListedServer, Move, Node, Replica, Report, Role, Server, group_name,
};
pub use warnings::tolerated_failures;

/// Formats a report as a JSON document.
pub fn json(report: &Report) -> String {
    // Structs of strings and numbers always have a JSON form.
    serde_json::to_string_pretty(report).unwrap_or_default()
}
