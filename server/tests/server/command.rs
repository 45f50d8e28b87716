//! The binary `dkv-server`, stopped and killed as by an operator.

use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::process::{Child, ChildStdout, Command, Output, Stdio};
use std::time::{Duration, Instant};

use dkv_wire::identity::Role;
use dkv_wire::message::ServerRequest;

use crate::support::Place;

fn command(place: &Place) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_dkv-server"));
    for name in ["DKV_CONFIG", "DKV_LISTEN", "DKV_DATA_DIR", "DKV_LOG"] {
        command.env_remove(name);
    }
    command.current_dir(place.root.path()).env("DKV_HOME", place.home());
    command
}

/// A running server; dropping it kills it.
struct Running {
    child: Child,
    out: BufReader<ChildStdout>,
    printed: Vec<String>,
    address: SocketAddr,
}

impl Running {
    fn start(place: &Place) -> Self {
        Self::start_with_log(place, Stdio::null())
    }

    fn start_with_log(place: &Place, log: impl Into<Stdio>) -> Self {
        let mut command = command(place);
        command.args(["--listen", "127.0.0.1:0", "--data-dir"]).arg(place.data_dir());
        let mut child = command.stdout(Stdio::piped()).stderr(log).spawn().unwrap();
        let out = BufReader::new(child.stdout.take().unwrap());
        // Owned before anything can fail, so that a failure kills it.
        let nowhere = SocketAddr::from(([0, 0, 0, 0], 0));
        let mut server = Self { child, out, printed: Vec::new(), address: nowhere };
        while server.address == nowhere {
            let mut line = String::new();
            let length = server.out.read_line(&mut line).unwrap();
            assert_ne!(length, 0, "it ended after {:?}", server.printed);
            let line = line.trim_end().to_owned();
            if let Some(address) = line.strip_prefix("ready ") {
                server.address = address.parse().unwrap();
            }
            server.printed.push(line);
        }
        server
    }

    fn signal(&self, signal: &str) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args(["-s", signal, &pid]).status().unwrap().success());
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn fails(mut command: Command) -> String {
    let Output { status, stdout, stderr } = command.output().unwrap();
    assert_eq!(status.code(), Some(1));
    assert!(stdout.is_empty());
    let said = String::from_utf8(stderr).unwrap();
    assert_eq!(said.lines().count(), 1, "one line: {said}");
    said.strip_prefix("dkv-server: ").unwrap().trim_end().to_owned()
}

#[tokio::test]
async fn it_prints_the_next_command_and_when_it_is_ready() {
    let place = Place::new();
    let server = Running::start(&place);
    let expected = format!("  dkv-node {}", server.address);
    assert!(server.printed.contains(&expected), "{:?}", server.printed);
    assert!(server.printed[0].starts_with("network  "));
    place.peer(server.address, Role::Client).await;
}

#[tokio::test]
async fn a_bootstrap_grant_survives_a_kill() {
    let place = Place::new();
    let server = Running::start(&place);
    let first = place.peer(server.address, Role::Node).await;
    assert!(first.register(4401).await.bootstrap);
    // SIGKILL.
    drop(server);
    let server = Running::start(&place);
    let second = place.peer(server.address, Role::Node).await;
    assert!(!second.register(4402).await.bootstrap);
    assert!(first.again(server.address).await.register(4401).await.bootstrap);
}

#[tokio::test]
async fn it_stops_cleanly_on_a_signal() {
    let place = Place::new();
    for signal in ["TERM", "INT"] {
        let mut server = Running::start(&place);
        let client = place.peer(server.address, Role::Client).await;
        // After an answer, the server's end of the connection is complete too.
        client.ask(&ServerRequest::Lookup).await;
        server.signal(signal);
        assert!(server.child.wait().unwrap().success());
        let mut rest = String::new();
        assert_eq!(server.out.read_line(&mut rest).unwrap(), 0, "{rest}");
        let closed = client.connection.closed().await;
        assert!(matches!(closed, quinn::ConnectionError::ApplicationClosed(_)), "{closed}");
    }
}

/// Returns a pipe without a reader: every write to it fails.
fn broken_pipe() -> Stdio {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    writer.into()
}

/// Returns a full pipe, with a reader that does not read.
fn stuck_pipe() -> (std::io::PipeReader, Stdio) {
    let (reader, mut writer) = std::io::pipe().unwrap();
    // The default size of a pipe on Linux is 64 KiB; no line fits into the rest.
    writer.write_all(&[b'.'; 64 * 1024]).unwrap();
    (reader, writer.into())
}

#[tokio::test]
async fn a_log_that_cannot_be_written_stops_nothing() {
    let full = || std::fs::File::options().write(true).open("/dev/full").unwrap();
    let (_reader, stuck) = stuck_pipe();
    for log in [full().into(), broken_pipe(), stuck] {
        let place = Place::new();
        let mut server = Running::start_with_log(&place, log);
        for _ in 0..3 {
            place.peer(server.address, Role::Client).await;
        }
        server.signal("TERM");
        assert_eq!(server.child.wait().unwrap().code(), Some(0));
    }
}

#[test]
fn an_unwritable_standard_output_is_reported_and_stops_nothing() {
    let place = Place::new();
    let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
    let mut command = command(&place);
    command.args(["--listen", "127.0.0.1:0", "--data-dir"]).arg(place.data_dir());
    command.env("DKV_LOG", "off").stdout(full).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stderr.take().unwrap()).read_line(&mut line).unwrap();
    assert!(line.contains("cannot write to standard output: No space left on device"), "{line}");
    assert!(child.try_wait().unwrap().is_none());
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn it_can_be_stopped_during_startup() {
    let place = Place::new();
    // Opening a pipe without a writer blocks forever.
    let file = place.root.path().join("f.json");
    assert!(Command::new("mkfifo").arg(&file).status().unwrap().success());
    for signal in ["TERM", "INT"] {
        let mut command = command(&place);
        command.arg("-c").arg(&file).stdout(Stdio::null());
        let mut child = command.spawn().unwrap();
        let (tasks, begun) = (format!("/proc/{}/task", child.id()), Instant::now());
        let names = || {
            let tasks = std::fs::read_dir(&tasks).into_iter().flatten().filter_map(Result::ok);
            let names = tasks.map(|task| std::fs::read_to_string(task.path().join("comm")));
            names.filter_map(Result::ok).collect::<Vec<_>>()
        };
        // The log starts after the thread that handles signals during startup.
        while !names().iter().any(|name| name == "log\n") {
            assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", names());
            std::thread::sleep(Duration::from_millis(20));
        }
        let kill = Command::new("kill").args(["-s", signal, &child.id().to_string()]).status();
        assert!(kill.unwrap().success());
        let begun = Instant::now();
        let status = loop {
            if let Some(status) = child.try_wait().unwrap() {
                break status;
            }
            if begun.elapsed() > Duration::from_secs(5) {
                child.kill().unwrap();
                panic!("SIG{signal} is not obeyed");
            }
            std::thread::sleep(Duration::from_millis(20));
        };
        assert_eq!(status.code(), Some(0), "SIG{signal}");
    }
}

#[tokio::test]
async fn other_signals_are_ignored() {
    let place = Place::new();
    let mut server = Running::start(&place);
    for signal in ["USR1", "USR2", "ALRM", "IO", "HUP"] {
        server.signal(signal);
    }
    place.peer(server.address, Role::Client).await;
    assert!(server.child.try_wait().unwrap().is_none());
}

#[test]
fn an_invalid_log_filter_is_refused() {
    let place = Place::new();
    for wanted in ["nonsense===", "loud"] {
        let mut command = command(&place);
        command.env("DKV_LOG", wanted).env("DKV_DATA_DIR", place.data_dir());
        let said = fails(command);
        assert!(said.starts_with(&format!("DKV_LOG: cannot use \"{wanted}\": ")), "{said}");
    }
    assert!(!place.data_dir().exists());
}

#[test]
fn config_json_is_read_and_an_invalid_one_is_reported_in_one_line() {
    let place = Place::new();
    let file = place.root.path().join("config.json");
    std::fs::write(&file, "{\n  \"shards\": 0\n}").unwrap();
    let said = fails(command(&place));
    assert_eq!(said, "config.json, line 2: shards: must be from 1 to 1024");

    std::fs::write(&file, "{\n  \"shard\": 1\n}").unwrap();
    let mut named = command(&place);
    named.arg("-c").arg(&file);
    assert!(fails(named).contains("config.json, line 2: unknown field `shard`"));

    let mut missing = command(&place);
    missing.args(["-c", "nowhere.json"]);
    let said = fails(missing);
    assert!(said.starts_with("cannot read the configuration nowhere.json: "), "{said}");
}

#[test]
fn a_taken_port_is_reported_in_one_line() {
    let place = Place::new();
    let other = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = other.local_addr().unwrap();
    let mut command = command(&place);
    command.env("DKV_LISTEN", address.to_string()).env("DKV_DATA_DIR", place.data_dir());
    let said = fails(command);
    assert!(said.starts_with(&format!("cannot listen on {address}: another process")), "{said}");
    assert!(!place.data_dir().exists(), "a network was made all the same");
}
