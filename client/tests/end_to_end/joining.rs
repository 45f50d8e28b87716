//! Who may join, who founds the network, and the errors of those who may not.

use std::time::Duration;

use dkv_api::Role;
use dkv_test_support::{output, text};
use dkv_wire::token::Token;
use serde_json::json;

use crate::harness::{Network, eventually, for_a_while};

#[tokio::test(flavor = "multi_thread")]
async fn five_nodes_that_start_first_at_once_form_one_network() {
    let mut network = Network::server_only(json!({})).await;
    for _ in 0..5 {
        network.spawn_node();
    }
    for node in &mut network.nodes {
        node.running().ready().await.unwrap();
    }
    network.settled().await;
    let files: Vec<_> = network.nodes.iter().map(|node| node.file()).collect();
    let founders: Vec<_> = files.iter().filter(|file| file["bootstrap"] == true).collect();
    assert_eq!(founders.len(), 1, "{founders:?}");
    assert!(files.iter().all(|file| file["network"] == files[0]["network"]));
    let mut names: Vec<_> = files.iter().map(|file| file["name"].to_string()).collect();
    names.sort();
    names.dedup();
    assert_eq!(names.len(), 5);
    let client = network.client().await;
    let server = client.status().await.server.unwrap();
    assert_eq!(server.bootstrap.unwrap().to_string(), founders[0]["id"].as_str().unwrap());
    client.write("k", "v").await.unwrap();
    network.same_state().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_founder_that_dies_is_not_replaced() {
    let mut network = Network::server_only(json!({ "shards": 2 })).await;
    network.spawn_node();
    let credentials = network.nodes[0].dir.join("credentials/certificate.der");
    eventually("it is not admitted", async || match credentials.exists() {
        true => Ok(()),
        false => Err("no certificate".into()),
    })
    .await;
    network.kill_node(0);
    network.add_node().await;
    network.add_node().await;
    network.start_node(0).await;
    network.settled().await;
    let founders = network.nodes.iter().filter(|node| node.file()["bootstrap"] == true);
    assert_eq!(founders.count(), 1);
    network.client().await.write("k", "v").await.unwrap();
}

/// Checks that a node that may not join prints the reason in one line.
async fn refused(network: &Network, role: Role, token: Option<&str>, why: &str) {
    let home = network.path("stranger");
    let file = network.path("stranger.token");
    if let Some(token) = token {
        std::fs::write(&file, token).unwrap();
    }
    let address = network.address.to_string();
    let named = if token.is_some() { vec!["--token-file", text(&file)] } else { vec![] };
    let arguments = match role {
        Role::Node => [&["node", &address, "--data-dir", "data"], &named[..]].concat(),
        _ => [&[address.as_str(), "R,k"], &named[..]].concat(),
    };
    let ended = network.dkv_as(&arguments, &home).await;
    let said = output(&ended.stderr);
    let errors: Vec<_> = said.lines().filter(|line| line.starts_with("error: ")).collect();
    assert!(errors.len() == 1 && errors[0].contains(why), "not {why:?}: {said}");
    assert!(said.ends_with(&format!("{}\n", errors[0])), "it continues after the error: {said}");
    assert!(role == Role::Node || said.lines().count() == 1, "{said}");
    let status = if role == Role::Node { 1 } else { 7 };
    assert_eq!((ended.status.code(), output(&ended.stdout)), (Some(status), ""));
    if let Some(token) = token {
        assert!(!said.contains(token), "it prints the token: {said}");
    }
    assert!(!home.join("data/node.json").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn invalid_tokens_admit_no_one() {
    let network = Network::start(1).await;
    let other = Network::beside(&network).await;
    let admin = network.admin().await;
    let token_of = |network: &Network, role| {
        std::fs::read_to_string(network.token_file(role)).unwrap().trim().to_owned()
    };
    for role in [Role::Node, Role::Client] {
        refused(&network, role, None, "no token for ").await;
        refused(&network, role, Some("open sesame"), "not a dkv join token").await;

        let mut wrong: Token = token_of(&network, role).parse().unwrap();
        wrong.secret[0] ^= 1;
        refused(&network, role, Some(&wrong.to_string()), "is not one of this network's").await;

        let foreign = token_of(&other, role);
        refused(&network, role, Some(&foreign), "belongs to another network").await;

        let life = Duration::from_secs(1);
        let short = admin.create_token(role, Some(life), None).await.unwrap();
        for_a_while(1200).await;
        refused(&network, role, Some(&short), "has expired").await;

        let revoked = admin.create_token(role, None, None).await.unwrap();
        admin.revoke_token(revoked.parse::<Token>().unwrap().id).await.unwrap();
        refused(&network, role, Some(&revoked), "is not one of this network's").await;
    }
    let client = token_of(&network, Role::Client);
    refused(&network, Role::Node, Some(&client), "a node token is required").await;
    let node = token_of(&network, Role::Node);
    refused(&network, Role::Client, Some(&node), "a client token is required").await;

    // A token for one use admits only once.
    let once = admin.create_token(Role::Client, None, Some(1)).await.unwrap();
    let file = network.path("once.token");
    std::fs::write(&file, &once).unwrap();
    let address = network.address.to_string();
    let used = [&address, "W,k,v", "--token-file", text(&file)];
    let used = network.dkv_as(&used, &network.path("friend")).await;
    assert!(used.status.success(), "{used:?}");
    refused(&network, Role::Client, Some(&once), "has been used up").await;

    // No secret was logged.
    for log in ["server.log", "node-1.log"] {
        let said = std::fs::read_to_string(network.path(log)).unwrap();
        for token in [&client, &node, &once] {
            let secret = token.split('.').nth(3).unwrap();
            assert!(!said.contains(secret), "{log} tells a secret");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_comes_through_a_pipe() {
    let network = Network::start(1).await;
    let pipe = network.path("token.pipe");
    let made = std::process::Command::new("mkfifo").arg(&pipe).status().unwrap();
    assert!(made.success());
    let (to, token) = (pipe.clone(), std::fs::read(network.token_file(Role::Client)).unwrap());
    // It waits for a reader, and nobody writes for a second one.
    let writing = std::thread::spawn(move || std::fs::write(to, token).unwrap());
    // Where the name has an address of IPv6 too, joining there fails first.
    let address = format!("localhost:{}", network.address.port());
    let arguments = [&address, "W,k,v", "--token-file", text(&pipe)];
    let joined = network.dkv_as(&arguments, &network.path("friend")).await;
    assert!(joined.status.success(), "{joined:?}");
    writing.join().unwrap();
}
