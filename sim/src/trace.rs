//! The events of a run, in order: datagrams as a running hash, and all others as lines.
//!
//! Two runs of one seed must have the same trace. If they differ, the first different line says
//! when and where.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};

use dkv_base::sync::lock;

/// Datagrams between two lines with their hash.
const DATAGRAMS_A_LINE: u64 = 256;

/// A trace. Clones share it.
#[derive(Clone, Default)]
pub struct Trace {
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    hash: u64,
    datagrams: u64,
    lines: Vec<String>,
    echo: bool,
    every_datagram: bool,
    now: u64,
}

impl Trace {
    /// An empty trace. With `echo` its lines go to standard error too; with `every_datagram` each
    /// of those has a line of its own.
    pub fn new(echo: bool, every_datagram: bool) -> Self {
        let trace = Self::default();
        *trace.lock() = State { echo, every_datagram, ..State::default() };
        trace
    }

    /// Begins a tick.
    pub fn tick(&self, now: u64) {
        self.lock().now = now;
    }

    /// Notes that a datagram was sent.
    pub fn datagram(&self, now: u64, from: SocketAddr, to: SocketAddr, bytes: usize) {
        let mut state = self.lock();
        let ports = u64::from(from.port()) << 16 | u64::from(to.port());
        let machines = match (from, to) {
            (SocketAddr::V4(from), SocketAddr::V4(to)) => {
                u64::from(from.ip().to_bits()) << 32 | u64::from(to.ip().to_bits())
            }
            _ => 0,
        };
        for part in [now, machines, ports, bytes as u64] {
            state.hash = (state.hash ^ part).wrapping_mul(0x0000_0100_0000_01b3).rotate_left(23);
        }
        state.datagrams += 1;
        if state.every_datagram {
            state.add(format!("{from} sends {bytes} bytes to {to}"), false);
        }
        if state.datagrams.is_multiple_of(DATAGRAMS_A_LINE) {
            let line = format!("{} datagrams, hash {:016x}", state.datagrams, state.hash);
            state.add(line, false);
        }
    }

    /// Notes another event.
    pub fn line(&self, line: impl Into<String>) {
        self.lock().add(line.into(), true);
    }

    /// Returns all lines.
    pub fn lines(&self) -> Vec<String> {
        self.lock().lines.clone()
    }

    /// Returns a hash of all events.
    pub fn hash(&self) -> u64 {
        let state = self.lock();
        let mut hash = state.hash;
        for byte in state.lines.iter().flat_map(|line| line.bytes()) {
            hash = (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
        hash
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }
}

impl State {
    fn add(&mut self, line: String, may_echo: bool) {
        let line = format!("{:>7} ms  {line}", self.now);
        if self.echo && may_echo {
            // The reader may have gone.
            let _ =
                std::io::Write::write_all(&mut std::io::stderr(), format!("{line}\n").as_bytes());
        }
        self.lines.push(line);
    }
}
