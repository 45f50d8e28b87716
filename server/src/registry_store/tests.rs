//! Updates that share a failed write.

use super::*;
use dkv_base::id::{NetworkId, NodeId};
use dkv_wire::network::Settings;

#[tokio::test]
async fn a_failed_write_does_not_fail_updates_that_need_none() {
    let directory = tempfile::tempdir().unwrap();
    let lock = Arc::new(dkv_base::durable::lock_dir(directory.path()).unwrap());
    let registry = Registry::new(NetworkId::random(), Settings::default(), 0);
    let file = directory.path().join("nowhere").join("books.json");
    let (store, task) =
        RegistryStore::start(registry, file, Arc::default(), lock, &Failure::default());

    let address = "127.0.0.1:4401".parse().unwrap();
    let node = NodeId::random();
    let register = store.update(move |next| next.handle_register(node, None, address, None, 0));
    // Counts the node if it runs on the copy that is dropped.
    let count = store.update(|next| (next.node_count(), Effects::default()));
    // Both are queued before the task runs, so they share a group.
    let (registered, counted) = tokio::join!(register, count);
    assert!(registered.is_err());
    assert_eq!(counted.unwrap(), 0);
    assert_eq!(store.snapshot().node_count(), 0);
    task.stop().await;
}
