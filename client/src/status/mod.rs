//! How a network is: asked, computed, shown.
//!
//! [`report()`] turns what the server and the nodes said into one [`Report`]; it is plain code that
//! takes plain data. [`render()`] makes a table of it for people and [`json`] a document for
//! programs, whose fields are those of the structs in `report.rs` and do not change their meaning.
//!
//! The parts of a report were said by different processes at slightly different moments. Where
//! they disagree the one who is responsible is believed: of a shard its leader, of the highest term
//! if two claim to be; of a node itself; of the confirmation of a coordinator the server.

mod build;
mod render;
mod report;
mod table;
#[cfg(test)]
mod tests;

pub(crate) use build::report;
pub(crate) use render::{render, render_nodes};
pub(crate) use report::{Group, Report};

/// The report as a JSON document.
pub(crate) fn json(report: &Report) -> String {
    // Structs of strings and numbers always have a JSON form.
    serde_json::to_string_pretty(report).unwrap_or_default()
}
