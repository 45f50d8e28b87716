//! The engine after crashes, with damage, and without room.

mod snapshots;

use std::fs;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use dkv_base::id::{GroupId, Revision};
use dkv_wire::message::{Condition, Operation};

use super::super::rows::{Counts, Table};
use super::super::{Engine, EngineError, EngineOptions, GroupState, GroupStore, Meta};
use super::{batch, install, open, session, write};

const OPTIONS: EngineOptions = EngineOptions { reserve_bytes: 0, value_bytes: u64::MAX };
const SHARD: GroupId = GroupId(1);

fn engine(path: &Path) -> Engine {
    Engine::open(path, OPTIONS).expect("the engine opens")
}

fn load(store: &GroupStore) -> GroupState {
    GroupState::load(store).expect("what was stored is whole").0
}

/// Opens the session of this round and applies a batch that puts `count` keys.
fn fill(state: &mut GroupState, round: u64, count: u64) {
    let mut commands = vec![open(session('s'))];
    for number in 0..count {
        let serial = round * 10_000 + number + 1;
        let key = format!("key {number}");
        let value = format!("{round} {}", "value ".repeat(20));
        let put = Operation::Put(value.as_bytes());
        commands.push(write(
            session('s'),
            serial,
            round * 10_000,
            Condition::Always,
            key.as_bytes(),
            put,
        ));
    }
    state.apply(&batch(round, &commands)).expect("a batch");
}

fn checkpoint(store: &GroupStore, state: &mut GroupState) {
    let changes = state.take_changes(Bytes::from(state.clock_ms().to_string()));
    store.checkpoint(&changes).expect("the checkpoint is written");
}

fn chunks(store: &GroupStore) -> (Vec<Bytes>, Meta) {
    let mut reader = store.snapshot().expect("readable").expect("stored");
    let mut chunks = Vec::new();
    while let Some(chunk) = reader.next_chunk().expect("readable") {
        chunks.push(chunk);
    }
    (chunks, reader.meta().clone())
}

/// Returns the files that a crash at this moment would leave: a copy made while none of them
/// changes. (Threads of the engine merge tables and delete files at any time.)
fn image(path: &Path) -> tempfile::TempDir {
    loop {
        let before = listing(path);
        let image = tempfile::tempdir().expect("a directory");
        if copy(path, image.path()).is_ok() && listing(path) == before {
            return image;
        }
    }
}

fn copy(from: &Path, to: &Path) -> std::io::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy(&entry.path(), &target)?;
        } else {
            fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}

fn listing(path: &Path) -> Vec<(PathBuf, Option<(u64, std::time::SystemTime)>)> {
    let facts = |path: &PathBuf| {
        let metadata = fs::metadata(path).ok()?;
        Some((metadata.len(), metadata.modified().ok()?))
    };
    files(path).into_iter().map(|path| (path.clone(), facts(&path))).collect()
}

fn files(path: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    // A directory may be gone by now; the caller compares two listings.
    for entry in fs::read_dir(path).into_iter().flatten() {
        let path = entry.expect("readable").path();
        if path.is_dir() { found.extend(files(&path)) } else { found.push(path) }
    }
    found.sort();
    found
}

#[test]
fn a_checkpoint_is_there_after_a_restart() {
    let directory = tempfile::tempdir().expect("a directory");
    let first = engine(directory.path());
    let store = first.group(SHARD).expect("a store");
    let (mut state, meta) = GroupState::load(&store).expect("empty");
    assert!(meta.is_none() && store.snapshot().expect("readable").is_none());
    for round in 1..=3 {
        fill(&mut state, round, 100);
        checkpoint(&store, &mut state);
    }
    // Applied, but not in a checkpoint: the log has the entry.
    let hash = state.hash();
    fill(&mut state, 4, 1);
    drop((first, store));

    let second = engine(directory.path());
    let (loaded, meta) =
        GroupState::load(&second.group(SHARD).expect("a store")).expect("what was stored is whole");
    assert_eq!(loaded.hash(), hash);
    assert_eq!(meta.expect("stored").applied.as_ref(), b"3");
    assert_eq!(loaded.counts(), Counts { keys: 100, ..state.counts() });
    assert!(
        GroupState::load(&second.group(GroupId(2)).expect("a store")).expect("empty").1.is_none()
    );
}

#[test]
fn a_directory_is_open_once() {
    let directory = tempfile::tempdir().expect("a directory");
    let first = engine(directory.path());
    let error = Engine::open(directory.path(), OPTIONS).map(|_| ()).expect_err("in use");
    assert!(matches!(error, EngineError::InUse { .. }), "{error}");
    assert!(error.to_string().ends_with("is in use by another process"), "{error}");
    drop(first);
    engine(directory.path());
}

#[test]
fn a_full_disk_refuses_and_recovers() {
    let directory = tempfile::tempdir().expect("a directory");
    let full = EngineOptions { reserve_bytes: u64::MAX / 4, ..EngineOptions::default() };
    let error = Engine::open(directory.path(), full).map(|_| ()).expect_err("no room");
    assert!(matches!(error, EngineError::NoSpace { .. }), "{error}");

    let normal = engine(directory.path());
    let store = normal.group(SHARD).expect("a store");
    let mut state = load(&store);
    fill(&mut state, 1, 10);
    normal.set_reserve(u64::MAX / 4);
    let changes = state.take_changes(Bytes::new());
    let error = store.checkpoint(&changes).expect_err("no room");
    assert!(matches!(error, EngineError::NoSpace { .. }) && !error.is_fatal(), "{error}");
    assert!(store.install().map(|_| ()).is_err());
    state.restore_changes(changes);
    assert!(state.changed_bytes() > 0);
    // Reads continue, and more entries are applied meanwhile.
    fill(&mut state, 2, 5);
    normal.set_reserve(0);
    checkpoint(&store, &mut state);
    assert_eq!(load(&store).hash(), state.hash());
}

#[test]
fn an_engine_that_does_not_open_says_which_directory_and_why() {
    let directory = tempfile::tempdir().expect("a directory");
    {
        let engine = engine(directory.path());
        let store = engine.group(SHARD).expect("a store");
        let mut state = load(&store);
        fill(&mut state, 1, 60);
        checkpoint(&store, &mut state);
        store.flush();
    }
    let error_of = |spoil: &dyn Fn(&Path)| {
        let image = image(directory.path());
        spoil(image.path());
        let said = Engine::open(image.path(), OPTIONS).map(drop).expect_err("it is spoiled");
        let said = said.to_string();
        let inside = said.replace(image.path().to_str().expect("text"), "STATE");
        assert!(inside.contains("STATE"), "{said}");
        assert!(!said.contains("File exists") && !said.contains("FjallError"), "{said}");
        inside
    };
    let missing = "STATE/version is missing or empty";
    assert_eq!(error_of(&|path| fs::remove_file(path.join("version")).expect("removed")), missing);
    assert_eq!(error_of(&|path| fs::write(path.join("version"), "").expect("written")), missing);
    let table = |path: &Path| {
        let tables = files(&path.join("keyspaces")).into_iter();
        let mut tables = tables.filter(|file| file.parent().expect("inside").ends_with("tables"));
        tables.next().expect("a table was flushed")
    };
    let said = error_of(&|path| fs::remove_file(table(path)).expect("removed"));
    assert_eq!(said, "STATE is damaged: a file of it is missing, or is not what was written");
    // fjall panics on these; the operator sees a single line.
    let taken = |file: &Path| {
        fs::remove_file(file).expect("removed");
        fs::create_dir(file).expect("made");
    };
    for said in
        [error_of(&|path| taken(&table(path))), error_of(&|path| taken(&path.join("0.jnl")))]
    {
        assert!(
            said.starts_with("STATE is damaged: the storage engine gave up on what it"),
            "{said}"
        );
    }
}

#[test]
fn an_engine_whose_making_was_cut_off_is_made_again() {
    let image = tempfile::tempdir().expect("a directory");
    fs::write(image.path().join("lock"), "").expect("written");
    fs::write(image.path().join("0.jnl"), [0; 4096]).expect("written");
    drop(engine(image.path()));
    // A journal with contents means that this is not the first start.
    let used = tempfile::tempdir().expect("a directory");
    fs::write(used.path().join("0.jnl"), "rows").expect("written");
    let error = Engine::open(used.path(), OPTIONS).map(drop).expect_err("it lost the rest");
    assert!(matches!(error, EngineError::Missing(_)), "{error}");
    assert!(used.path().join("0.jnl").exists());
}

#[test]
fn a_cut_journal_leaves_a_whole_moment() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut moments = Vec::new();
    {
        let engine = engine(directory.path());
        let store = engine.group(SHARD).expect("a store");
        let mut state = load(&store);
        for round in 1..=3 {
            fill(&mut state, round, 8 * round);
            checkpoint(&store, &mut state);
            moments.push((round, state.hash()));
        }
    }
    let journal = |path: &Path| path.join("0.jnl");
    let whole = fs::read(journal(directory.path())).expect("the journal");
    let used = whole.iter().rposition(|byte| *byte != 0).expect("not empty") + 1;
    let mut seen = std::collections::BTreeSet::new();
    for part in 0..=60 {
        let cut = used * part / 60;
        let image = image(directory.path());
        fs::write(journal(image.path()), &whole[..cut]).expect("written");
        let engine = match Engine::open(image.path(), OPTIONS) {
            Ok(engine) => engine,
            Err(error) => panic!("cut at {cut} of {used}: {error}"),
        };
        match GroupState::load(&engine.group(SHARD).expect("a store")) {
            Ok((state, _)) => {
                let moment = (state.clock_ms(), state.hash());
                assert!(moments.contains(&moment), "cut at {cut} of {used}");
                seen.insert(state.clock_ms());
            }
            // Not even the first checkpoint is complete.
            Err(EngineError::Damaged { problem, .. }) => {
                assert_eq!(problem, "group 1: the meta row is gone");
                seen.insert(0);
            }
            Err(error) => panic!("cut at {cut} of {used}: {error}"),
        }
    }
    assert_eq!(seen.into_iter().collect::<Vec<_>>(), [0, 1, 2, 3]);
}

#[test]
fn a_flipped_byte_is_never_read_as_state() {
    let directory = tempfile::tempdir().expect("a directory");
    // The empty state is not among them: a lost state must not look as if it had never existed.
    let mut moments = Vec::new();
    {
        let engine = engine(directory.path());
        let store = engine.group(SHARD).expect("a store");
        let mut state = load(&store);
        for round in 1..=2 {
            fill(&mut state, round, 60);
            checkpoint(&store, &mut state);
            moments.push(state.hash());
            if round == 1 {
                store.flush();
            }
        }
    }
    let (mut refused, mut aborted) = (0, 0);
    let mut wrong = Vec::new();
    let originals = files(directory.path());
    for (index, original) in originals.iter().enumerate() {
        let whole = fs::read(original).expect("readable");
        let used = whole.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
        let relative = original.strip_prefix(directory.path()).expect("inside");
        for part in 0..12.min(used) {
            let position = (used * part / 12 + index) % used;
            let image = image(directory.path());
            let mut bytes = whole.clone();
            bytes[position] ^= 0x55;
            fs::write(image.path().join(relative), bytes).expect("written");
            let outcome = open_elsewhere(image.path());
            match outcome.as_deref() {
                Some("damaged") => refused += 1,
                None => aborted += 1,
                Some(hash) if moments.iter().any(|moment| hash == moment.to_string()) => {}
                Some(other) => wrong.push(format!("{}:{position}: {other}", relative.display())),
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(refused > 20, "only {refused} were refused");
    // Some damage to fjall's manifests makes it panic twice, which aborts the process: the failure
    // is visible, and no state is read.
    assert!(aborted < refused, "{aborted} aborted, {refused} refused");
}

/// The environment variable that tells the test below which image to open.
const IMAGE: &str = "DKV_TEST_IMAGE";

/// Opens an image in another process and returns the hash of its shard, "damaged", another error,
/// or `None` if the process was aborted.
fn open_elsewhere(image: &Path) -> Option<String> {
    let output = std::process::Command::new(std::env::current_exe().expect("this program"))
        .args(["--exact", "tests::engine::opens_an_image", "--nocapture"])
        .env(IMAGE, image)
        .output()
        .expect("it runs");
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    printed.lines().find_map(|line| Some(line.split_once("outcome: ")?.1.to_owned()))
}

#[test]
fn opens_an_image() {
    let Some(image) = std::env::var_os(IMAGE) else { return };
    let loaded = Engine::open(Path::new(&image), OPTIONS)
        .and_then(|engine| GroupState::load(&engine.group(SHARD)?));
    println!(
        "outcome: {}",
        match loaded {
            Ok((state, _)) => state.hash().to_string(),
            Err(EngineError::Damaged { .. } | EngineError::Missing(_)) => "damaged".to_owned(),
            Err(error) => error.to_string(),
        }
    );
}

#[test]
fn a_row_that_was_changed_is_found() {
    let damage = |tamper: &dyn Fn(&GroupStore)| {
        let directory = tempfile::tempdir().expect("a directory");
        let engine = engine(directory.path());
        let store = engine.group(SHARD).expect("a store");
        let mut state = load(&store);
        fill(&mut state, 1, 10);
        checkpoint(&store, &mut state);
        tamper(&store);
        match GroupState::load(&store) {
            Err(EngineError::Damaged { problem, .. }) => problem,
            Err(error) => panic!("{error}"),
            Ok(_) => panic!("nothing was found"),
        }
    };
    let hash = "group 1: the hash of the rows is not the one stored with them";
    let count = "group 1: rows are missing or there are too many";
    let key = b"key 3";
    let mut value = [1_u64.to_le_bytes(); 4].concat();
    value.extend_from_slice(&0_u16.to_le_bytes());
    value.extend_from_slice(format!("1 {}", "value ".repeat(20)).as_bytes());
    // The length stays the same, so only the hash can detect the change.
    assert_eq!(damage(&|store| store.tamper(Table::Keys, key, Some(&value))), hash);
    assert_eq!(damage(&|store| store.tamper(Table::Keys, key, None)), count);
    assert_eq!(damage(&|store| store.tamper(Table::Keys, b"other", Some(&value))), count);
    let id = session('s').0;
    assert_eq!(damage(&|store| store.tamper(Table::Sessions, id.as_bytes(), None)), count);
    assert_eq!(
        damage(&|store| {
            let row = [&[16][..], &[0; 16], &[0, 0, 0]].concat();
            store.tamper(Table::Sessions, id.as_bytes(), Some(&row));
        }),
        hash
    );
    assert_eq!(
        damage(&|store| store.tamper(Table::Keys, key, Some(&[1]))),
        "group 1: a version is cut short"
    );
}

#[test]
fn a_removed_group_is_gone() {
    let directory = tempfile::tempdir().expect("a directory");
    let first = engine(directory.path());
    let store = first.group(SHARD).expect("a store");
    let mut state = load(&store);
    fill(&mut state, 1, 50);
    checkpoint(&store, &mut state);
    fill(&mut state, 2, 50);
    let late = state.take_changes(Bytes::new());
    store.remove().expect("removed");
    assert!(matches!(store.checkpoint(&late), Err(EngineError::Superseded)));
    assert!(GroupState::load(&store).expect("empty").1.is_none());
    drop((first, store));

    let second = engine(directory.path());
    let store = second.group(SHARD).expect("a store");
    let (mut state, meta) = GroupState::load(&store).expect("empty");
    assert!(meta.is_none());
    fill(&mut state, 5, 5);
    checkpoint(&store, &mut state);
    assert_eq!(load(&store).hash(), state.hash());

    // After another removal, the group can be restored from a snapshot of another node.
    let (chunks, meta) = chunks(&store);
    store.remove().expect("removed");
    let mut installer = store.install().expect("room");
    for chunk in &chunks {
        installer.write_chunk(chunk).expect("a chunk");
    }
    install(installer, &meta).expect("a whole snapshot");
    assert_eq!(load(&store).hash(), state.hash());
}
