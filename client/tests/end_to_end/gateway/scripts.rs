//! `scripts/`: a network of N nodes for `/set`, `/fetch` and `/query`, with one command.

use std::path::Path;
use std::process::Stdio;

use dkv_test_support::output;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::process::Command;

use super::http::Http;
use crate::harness::process::{command, program};
use crate::harness::{Network, eventually};

const NODES: usize = 4;
const PAIRS: usize = 100;

/// The processes that a script has started; dropping this ends them.
struct Servers {
    home: TempDir,
}

impl Servers {
    /// Runs a script, and returns its output.
    async fn script(&self, name: &str, arguments: &[&str]) -> String {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scripts").join(name);
        let log = std::fs::File::create(self.home.path().join("script.log")).unwrap();
        let mut run = Command::from(command(&[], self.home.path()));
        let environment: Vec<_> = run.as_std().get_envs().map(own).collect();
        run = Command::new(script);
        for (name, value) in environment {
            match value {
                Some(value) => run.env(name, value),
                None => run.env_remove(name),
            };
        }
        run.args(arguments)
            .env("DKV", self.home.path().join("dkv"))
            .env("DKV_DIR", self.home.path().join("servers"))
            .env("HTTP", "127.0.0.1:0")
            .env("SERVER", "127.0.0.1:0");
        // Not a pipe: the started processes would keep it open.
        run.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        let ended = run.status().await.unwrap();
        let said = std::fs::read(self.home.path().join("script.log")).unwrap();
        assert!(ended.success(), "{}", output(&said));
        output(&said).to_owned()
    }

    /// Starts the processes, and returns the address of HTTP.
    async fn start(&self) -> String {
        let said = self.script("start_n_servers.sh", &[&NODES.to_string()]).await;
        let gateway = said.lines().find_map(|line| line.strip_prefix("gateway "));
        format!("http://{}", gateway.unwrap().trim())
    }

    /// Returns the ids of the processes: the server, the nodes, the gateway.
    fn ids(&self) -> Vec<Pid> {
        let pids = std::fs::read_to_string(self.home.path().join("servers/pids"));
        let pids = pids.unwrap_or_default();
        pids.lines().map(|line| Pid::from_raw(line.parse().unwrap())).collect()
    }
}

impl Drop for Servers {
    fn drop(&mut self) {
        for id in self.ids() {
            let _ = kill(id, Signal::SIGKILL);
        }
    }
}

type Variable = (std::ffi::OsString, Option<std::ffi::OsString>);

fn own((name, value): (&std::ffi::OsStr, Option<&std::ffi::OsStr>)) -> Variable {
    (name.to_owned(), value.map(ToOwned::to_owned))
}

/// Returns all pairs, sorted.
async fn fetched(http: &Http, url: &str) -> Vec<String> {
    let answer = http.send("GET", &format!("{url}/fetch"), &[], "").await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let mut pairs: Vec<String> =
        answer.json().as_array().unwrap().iter().map(Value::to_string).collect();
    pairs.sort();
    pairs
}

#[tokio::test(flavor = "multi_thread")]
async fn data_spreads_over_the_nodes_and_survives_the_loss_of_any() {
    let _room = Network::room().await;
    let servers = Servers { home: tempfile::tempdir().unwrap() };
    std::os::unix::fs::symlink(program(), servers.home.path().join("dkv")).unwrap();
    let (url, http) = (servers.start().await, Http::new(false));
    let item = |text: String| json!({ "encoding": "string", "data": text });
    let pair =
        |number| json!({ "key": item(format!("k{number}")), "value": item(format!("v{number}")) });
    let mut pairs: Vec<String> = (0..PAIRS).map(|number| pair(number).to_string()).collect();
    let set = http.send("PUT", &format!("{url}/set"), &[], format!("[{}]", pairs.join(","))).await;
    assert_eq!(set.json(), json!([{ "keys_added": PAIRS, "keys_failed": [] }]));
    pairs.sort();
    assert_eq!(fetched(&http, &url).await, pairs);

    eventually("the data does not spread", async || {
        let status = http.send("GET", &format!("{url}/v1/status"), &[], "").await.json();
        let nodes = status["nodes"].as_array().unwrap().clone();
        let holds = |node: &Value| node["replicas"].as_u64().unwrap();
        let spread = nodes.len() == NODES
            && nodes.iter().all(|node| (1..4 * NODES as u64).contains(&holds(node)))
            && status["may_fail"] == 1
            && status["moves"] == json!([]);
        if spread { Ok(()) } else { Err(status.to_string()) }
    })
    .await;
    // At first, all data was on the first node.
    kill(servers.ids()[1], Signal::SIGKILL).unwrap();
    assert_eq!(fetched(&http, &url).await, pairs);

    let ids = servers.ids();
    assert_eq!(ids.len(), NODES + 2);
    servers.script("stop_servers.sh", &[]).await;
    // A process without a waiting parent keeps its entry, but no longer runs.
    let runs = |id: &Pid| {
        let line = std::fs::read(format!("/proc/{id}/cmdline"));
        line.is_ok_and(|line| !line.is_empty())
    };
    assert!(!ids.iter().any(runs));
    let url = servers.start().await;
    assert_eq!(fetched(&http, &url).await, pairs);
    servers.script("stop_servers.sh", &[]).await;
    assert!(servers.ids().is_empty());
}
