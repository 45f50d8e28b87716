//! The fuzz targets.

mod bolt;
mod certificates;
mod commands;
mod entries;
mod files;
mod frames;
mod http;
mod log;
mod messages;
mod raft;
mod snapshots;
mod tokens;

/// A fuzz target: code that reads untrusted bytes.
pub struct Target {
    /// Its name here and in `fuzz/`.
    pub name: &'static str,
    /// Reads an input. Panics if a promise is broken.
    pub read: fn(&[u8]),
    /// Inputs that are valid, or nearly.
    pub seeds: fn() -> Vec<Vec<u8>>,
    /// Number of inputs that the tests try.
    pub inputs: u64,
}

/// All targets.
pub const TARGETS: &[Target] = &[
    Target { name: "frames", read: frames::read, seeds: frames::seeds, inputs: 20_000 },
    Target { name: "messages", read: messages::read, seeds: messages::seeds, inputs: 100_000 },
    Target { name: "raft", read: raft::read, seeds: raft::seeds, inputs: 60_000 },
    Target { name: "entries", read: entries::read, seeds: entries::seeds, inputs: 10_000 },
    Target { name: "log", read: log::read, seeds: log::seeds, inputs: 6_000 },
    Target { name: "snapshots", read: snapshots::read, seeds: snapshots::seeds, inputs: 10_000 },
    Target { name: "tokens", read: tokens::read, seeds: tokens::seeds, inputs: 50_000 },
    Target {
        name: "certificates",
        read: certificates::read,
        seeds: certificates::seeds,
        inputs: 6_000,
    },
    Target { name: "files", read: files::read, seeds: files::seeds, inputs: 40_000 },
    Target { name: "commands", read: commands::read, seeds: commands::seeds, inputs: 20_000 },
    Target { name: "http", read: http::read, seeds: http::seeds, inputs: 20_000 },
    Target { name: "bolt", read: bolt::read, seeds: bolt::seeds, inputs: 10_000 },
];

/// The target with that name.
///
/// # Panics
/// If there is none.
pub fn named(name: &str) -> &'static Target {
    let found = TARGETS.iter().find(|target| target.name == name);
    found.unwrap_or_else(|| panic!("there is no target {name}"))
}

/// Asserts that an error for people is one line without control characters.
fn assert_presentable(text: &str) {
    assert!(!text.is_empty() && !text.chars().any(char::is_control), "{text:?}");
}
