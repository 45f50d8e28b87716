//! How often a file can be synced.

use std::fmt;
use std::fs::File;
use std::io::{self, Seek, SeekFrom, Write};
use std::path::Path;
use std::sync::Barrier;
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::generator::Tally;
use crate::systems::Answer;

/// Bytes of one write: a sector.
const WRITE: [u8; 512] = [7; 512];
/// Bytes of a file that is filled with zeros first. At its end, writing starts over at its
/// beginning.
const ZEROS: usize = 16 * 1024 * 1024;
/// Files that are written at the same time, as by the nodes of a network.
const NODES: usize = 3;

/// The figures of one kind of file.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Syncs {
    files: usize,
    filled_ahead: bool,
    /// Syncs of each file per second.
    pub(super) ops: f64,
    p50_ms: f64,
    p99_ms: f64,
}

impl Syncs {
    /// Returns whether this is what three nodes of dkv do on one disk.
    pub(super) fn is_as_nodes_do(&self) -> bool {
        self.files == NODES && self.filled_ahead
    }
}

impl fmt::Display for Syncs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { files, filled_ahead, ops, p50_ms, p99_ms } = self;
        let files = match files {
            1 => "1".to_owned(),
            _ => format!("{files} at once"),
        };
        let how = if *filled_ahead { "filled ahead" } else { "appended to" };
        write!(f, "{:<28} {ops:>15.0} {p50_ms:>8.3} {p99_ms:>8.3}", format!("{files}, {how}"))
    }
}

/// Syncs files below `parent`, or below the temporary directory, each kind for `time`.
pub(super) fn measure(parent: Option<&Path>, time: Duration) -> Result<Vec<Syncs>, String> {
    let mut all = Vec::new();
    for (files, filled_ahead) in [(1, false), (NODES, false), (1, true), (NODES, true)] {
        let seen = files_at_once(parent, files, filled_ahead, time);
        all.push(seen.map_err(|error| error.to_string())?);
    }
    Ok(all)
}

fn files_at_once(
    parent: Option<&Path>,
    files: usize,
    filled_ahead: bool,
    time: Duration,
) -> io::Result<Syncs> {
    let open = |_| -> io::Result<File> {
        let mut file = parent.map_or_else(tempfile::tempfile, tempfile::tempfile_in)?;
        if filled_ahead {
            file.write_all(&vec![0; ZEROS])?;
            file.sync_all()?;
            file.seek(SeekFrom::Start(0))?;
        }
        Ok(file)
    };
    let opened = (0..files).map(open).collect::<io::Result<Vec<File>>>()?;
    let all_ready = &Barrier::new(files);
    let tallies = std::thread::scope(|scope| {
        let threads = opened.into_iter().map(|file| {
            scope.spawn(move || {
                all_ready.wait();
                sync(file, filled_ahead, time)
            })
        });
        let threads: Vec<_> = threads.collect();
        let joined = threads.into_iter().map(|thread| {
            thread.join().unwrap_or_else(|_| Err(io::Error::other("a thread has ended")))
        });
        joined.collect::<io::Result<Vec<Tally>>>()
    })?;
    let mut all = Tally::default();
    tallies.into_iter().for_each(|tally| all.add(tally));
    Ok(Syncs {
        files,
        filled_ahead,
        ops: all.answered() as f64 / time.as_secs_f64() / files as f64,
        p50_ms: all.latency_ms(0.5),
        p99_ms: all.latency_ms(0.99),
    })
}

fn sync(mut file: File, filled_ahead: bool, time: Duration) -> io::Result<Tally> {
    let mut tally = Tally::default();
    let end = Instant::now() + time;
    let mut position = 0;
    loop {
        if filled_ahead && position + WRITE.len() > ZEROS {
            file.seek(SeekFrom::Start(0))?;
            position = 0;
        }
        let begun = Instant::now();
        if begun >= end {
            return Ok(tally);
        }
        file.write_all(&WRITE)?;
        file.sync_data()?;
        tally.record(begun.elapsed(), Ok(Answer::Done));
        position += WRITE.len();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_kinds_are_measured() {
        let all = measure(None, Duration::from_millis(20)).unwrap();
        assert_eq!(all.len(), 4);
        assert!(all.iter().all(|syncs| syncs.ops > 0.0));
        assert_eq!(all.iter().filter(|syncs| syncs.is_as_nodes_do()).count(), 1);
    }
}
