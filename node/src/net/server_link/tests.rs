//! Which error of several servers counts.

use super::*;

#[test]
fn that_the_node_was_removed_counts_more_than_silence() {
    let address: SocketAddr = ([127, 0, 0, 1], 4400).into();
    let silent = || ConnectError::Unreachable { address, why: "timed out".into() };
    let removed = ConnectError::Removed { address, why: "removed".into() };
    let error = worst(vec![silent(), removed, silent()]);
    assert!(matches!(error, ServerError::Connect(ConnectError::Removed { .. })), "{error}");
    let error = worst(vec![silent(), silent()]);
    assert!(matches!(error, ServerError::Connect(ConnectError::Unreachable { .. })), "{error}");
}
