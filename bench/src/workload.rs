//! The operations of the clients: plain data, the same for the same seed.
//!
//! A [`Work`] is a [`Mix`] of operations and a distribution of keys. Each client draws its own
//! sequence from a [`Stream`]. Keys are `key-` and twelve digits; all values of one measurement are
//! the same incompressible bytes.
//!
//! The mixes A to F are those of YCSB (Cooper et al., *Benchmarking cloud serving systems with
//! YCSB*, SoCC 2010), with two differences. A record is one value, not ten fields. The write of F's
//! read-modify-write is conditional on the read where the system offers that, so it can conflict.

mod zipf;

#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use clap::ValueEnum;
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use serde::Serialize;

use self::zipf::Zipfian;

/// Longest scan of mix E, in records.
const SCAN_RECORDS_MAX: u32 = 100;
/// Bounds of what is loaded: values and keys beyond what any of the systems takes.
pub(crate) const VALUE_BYTES_MAX: usize = 1024 * 1024 * 1024;
pub(crate) const KEYS_MAX: u64 = 1_000_000_000;

/// One request of a client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Operation {
    /// Writes a key, whether or not it exists.
    Put {
        /// The key.
        key: String,
        /// The value.
        value: Bytes,
    },
    /// Reads a key, linearizably.
    Get {
        /// The key.
        key: String,
    },
    /// Reads a key from any replica.
    EventualGet {
        /// The key.
        key: String,
    },
    /// Reads a number of keys in order.
    Scan {
        /// The first key.
        key: String,
        /// The number of keys.
        count: u32,
    },
    /// Reads a key and then writes it, unless it has changed in between.
    ReadModifyWrite {
        /// The key.
        key: String,
        /// The value.
        value: Bytes,
    },
    /// Writes two keys together if both exist.
    Transaction {
        /// The number of the first record; the second is the next one after it, round about, that
        /// is in the same shard or in another, where the system has shards.
        first: u64,
        /// The number of records.
        records: u64,
        /// Whether the second is in another shard.
        across: bool,
        /// The value.
        value: Bytes,
    },
}

/// What the clients of one measurement do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Work {
    /// Writes, keys uniform
    Put,
    /// Linearizable reads, keys uniform
    Get,
    /// Reads from any replica, keys uniform
    EventualGet,
    /// Half reads, half writes, keys Zipfian
    YcsbA,
    /// 95% reads, 5% writes, keys Zipfian
    YcsbB,
    /// Reads, keys Zipfian
    YcsbC,
    /// 95% reads of the latest inserts, 5% inserts
    YcsbD,
    /// 95% scans of 1 to 100 records, 5% inserts
    YcsbE,
    /// Half reads, half read-modify-writes, keys Zipfian
    YcsbF,
    /// Transactions of two compares and two puts in one shard, keys uniform
    Txn,
    /// The same over two shards
    TxnAcross,
}

/// The distribution of keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Choice {
    Even,
    Zipfian,
    /// Zipfian, counted back from the newest.
    Latest,
}

/// Shares of the kinds of operations, in percent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Mix {
    read: u32,
    eventual_read: u32,
    update: u32,
    insert: u32,
    scan: u32,
    read_modify_write: u32,
    transaction: u32,
    across: bool,
    choice: Choice,
}

impl Work {
    /// Returns its name, as on the command line.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Put => "put",
            Self::Get => "get",
            Self::EventualGet => "eventual-get",
            Self::YcsbA => "ycsb-a",
            Self::YcsbB => "ycsb-b",
            Self::YcsbC => "ycsb-c",
            Self::YcsbD => "ycsb-d",
            Self::YcsbE => "ycsb-e",
            Self::YcsbF => "ycsb-f",
            Self::Txn => "txn",
            Self::TxnAcross => "txn-across",
        }
    }

    /// Returns its mix of operations.
    pub(crate) fn mix(self) -> Mix {
        let none = Mix {
            read: 0,
            eventual_read: 0,
            update: 0,
            insert: 0,
            scan: 0,
            read_modify_write: 0,
            transaction: 0,
            across: false,
            choice: Choice::Zipfian,
        };
        let transactions = Mix { transaction: 100, choice: Choice::Even, ..none };
        match self {
            Self::Put => Mix { update: 100, choice: Choice::Even, ..none },
            Self::Get => Mix { read: 100, choice: Choice::Even, ..none },
            Self::EventualGet => Mix { eventual_read: 100, choice: Choice::Even, ..none },
            Self::YcsbA => Mix { read: 50, update: 50, ..none },
            Self::YcsbB => Mix { read: 95, update: 5, ..none },
            Self::YcsbC => Mix { read: 100, ..none },
            Self::YcsbD => Mix { read: 95, insert: 5, choice: Choice::Latest, ..none },
            Self::YcsbE => Mix { scan: 95, insert: 5, ..none },
            Self::YcsbF => Mix { read: 50, read_modify_write: 50, ..none },
            Self::Txn => transactions,
            Self::TxnAcross => Mix { across: true, ..transactions },
        }
    }
}

impl Mix {
    /// Returns whether it contains scans.
    pub(crate) fn has_scans(&self) -> bool {
        self.scan > 0
    }

    /// Returns whether it contains nothing but puts and gets.
    pub(crate) fn is_puts_and_gets(&self) -> bool {
        self.scan == 0 && self.read_modify_write == 0 && !self.has_transactions()
    }

    /// Returns whether it contains transactions.
    pub(crate) fn has_transactions(&self) -> bool {
        self.transaction > 0
    }
}

/// What all clients of one measurement share.
#[derive(Debug)]
pub(crate) struct Workload {
    mix: Mix,
    value: Bytes,
    seed: u64,
    zipfian: Zipfian,
    records: u64,
    /// Inserts that have started, which numbers them.
    begun: AtomicU64,
    /// Inserts that were answered, so that the newest of them can be read.
    inserted: AtomicU64,
}

impl Workload {
    /// Creates a workload over `records` keys, at least one.
    pub(crate) fn new(work: Work, records: u64, value_bytes: usize, seed: u64) -> Self {
        let records = records.max(1);
        Self {
            mix: work.mix(),
            value: value(value_bytes, seed),
            seed,
            zipfian: Zipfian::new(if work.mix().choice == Choice::Even { 1 } else { records }),
            records,
            begun: AtomicU64::new(0),
            inserted: AtomicU64::new(0),
        }
    }

    /// Records that an insert was answered.
    pub(crate) fn note_inserted(&self) {
        self.inserted.fetch_add(1, Ordering::Relaxed);
    }
}

/// Returns the key of a record.
pub(crate) fn key(number: u64) -> String {
    format!("key-{number:012}")
}

/// Returns incompressible bytes.
pub(crate) fn value(bytes: usize, seed: u64) -> Bytes {
    let mut value = vec![0; bytes];
    SmallRng::seed_from_u64(seed).fill(&mut value[..]);
    value.into()
}

/// The operations of one client.
#[derive(Debug)]
pub(crate) struct Stream {
    workload: Arc<Workload>,
    random: SmallRng,
}

impl Stream {
    /// Returns the operations of a client, by its number.
    pub(crate) fn new(workload: Arc<Workload>, client: usize) -> Self {
        let seed = workload.seed ^ (client as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        Self { random: SmallRng::seed_from_u64(seed), workload }
    }

    /// Returns the next operation, and whether it is an insert, whose completion must be reported
    /// to the workload.
    pub(crate) fn next(&mut self) -> (Operation, bool) {
        let mix = self.workload.mix;
        let mut left = self.random.random_range(0..100);
        let mut falls_on = |share: u32| {
            let hit = left < share;
            // Once one was hit, the other shares no longer matter.
            left = left.saturating_sub(share);
            hit
        };
        if falls_on(mix.read) {
            return (Operation::Get { key: self.choose() }, false);
        }
        if falls_on(mix.eventual_read) {
            return (Operation::EventualGet { key: self.choose() }, false);
        }
        if falls_on(mix.update) {
            return (Operation::Put { key: self.choose(), value: self.value() }, false);
        }
        if falls_on(mix.scan) {
            let count = self.random.random_range(1..=SCAN_RECORDS_MAX);
            return (Operation::Scan { key: self.choose(), count }, false);
        }
        if falls_on(mix.read_modify_write) {
            return (Operation::ReadModifyWrite { key: self.choose(), value: self.value() }, false);
        }
        if falls_on(mix.transaction) {
            let records = self.workload.records;
            let first = self.random.random_range(0..records);
            let (across, value) = (mix.across, self.value());
            return (Operation::Transaction { first, records, across, value }, false);
        }
        let number = self.workload.records + self.workload.begun.fetch_add(1, Ordering::Relaxed);
        (Operation::Put { key: key(number), value: self.value() }, true)
    }

    fn choose(&mut self) -> String {
        let workload = &*self.workload;
        key(match workload.mix.choice {
            Choice::Even => self.random.random_range(0..workload.records),
            Choice::Zipfian => workload.zipfian.scattered(self.random.random()),
            Choice::Latest => {
                let newest = workload.records - 1 + workload.inserted.load(Ordering::Relaxed);
                newest - workload.zipfian.rank(self.random.random())
            }
        })
    }

    fn value(&self) -> Bytes {
        self.workload.value.clone()
    }
}
