//! Heartbeats: the groups of two nodes share messages, idle groups and learners receive fewer, and
//! distant members have longer to answer.

pub(crate) mod coalescing;
pub(crate) mod quiescence;
pub(crate) mod learners;
pub(crate) mod time_scaling;
