//! How a network is: shown.
//!
//! What it is comes from the gateway's report, which is the same whoever asks. [`render()`] makes a
//! table of it for people; the document for programs is the gateway's.

mod render;
mod table;
#[cfg(test)]
mod tests;

pub(crate) use dkv_gateway::status::{Group, Report, json, report};
pub(crate) use render::{render, render_nodes};
