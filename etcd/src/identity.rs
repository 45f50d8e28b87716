//! Names in etcd's terms: its ids are numbers of 64 bits, and those of a network are longer.

use dkv_api::{NetworkId, NodeId};
use xxhash_rust::xxh3::xxh3_64;

/// Returns the cluster id of a network.
pub(crate) fn cluster_id(network: NetworkId) -> u64 {
    short(network.0.as_bytes())
}

/// Returns the member id of a node. It is the same in every face and for good.
pub(crate) fn member_id(node: NodeId) -> u64 {
    short(node.0.as_bytes())
}

/// Zero means "none" in etcd.
fn short(id: &[u8; 16]) -> u64 {
    xxh3_64(id).max(1)
}
