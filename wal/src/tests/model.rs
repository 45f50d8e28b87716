//! Any sequence of calls has the same effect on the log as on a map per group.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::LogState;

/// Simple model of one group.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Model {
    pub(super) vote: Option<Bytes>,
    pub(super) committed: Option<Bytes>,
    pub(super) purged: Option<(u64, Bytes)>,
    pub(super) next: Option<u64>,
    pub(super) entries: BTreeMap<u64, Bytes>,
}

impl Model {
    pub(super) fn append(&mut self, index: u64, payload: Bytes) {
        self.entries.insert(index, payload);
        self.next = Some(index + 1);
    }

    pub(super) fn truncate(&mut self, index: u64) {
        self.entries.retain(|at, _| *at < index);
        self.next = self.next.map(|next| next.min(index));
    }

    pub(super) fn purge(&mut self, index: u64, log_id: Bytes) {
        if self.purged.as_ref().is_none_or(|(purged, _)| *purged < index) {
            self.entries.retain(|at, _| *at > index);
            self.next = Some(self.next.unwrap_or(0).max(index + 1));
            self.purged = Some((index, log_id));
        }
    }

    pub(super) fn state(&self) -> LogState {
        LogState {
            vote: self.vote.clone(),
            committed: self.committed.clone(),
            purged: self.purged.clone(),
            first_index: self.entries.keys().next().copied(),
            last_index: self.entries.keys().next_back().copied(),
            next_index: self.next,
        }
    }

    pub(super) fn list(&self) -> Vec<(u64, Bytes)> {
        self.entries.iter().map(|(index, payload)| (*index, payload.clone())).collect()
    }
}

#[derive(Debug, Clone)]
pub(super) enum Op {
    Append {
        group: u32,
        count: u64,
        bytes: usize,
    },
    /// Truncates this many entries from the end.
    Truncate {
        group: u32,
        back: u64,
    },
    /// Purges this many entries from the start; beyond the end if there are fewer.
    Purge {
        group: u32,
        count: u64,
    },
    Vote {
        group: u32,
    },
    Committed {
        group: u32,
    },
    Forget {
        group: u32,
    },
    Step,
    Keep,
    Seal,
    /// Reopens the log: closed properly, or dropped with everything settled.
    Reopen {
        close: bool,
    },
}

pub(super) fn op() -> impl Strategy<Value = Op> {
    let group = 0_u32..4;
    prop_oneof![
        8 => (group.clone(), 1_u64..6, 0_usize..700)
            .prop_map(|(group, count, bytes)| Op::Append { group, count, bytes }),
        1 => (group.clone(), Just(1), 4000_usize..9000)
            .prop_map(|(group, count, bytes)| Op::Append { group, count, bytes }),
        2 => (group.clone(), 0_u64..5).prop_map(|(group, back)| Op::Truncate { group, back }),
        3 => (group.clone(), 0_u64..9).prop_map(|(group, count)| Op::Purge { group, count }),
        2 => group.clone().prop_map(|group| Op::Vote { group }),
        2 => group.clone().prop_map(|group| Op::Committed { group }),
        1 => group.prop_map(|group| Op::Forget { group }),
        8 => Just(Op::Step),
        4 => Just(Op::Keep),
        1 => Just(Op::Seal),
        1 => any::<bool>().prop_map(|close| Op::Reopen { close }),
    ]
}

/// Applies one call to the log and to the model. `salt` makes the written data unique.
pub(super) fn apply(
    wal: &Manual,
    models: &mut BTreeMap<u32, Model>,
    op: &Op,
    salt: u64,
    done: Done,
) {
    match *op {
        Op::Append { group, count, bytes } => {
            let model = models.entry(group).or_default();
            let start = model.next.unwrap_or(salt % 3);
            let entries: Vec<(u64, Bytes)> = (start..start + count)
                .map(|index| (index, entry(group, index, salt, bytes)))
                .collect();
            wal.group(group).append(entries.clone(), done).unwrap();
            for (index, payload) in entries {
                model.append(index, payload);
            }
        }
        Op::Truncate { group, back } => {
            let model = models.entry(group).or_default();
            let kept = model.entries.len().saturating_sub(back as usize);
            let from = model.entries.keys().nth(kept).copied().or(model.next).unwrap_or(0);
            wal.group(group).truncate_from(from, done).unwrap();
            model.truncate(from);
        }
        Op::Purge { group, count } => {
            let model = models.entry(group).or_default();
            let first = model.entries.keys().next().copied().or(model.next).unwrap_or(0);
            let log_id = entry(group, first + count, salt, 0);
            wal.group(group).purge(first + count, log_id.clone(), done).unwrap();
            model.purge(first + count, log_id);
        }
        Op::Vote { group } => {
            let vote = entry(group, 0, salt, 0);
            wal.group(group).save_vote(vote.clone(), done).unwrap();
            models.entry(group).or_default().vote = Some(vote);
        }
        Op::Committed { group } => {
            let committed = entry(group, 0, salt, 0);
            wal.group(group).save_committed(committed.clone()).unwrap();
            models.entry(group).or_default().committed = Some(committed);
        }
        Op::Forget { group } => {
            wal.group(group).forget(done).unwrap();
            models.remove(&group);
        }
        Op::Step | Op::Keep | Op::Seal | Op::Reopen { .. } => {}
    }
}

pub(super) fn check(wal: &Manual, models: &BTreeMap<u32, Model>) {
    for group in 0..4 {
        let model = models.get(&group).cloned().unwrap_or_default();
        let log = wal.group(group);
        assert_eq!(log.state(), model.state(), "state of group {group}");
        assert_eq!(log.read(..).unwrap(), model.list(), "entries of group {group}");
        let (from, all) = (model.entries.keys().nth(1).copied().unwrap_or(0), model.list());
        let limited = log.read_limited(from, u64::MAX, 1000).unwrap();
        let mut bytes = 0;
        let wanted: Vec<_> = all
            .into_iter()
            .filter(|(index, _)| *index >= from)
            .take_while(|(_, payload)| {
                let first = bytes == 0;
                bytes += payload.len();
                first || bytes <= 1000
            })
            .collect();
        assert_eq!(limited, wanted, "limited read of group {group}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 300, failure_persistence: None, ..ProptestConfig::default()
    })]

    #[test]
    fn behaves_like_a_map_for_each_group(ops in prop::collection::vec(op(), 1..120)) {
        let mut disk = MemoryDisk::new();
        let mut wal = Manual::open(&disk).unwrap();
        let mut models = BTreeMap::new();
        let told = Told::default();
        let mut calls = 0;
        for (salt, op) in ops.iter().enumerate() {
            match op {
                Op::Step => { wal.writer.step(); }
                Op::Keep => { wal.segment_manager.step(); }
                Op::Seal => wal.seal(),
                Op::Reopen { close } => {
                    wal.seal();
                    if *close { wal.close() }
                    disk = disk.crash(salt as u64);
                    wal = Manual::open(&disk).unwrap();
                }
                other => {
                    let is_lazy = matches!(other, Op::Committed { .. });
                    let done = if is_lazy { ignore() } else { calls += 1; told.done().1 };
                    apply(&wal, &mut models, other, salt as u64, done);
                }
            }
            check(&wal, &models);
            // Memory is bounded: beyond the cache it contains only entries that are not written
            // yet.
            let stats = wal.wal.stats();
            prop_assert!(stats.cached_bytes <= 600 + 4 * (stats.staged_bytes + 40_000));
        }
        wal.seal();
        check(&wal, &models);
        let wanted: Vec<_> = (0..calls).map(|number| (number, Ok(()))).collect();
        prop_assert_eq!(told.list(), wanted);

        // Once everything is purged only the segment in use and the spare remain.
        for group in 0..4 {
            let last = wal.group(group).state().last_index.unwrap_or(0);
            wal.group(group).purge(last, Bytes::new(), ignore()).unwrap();
        }
        wal.settle();
        prop_assert!(wal.wal.stats().segments <= 2, "{:?}", wal.wal.stats());
        prop_assert_eq!(wal.wal.stats().oldest, vec![]);
    }
}

#[test]
fn refuses_what_does_not_follow() {
    let disk = MemoryDisk::new();
    let wal = Manual::open(&disk).unwrap();
    let log = wal.group(1);
    let kind = |outcome: io::Result<()>| outcome.unwrap_err().kind();
    let one = |index| vec![(index, Bytes::from_static(b"x"))];
    log.append(one(5), ignore()).unwrap();
    assert_eq!(kind(log.append(one(7), ignore())), io::ErrorKind::InvalidInput);
    assert_eq!(kind(log.append(one(5), ignore())), io::ErrorKind::InvalidInput);
    let gap = vec![(6, Bytes::new()), (8, Bytes::new())];
    assert_eq!(kind(log.append(gap, ignore())), io::ErrorKind::InvalidInput);
    assert_eq!(kind(log.truncate_from(4, ignore())), io::ErrorKind::InvalidInput);
    assert_eq!(kind(log.purge(u64::MAX, Bytes::new(), ignore())), io::ErrorKind::InvalidInput);
    let last = vec![(u64::MAX - 1, Bytes::new()), (u64::MAX, Bytes::new())];
    assert_eq!(kind(wal.group(2).append(last, ignore())), io::ErrorKind::InvalidInput);
    let long = Bytes::from(vec![0; 64 * 1024 + 1]);
    assert_eq!(kind(log.save_vote(long.clone(), ignore())), io::ErrorKind::InvalidInput);
    assert_eq!(log.state().last_index, Some(5));
    log.purge(9, Bytes::new(), ignore()).unwrap();
    assert_eq!(kind(log.append(one(6), ignore())), io::ErrorKind::InvalidInput);
    log.append(one(10), ignore()).unwrap();
    log.append(Vec::new(), ignore()).unwrap();
    assert_eq!(wal.wal.groups(), vec![GroupId(1)]);
}
