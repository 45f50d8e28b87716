//! The prompt of a local network, on a terminal.

use std::fs::File;
use std::io::{Read, Write};
use std::process::{Child, ExitStatus};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use nix::pty::openpty;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::harness::process::command;
use crate::harness::{Network, eventually};

/// `dkv local` on a terminal.
struct Terminal {
    child: Child,
    keys: File,
    shown: Arc<Mutex<Vec<u8>>>,
}

impl Terminal {
    fn start(network: &Network, arguments: &[&str]) -> Self {
        let pty = openpty(None, None).unwrap();
        let mut command = command(arguments, &network.home());
        let slave = File::from(pty.slave);
        command.env("TERM", "xterm").stdin(slave.try_clone().unwrap());
        let child = command.stdout(slave.try_clone().unwrap()).stderr(slave).spawn().unwrap();
        drop(command);
        let shown = Arc::new(Mutex::new(Vec::new()));
        let keys = File::from(pty.master);
        let (mut screen, copy) = (keys.try_clone().unwrap(), Arc::clone(&shown));
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(read @ 1..) = screen.read(&mut buffer) {
                copy.lock().unwrap().extend_from_slice(&buffer[..read]);
            }
        });
        Self { child, keys, shown }
    }

    fn shown(&self) -> String {
        String::from_utf8_lossy(&self.shown.lock().unwrap()).into_owned()
    }

    /// Types keys, and waits until the expected text appears after that.
    async fn type_and_see(&mut self, keys: &str, expected: &str) {
        let before = self.shown.lock().unwrap().len();
        self.keys.write_all(keys.as_bytes()).unwrap();
        self.see(before, expected).await;
    }

    async fn see(&self, from: usize, expected: &str) {
        eventually("the text does not appear", async || {
            let shown = self.shown.lock().unwrap()[from..].to_vec();
            let shown = String::from_utf8_lossy(&shown).into_owned();
            if shown.contains(expected) { Ok(()) } else { Err(format!("{expected:?}: {shown:?}")) }
        })
        .await;
    }

    /// Sends the signal of Ctrl-C, as the terminal does while a command runs.
    fn interrupt(&self) {
        kill(Pid::from_raw(self.child.id() as i32), Signal::SIGINT).unwrap();
    }

    async fn ended(&mut self) -> ExitStatus {
        let child = &mut self.child;
        eventually("dkv does not exit", async || {
            child.try_wait().unwrap().ok_or_else(|| "it runs".to_owned())
        })
        .await
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", self.shown());
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn ctrl_c_interrupts_a_command_and_leaves_if_pressed_twice() {
    // For its home directory, and so that not too many networks run at once.
    let network = Network::server_only(serde_json::json!({})).await;
    let local = ["local", "--nodes", "1", "--port", "0"];
    let mut terminal = Terminal::start(&network, &local);
    terminal.see(0, "dkv> ").await;
    terminal.type_and_see("W,color,blue\n", "written color at revision 1").await;
    terminal.type_and_see("pause n1\n", "too few voters are left").await;
    terminal.type_and_see("W,color,red\n", "W,color,red").await;
    // The write hangs, because there is no majority.
    tokio::time::sleep(Duration::from_millis(500)).await;
    let before = terminal.shown().len();
    terminal.interrupt();
    terminal.see(before, "interrupted; the command may still take effect").await;
    terminal.type_and_see("resume n1\n", "n1 is live again").await;
    terminal.type_and_see("get color\n", "revision").await;
    terminal.type_and_see("help drain\n", "Put the node back into use").await;
    terminal
        .type_and_see("\x03", "press Ctrl-C again, or use exit or Ctrl-D, to end the network")
        .await;
    terminal.type_and_see("T,1\n", "waited 1 ms").await;
    terminal.type_and_see("\x03", "press Ctrl-C again").await;
    terminal.keys.write_all(b"\x03").unwrap();
    assert!(terminal.ended().await.success(), "{}", terminal.shown());
}

#[tokio::test(flavor = "multi_thread")]
async fn ctrl_c_ends_a_watch_and_not_the_prompt() {
    let network = Network::with(serde_json::json!({ "shards": 1 }), 1).await;
    let client = network.client().await;
    let mut terminal = Terminal::start(&network, &[&network.address.to_string()]);
    terminal.see(0, "dkv> ").await;
    for round in 1..4 {
        terminal.type_and_see("watch color --key\n", "watching from 1:").await;
        let before = terminal.shown().len();
        client.write("color", format!("blue{round}")).await.unwrap();
        terminal.see(before, &format!("blue{round}")).await;
        let before = terminal.shown().len();
        terminal.interrupt();
        terminal.see(before, &format!("go on with: watch color --key --from 1:{round}")).await;
        terminal.type_and_see("H,color\n", &format!("blue{round}")).await;
    }
    let shown = terminal.shown();
    assert!(!shown.contains("press Ctrl-C again") && !shown.contains("interrupted"), "{shown}");
    terminal.keys.write_all(b"exit\n").unwrap();
    assert!(terminal.ended().await.success(), "{}", terminal.shown());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_terminated_prompt_has_the_status_of_the_signal() {
    let network = Network::start(1).await;
    let mut terminal = Terminal::start(&network, &[&network.address.to_string()]);
    terminal.see(0, "dkv> ").await;
    terminal.type_and_see("W,color,blue\n", "written color at revision 1").await;
    kill(Pid::from_raw(terminal.child.id() as i32), Signal::SIGTERM).unwrap();
    assert_eq!(terminal.ended().await.code(), Some(128 + 15), "{}", terminal.shown());
}
