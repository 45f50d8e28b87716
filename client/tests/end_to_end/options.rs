//! Options that do not apply are refused, because ignoring them would hide a mistake.

use dkv_test_support::output;
use serde_json::json;

use crate::harness::Network;
use crate::harness::process::command;

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
        &["local", "--token-file", "a", "--", "status"],
        &["rehearse", "--level", "all"],
        &["drill", "coordinator-kill", "--level", "eventual"],
        &["--level", "eventual", "help", "get"],
        &["--region", "eu", "help", "get"],
        &["--token-file", "/nonexistent", "completions", "bash"],
        &["--region", "eu", "completions", "bash"],
        &["node", address, "--host", "foo"],
        &["node", address, "--without-tls"],
        &[address, "status", "--json", "--output", "text"],
        &[address, "node"],
    ] {
        let ended = network.dkv_as(line, &home).await;
        let said = output(&ended.stderr);
        assert!(!ended.status.success(), "{line:?}: {said}");
        assert!(ended.stdout.is_empty() && said.starts_with("error: "), "{line:?}: {said}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_command_line_has_one_status_wherever_it_is_detected() {
    let network = Network::server_only(json!({})).await;
    let (address, home) = (network.address.to_string(), network.home());
    let address = address.as_str();
    for (line, says) in [
        (&[address, "get", "c", "strong", "max-staleness", "5"][..], "the level is strong"),
        (&["--level", "all", address, "get", "c", "at-least", "1"], "the level is all"),
        (&[address, "put", "c", "1", "eventual", "if-absent"], "cannot have a condition"),
        (&["--level", "eventual", address, "update", "c", "1"], "cannot have a condition"),
        (&[address, "get", "c", "max-staleness", "1e3"], "\"1e3\" is not a number of milliseconds"),
        (&["gateway", address, "--http", "0.0.0.0:0"], "--without-tls"),
        (&["node", address, "--without-tls"], "add --http"),
        (&["local", "--delays", "0,1/1,0", "--", "status"], "--delays needs --regions"),
        (&[address, "node"], "node takes no address before it"),
    ] {
        let ended = network.dkv_as(line, &home).await;
        let said = output(&ended.stderr);
        assert_eq!(ended.status.code(), Some(2), "{line:?}: {said}");
        assert!(said.contains(says), "{line:?}: {said}");
    }
    let unknown = network.dkv_as(&["no-such-host.invalid", "get", "c"], &home).await;
    let said = output(&unknown.stderr);
    assert_eq!(unknown.status.code(), Some(5), "{said}");
    assert_eq!(said.matches("no-such-host.invalid").count(), 1, "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_variable_is_named() {
    let network = Network::server_only(json!({})).await;
    let run = |arguments: &[&str], name: &str, value: &str| {
        let mut command = command(arguments, &network.home());
        let ended = command.env(name, value).stdin(std::process::Stdio::null()).output().unwrap();
        (ended.status.code(), output(&ended.stderr).to_owned())
    };
    let address = network.address.to_string();
    for (arguments, name, value) in [
        (&[address.as_str(), "token", "list"][..], "DKV_REGION", "a b"),
        (&["node"], "DKV_LISTEN", "here"),
        (&["node"], "DKV_VALUE_MEMORY", "much"),
        (&["node", &address], "DKV_HTTP_HOST", "foo"),
        (&["node", &address], "DKV_TLS_CERT", "file"),
        (&["gateway"], "PORT", "foo"),
        (&["gateway"], "MAINIP", "foo"),
        (&["token", "list"], "DKV_SERVER", "a:b"),
    ] {
        let (status, said) = run(arguments, name, value);
        assert_eq!(status, Some(2), "{name}: {said}");
        assert!(said.contains(name) && !said.contains("for '--"), "{name}: {said}");
    }
    for name in ["DKV_REGION", "DKV_TOKEN_FILE", "DKV_SERVER", "DKV_TOKEN"] {
        let (status, said) = run(&["token", "list"], name, " ");
        assert_eq!(status, Some(0), "{name}: {said}");
    }
    let (status, said) = run(&["token", "list"], "DKV_TOKEN_FILE", "/nonexistent");
    assert_eq!(status, Some(0), "{said}");
    assert!(said.contains("cannot read the token file /nonexistent: No such file"), "{said}");
}
