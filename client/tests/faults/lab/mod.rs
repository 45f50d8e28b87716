//! A network whose processes are in network namespaces of their own, and ways to harm it.

pub(crate) mod host;
pub(crate) mod network;
pub(crate) mod relay;
pub(crate) mod tools;

#[allow(dead_code, reason = "the other tests use more of it")]
#[path = "../../end_to_end/harness/judge.rs"]
pub(crate) mod judge;

#[allow(dead_code, reason = "the other tests use more of it")]
#[path = "../../end_to_end/harness/process.rs"]
pub(crate) mod process;

#[path = "../../end_to_end/harness/waiting.rs"]
mod waiting;

pub(crate) use network::{Lab, Under};
pub(crate) use process::Process;
pub(crate) use waiting::{PATIENCE, eventually, for_a_while};
