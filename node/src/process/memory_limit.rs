//! Finds out how much memory this process may use.

use std::fs;
use std::path::Path;

/// Default for the bytes of values that a node keeps in memory: half of the memory of the machine
/// or of this process's control group, whichever is less. Unlimited if neither can be determined.
pub(crate) fn default_value_bytes() -> u64 {
    let read = |path: &Path| fs::read_to_string(path).unwrap_or_default();
    let state_machine = of_machine(&read(Path::new("/proc/meminfo")));
    let group = of_group(&read(Path::new("/proc/self/cgroup")), read);
    state_machine.into_iter().chain(group).min().map_or(u64::MAX, |bytes| bytes / 2)
}

/// Parses /proc/meminfo, which has a line `MemTotal: 16318480 kB`.
fn of_machine(meminfo: &str) -> Option<u64> {
    let total = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kib: u64 = total.split_whitespace().next()?.parse().ok()?;
    Some(kib * 1024)
}

/// The least limit of a control group (version 2) and its ancestors. /proc/self/cgroup says
/// `0::/system.slice/dkv-node.service`.
fn of_group(cgroup: &str, read: impl Fn(&Path) -> String) -> Option<u64> {
    let path = cgroup.lines().find_map(|line| line.strip_prefix("0::/"))?;
    let root = Path::new("/sys/fs/cgroup");
    let whole = root.join(path);
    let around = whole.ancestors().take_while(|group| group.starts_with(root));
    around.filter_map(|group| read(&group.join("memory.max")).trim().parse().ok()).min()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_least_limit_counts() {
        assert_eq!(of_machine("MemFree: 1 kB\nMemTotal:       2048 kB\n"), Some(2 << 20));
        assert_eq!(of_machine("MemTotal: much"), None);
        let limits = |path: &Path| match path.to_str() {
            Some("/sys/fs/cgroup/a/memory.max") => "5000\n".to_owned(),
            Some("/sys/fs/cgroup/a/b/memory.max") => "max\n".to_owned(),
            _ => String::new(),
        };
        assert_eq!(of_group("0::/a/b\n", limits), Some(5000));
        assert_eq!(of_group("0::/\n", limits), None);
        assert_eq!(of_group("1:memory:/a\n", limits), None);
    }

    #[test]
    fn there_is_some() {
        assert!(default_value_bytes() > 0);
    }
}
