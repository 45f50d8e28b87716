//! Shows the state of a network.
//!
//! The gateway computes the report, which is the same for every client. [`render()`] formats it as
//! tables for people; the JSON document is the gateway's.

mod render;
mod table;
#[cfg(test)]
mod tests;

pub(crate) use dkv_gateway::status::{Group, Node, Report, json, report};
pub(crate) use render::{render, render_nodes};
