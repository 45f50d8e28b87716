//! The cluster map, called the directory, and the tasks around it: the coordinator changes it, and
//! every node brings its replicas in line with it.

pub(crate) mod keyspaces;
pub(crate) mod coordinator;
pub(crate) mod rebalancer;
pub(crate) mod node_reports;
pub(crate) mod membership_reconciler;
pub(crate) mod replica_removal;
pub(crate) mod announcement;
