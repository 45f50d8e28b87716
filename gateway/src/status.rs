//! How a network is, computed from what everybody said.
//!
//! [`report()`] turns what the server and the nodes said into one [`Report`]; it is plain code that
//! takes plain data. [`json`] makes a document of it for programs, whose fields are those of the
//! structs of a report and do not change their meaning.
//!
//! The parts of a report were said by different processes at slightly different moments. Where
//! they disagree the one who is responsible is believed: of a shard its leader, of the highest term
//! if two claim to be; of a node itself; of the confirmation of a coordinator the server.

mod build;
mod report;

pub use build::{group_name, report};
pub use report::{Coordinator, Group, Move, Node, Replica, Report, Role, Server};

/// The report as a JSON document.
pub fn json(report: &Report) -> String {
    // Structs of strings and numbers always have a JSON form.
    serde_json::to_string_pretty(report).unwrap_or_default()
}
