//! Known bugs that can be planted to test the tests: mutants, in the term of mutation testing. They
//! are **never part of a release**.
//!
//! With the feature `mutants` one bug can be planted in the current thread, which then runs a
//! simulation. Without it [`planted`] is the constant `false`, and the compiler removes every
//! trace.

/// A known bug. Each one breaks a promise of the product.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mutant {
    /// A node acknowledges entries before it has synced them.
    AnswerBeforeSync,
    /// A primary answers a strong read without confirming its leadership with a quorum.
    ReadWithoutQuorum,
    /// A shard executes a write again that it has executed before.
    SkipSessions,
    /// A node grants a vote without writing it to disk.
    ForgetVote,
    /// A replica installs a snapshot of which half is missing.
    HalfSnapshot,
    /// The registration server confirms a coordinator of an older term.
    OlderCoordinator,
    /// The eventual write that arrives last wins, instead of the one with the latest stamp.
    LastArrivalWins,
    /// A page of a scan begins one key too late.
    SkipInScan,
    /// A new replica forgets that an earlier one was deleted on the same node.
    ForgetTombstone,
    /// The coordinator says that a node may be switched off without asking the node.
    PromiseWithoutAsking,
    /// A late acknowledgement of an entry confirms the leader for a read that began after it.
    TrustLateAcknowledgements,
    /// A candidate counts only the voters of the newest configuration that it knows.
    ElectByNewest,
    /// A stale copy of a data directory is accepted as the node's.
    BelieveCopies,
    /// A copy of a data directory from within the node's last run is accepted as the node's: only
    /// starts are compared, and not what was written.
    JudgeByStarts,
    /// Two processes of one node are never told from a restart.
    BelieveClones,
    /// The end of an essential task of a process goes unnoticed.
    OverlookDeadTasks,
    /// A watch loses what changes between its last page of history and its waiting for more.
    LoseAtHandOver,
    /// A watch that is resumed shows its last revision again.
    RepeatAfterResume,
    /// A watch shows one change of each revision.
    HalfRevision,
    /// A shard executes a transaction again that it has executed before.
    ForgetOutcomes,
    /// Compaction removes the versions at the floor.
    CompactAtFloor,
    /// A shard is read at revisions below its floor.
    ReadBelowFloor,
    /// A new primary does not give leases their time again.
    ShortenLeases,
    /// A new primary forgets the leases that it has taken over.
    ForgetLeases,
    /// A primary ends leases and keys seconds after their time.
    EndLate,
    /// A primary keeps a lease alive without confirming its leadership with a quorum.
    KeepAliveUnconfirmed,
    /// Compaction removes deletions that are above the floor.
    DropTombstones,
    /// A shard asks early what has become of an attempt at a transaction, and the home says that it
    /// is aborted, and may still commit it.
    DecideTwice,
    /// A home forgets that it has committed a transaction before the other shards know.
    ForgetDecisions,
    /// A home prepares and commits a transaction over several shards again.
    RepeatOverShards,
    /// A strong read does not wait for a transaction that may have written its key.
    ReadThroughLocks,
    /// No primary ends what the driver of a transaction has left behind.
    KeepLocks,
    /// A shard shows in a snapshot what it wrote after the moment of the snapshot.
    CutAfterMoment,
}

impl Mutant {
    /// All mutants.
    pub const ALL: [Self; 33] = [
        Self::AnswerBeforeSync,
        Self::ReadWithoutQuorum,
        Self::SkipSessions,
        Self::ForgetVote,
        Self::HalfSnapshot,
        Self::OlderCoordinator,
        Self::LastArrivalWins,
        Self::SkipInScan,
        Self::ForgetTombstone,
        Self::PromiseWithoutAsking,
        Self::TrustLateAcknowledgements,
        Self::ElectByNewest,
        Self::BelieveCopies,
        Self::JudgeByStarts,
        Self::BelieveClones,
        Self::OverlookDeadTasks,
        Self::LoseAtHandOver,
        Self::RepeatAfterResume,
        Self::HalfRevision,
        Self::ForgetOutcomes,
        Self::CompactAtFloor,
        Self::ReadBelowFloor,
        Self::ShortenLeases,
        Self::ForgetLeases,
        Self::EndLate,
        Self::KeepAliveUnconfirmed,
        Self::DropTombstones,
        Self::DecideTwice,
        Self::ForgetDecisions,
        Self::RepeatOverShards,
        Self::ReadThroughLocks,
        Self::KeepLocks,
        Self::CutAfterMoment,
    ];
}

#[cfg(feature = "mutants")]
mod chosen {
    use std::cell::Cell;
    use std::sync::OnceLock;

    use super::Mutant;

    /// The variable that names a bug to plant in a whole process.
    const VARIABLE: &str = "PLANTED";

    thread_local! {
        static PLANTED: Cell<Option<Mutant>> = const { Cell::new(None) };
    }

    /// Plants a bug in this thread, or none.
    pub fn plant(mutant: Option<Mutant>) {
        PLANTED.set(mutant);
    }

    /// Whether this bug is planted in this thread, or in this process by the variable `PLANTED`.
    pub fn planted(mutant: Mutant) -> bool {
        static OF_PROCESS: OnceLock<Option<Mutant>> = OnceLock::new();
        let of_process = OF_PROCESS.get_or_init(|| {
            let named = std::env::var(VARIABLE).ok()?;
            Mutant::ALL.into_iter().find(|mutant| format!("{mutant:?}") == named)
        });
        PLANTED.get().or(*of_process) == Some(mutant)
    }
}

#[cfg(feature = "mutants")]
pub use chosen::{plant, planted};

/// Whether this bug is planted in this thread. Without the feature `mutants`, never.
#[cfg(not(feature = "mutants"))]
pub const fn planted(_: Mutant) -> bool {
    false
}
