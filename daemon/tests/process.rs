//! The binary `dkv-node`: its start, its output, and its end.
#![allow(clippy::unwrap_used, missing_docs)]

use std::fs::File;
use std::io::{BufRead, BufReader, PipeReader, Write};
use std::net::{SocketAddr, UdpSocket};
use std::path::PathBuf;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use dkv_api::{Client, Role};
use dkv_server::{Config, Server};
use dkv_wire::network::Settings;
use tempfile::TempDir;

/// Generous time limit of every wait here.
const PATIENCE: Duration = Duration::from_secs(30);

/// A server in this process, and directories for nodes.
struct Place {
    root: TempDir,
    server: Option<Server>,
    address: SocketAddr,
}

impl Place {
    async fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        let server = Server::start(Self::config(&root, ([127, 0, 0, 1], 0).into())).await.unwrap();
        let address = server.address();
        Self { root, server: Some(server), address }
    }

    fn config(root: &TempDir, listen: SocketAddr) -> Config {
        Config {
            trust_voter: None,
            advertise: None,
            join: None,
            token_file: None,
            audit: None,
            listen,
            data_dir: root.path().join("server"),
            settings: Settings { shards: 1, ..Settings::default() },
            tokens_home: Some(root.path().join("home")),
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    /// Returns the command of a node whose log goes to a file.
    fn command(&self, name: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_dkv-node"));
        command.env_clear().env("DKV_HOME", self.path("home")).current_dir(self.root.path());
        command
            .args(["--listen", "127.0.0.1:0", "--name", name, "--data-dir"])
            .arg(self.path(name));
        let log = File::options().create(true).append(true).open(self.log_path(name)).unwrap();
        command.stdout(Stdio::piped()).stderr(log);
        command
    }

    fn log_path(&self, name: &str) -> PathBuf {
        self.path(&format!("{name}.log"))
    }

    fn log(&self, name: &str) -> String {
        std::fs::read_to_string(self.log_path(name)).unwrap()
    }

    fn start(&self, name: &str) -> Node {
        let mut command = self.command(name);
        Node::run(command.arg(self.address.to_string()))
    }

    /// Waits until the log of a node contains a text.
    async fn logged(&self, name: &str, text: &str) {
        let begun = Instant::now();
        while !self.log(name).contains(text) {
            assert!(begun.elapsed() < PATIENCE, "{name} never logs {text:?}:\n{}", self.log(name));
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    async fn client(&self, role: Role) -> Client {
        let token = self.path("server/tokens").join(format!("{role}.token"));
        let client = Client::builder().server(self.address.to_string());
        let client = client.role(role).home(self.path("clients")).token_file(token);
        client.connect().await.unwrap()
    }
}

/// The process of a node; dropping it kills it.
struct Node {
    child: Child,
    out: BufReader<ChildStdout>,
}

impl Node {
    fn run(command: &mut Command) -> Self {
        let mut child = command.spawn().unwrap();
        let out = BufReader::new(child.stdout.take().unwrap());
        Self { child, out }
    }

    /// Returns the next line of its output; `None` once it has ended.
    fn line(&mut self) -> Option<String> {
        let mut line = String::new();
        let length = self.out.read_line(&mut line).unwrap();
        (length > 0).then(|| line.trim_end().to_owned())
    }

    fn ready(mut self) -> Self {
        let line = self.line().expect("it has ended");
        assert!(line.starts_with("ready 127.0.0.1:"), "{line}");
        self
    }

    fn signal(&self, signal: &str) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args(["-s", signal, &pid]).status().unwrap().success());
    }

    fn lives(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    async fn status(&mut self) -> i32 {
        let begun = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.code().expect("it was killed");
            }
            assert!(begun.elapsed() < PATIENCE, "it does not end");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    async fn stop(mut self) {
        self.signal("TERM");
        assert_eq!(self.status().await, 0);
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Returns a pipe without a reader.
fn broken_pipe() -> Stdio {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    writer.into()
}

/// Returns a full pipe, with a reader that does not read.
fn stuck_pipe() -> (PipeReader, Stdio) {
    let (reader, mut writer) = std::io::pipe().unwrap();
    writer.write_all(&[b'.'; 64 * 1024]).unwrap();
    (reader, writer.into())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_cannot_be_written_stops_nothing() {
    let place = Place::new().await;
    let full = File::options().write(true).open("/dev/full").unwrap();
    let (_reader, stuck) = stuck_pipe();
    for log in [full.into(), broken_pipe(), stuck] {
        // The node logs much, and all of it is lost. It is the same node each time, so it leads.
        let mut command = place.command("n1");
        command.arg(place.address.to_string()).env("DKV_LOG", "debug").stderr(log);
        let node = Node::run(&mut command).ready();
        let client = place.client(Role::Client).await;
        client.write("key", "value").await.unwrap();
        client.close().await;
        node.signal("HUP");
        node.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unwritable_standard_output_is_reported_and_stops_nothing() {
    let place = Place::new().await;
    let full = File::options().write(true).open("/dev/full").unwrap();
    let mut command = place.command("n1");
    let mut child = command.arg(place.address.to_string()).stdout(full).spawn().unwrap();
    place.logged("n1", "to standard output: No space left on device").await;
    assert!(child.try_wait().unwrap().is_none(), "{}", place.log("n1"));
    let client = place.client(Role::Client).await;
    client.write("key", "value").await.unwrap();
    client.close().await;
    child.kill().unwrap();
    child.wait().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn other_signals_are_ignored_and_a_stop_warns_of_nothing() {
    let place = Place::new().await;
    let mut node = place.start("n1").ready();
    for signal in ["USR1", "USR2", "ALRM", "IO", "HUP"] {
        node.signal(signal);
    }
    // The node logs the last of them.
    place.logged("n1", "SIGHUP is ignored").await;
    assert!(node.lives());
    let client = place.client(Role::Client).await;
    client.write("key", "value").await.unwrap();
    client.close().await;
    node.stop().await;
    assert!(!place.log("n1").contains("is not reached"), "{}", place.log("n1"));
}

/// Puts a pipe without a writer in place of a file: opening it blocks forever.
fn silent_file(path: &std::path::Path) {
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    assert!(Command::new("mkfifo").arg(path).status().unwrap().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_can_be_stopped_during_startup() {
    let place = Place::new().await;
    let token = place.path("token");
    silent_file(&token);
    silent_file(&place.path("n2/credentials/certificate.der"));
    for (name, signal) in [("n1", "TERM"), ("n1", "INT"), ("n2", "TERM"), ("n2", "INT")] {
        let mut command = place.command(name);
        command.args([&place.address.to_string(), "--token-file"]).arg(&token);
        let mut node = Node::run(&mut command);
        // Signals are handled once the thread named "start" exists.
        let tasks = format!("/proc/{}/task", node.child.id());
        let begun = Instant::now();
        let watches = || {
            let tasks = std::fs::read_dir(&tasks).into_iter().flatten().filter_map(Result::ok);
            let names =
                tasks.filter_map(|task| std::fs::read_to_string(task.path().join("comm")).ok());
            names.into_iter().any(|name| name == "start\n")
        };
        while !watches() || !place.log(name).contains("data directory") && name == "n1" {
            assert!(begun.elapsed() < PATIENCE, "{}", place.log(name));
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
        assert!(node.lives(), "{}", place.log(name));
        node.signal(signal);
        let begun = Instant::now();
        assert_eq!(node.status().await, 0, "{}", place.log(name));
        assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
        assert_eq!(node.line(), None);
    }
    assert!(!place.path("n1").exists(), "the directory was left behind");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_invalid_name_is_refused_before_anything_is_created() {
    let place = Place::new().await;
    let mut command = Command::new(env!("CARGO_BIN_EXE_dkv-node"));
    command.env_clear().env("DKV_HOME", place.path("home")).stdout(Stdio::piped());
    let log = File::options().create(true).append(true).open(place.log_path("n1")).unwrap();
    command.args([&place.address.to_string(), "--name", "a b", "--data-dir"]).stderr(log);
    let mut node = Node::run(command.arg(place.path("n1")));
    assert_eq!(node.status().await, 2, "{}", place.log("n1"));
    assert!(place.log("n1").contains("a name has 1 to 64 letters"), "{}", place.log("n1"));
    assert!(!place.path("n1").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_without_its_certificate_does_not_join_anew() {
    let place = Place::new().await;
    place.start("n1").ready().stop().await;
    let credentials = place.path("n1/credentials");
    let key = std::fs::read(credentials.join("key.der")).unwrap();
    let uses = || -> u32 {
        let tokens = place.server.as_ref().unwrap().registry().tokens();
        tokens.iter().map(|token| token.used).sum()
    };
    let used = uses();
    std::fs::remove_file(credentials.join("certificate.der")).unwrap();
    for lost in ["certificate.der", "credentials"] {
        let mut node = place.start("n1");
        assert_eq!(node.status().await, 1, "{}", place.log("n1"));
        let log = place.log("n1");
        let said = log.lines().last().unwrap();
        assert!(said.contains("n1/credentials/certificate.der is missing or empty"), "{said}");
        assert_eq!(uses(), used, "{lost}: it has joined anew");
        if lost == "certificate.der" {
            assert_eq!(std::fs::read(credentials.join("key.der")).unwrap(), key);
            std::fs::remove_dir_all(&credentials).unwrap();
        } else {
            assert!(!credentials.exists());
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_start_leaves_nothing_behind_and_uses_no_token() {
    let place = Place::new().await;
    let taken = UdpSocket::bind("127.0.0.1:0").unwrap();
    let taken = taken.local_addr().unwrap().to_string();
    let fails = async |command: &mut Command, expected: &str| {
        let mut node = Node::run(command);
        assert_eq!(node.status().await, 1);
        assert_eq!(node.line(), None);
        place.logged("n1", expected).await;
        assert!(!place.path("n1").exists(), "{expected}: something is left");
        let joined = place.server.as_ref().unwrap().registry().tokens();
        assert!(joined.iter().all(|token| token.used == 0), "a token was used: {joined:?}");
    };
    let mut command = place.command("n1");
    command.arg(place.address.to_string()).env("DKV_LISTEN", "127.0.0.1:0");
    fails(command.args(["--token-file", "/nowhere/token"]), "/nowhere/token: no such file").await;
    let mut command = place.command("n1");
    fails(command.arg("host.invalid:4400"), "host.invalid:4400").await;
    let mut command = place.command("n1");
    command.arg(place.address.to_string()).env("DKV_LOG", "loud");
    fails(&mut command, "DKV_LOG: cannot use \"loud\"").await;
    let mut command = Command::new(env!("CARGO_BIN_EXE_dkv-node"));
    let log = File::options().append(true).open(place.log_path("n1")).unwrap();
    command.env_clear().env("DKV_HOME", place.path("home")).stdout(Stdio::piped()).stderr(log);
    command.args(["--listen", &taken, "--data-dir"]).arg(place.path("n1"));
    fails(command.arg(place.address.to_string()), "another process uses that UDP port").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_known_node_serves_although_the_server_cannot_be_resolved() {
    let place = Place::new().await;
    place.start("n1").ready().stop().await;
    let mut command = place.command("n1");
    let mut node = Node::run(command.arg("host.invalid:4400")).ready();
    place
        .logged("n1", "the registration server is not reached, and this node goes on without it")
        .await;
    // A regression ended it right after it was ready.
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert!(node.lives(), "{}", place.log("n1"));
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_is_unreachable_at_its_address_warns() {
    let place = Place::new().await;
    let nobody = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let mut command = place.command("n1");
    command.args([&place.address.to_string(), "--advertise", &nobody]);
    let _lost = Node::run(&mut command).ready();
    place.logged("n1", "this node is unreachable at its advertised address").await;
    // A node with the right address does not warn.
    let other = Place::new().await;
    let _node = other.start("n1").ready();
    tokio::time::sleep(Duration::from_secs(8)).await;
    assert!(!other.log("n1").contains("nobody reaches"), "{}", other.log("n1"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_removed_node_does_not_start_even_while_the_server_is_down() {
    let mut place = Place::new().await;
    let nodes = ["n1", "n2", "n3"].map(|name| place.start(name).ready());
    let [_n1, _n2, n3] = nodes;
    let admin = place.client(Role::Admin).await;
    let begun = Instant::now();
    let id = loop {
        let view = admin.refresh().await;
        let view = view.ok().filter(|view| view.nodes.len() == 3);
        let found = view.and_then(|view| view.nodes.into_iter().find(|node| node.name == "n3"));
        match found {
            Some(found) => break found.id,
            None => tokio::time::sleep(Duration::from_millis(100)).await,
        }
        assert!(begun.elapsed() < PATIENCE, "the network is not complete");
    };
    // By then it has a copy of the directory, and knows the others.
    place.logged("n3", "known to the network").await;
    n3.stop().await;
    admin.remove_node(id).await.unwrap();
    loop {
        let view = admin.refresh().await;
        if view.as_ref().is_ok_and(|view| view.nodes.iter().all(|node| node.id != id)) {
            break;
        }
        assert!(begun.elapsed() < 2 * PATIENCE, "it is not removed: {view:?}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    place.server.take().unwrap().shutdown().await;
    let mut removed = place.start("n3");
    place.logged("n3", "this node was removed from the network, as ").await;
    assert_eq!(removed.status().await, 1, "{}", place.log("n3"));
    assert_eq!(removed.line(), None, "it said that it was ready");
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_owner_can_read_a_data_directory() {
    use std::os::unix::fs::PermissionsExt;
    let place = Place::new().await;
    let node = place.start("n1").ready();
    let mut open = vec![place.path("n1")];
    let mut seen = 0;
    while let Some(path) = open.pop() {
        let metadata = std::fs::metadata(&path).unwrap();
        let mode = metadata.permissions().mode() & 0o777;
        assert_eq!(mode, if metadata.is_dir() { 0o700 } else { 0o600 }, "{}", path.display());
        seen += 1;
        if metadata.is_dir() {
            open.extend(std::fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        }
    }
    assert!(seen > 10, "{seen} files");
    node.stop().await;
}
