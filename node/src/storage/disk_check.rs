//! Checks at every start whether the disk is fast enough for the election times.
//!
//! A vote must be on disk before it is given, and an entry before it is acknowledged. If syncs of
//! the disk take as long as an election, the network elects for ever. It is better to report that
//! at once than to have it discovered at night.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use dkv_base::durable::named;
use dkv_base::platform::run_blocking;
use dkv_wire::network::Settings;
use rustix::fs::FallocateFlags;
use tracing::{info, warn};

/// Number of syncs to time.
const SAMPLES: usize = 9;
/// Bytes that each sync writes.
const SAMPLE_BYTES: usize = 4096;

/// Bytes that a new node must be able to write: its first segment of the log and a checkpoint.
const ROOM_BYTES: u64 = 24 * 1024 * 1024;
/// Attempts to measure a disk before it is found too slow.
const ATTEMPTS: usize = 10;
/// Time between two attempts.
const AGAIN_AFTER: Duration = Duration::from_secs(1);

/// Sync times of a disk.
#[derive(Clone, Copy, Debug)]
struct SyncTime {
    median: Duration,
    longest: Duration,
}

/// Result of the check.
#[derive(Clone, Debug, PartialEq)]
enum Verdict {
    /// Fast enough.
    Fine,
    /// Fast enough mostly: worth a warning.
    Slow(String),
    /// Elections would not end.
    Unfit(TooSlow),
}

/// A disk whose syncs take as long as an election.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error(
    "a sync of this disk takes {sync_ms:.0} ms, and an election begins after {election_min_ms} ms: \
     the network would never agree; use a faster disk, or raise election_min_ms to more than {:.0} \
     and the other times with it when the network is created",
    10.0 * sync_ms
)]
pub(crate) struct TooSlow {
    sync_ms: f64,
    election_min_ms: u64,
}

/// Reason why a node must not begin on a disk.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DiskError {
    /// The disk is too slow for the network's election times.
    #[error(transparent)]
    TooSlow(#[from] TooSlow),
    /// The disk cannot take what a new node has to write.
    #[error("{} needs {} MiB of free disk space: {source}", .path.display(), ROOM_BYTES / 1024 / 1024)]
    NoRoom {
        /// The data directory.
        path: PathBuf,
        /// The error of the operating system.
        source: io::Error,
    },
    /// The thread that measured the disk ended without an answer.
    #[error(transparent)]
    Thread(io::Error),
}

/// Measures the disk below a data directory, and logs the result.
///
/// A disk that is busy for a moment, as after a boot, is measured again. If it stays too slow, a
/// node that has no data yet is refused; a node that has data starts all the same, since a slow
/// replica is worth more than none.
pub(crate) async fn check(
    directory: &Path,
    settings: &Settings,
    has_data: bool,
) -> Result<(), DiskError> {
    for attempt in 1.. {
        let path = directory.to_owned();
        let measured = run_blocking(move || measure(&path)).await;
        let verdict = match measured.map_err(DiskError::Thread)? {
            Ok(time) => judge(time, settings),
            // The measurement failed, as on a full disk, and the node goes on without it. Whether
            // it starts depends later on the storage engine's reserve.
            Err(error) => {
                warn!(%error, "the speed of the disk could not be measured");
                return Ok(());
            }
        };
        match verdict {
            Verdict::Fine => {}
            Verdict::Slow(warning) => warn!("{warning}"),
            Verdict::Unfit(problem) if has_data => warn!("{problem}"),
            Verdict::Unfit(problem) if attempt < ATTEMPTS => {
                info!(attempt, "the disk is too slow, perhaps busy; measuring again: {problem}");
                tokio::time::sleep(AGAIN_AFTER).await;
                continue;
            }
            Verdict::Unfit(problem) => return Err(problem.into()),
        }
        break;
    }
    Ok(())
}

/// Times a few syncs of a small file in `directory`. Blocks.
fn measure(directory: &Path) -> io::Result<SyncTime> {
    let path = directory.join("sync-test");
    let file = create(&path)?;
    let mut times = [Duration::ZERO; SAMPLES];
    let at = |error| named(&path, error);
    let mut timed = Ok(());
    for (number, time) in times.iter_mut().enumerate() {
        let begun = Instant::now();
        let offset = (number * SAMPLE_BYTES) as u64;
        timed = file.write_all_at(&[0; SAMPLE_BYTES], offset).and_then(|()| file.sync_data());
        if timed.is_err() {
            break;
        }
        *time = begun.elapsed();
    }
    let removed = std::fs::remove_file(&path);
    timed.map_err(at)?;
    removed.map_err(at)?;
    times.sort();
    Ok(SyncTime { median: times[SAMPLES / 2], longest: times[SAMPLES - 1] })
}

/// Refuses a disk on which a node could not begin. The check comes before a token is used, because
/// a token may be good for one use only.
pub(crate) fn require_room(directory: &Path) -> Result<(), DiskError> {
    let path = directory.join("room-test");
    let tried = create(&path).and_then(|file| {
        match rustix::fs::fallocate(&file, FallocateFlags::empty(), 0, ROOM_BYTES) {
            // On a filesystem without reservations, a small write shows that the filesystem is
            // writable.
            Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::NOSYS) => {
                file.write_all_at(&[1; SAMPLE_BYTES], 0)
            }
            done => done.map_err(|error| named(&path, error.into())),
        }
        .and_then(|()| file.sync_all())
        .map_err(|error| named(&path, error))
    });
    let removed = match std::fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(named(&path, error)),
        _ => Ok(()),
    };
    tried.and(removed).map_err(|source| DiskError::NoRoom { path: directory.to_owned(), source })
}

fn create(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    let options = options.write(true).create(true).truncate(true).mode(0o600);
    options.open(path).map_err(|error| named(path, error))
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

/// Compares the sync times of a disk with the election times.
fn judge(time: SyncTime, settings: &Settings) -> Verdict {
    let heartbeat = Duration::from_millis(settings.heartbeat_ms);
    let election = Duration::from_millis(settings.election_min_ms);
    if time.median >= election {
        let election_min_ms = settings.election_min_ms;
        return Verdict::Unfit(TooSlow { sync_ms: ms(time.median), election_min_ms });
    }
    if time.median * 2 >= heartbeat || time.longest >= election {
        return Verdict::Slow(format!(
            "a sync of this disk takes {:.1} ms, and took {:.1} ms at worst; with heartbeats \
             every {} ms and elections after {} ms, that may cause elections under load",
            ms(time.median),
            ms(time.longest),
            settings.heartbeat_ms,
            settings.election_min_ms,
        ));
    }
    Verdict::Fine
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(median_ms: u64, longest_ms: u64) -> Verdict {
        let time = SyncTime {
            median: Duration::from_millis(median_ms),
            longest: Duration::from_millis(longest_ms),
        };
        let (heartbeat_ms, election_min_ms, election_max_ms) = (50, 150, 250);
        let times =
            Settings { heartbeat_ms, election_min_ms, election_max_ms, ..Settings::default() };
        judge(time, &times)
    }

    #[test]
    fn a_disk_is_held_against_the_election_times() {
        assert_eq!(verdict(1, 5), Verdict::Fine);
        assert_eq!(verdict(24, 149), Verdict::Fine);
        assert!(matches!(verdict(1, 150), Verdict::Slow(_)));
        assert!(matches!(verdict(25, 26), Verdict::Slow(_)));
        assert!(matches!(verdict(149, 150), Verdict::Slow(_)));
        assert!(matches!(verdict(150, 150), Verdict::Unfit(_)));
    }

    #[test]
    fn a_real_disk_is_measured_and_left_as_it_was() {
        let directory = tempfile::tempdir().unwrap();
        let time = measure(directory.path()).unwrap();
        assert!(time.median <= time.longest);
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_disk_that_cannot_be_measured_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("sync-test");
        // It opens, and takes no bytes.
        std::os::unix::fs::symlink("/dev/full", &path).unwrap();
        let said = measure(directory.path()).unwrap_err().to_string();
        assert!(said.starts_with(&format!("{}: No space left", path.display())), "{said}");
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
    }
}
