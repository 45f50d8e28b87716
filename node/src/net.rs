//! Connections to the other nodes and to the registration server, and what goes over them: calls,
//! their answers, how much each peer may ask for, and who is alive.

pub(crate) mod peers;
pub(crate) mod liveness;
pub(crate) mod rpc;
pub(crate) mod reply;
pub(crate) mod quota;
pub(crate) mod server_link;
pub(crate) mod denials;
pub(crate) mod incarnations;
