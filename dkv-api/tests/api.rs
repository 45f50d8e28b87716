//! Properties of the public types that applications rely on.

use std::fmt::Debug;

use dkv_api::{
    Client, ClientBuilder, ConnectError, Error, NetworkStatus, ReadOptions, ReplicaValue, Scan,
    ScanOptions, Value, WriteOptions, Written,
};

fn assert_send_sync<T: Send + Sync + Debug + 'static>() {}
fn assert_clone<T: Clone>() {}
fn assert_error<T: std::error::Error>() {}
fn assert_send<T: Send>(_: T) {}

#[test]
fn public_types_are_send_sync_and_debug() {
    assert_send_sync::<Client>();
    assert_send_sync::<ClientBuilder>();
    assert_send_sync::<ConnectError>();
    assert_send_sync::<Error>();
    assert_send_sync::<NetworkStatus>();
    assert_send_sync::<ReadOptions>();
    assert_send_sync::<ReplicaValue>();
    assert_send_sync::<Scan>();
    assert_send_sync::<ScanOptions>();
    assert_send_sync::<Value>();
    assert_send_sync::<WriteOptions>();
    assert_send_sync::<Written>();
}

#[test]
fn handles_and_settings_are_clone_and_errors_are_errors() {
    assert_clone::<Client>();
    assert_clone::<ClientBuilder>();
    assert_clone::<Error>();
    assert_clone::<ScanOptions>();
    assert_error::<Error>();
    assert_error::<ConnectError>();
}

/// Requests can be spawned on a runtime of several threads.
#[test]
fn futures_are_send() {
    let _ = |client: &'static Client, mut scan: Scan| {
        assert_send(client.read("key"));
        assert_send(client.write("key", "value"));
        assert_send(client.delete("key"));
        assert_send(client.status());
        assert_send(client.read_replicas("key"));
        assert_send(async move { scan.next().await });
        assert_send(Client::connect("server"));
    };
}
