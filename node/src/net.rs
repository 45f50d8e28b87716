//! Connections to the other nodes and to the registration server, with the calls and answers that
//! they carry, the quota of each peer, and the failure detector's record of which nodes are alive.

pub(crate) mod peers;
pub(crate) mod liveness;
pub(crate) mod rpc;
pub(crate) mod reply;
pub(crate) mod quota;
pub(crate) mod user_limits;
pub(crate) mod server_link;
pub(crate) mod denials;
pub(crate) mod incarnations;
