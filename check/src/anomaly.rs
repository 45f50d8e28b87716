//! The anomalies of transactions, by their names in the literature.

/// An anomaly of transactions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Anomaly {
    /// Two operations wrote the same element to a key, so that the history cannot be judged.
    Ambiguous,
    /// A read shows what nobody wrote.
    Garbage,
    /// A read shows an element twice.
    Duplicate,
    /// Two reads of a key show lists neither of which begins with the other.
    Incompatible,
    /// A transaction does not see its own writes, or reads a key twice and differently.
    Internal,
    /// A read shows a transaction that failed.
    G1a,
    /// A read shows a version from within a transaction.
    G1b,
    /// A cycle of write-write dependencies: dirty writes.
    G0,
    /// A cycle of write-write and write-read dependencies.
    G1c,
    /// Two transactions read the same version of a key and both wrote it.
    LostUpdate,
    /// A cycle with one read-write dependency: read skew.
    GSingle,
    /// A cycle with several read-write dependencies: write skew.
    G2,
    /// As `G0`, with the order in time or of revisions.
    StrictG0,
    /// As `G1c`, with the order in time or of revisions.
    StrictG1c,
    /// As `GSingle`, with the order in time or of revisions: a stale read, or a lost write.
    StrictGSingle,
    /// As `G2`, with the order in time or of revisions.
    StrictG2,
}

impl Anomaly {
    /// Returns its name in the literature, or a short one.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ambiguous => "ambiguous",
            Self::Garbage => "garbage read",
            Self::Duplicate => "duplicate element",
            Self::Incompatible => "incompatible order",
            Self::Internal => "internal",
            Self::G1a => "G1a (aborted read)",
            Self::G1b => "G1b (intermediate read)",
            Self::G0 => "G0 (dirty write)",
            Self::G1c => "G1c (circular information flow)",
            Self::LostUpdate => "lost update",
            Self::GSingle => "G-single (read skew)",
            Self::G2 => "G2 (write skew)",
            Self::StrictG0 => "strict G0",
            Self::StrictG1c => "strict G1c",
            Self::StrictGSingle => "strict G-single",
            Self::StrictG2 => "strict G2",
        }
    }
}
