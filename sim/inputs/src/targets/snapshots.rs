//! Rows of another node's checkpoint: they make a complete state, or the old one stays.

use bytes::Bytes;
use dkv_base::id::GroupId;
use dkv_state::{Engine, EngineOptions, GroupState, MemoryStore, Meta};
use xxhash_rust::xxh3::xxh3_64;

use super::entries::{batches, changes};
use crate::parts::{Parts, join};

fn engine() -> Engine {
    let options = EngineOptions { reserve_bytes: 0, ..EngineOptions::default() };
    Engine::in_memory(&MemoryStore::new(), options).expect("an engine in memory")
}

pub(super) fn read(input: &[u8]) {
    let mut parts = Parts::new(input);
    let group = GroupId(u32::from(parts.byte() % 2));
    let engine = engine();
    let store = engine.group(group).expect("a group");
    let mut old = GroupState::new(group);
    store.checkpoint(&old.take_changes(Bytes::from_static(b"old"))).expect("a checkpoint");

    let head = with_checksum(parts.piece().unwrap_or_default());
    let Ok(meta) = Meta::decode(&head) else { return };
    assert_eq!(Meta::decode(&meta.encode()).as_ref(), Ok(&meta));
    let mut installer = store.install().expect("room");
    let mut taken = true;
    while let Some(chunk) = parts.piece() {
        taken &= installer.write_chunk(chunk).is_ok();
        if !taken {
            break;
        }
    }
    let completed = if taken { installer.complete(&meta).ok() } else { None };
    let new = completed.and_then(|completed| {
        let state = GroupState::load_completed(&completed).ok()?;
        completed.switch().expect("nothing is in the way");
        Some(state)
    });
    let (stands, moment) = GroupState::load(&store).expect("old or new");
    match new {
        Some(new) => {
            assert_eq!(stands.hash(), new.hash());
            assert_eq!((stands.hash(), moment.as_ref()), (meta.hash, Some(&meta)));
        }
        None => assert_eq!(stands.hash(), old.hash()),
    }
}

/// The head with a correct checksum.
fn with_checksum(head: &[u8]) -> Vec<u8> {
    let body = &head[..head.len().saturating_sub(8)];
    [body, &xxh3_64(body).to_le_bytes()].concat()
}

pub(super) fn seeds() -> Vec<Vec<u8>> {
    let seed = |kind: u8, entries: Vec<Vec<u8>>| {
        let group = GroupId(kind.into());
        let mut state = GroupState::new(group);
        entries.iter().for_each(|entry| drop(state.apply(entry)));
        let store = engine().group(group).expect("a group");
        store.checkpoint(&state.take_changes(Bytes::from_static(b"new"))).expect("a checkpoint");
        let mut reader = store.snapshot().expect("a table").expect("a checkpoint");
        let mut pieces = vec![reader.meta().encode()];
        while let Some(chunk) = reader.next_chunk().expect("rows") {
            pieces.push(chunk.to_vec());
        }
        [&[kind], &join(pieces.iter().map(Vec::as_slice))[..]].concat()
    };
    vec![seed(0, changes()), seed(1, batches()), seed(0, Vec::new()), seed(1, Vec::new())]
}
