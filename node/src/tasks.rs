//! Background tasks that every node runs for its whole life, one module per purpose.

pub(crate) mod failure_detector;
pub(crate) mod heartbeat_ticker;
pub(crate) mod round_trips;
pub(crate) mod history_retention;
pub(crate) mod lease_expiry;
pub(crate) mod log_retention;
pub(crate) mod outbox_relay;
pub(crate) mod reachability;
