use std::fs;

use super::*;

/// Returns the size of all journals in a directory, in bytes.
fn journal_bytes(directory: &Path) -> u64 {
    let files = fs::read_dir(directory).expect("readable").flatten();
    let journals = files.filter(|file| file.path().extension().is_some_and(|it| it == "jnl"));
    journals.filter_map(|file| file.metadata().ok()).map(|metadata| metadata.len()).sum()
}

/// Returns bytes that do not compress.
fn noise(seed: u64, bytes: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut word = || {
        // Xorshift (Marsaglia 2003).
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    };
    (0..bytes / 8).flat_map(|_| word()).collect()
}

#[test]
fn the_journal_is_bounded_though_no_memtable_ever_is_full() {
    const STEP_BYTES: usize = 1024 * 1024;
    let directory = tempfile::tempdir().expect("a directory");
    let tables = Tables::open(directory.path()).expect("opened");
    let table = tables.table("a").expect("made");
    for step in 0..4 * JOURNAL_BYTES_MAX / STEP_BYTES as u64 {
        let mut batch = tables.batch();
        batch.insert(&table, *b"journaled", noise(step, STEP_BYTES));
        tables.commit(batch).expect("committed");
        tables.ingest(&table, [(b"ingested".to_vec(), Some(vec![1]))]).expect("ingested");
    }
    // One journal that is full, one being written, and what is written until fjall checks again and
    // one of its threads gets to it.
    let bound = 2 * JOURNAL_BYTES_MAX + 3 * JOURNAL_LOOK_BYTES;
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(60);
    while journal_bytes(directory.path()) > bound {
        let bytes = journal_bytes(directory.path());
        assert!(std::time::Instant::now() < deadline, "{bytes} bytes of journals are kept");
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    let kept = table.get("journaled").expect("readable").expect("there");
    assert!(*kept == noise(4 * JOURNAL_BYTES_MAX / STEP_BYTES as u64 - 1, STEP_BYTES));
}
