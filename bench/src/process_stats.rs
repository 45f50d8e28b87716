//! Resources that processes use, from `/proc`.

use std::path::PathBuf;
use std::time::Duration;

use serde::Serialize;

/// Memory of one process, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Memory {
    /// All resident pages.
    pub(crate) resident: u64,
    /// Resident pages that belong to no file: neither program text nor a mapped file.
    pub(crate) anonymous: u64,
    /// The most that was resident since the start or the last [`reset_peaks`].
    pub(crate) peak: u64,
}

/// Returns the CPU time that the processes have used together, in user and kernel mode. The kernel
/// usually counts it in steps of 10 ms.
pub(crate) fn cpu(processes: &[u32]) -> Duration {
    let ticks_per_second = rustix::param::clock_ticks_per_second().max(1);
    let ticks = processes.iter().filter_map(|id| ticks(&read(*id, "stat")?)).sum::<u64>();
    Duration::from_nanos(ticks * (1_000_000_000 / ticks_per_second))
}

/// Returns the CPU time of this process.
pub(crate) fn own_cpu() -> Duration {
    cpu(&[std::process::id()])
}

/// Returns the memory of a process; zeros if it has ended.
pub(crate) fn memory(process: u32) -> Memory {
    read(process, "status").map(|status| parse_memory(&status)).unwrap_or_default()
}

/// Returns the sum of the peaks of all processes.
pub(crate) fn peak(processes: &[u32]) -> u64 {
    processes.iter().map(|id| memory(*id).peak).sum()
}

/// Resets the peaks.
pub(crate) fn reset_peaks(processes: &[u32]) {
    for id in processes {
        // If this fails, the peak is that since the start, which is still correct.
        let _ = std::fs::write(path(*id, "clear_refs"), "5");
    }
}

fn path(process: u32, file: &str) -> PathBuf {
    PathBuf::from(format!("/proc/{process}/{file}"))
}

fn read(process: u32, file: &str) -> Option<String> {
    std::fs::read_to_string(path(process, file)).ok()
}

fn ticks(stat: &str) -> Option<u64> {
    // The name may contain spaces; the third field follows it.
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    Some(fields.get(11)?.parse::<u64>().ok()? + fields.get(12)?.parse::<u64>().ok()?)
}

fn parse_memory(status: &str) -> Memory {
    let bytes = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name))?;
        line.trim().strip_suffix(" kB")?.parse::<u64>().ok().map(|kib| kib * 1024)
    };
    Memory {
        resident: bytes("VmRSS:").unwrap_or_default(),
        anonymous: bytes("RssAnon:").unwrap_or_default(),
        peak: bytes("VmHWM:").unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_blanks_and_brackets_does_not_shift_the_fields() {
        let stat = "77 (a b) c) S 1 2 3 4 5 6 7 8 9 10 250 31 0 0 20 0 9 0";
        assert_eq!(ticks(stat), Some(281));
        assert_eq!(ticks("77 (a) S 1"), None);
    }

    #[test]
    fn memory_is_read_by_name() {
        let status = "Name:\tx\nVmHWM:\t    2048 kB\nVmRSS:\t 1024 kB\nRssAnon:\t  512 kB\n";
        let expected = Memory { resident: 1 << 20, anonymous: 1 << 19, peak: 2 << 20 };
        assert_eq!(parse_memory(status), expected);
        assert_eq!(parse_memory(""), Memory::default());
    }

    #[test]
    fn this_process_uses_memory() {
        assert!(memory(std::process::id()).resident > 0);
        assert_eq!(memory(0), Memory::default());
    }
}
