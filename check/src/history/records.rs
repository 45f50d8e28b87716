//! Lines of a history that are not operations on one key: each says its kind.

use serde::{Deserialize, Serialize};

use super::History;
use super::lease::{Disruption, LeaseNote};
use super::line::LineError;
use super::transaction::Transaction;
use super::watched::{PastRead, RevisionChanges, VersionList, WatchNote};

/// A line with a `kind`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub(super) enum Record {
    Transaction(Transaction),
    Changes(RevisionChanges),
    Watch(WatchNote),
    ReadAt(PastRead),
    Versions(VersionList),
    Compaction(Compaction),
    Lease(LeaseNote),
    Disruption(Disruption),
}

/// A request to forget the history of a shard before a revision, whatever became of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Compaction {
    /// The shard.
    pub shard: u32,
    /// The revision.
    pub revision: u64,
}

/// Whether a line may have a kind. One that has none, and says `"kind"` in a value, is read twice.
pub(super) fn may_have_kind(line: &[u8]) -> bool {
    line.windows(6).any(|part| part == b"\"kind\"")
}

/// Whether a line has a kind.
#[derive(Deserialize)]
pub(super) struct Kinded {
    #[serde(default)]
    pub(super) kind: Option<serde::de::IgnoredAny>,
}

impl Record {
    pub(super) fn add_to(self, history: &mut History) -> Result<(), LineError> {
        match self {
            Self::Transaction(it) => history.transactions.push(it.checked()?),
            Self::Changes(it) => history.changes.push(it),
            Self::Watch(it) => history.watches.push(it),
            Self::ReadAt(it) => {
                if it.end_ns < it.start_ns {
                    return Err(LineError::EndsEarly);
                }
                history.past_reads.push(it);
            }
            Self::Versions(it) => {
                if it.end_ns < it.start_ns {
                    return Err(LineError::EndsEarly);
                }
                history.version_lists.push(it);
            }
            Self::Compaction(it) => history.compactions.push(it),
            Self::Lease(it) => history.leases.push(it.checked()?),
            Self::Disruption(it) => {
                if it.end_ns < it.start_ns {
                    return Err(LineError::EndsEarly);
                }
                history.disruptions.push(it);
            }
        }
        Ok(())
    }
}

/// Returns all records of a history, those of one kind in their order.
pub(super) fn all(history: &History) -> impl Iterator<Item = Record> {
    let transactions = history.transactions.iter().cloned().map(Record::Transaction);
    let changes = history.changes.iter().cloned().map(Record::Changes);
    let watches = history.watches.iter().cloned().map(Record::Watch);
    let past_reads = history.past_reads.iter().cloned().map(Record::ReadAt);
    let version_lists = history.version_lists.iter().cloned().map(Record::Versions);
    let compactions = history.compactions.iter().copied().map(Record::Compaction);
    let leases = history.leases.iter().cloned().map(Record::Lease);
    let disruptions = history.disruptions.iter().copied().map(Record::Disruption);
    let of_shards = changes.chain(watches).chain(past_reads).chain(version_lists);
    transactions.chain(of_shards).chain(compactions).chain(leases).chain(disruptions)
}
