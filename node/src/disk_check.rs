//! Whether the disk is fast enough for the election times, asked once at every start.
//!
//! A vote must be on disk before it is given, and an entry before it is acknowledged. A disk whose
//! syncs take as long as an election makes a network that elects and elects; better to say so at
//! once than to be found out at night.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::{Duration, Instant};

use dkv_wire::network::Settings;

/// Syncs that are timed.
const SAMPLES: usize = 9;
/// Bytes that each writes.
const SAMPLE_BYTES: usize = 4096;

/// How fast a disk syncs.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SyncTime {
    pub(crate) median: Duration,
    pub(crate) longest: Duration,
}

/// What to make of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Fast enough.
    Fine,
    /// Fast enough mostly: worth a warning.
    Slow(String),
    /// Elections would not end.
    Unfit(String),
}

/// Times a few syncs of a small file in `directory`. Blocks.
pub(crate) fn measure(directory: &Path) -> io::Result<SyncTime> {
    let path = directory.join("sync-test");
    let file = File::create(&path)?;
    let mut times = [Duration::ZERO; SAMPLES];
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
    std::fs::remove_file(&path)?;
    timed?;
    times.sort();
    Ok(SyncTime { median: times[SAMPLES / 2], longest: times[SAMPLES - 1] })
}

/// Holds a disk against the election times.
pub(crate) fn judge(time: SyncTime, settings: &Settings) -> Verdict {
    let heartbeat = Duration::from_millis(settings.heartbeat_ms);
    let election = Duration::from_millis(settings.election_min_ms);
    let ms = |time: Duration| time.as_secs_f64() * 1e3;
    if time.median >= election {
        return Verdict::Unfit(format!(
            "a sync of this disk takes {:.0} ms, and an election begins after {} ms: the network \
             would never agree; use a faster disk, or raise election_min_ms to more than {:.0} \
             and the other times with it when the network is created",
            ms(time.median),
            settings.election_min_ms,
            10.0 * ms(time.median),
        ));
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
        judge(time, &Settings::default())
    }

    #[test]
    fn a_disk_is_held_against_the_election_times() {
        assert_eq!(verdict(1, 5), Verdict::Fine);
        assert!(matches!(verdict(1, 100), Verdict::Slow(_)));
        assert!(matches!(verdict(15, 20), Verdict::Slow(_)));
        assert!(matches!(verdict(100, 100), Verdict::Unfit(_)));
    }

    #[test]
    fn a_real_disk_is_measured_and_left_as_it_was() {
        let directory = tempfile::tempdir().unwrap();
        let time = measure(directory.path()).unwrap();
        assert!(time.median <= time.longest);
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
    }
}
