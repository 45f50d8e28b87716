//! The records of incarnations in the data directory.
//!
//! `starts.json` has the directory's own incarnations. The node writes and syncs it at each start,
//! before it sends anything, and once more after opening the log and before appending to it, with
//! the mark that the previous incarnation has left. `runs.json` has the known incarnations of
//! other nodes. The node writes it at once if an incarnation of one was new, and now and then with
//! how far their logs are. An older `runs.json` knows less, and nothing that is wrong.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::time::Duration;

use dkv_base::durable;
use dkv_base::id::NodeId;
use dkv_base::platform::{self, run_blocking};
use dkv_base::sync::lock;
use dkv_wire::incarnation::{BootId, Incarnation, IncarnationRecord, IncarnationTracker};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use tokio::time::Instant;
use tracing::debug;
use xxhash_rust::xxh3::xxh3_64;

use super::Incarnations;
use dkv_wal::Wal;

/// Interval of the checks whether the records must be written.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Time between two writes when only the positions of logs have changed.
const MARKS_EVERY: Duration = Duration::from_secs(10);
const VERSION: u32 = 2;

/// The reason why a file about incarnations cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum IncarnationFileError {
    /// The file cannot be read or written.
    #[error("{}: {source}", .path.display())]
    Io {
        /// The path of the file.
        path: PathBuf,
        /// The error of the operating system.
        source: std::io::Error,
    },
    /// The file is not what a node wrote, or is missing although a node wrote it.
    #[error(
        "{} {why}: it says how often this node was started, without which an older \
         copy of its data directory cannot be told from the right one; put the file back from \
         where the directory came from", .path.display()
    )]
    Damaged {
        /// The path of the file.
        path: PathBuf,
        /// The damage.
        why: Cow<'static, str>,
    },
}

#[derive(Serialize, Deserialize)]
struct Envelope {
    version: u32,
    /// XXH3 (64 bits, seed 0) of the text of `content`.
    checksum: String,
    content: Box<RawValue>,
}

fn save<T: Serialize>(path: &Path, content: &T) -> Result<(), IncarnationFileError> {
    let encode = || {
        let content = serde_json::value::to_raw_value(content)?;
        let checksum = format!("{:016x}", xxh3_64(content.get().as_bytes()));
        serde_json::to_vec(&Envelope { version: VERSION, checksum, content })
    };
    let written = encode().map_err(std::io::Error::other);
    let written = written.and_then(|text| durable::write(path, &text));
    written.map_err(|source| IncarnationFileError::Io { path: path.to_owned(), source })
}

fn load<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, IncarnationFileError> {
    let damaged = |why: String| {
        let why = format!("is damaged ({why})").into();
        IncarnationFileError::Damaged { path: path.to_owned(), why }
    };
    let text = durable::read(path)
        .map_err(|source| IncarnationFileError::Io { path: path.to_owned(), source })?;
    let Some(text) = text else { return Ok(None) };
    let envelope: Envelope = serde_json::from_slice(&text).map_err(|e| damaged(e.to_string()))?;
    if envelope.version != VERSION {
        return Err(damaged(format!("it is of format {}", envelope.version)));
    }
    let content = envelope.content.get();
    if envelope.checksum != format!("{:016x}", xxh3_64(content.as_bytes())) {
        return Err(damaged("its content does not match its checksum".into()));
    }
    serde_json::from_str(content).map(Some).map_err(|error| damaged(error.to_string()))
}

/// Begins an incarnation in a data directory that belongs to this process. Its number is on disk
/// when this returns. If the log has begun, there must have been an earlier incarnation.
pub(crate) fn begin(
    me: NodeId,
    directory: &Path,
    log_begun: bool,
) -> Result<Incarnations, IncarnationFileError> {
    let path = starts_path(directory);
    let last: Incarnation = match load(&path)? {
        Some(last) => last,
        None if log_begun => {
            return Err(IncarnationFileError::Damaged { path, why: "is missing".into() });
        }
        None => Incarnation::default(),
    };
    let own = last.next(BootId(platform::random_u64()));
    save(&path, &own)?;
    // The record of other nodes matters only until they are heard again, so an unreadable file
    // counts as missing.
    let heard: BTreeMap<NodeId, IncarnationRecord> = match load(&records_path(directory)) {
        Ok(heard) => heard.unwrap_or_default(),
        Err(error) => {
            tracing::warn!(%error, "discarding the known incarnations of other nodes");
            BTreeMap::new()
        }
    };
    Ok(Incarnations::new(me, directory, own, IncarnationTracker::new(heard)))
}

fn starts_path(directory: &Path) -> PathBuf {
    directory.join("starts.json")
}

fn records_path(directory: &Path) -> PathBuf {
    directory.join("runs.json")
}

impl Incarnations {
    /// Sets the log that the mark of this incarnation refers to. When this returns, the mark that
    /// the previous incarnation left in the log is on disk; nothing may be written to the log
    /// before that. Until this call, the incarnation has no log.
    pub(crate) fn open(&self, wal: Wal) -> Result<(), IncarnationFileError> {
        let opened = self.shared.own.clone().open(wal.durable_records());
        save(&starts_path(&self.shared.directory), &opened)?;
        // Set once: an incarnation has one log.
        let _ = self.shared.wal.set((wal, opened));
        Ok(())
    }

    /// Writes the record of the other nodes.
    pub(crate) fn save_records(&self) -> Result<(), IncarnationFileError> {
        let records = lock(&self.shared.tracker).records().clone();
        save(&records_path(&self.shared.directory), &records)
    }
}

/// Writes the record of the other nodes whenever it has changed, for the life of the node.
pub(crate) async fn keep_records(incarnations: Incarnations) {
    let mut saved = Instant::now();
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        let shared = &incarnations.shared;
        let news = shared.has_news.swap(false, Ordering::Relaxed);
        let marks =
            saved.elapsed() >= MARKS_EVERY && shared.has_marks.swap(false, Ordering::Relaxed);
        if !news && !marks {
            continue;
        }
        saved = Instant::now();
        let writing = incarnations.clone();
        if let Ok(Err(error)) = run_blocking(move || writing.save_records()).await {
            debug!(%error, "could not save the known incarnations of other nodes");
            shared.has_news.store(true, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_start_has_a_number_of_its_own_and_names_those_before_it() {
        let home = tempfile::tempdir().unwrap();
        let mut past = Vec::new();
        for start in 1..150 {
            let own = begin(NodeId::random(), home.path(), false).unwrap().own();
            assert_eq!(own.start, start);
            let named: Vec<BootId> = past.iter().rev().copied().take(own.past.len()).collect();
            assert_eq!(own.past.iter().map(|former| former.boot).collect::<Vec<_>>(), named);
            assert_eq!(own.past.len(), past.len().min(dkv_wire::incarnation::PAST_MAX));
            past.push(own.boot);
        }
    }

    #[test]
    fn what_was_heard_outlives_a_restart() {
        let home = tempfile::tempdir().unwrap();
        let (me, other) = (NodeId::random(), NodeId::random());
        let run = Incarnation::default().next(BootId(7)).open(9);
        let incarnations = begin(me, home.path(), false).unwrap();
        assert!(incarnations.hear(other, &run, None).verdict.is_sound());
        incarnations.save_records().unwrap();
        let incarnations = begin(me, home.path(), false).unwrap();
        let copy = run.next(BootId(8)).open(8);
        assert!(!incarnations.hear(other, &copy, None).verdict.is_sound());
        assert_eq!(incarnations.notes().len(), 1);
        let restarted = run.next(BootId(9)).open(9);
        assert!(incarnations.hear(other, &restarted, None).verdict.is_sound());
        assert!(incarnations.notes().is_empty());
    }

    #[test]
    fn a_log_that_has_begun_has_had_a_start() {
        let home = tempfile::tempdir().unwrap();
        let missing = begin(NodeId::random(), home.path(), true).err().unwrap();
        assert!(missing.to_string().contains("starts.json is missing: it says"), "{missing}");
        assert!(!home.path().join("starts.json").exists(), "nothing is put in its place");
        begin(NodeId::random(), home.path(), false).unwrap();
        assert_eq!(begin(NodeId::random(), home.path(), true).unwrap().own().start, 2);
    }

    #[test]
    fn a_number_that_cannot_be_read_is_not_guessed() {
        let home = tempfile::tempdir().unwrap();
        begin(NodeId::random(), home.path(), false).unwrap();
        let path = home.path().join("starts.json");
        let whole = std::fs::read(&path).unwrap();
        for length in 0..whole.len() {
            std::fs::write(&path, &whole[..length]).unwrap();
            let error = begin(NodeId::random(), home.path(), false).err().unwrap();
            assert!(error.to_string().contains("starts.json is damaged"), "{error}");
        }
        for bit in 0..whole.len() * 8 {
            let mut flipped = whole.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            std::fs::write(&path, &flipped).unwrap();
            assert!(begin(NodeId::random(), home.path(), false).is_err(), "bit {bit}");
        }
    }
}
