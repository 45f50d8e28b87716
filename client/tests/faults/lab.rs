//! A network whose processes run in their own network namespaces, and the faults to inject.

pub(crate) mod host;
pub(crate) mod network;
pub(crate) mod relay;
pub(crate) mod tools;

pub(crate) use dkv_test_support::{eventually, for_a_while};
pub(crate) use network::{Lab, Under};
