//! The cluster map, called the directory, and what follows from it: the coordinator changes it, and
//! every node brings its replicas to what it says.

pub(crate) mod coordinator;
pub(crate) mod rebalancer;
pub(crate) mod node_reports;
pub(crate) mod membership_reconciler;
pub(crate) mod replica_removal;
pub(crate) mod announcement;
