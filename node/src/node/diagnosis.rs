//! The circumstances of this node, for an operator who looks for trouble.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use dkv_base::platform::run_blocking;
use dkv_state::ShardState;
use dkv_wire::message::{Diagnosis, DiskFacts, LeaderChange, Refusal};

use super::Node;
use crate::common::unix_time::{ms_of, unix_ms};

/// Most changes of leader that a diagnosis has.
const CHANGES_MAX: usize = 1024;
/// The types of file systems in memory: tmpfs and ramfs.
const IN_MEMORY: [u64; 2] = [0x0102_1994, 0x8584_58f6];

/// Age up to which a diagnosis serves for others who ask.
const FRESH: Duration = Duration::from_secs(1);

impl Node {
    /// Returns the circumstances of this node, or those of a moment ago. Everybody may ask, so
    /// there is one look at a time.
    ///
    /// # Errors
    /// The node is stopping.
    pub(crate) async fn diagnosis(self: &Arc<Self>) -> Result<Diagnosis, Refusal> {
        let look = async {
            let node = Arc::clone(self);
            let found = run_blocking(move || node.diagnosis_now()).await;
            found.map_err(|_| Refusal::Unavailable("the node is stopping".into()))
        };
        self.diagnosed.get(FRESH, look).await
    }

    /// Returns the circumstances of this node. Waits for the disk.
    fn diagnosis_now(&self) -> Diagnosis {
        let groups = self.groups();
        let leases = groups.iter().filter(|group| group.id().is_shard()).filter_map(|group| {
            let count = group.state_machine().with_shard(ShardState::leases_len)?;
            (count > 0).then_some((group.id(), count as u64))
        });
        let mut leader_changes: Vec<LeaderChange> =
            groups.iter().flat_map(|group| group.turnovers().last()).collect();
        leader_changes.sort_by_key(|change| change.at_ms);
        let surplus = leader_changes.len().saturating_sub(CHANGES_MAX);
        leader_changes.drain(..surplus);
        let slow_requests = self.counters.slow().counts().into_iter();
        let life = self.connections.endpoint().credentials().and_then(|own| own.life().ok());
        Diagnosis {
            clock_ms: unix_ms(),
            certificate_ends_ms: life.map(|life| ms_of(life.until)),
            disk: disk(self.store.data_dir.path()),
            files: files(),
            connections: self.connections.acceptor.open_count() as u64,
            leases: leases.collect(),
            slow_requests: slow_requests
                .filter(|(_, count)| *count > 0)
                .map(|(stage, count)| (stage.to_owned(), count))
                .collect(),
            leader_changes,
        }
    }
}

fn disk(path: &Path) -> Option<DiskFacts> {
    let space = rustix::fs::statvfs(path).ok()?;
    let kind = rustix::fs::statfs(path).ok()?.f_type;
    Some(DiskFacts {
        bytes: space.f_blocks.saturating_mul(space.f_frsize),
        free_bytes: space.f_bavail.saturating_mul(space.f_frsize),
        is_memory: u64::try_from(kind).is_ok_and(|kind| IN_MEMORY.contains(&kind)),
    })
}

/// Returns the number of open files of this process, and how many it may have open.
fn files() -> Option<(u64, u64)> {
    let open = std::fs::read_dir("/proc/self/fd").ok()?.count() as u64;
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    Some((open, limit.unwrap_or(u64::MAX)))
}
