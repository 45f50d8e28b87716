//! Malformed input: the state refuses it without a panic.

use bytes::Bytes;
use dkv_base::id::{GroupId, Revision};
use dkv_wire::limits as wire_limits;
use dkv_wire::message::{Condition, Operation, Refusal};
use proptest::prelude::*;

use super::super::batch::Batch;
use super::super::command::validate;
use super::super::rows::{Counts, Meta};
use super::super::{BatchBuilder, Directory, Engine, EngineOptions, GroupState, ShardState};
use super::{batch, open, session, write};

proptest! {
    #[test]
    fn bytes_as_anything(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let mut shard = ShardState::new();
        let before = shard.hash();
        if shard.apply(&bytes).is_err() {
            prop_assert_eq!(shard.hash(), before, "a corrupt batch changes nothing");
        }
        let _ = Directory::new().apply(&bytes);
        let _ = validate(&bytes, 10);
        let _ = Meta::decode(&bytes);
        let mut shard = ShardState::new();
        prop_assert_eq!(shard.apply(&batch(1, &[bytes]))?.len(), 1);
    }

    #[test]
    fn a_batch_with_one_byte_changed(
        position in any::<prop::sample::Index>(),
        change in 1..=255_u8,
        commands in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..200), 0..5),
    ) {
        let whole = batch(7, &commands);
        let decoded = Batch::decode(&whole)?;
        prop_assert_eq!(decoded.len(), commands.len());
        prop_assert_eq!(decoded.commands().map(<[u8]>::to_vec).collect::<Vec<_>>(), commands);

        let mut bytes = whole.to_vec();
        bytes[position.index(whole.len())] ^= change;
        if let Ok(batch) = Batch::decode(&bytes) {
            prop_assert_eq!(batch.commands().count(), batch.len());
        }
        // Cut short anywhere, it is not a batch.
        prop_assert!(Batch::decode(&whole[..position.index(whole.len())]).is_err());
        bytes = whole.to_vec();
        bytes.push(0);
        prop_assert!(Batch::decode(&bytes).is_err());
    }

}

proptest! {
    // Few cases, since each opens an engine.
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn bytes_as_a_snapshot(chunk in proptest::collection::vec(any::<u8>(), 1..200)) {
        let directory = tempfile::tempdir()?;
        let options = EngineOptions { reserve_bytes: 0, ..EngineOptions::default() };
        let engine = Engine::open(directory.path(), options)?;
        for group in [GroupId::CONTROL, GroupId(1)] {
            let store = engine.group(group)?;
            let mut installer = store.install()?;
            let _ = installer.write_chunk(&chunk);
            let meta = Meta {
                stamp: Default::default(),
                floor: Revision(0),
                swept: Revision(0),
                applied: Bytes::new(),
                revision: Revision(1),
                clock_ms: 1,
                hash: 1,
                counts: Counts::default(),
            };
            prop_assert!(installer.complete(&meta).is_err());
            prop_assert!(GroupState::load(&store)?.1.is_none());
        }
    }
}

#[test]
fn lengths_have_one_spelling() {
    // One command of one byte, with its length encoded as 0x01 and then as 0x81 0x00.
    let mut bytes = batch(1, &[vec![5]]).to_vec();
    assert!(Batch::decode(&bytes).is_ok());
    bytes.splice(13..14, [0x81, 0x00]);
    assert!(Batch::decode(&bytes).is_err());
}

#[test]
fn limits_are_told() {
    let put = |key: &[u8], value: &[u8]| {
        write(session('s'), 1, 0, Condition::Always, key, Operation::Put(value))
    };
    assert!(validate(&open(session('s')), 10).is_ok());
    assert!(validate(&put(b"k", &[0; 10]), 10).is_ok());
    assert!(validate(&put(&[0; wire_limits::KEY_BYTES_MAX], b""), 10).is_ok());
    let too_large = |command: &[u8]| match validate(command, 10) {
        Err(Refusal::TooLarge { what, .. }) => what,
        other => panic!("{other:?}"),
    };
    assert_eq!(too_large(&put(b"k", &[0; 11])), "value");
    assert_eq!(too_large(&put(&[0; wire_limits::KEY_BYTES_MAX + 1], b"")), "key");
    assert!(matches!(validate(&put(b"", b""), 10), Err(Refusal::Invalid(_))));
}

#[test]
fn a_batch_is_full_in_good_time() {
    let mut builder = BatchBuilder::new(1, dkv_base::id::Stamp(1));
    assert!(builder.is_empty() && builder.takes(usize::MAX / 2), "the first command always fits");
    while builder.takes(1000) {
        builder.push(&[0; 1000]);
    }
    assert!(builder.bytes() <= wire_limits::BATCH_BYTES_TARGET);
    let mut builder = BatchBuilder::new(1, dkv_base::id::Stamp(1));
    while builder.takes(0) {
        builder.push(&[]);
    }
    assert_eq!(builder.len(), wire_limits::BATCH_COMMANDS_MAX);
    let full = builder.finish();
    assert_eq!(Batch::decode(&full).map(|batch| batch.len()), Ok(4096));
    // One more command is over the limit, even if it was not built by a `BatchBuilder`.
    let mut fuller = full.to_vec();
    fuller[9..13].copy_from_slice(&4097_u32.to_le_bytes());
    fuller.push(0);
    assert!(Batch::decode(&fuller).is_err());
}
