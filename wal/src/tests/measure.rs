//! A measurement, not a test: appends per second. Run it by hand, in release, with the directory to
//! use in `WAL_MEASURE_DIR`.

use std::sync::mpsc;
use std::time::{Duration, Instant};

use super::*;
use crate::disk::{Disk, RealDisk};

/// Runs callers that each wait for one append of 200 bytes before they make the next: the callback
/// makes it, so that threads of callers cost nothing.
fn run(wal: &Wal, callers: u32, groups: u32, time: Duration) -> (f64, Vec<u64>) {
    struct Caller {
        log: GroupLog,
        next: Arc<Mutex<u64>>,
        payload: Bytes,
        begun: Instant,
        end: Instant,
        latencies_us: Vec<u64>,
        finished: mpsc::Sender<Vec<u64>>,
    }
    fn append(mut caller: Box<Caller>) {
        caller.begun = Instant::now();
        let (log, next) = (caller.log.clone(), caller.next.clone());
        let mut next = next.lock().unwrap();
        let entries = vec![(*next, caller.payload.clone())];
        *next += 1;
        let done = Box::new(move |outcome: io::Result<()>| {
            outcome.unwrap();
            caller.latencies_us.push(caller.begun.elapsed().as_micros() as u64);
            if Instant::now() < caller.end {
                append(caller);
            } else {
                caller.finished.send(std::mem::take(&mut caller.latencies_us)).unwrap();
            }
        });
        log.append(entries, done).unwrap();
    }
    let (finished, results) = mpsc::channel();
    let begun = Instant::now();
    let nexts: Vec<_> = (0..groups)
        .map(|id| {
            let next = wal.group(GroupId(id)).state().next_index.unwrap_or(0);
            Arc::new(Mutex::new(next))
        })
        .collect();
    for number in 0..callers {
        let id = number % groups;
        append(Box::new(Caller {
            log: wal.group(GroupId(id)),
            next: nexts[id as usize].clone(),
            payload: Bytes::from(vec![7; 200]),
            begun,
            end: begun + time,
            latencies_us: Vec::new(),
            finished: finished.clone(),
        }));
    }
    let mut latencies: Vec<u64> = results.iter().take(callers as usize).flatten().collect();
    let seconds = begun.elapsed().as_secs_f64();
    latencies.sort_unstable();
    (latencies.len() as f64 / seconds, latencies)
}

#[test]
#[ignore = "measures, and takes its time"]
fn appends_a_second() {
    let base = std::env::var("WAL_MEASURE_DIR").expect("WAL_MEASURE_DIR says where");
    println!("the disk alone, one sector at a time: sync median {} us", bare_sync_us(&base));
    for groups in [1, 16] {
        for callers in [1, 16, 256] {
            let directory = tempfile::tempdir_in(&base).unwrap();
            let disk = RealDisk::open(directory.path()).unwrap();
            let wal = Wal::open(Arc::new(disk), WalOptions::default(), no_hook()).unwrap();
            run(&wal, callers, groups, Duration::from_millis(300));
            let (rate, latencies) = run(&wal, callers, groups, Duration::from_secs(4));
            let at = |part: f64| latencies[((latencies.len() - 1) as f64 * part) as usize];
            let stats = wal.stats();
            println!(
                "{groups:>3} groups {callers:>4} callers: {rate:>9.0} appends/s, \
                 p50 {} p99 {} p99.9 {} max {} us; sync median {} us, {} segments",
                at(0.5),
                at(0.99),
                at(0.999),
                at(1.0),
                stats.fsync_us_median,
                stats.segments,
            );
            wal.close();
        }
    }
}

/// Measures the write and sync of a sector of a file full of zeros, without the log.
fn bare_sync_us(base: &str) -> u64 {
    let directory = tempfile::tempdir_in(base).unwrap();
    let disk = RealDisk::open(directory.path()).unwrap();
    let file = disk.create("bare").unwrap();
    file.write_at(&vec![0; 4 << 20], 0).unwrap();
    file.sync_data().unwrap();
    let mut samples: Vec<u64> = (0..4000)
        .map(|at| {
            let begun = Instant::now();
            file.write_at(&[7; 512], at * 512).unwrap();
            file.sync_data().unwrap();
            begun.elapsed().as_micros() as u64
        })
        .collect();
    samples.sort_unstable();
    samples[samples.len() / 2]
}
