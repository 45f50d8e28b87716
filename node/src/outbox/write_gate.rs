//! The gate that decides whether a node takes eventual writes.
//!
//! A node that is being emptied takes none, and looking whether its outboxes are empty is of use
//! only once none can arrive any more. So the gate makes the order durable, in a file of its own,
//! before it counts as obeyed: after a restart the node may not yet have read it in the directory,
//! and must take no writes then either. A task that stages a write holds the lock that closing the
//! gate has to take, so nothing slips in between.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, RwLock, RwLockReadGuard};

use crate::common::checked;
use dkv_base::durable;
use dkv_base::sync::{read, write};
use dkv_wire::message::Refusal;

/// The gate; see the [module](self). Clones share their state.
#[derive(Clone, Debug, Default)]
pub(crate) struct WriteGate {
    state: Arc<RwLock<State>>,
}

/// The state of the gate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum State {
    /// The node takes writes.
    #[default]
    Open,
    /// The node takes none, but after a restart it might.
    Closing,
    /// The node takes none, whatever happens, until the directory says otherwise at that entry or a
    /// later one.
    Closed {
        /// Index of the entry.
        at: u64,
    },
}

/// Reason why the state of the gate is not known. The node must not start: it may have promised to
/// take no writes.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WriteGateError {
    /// The file cannot be read now. The error names it.
    #[error("{0}")]
    Io(io::Error),
    /// The file does not contain what was written.
    #[error("{} is malformed", .0.display())]
    Malformed(PathBuf),
}

impl WriteGate {
    /// Loads the gate as it was left in a data directory.
    ///
    /// # Errors
    /// If the file is there and cannot be read.
    pub(crate) fn load(directory: &Path) -> Result<Self, WriteGateError> {
        let state = match load(directory)? {
            Some(at) => State::Closed { at },
            None => State::Open,
        };
        Ok(Self { state: Arc::new(RwLock::new(state)) })
    }

    /// The current state.
    pub(crate) fn state(&self) -> State {
        *self.read()
    }

    /// Returns the guard to hold while a write is staged.
    ///
    /// # Errors
    /// Refuses unless the gate is open.
    pub(super) fn enter(&self) -> Result<RwLockReadGuard<'_, State>, Refusal> {
        let state = self.read();
        if *state == State::Open { Ok(state) } else { Err(refused()) }
    }

    /// Closes the gate, as the directory of entry `at` has ordered: no write is taken from now on,
    /// and for good once this has returned. Waits for the disk.
    pub(crate) fn close(&self, directory: &Path, at: u64) -> io::Result<()> {
        self.set(State::Closing);
        save(directory, at)?;
        self.set(State::Closed { at });
        Ok(())
    }

    /// Opens the gate again, unless `is_going` has become true. Waits for the disk.
    pub(crate) fn open(&self, directory: &Path, is_going: impl Fn() -> bool) -> io::Result<()> {
        self.set(State::Closing);
        durable::remove(&path(directory))?;
        let mut state = write(&self.state);
        if !is_going() {
            *state = State::Open;
        }
        Ok(())
    }

    fn set(&self, to: State) {
        *write(&self.state) = to;
    }

    fn read(&self) -> RwLockReadGuard<'_, State> {
        read(&self.state)
    }
}

/// The refusal of a node that is being drained.
pub(crate) fn refused() -> Refusal {
    Refusal::Unavailable("this node is being drained and accepts no eventual writes".into())
}

fn save(directory: &Path, at: u64) -> io::Result<()> {
    checked::save(&path(directory), &at)
}

fn load(directory: &Path) -> Result<Option<u64>, WriteGateError> {
    let path = path(directory);
    match checked::load(&path).map_err(WriteGateError::Io)? {
        Some(None) => Err(WriteGateError::Malformed(path)),
        Some(at) => Ok(at),
        None => Ok(None),
    }
}

fn path(directory: &Path) -> PathBuf {
    directory.join("emptied")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_closed_is_closed_after_a_restart_until_it_is_opened() {
        let home = tempfile::tempdir().unwrap();
        let write_gate = WriteGate::load(home.path()).unwrap();
        assert_eq!(write_gate.state(), State::Open);
        assert!(write_gate.enter().is_ok());
        write_gate.close(home.path(), 7).unwrap();
        for write_gate in [write_gate, WriteGate::load(home.path()).unwrap()] {
            assert_eq!(write_gate.state(), State::Closed { at: 7 });
            assert_eq!(write_gate.enter().unwrap_err(), refused());
        }
        // The order was given again meanwhile: the gate takes nothing in between.
        let write_gate = WriteGate::load(home.path()).unwrap();
        write_gate.open(home.path(), || true).unwrap();
        assert_eq!(write_gate.state(), State::Closing);
        assert_eq!(write_gate.enter().unwrap_err(), refused());
        write_gate.open(home.path(), || false).unwrap();
        assert!(write_gate.enter().is_ok());
        assert_eq!(WriteGate::load(home.path()).unwrap().state(), State::Open);
    }

    #[test]
    fn a_file_that_is_none_is_named() {
        let home = tempfile::tempdir().unwrap();
        save(home.path(), 7).unwrap();
        let whole = std::fs::read(path(home.path())).unwrap();
        for length in 0..whole.len() {
            std::fs::write(path(home.path()), &whole[..length]).unwrap();
            let error = WriteGate::load(home.path()).unwrap_err().to_string();
            assert!(error.ends_with("emptied is malformed"), "{error}");
        }
    }

    #[test]
    fn a_close_waits_for_whoever_stages() {
        let home = tempfile::tempdir().unwrap();
        let write_gate = WriteGate::default();
        let staging = write_gate.enter().unwrap();
        let (closing, directory) = (write_gate.clone(), home.path().to_owned());
        let closer = std::thread::spawn(move || closing.close(&directory, 1));
        // The stager holds the lock: however long it takes, the gate has not closed.
        for _ in 0..100 {
            assert!(!closer.is_finished());
            std::thread::yield_now();
        }
        drop(staging);
        closer.join().unwrap().unwrap();
        assert_eq!(write_gate.state(), State::Closed { at: 1 });
    }
}
