//! The power fails at any moment: acknowledged calls survive, and the recovered state is a prefix
//! of the calls.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::model::{Model, Op, apply, op};
use super::*;

/// Possible state of each group after a crash.
type Models = BTreeMap<u32, Model>;

/// Returns the models without the committed positions, which are lazy, and without groups that have
/// no other state.
fn durable_part(models: &Models) -> Models {
    let mut models = models.clone();
    for model in models.values_mut() {
        model.committed = None;
    }
    models.retain(|_, model| *model != Model::default());
    models
}

/// Returns the content of the log in the form of models.
fn observed(wal: &Manual) -> Models {
    let mut models = Models::new();
    for id in wal.wal.groups() {
        let log = wal.wal.group(id);
        let state = log.state();
        let entries = log.read(..).unwrap().into_iter().collect();
        let next = state.next_index;
        let model =
            Model { vote: state.vote, committed: None, purged: state.purged, next, entries };
        models.insert(id.0, model);
    }
    durable_part(&models)
}

/// Runs calls until the disk dies, and beyond; returns the possible states afterwards: the models
/// after each call from the last acknowledged one on.
fn run_until_death(wal: &mut Manual, models: &mut Models, ops: &[Op], base: u64) -> Vec<Models> {
    let told = Told::default();
    let mut history = vec![models.clone()];
    let mut numbers = 0_usize;
    for (position, op) in ops.iter().enumerate() {
        if wal.wal.stats().dead.is_some() {
            break;
        }
        match op {
            Op::Step => {
                wal.writer.step();
            }
            Op::Keep => {
                wal.segment_manager.step();
            }
            Op::Seal | Op::Reopen { .. } => wal.seal(),
            other => {
                let done = if matches!(other, Op::Committed { .. }) {
                    ignore()
                } else {
                    numbers += 1;
                    told.done().1
                };
                apply(wal, models, other, base + position as u64, done);
                if !matches!(other, Op::Committed { .. }) {
                    history.push(models.clone());
                }
            }
        }
    }
    let acknowledged = told.list().iter().filter(|(_, outcome)| outcome.is_ok()).count();
    // Calls are acknowledged in order, so the count identifies them.
    for (position, (number, _)) in told.list().iter().enumerate() {
        assert_eq!(*number, position as u64);
    }
    assert!(acknowledged <= numbers);
    history.split_off(acknowledged)
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 600, failure_persistence: None, ..ProptestConfig::default()
    })]

    #[test]
    fn keeps_what_was_acknowledged(
        rounds in prop::collection::vec(
            (
                prop::collection::vec(op(), 1..60),
                0_u64..150,
                any::<u64>(),
                0_u64..30,
                any::<bool>(),
            ),
            1..5,
        ),
    ) {
        let mut disk = MemoryDisk::new();
        let mut models = Models::new();
        for (round, (ops, life, seed, recovery_life, power)) in rounds.iter().enumerate() {
            // A crash during the recovery from the crash before.
            disk.die_after(*recovery_life);
            drop(Manual::open(&disk));
            disk = disk.crash(*seed);

            let mut wal = Manual::open(&disk).unwrap();
            // The check below has narrowed down the states that the last round left possible.
            prop_assert_eq!(observed(&wal), durable_part(&models));
            disk.die_after(*life);
            let possible =
                run_until_death(&mut wal, &mut models, ops, round as u64 * 1000);
            drop(wal);
            disk = if *power { disk.crash(seed ^ 1) } else { disk.restart() };

            let wal = Manual::open(&disk).unwrap();
            let seen = observed(&wal);
            let found = possible.iter().find(|models| durable_part(models) == seen);
            prop_assert!(found.is_some(), "not a state that may be: {:#?}", seen);
            // The state that was seen has to stay, whatever crashes come: opening made it durable.
            models = found.unwrap().clone();
            for (group, model) in &mut models {
                model.committed = wal.group(*group).state().committed;
            }
            drop(wal);
            disk = disk.crash(seed ^ 2);
        }
    }
}

#[test]
fn a_frame_that_was_never_synced_is_made_durable_before_it_is_believed() {
    let disk = MemoryDisk::new();
    let mut wal = Manual::open(&disk).unwrap();
    wal.group(1).save_vote(Bytes::from_static(b"old"), ignore()).unwrap();
    wal.settle();
    wal.group(1).save_vote(Bytes::from_static(b"new"), ignore()).unwrap();
    disk.fail_sync_after(0);
    wal.settle();
    // The process is gone, but the page cache still has the frame and takes it for clean.
    let disk = disk.restart();
    let wal = Manual::open(&disk).unwrap();
    assert_eq!(wal.group(1).state().vote, Some(Bytes::from_static(b"new")));
    for seed in 0..20 {
        let wal = Manual::open(&disk.restart().crash(seed)).unwrap();
        assert_eq!(wal.group(1).state().vote, Some(Bytes::from_static(b"new")));
    }
}
