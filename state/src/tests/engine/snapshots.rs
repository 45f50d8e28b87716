//! Snapshots: they are of one moment, and are installed as a whole or not at all.

use super::*;

#[test]
fn a_snapshot_is_of_one_moment() {
    let directory = tempfile::tempdir().expect("a directory");
    let engine = engine(directory.path());
    let store = engine.group(SHARD).expect("a store");
    let other = engine.group(GroupId(2)).expect("a store");
    let mut state = load(&store);
    fill(&mut state, 1, 4000);
    checkpoint(&store, &mut state);
    let hash = state.hash();
    let mut reader = store.snapshot().expect("readable").expect("stored");
    let mut installer = other.install().expect("room");
    let mut round = 2;
    let mut count = 0;
    while let Some(chunk) = reader.next_chunk().expect("readable") {
        installer.write_chunk(&chunk).expect("a chunk");
        count += 1;
        // Everything changes under the reader, and finally the whole generation is deleted.
        fill(&mut state, round, 3000);
        checkpoint(&store, &mut state);
        round += 1;
        if count == 2 {
            store.remove().expect("removed");
            state = load(&store);
        }
    }
    assert!(count > 2, "only {count} chunks");
    install(installer, reader.meta()).expect("a whole snapshot");
    assert_eq!(load(&other).hash(), hash);
}

#[test]
fn an_installation_happens_at_once() {
    let directory = tempfile::tempdir().expect("a directory");
    let source = engine(directory.path()).group(SHARD).expect("a store");
    let mut new = load(&source);
    fill(&mut new, 9, 3000);
    checkpoint(&source, &mut new);
    let (chunks, meta) = chunks(&source);
    assert!(chunks.len() > 1);

    let directory = tempfile::tempdir().expect("a directory");
    let engine_here = engine(directory.path());
    let store = engine_here.group(SHARD).expect("a store");
    let mut old = load(&store);
    fill(&mut old, 1, 50);
    checkpoint(&store, &mut old);
    // The keyspaces are fjall's own, its sequence, the records, and one generation. Threads of the
    // engine may still be using abandoned ones.
    let come_to_four = |path: &Path| {
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
        while fs::read_dir(path.join("keyspaces")).expect("readable").count() != 4 {
            assert!(std::time::Instant::now() < deadline, "what was given up stays");
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
    };
    let assert_survives = |expected: u64| {
        let image = image(directory.path());
        let engine = engine(image.path());
        assert_eq!(load(&engine.group(SHARD).expect("a store")).hash(), expected);
        come_to_four(image.path());
    };
    assert_survives(old.hash());

    // After a crash following any chunk, the old state is current, and the rest is cleaned up.
    let mut installer = store.install().expect("room");
    for chunk in &chunks {
        installer.write_chunk(chunk).expect("a chunk");
        assert_survives(old.hash());
    }
    // After giving up, the same holds, and the files are gone without a restart.
    drop(installer);
    come_to_four(directory.path());
    assert_survives(old.hash());
    assert_eq!(load(&store).hash(), old.hash());

    // After the whole snapshot, the old state stays current until the switch. From then on, the new
    // state is current, even right after the switch.
    let stale = old.take_changes(Bytes::new());
    let mut installer = store.install().expect("room");
    for chunk in &chunks {
        installer.write_chunk(chunk).expect("a chunk");
    }
    let completed = installer.complete(&meta).expect("a whole snapshot");
    assert_survives(old.hash());
    assert_eq!(load(&store).hash(), old.hash());
    let loaded = GroupState::load_completed(&completed).expect("what was received is whole");
    assert_eq!(loaded.hash(), new.hash());
    completed.switch().expect("nobody was faster");
    assert_survives(new.hash());
    assert_eq!(load(&store).hash(), new.hash());

    // Changes taken from the old state do not mix with the new one.
    let error = store.checkpoint(&stale).expect_err("superseded");
    assert!(matches!(error, EngineError::Superseded));
    assert_survives(new.hash());
    // The new state continues from there.
    let mut loaded = load(&store);
    fill(&mut loaded, 10, 10);
    checkpoint(&store, &mut loaded);
    assert_survives(loaded.hash());
}

#[test]
fn a_disk_that_is_full_at_the_end_of_a_snapshot_refuses_only_that() {
    let directory = tempfile::tempdir().expect("a directory");
    let engine = engine(directory.path());
    let source = engine.group(SHARD).expect("a store");
    let store = engine.group(GroupId(2)).expect("a store");
    let mut new = load(&source);
    fill(&mut new, 9, 3000);
    checkpoint(&source, &mut new);
    let (chunks, meta) = chunks(&source);
    let mut old = load(&store);
    fill(&mut old, 1, 5);
    checkpoint(&store, &mut old);
    let receive = || {
        let mut installer = store.install().expect("room");
        for chunk in &chunks {
            installer.write_chunk(chunk).expect("a chunk");
        }
        installer
    };

    let installer = receive();
    engine.set_reserve(u64::MAX / 4);
    let error = installer.complete(&meta).map(|_| ()).expect_err("no room");
    assert!(matches!(error, EngineError::NoSpace { .. }) && !error.is_fatal(), "{error}");
    assert_eq!(load(&store).hash(), old.hash());

    // A snapshot completed while there was room needs no more room, and the next transfer succeeds.
    engine.set_reserve(0);
    let completed = receive().complete(&meta).expect("whole");
    engine.set_reserve(u64::MAX / 4);
    completed.switch().expect("nothing is in the way");
    assert_eq!(load(&store).hash(), new.hash());
}

#[test]
fn what_is_not_whole_is_not_installed() {
    let directory = tempfile::tempdir().expect("a directory");
    let engine = engine(directory.path());
    let source = engine.group(SHARD).expect("a store");
    let store = engine.group(GroupId(2)).expect("a store");
    let mut new = load(&source);
    fill(&mut new, 9, 3000);
    checkpoint(&source, &mut new);
    let (chunks, meta) = chunks(&source);
    let mut old = load(&store);
    fill(&mut old, 1, 5);
    checkpoint(&store, &mut old);

    let attempt = |chunks: &[&Bytes], meta: &Meta| {
        let mut installer = store.install().expect("room");
        for chunk in chunks {
            installer.write_chunk(chunk)?;
        }
        install(installer, meta)
    };
    let all: Vec<_> = chunks.iter().collect();
    let refused = |result: Result<(), EngineError>| {
        assert!(matches!(&result, Err(EngineError::InvalidSnapshot(_))), "{result:?}");
        assert_eq!(load(&store).hash(), old.hash());
    };
    refused(attempt(&all[1..], &meta));
    refused(attempt(&all[..1], &meta));
    refused(attempt(&[all[0], all[0]], &meta));
    refused(attempt(&[&chunks[0].slice(..chunks[0].len() - 1)], &meta));
    let mut flipped = chunks[0].to_vec();
    flipped[300] ^= 1;
    let flipped = Bytes::from(flipped);
    let mut damaged = all.clone();
    damaged[0] = &flipped;
    refused(attempt(&damaged, &meta));
    refused(attempt(&all, &Meta { revision: Revision(1), ..meta.clone() }));
    refused(attempt(&all, &Meta { clock_ms: 1, ..meta.clone() }));

    // The later of two installations wins, whichever ends first.
    let mut early = store.install().expect("room");
    let mut late = store.install().expect("room");
    for chunk in &chunks {
        early.write_chunk(chunk).expect("a chunk");
        late.write_chunk(chunk).expect("a chunk");
    }
    install(late, &meta).expect("whole");
    assert!(matches!(install(early, &meta), Err(EngineError::Superseded)));
    assert_eq!(load(&store).hash(), new.hash());
}
