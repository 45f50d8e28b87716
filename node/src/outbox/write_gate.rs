//! Whether a node takes eventual writes to keep.
//!
//! One that is to be emptied takes none, and only when none can come any more is it of use to look
//! whether its outboxes are empty. So the order is made durable here, in a file of its own, before
//! it counts as obeyed: after a restart the node may not yet have read of it in the directory, and
//! must take none either. Whoever stages a write holds the lock that whoever closes has to take, so
//! nothing slips in between.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};

use dkv_base::durable;
use dkv_wire::codec::{decode, encode};
use dkv_wire::message::Refusal;
use xxhash_rust::xxh3::xxh3_64;

/// See the [module](self). Clones are the same.
#[derive(Clone, Debug, Default)]
pub(crate) struct WriteGate {
    state: Arc<RwLock<State>>,
}

/// How it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum State {
    /// Writes are taken.
    #[default]
    Open,
    /// None are taken, and after a restart some might be.
    Closing,
    /// None are taken, whatever happens, until the directory says otherwise at that entry or a
    /// later one.
    Closed {
        /// Index of the entry.
        at: u64,
    },
}

impl WriteGate {
    /// As it was left in a data directory.
    ///
    /// # Errors
    /// If the file cannot be read, with what is wrong.
    pub(crate) fn load(directory: &Path) -> Result<Self, String> {
        let state = match load(directory)? {
            Some(at) => State::Closed { at },
            None => State::Open,
        };
        Ok(Self { state: Arc::new(RwLock::new(state)) })
    }

    /// How it is now.
    pub(crate) fn state(&self) -> State {
        *self.read()
    }

    /// What whoever stages a write holds meanwhile.
    ///
    /// # Errors
    /// If none is taken.
    pub(super) fn enter(&self) -> Result<RwLockReadGuard<'_, State>, Refusal> {
        let state = self.read();
        if *state == State::Open { Ok(state) } else { Err(refused()) }
    }

    /// Takes no write from now on, for good once this has returned: the directory of entry `at` has
    /// asked for it. Waits for the disk.
    pub(crate) fn close(&self, directory: &Path, at: u64) -> io::Result<()> {
        self.set(State::Closing);
        save(directory, at)?;
        self.set(State::Closed { at });
        Ok(())
    }

    /// Takes writes again, unless `is_going` has become true. Waits for the disk.
    pub(crate) fn open(&self, directory: &Path, is_going: impl Fn() -> bool) -> io::Result<()> {
        self.set(State::Closing);
        durable::remove(&path(directory))?;
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        if !is_going() {
            *state = State::Open;
        }
        Ok(())
    }

    fn set(&self, to: State) {
        *self.state.write().unwrap_or_else(PoisonError::into_inner) = to;
    }

    fn read(&self) -> RwLockReadGuard<'_, State> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a node says that is being emptied.
pub(crate) fn refused() -> Refusal {
    Refusal::Unavailable("this node is being emptied and takes no writes to keep".into())
}

fn save(directory: &Path, at: u64) -> io::Result<()> {
    let content = encode(&at);
    let mut file = xxh3_64(&content).to_le_bytes().to_vec();
    file.extend_from_slice(&content);
    durable::write(&path(directory), &file)
}

fn load(directory: &Path) -> Result<Option<u64>, String> {
    let path = path(directory);
    let content = durable::read(&path).map_err(|error| format!("{}: {error}", path.display()))?;
    let Some(content) = content else { return Ok(None) };
    let whole = content.split_first_chunk().and_then(|(checksum, content)| {
        (u64::from_le_bytes(*checksum) == xxh3_64(content)).then_some(content)
    });
    let at = whole.and_then(|content| decode(content).ok());
    at.map(Some).ok_or_else(|| format!("{} is malformed", path.display()))
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
        // The order was given again meanwhile: nothing is taken in between.
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
            assert!(WriteGate::load(home.path()).unwrap_err().ends_with("emptied is malformed"));
        }
    }

    #[test]
    fn a_close_waits_for_whoever_stages() {
        let home = tempfile::tempdir().unwrap();
        let write_gate = WriteGate::default();
        let staging = write_gate.enter().unwrap();
        let (closing, directory) = (write_gate.clone(), home.path().to_owned());
        let closer = std::thread::spawn(move || closing.close(&directory, 1));
        // It holds the lock: however long it takes, nobody has closed.
        for _ in 0..100 {
            assert!(!closer.is_finished());
            std::thread::yield_now();
        }
        drop(staging);
        closer.join().unwrap().unwrap();
        assert_eq!(write_gate.state(), State::Closed { at: 1 });
    }
}
