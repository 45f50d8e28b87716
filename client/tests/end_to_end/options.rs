//! Options that do not apply are refused: whoever writes one means something by it.

use serde_json::json;

use crate::harness::Network;
use crate::harness::network::output;

#[tokio::test(flavor = "multi_thread")]
async fn an_option_that_would_be_ignored_is_refused() {
    let network = Network::server_only(json!({})).await;
    let (address, home) = (network.address.to_string(), network.home());
    let address = address.as_str();
    for line in [
        &[address, "status", "--level", "eventual"][..],
        &["--level", "all", address, "token", "list"],
        &[address, "holders", "--level", "strong"],
        &["--timeout", "3s", "completions", "bash"],
        &[address, "drill", "by-hand", "--nodes", "5"],
        &[address, "gateway", address],
        &["gateway", address, "--dir", "somewhere"],
        &["gateway", address, "--tls-cert", "a", "--tls-key", "b", "--without-tls"],
        &["node", address, "--with-authentication"],
        &["node", address, "--http-token-file", "a"],
        &[address, "token", "create", "--role", "node", "--read-only"],
        &[address, "token", "create", "--role", "admin", "--read-only"],
        &[address, "token", "create", "--http", "--role", "client"],
        &[address, "token", "create", "--http", "--uses", "3"],
        &[address, "token", "create", "--life", "1h", "--never-expires"],
        &[address, "drain", "n1", "--undo", "--no-wait"],
        &["local", "--delays-vary", "--", "status"],
        &["local", "--delays", "0,1/1,0", "--", "status"],
    ] {
        let ended = network.dkv_as(line, &home).await;
        let said = output(&ended.stderr);
        assert!(!ended.status.success(), "{line:?}: {said}");
        assert!(ended.stdout.is_empty() && said.starts_with("error: "), "{line:?}: {said}");
    }
}
