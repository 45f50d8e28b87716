//! A log on a disk with whatever there may be: it opens or refuses, and one that has opened takes
//! more entries and opens again with all that it had.

use std::sync::Arc;

use bytes::Bytes;
use dkv_base::id::GroupId;
use dkv_wal::disk::{Disk, MemoryDisk, SECTOR_BYTES};
use dkv_wal::{LogState, SegmentManagerStep, Wal, WalOptions, WriterStep};

use crate::parts::{Parts, join};

/// Segments that an input may have.
const SEGMENTS_MAX: u64 = 8;
const SEGMENT_BYTES: u64 = 2048;

/// All that a log says of a group.
type Contents = Vec<(GroupId, LogState, Vec<(u64, Bytes)>)>;

fn options() -> WalOptions {
    WalOptions {
        segment_bytes: SEGMENT_BYTES,
        cache_bytes: 600,
        reserve_bytes: 0,
        salt_seed: 7,
        ..WalOptions::default()
    }
}

/// Opens the log of a disk, lets `use_it` work with it, and closes it; nothing if it refuses.
fn with<T>(disk: &MemoryDisk, use_it: impl FnOnce(&Wal) -> T) -> Option<T> {
    let opened = Wal::open_by_hand(Arc::new(disk.clone()), options(), Box::new(|_| {}));
    let (wal, mut writer, mut segment_manager) = match opened {
        Ok(opened) => opened,
        Err(error) => {
            super::assert_presentable(&error.to_string());
            return None;
        }
    };
    let outcome = use_it(&wal);
    wal.close();
    while writer.step() == WriterStep::Worked
        || segment_manager.step() == SegmentManagerStep::Worked
    {}
    Some(outcome)
}

fn contents(wal: &Wal) -> Contents {
    let groups = wal.groups().into_iter();
    let of = |id| {
        let group = wal.group(id);
        (id, group.state(), group.read(..).expect("what the log says that it has"))
    };
    groups.map(of).collect()
}

pub(super) fn read(input: &[u8]) {
    let disk = MemoryDisk::new();
    let mut parts = Parts::new(input);
    let mut last = 0;
    for sequence in 1..=SEGMENTS_MAX {
        let Some(piece) = parts.piece() else { break };
        let mut bytes = piece.to_vec();
        mend_checksums(&mut bytes);
        disk.put(&format!("{sequence:016x}.wal"), bytes);
        last = sequence;
    }
    let Some(mut before) = with(&disk, contents) else { return };
    assert_eq!(with(&disk, contents).as_ref(), Some(&before), "{last} segments, opened again");
    // Life goes on.
    let appended = with(&disk, |wal| {
        for (id, state, entries) in &mut before {
            let Some(next) = state.next_index.filter(|next| *next < u64::MAX) else { continue };
            let entry = (next, Bytes::from_static(b"more"));
            if wal.group(*id).append(vec![entry.clone()], Box::new(|_| {})).is_ok() {
                entries.push(entry);
            }
        }
        before
    });
    let entries = |contents: Contents| -> Vec<_> {
        contents.into_iter().map(|(id, _, entries)| (id, entries)).collect()
    };
    let after = with(&disk, contents).map(entries);
    assert_eq!(after, appended.map(entries));
}

/// Gives whatever looks like a header, a frame or a record the checksum that it should have.
fn mend_checksums(segment: &mut [u8]) {
    if segment.len() < SECTOR_BYTES {
        return;
    }
    let header = checksum(&[&segment[..12], &segment[16..40]]);
    segment[12..16].copy_from_slice(&header);
    let salts = (segment[16..24].to_vec(), segment[32..40].to_vec());
    let mut at = SECTOR_BYTES;
    while let Some(frame) = segment.get_mut(at..).filter(|frame| frame.len() >= 40) {
        if !frame.starts_with(b"frm\n") {
            return;
        }
        let body = (u32_at(frame, 32) as usize).min(frame.len() - 40);
        frame[32..36].copy_from_slice(&(body as u32).to_le_bytes());
        frame[8..16].copy_from_slice(&salts.1);
        frame[16..24].copy_from_slice(&salts.0);
        let mut rest = &mut frame[40..40 + body];
        while rest.len() >= 24 {
            let payload = (u32_at(rest, 4) as usize).min(rest.len() - 24);
            rest[4..8].copy_from_slice(&(payload as u32).to_le_bytes());
            let crc = checksum(&[&rest[4..24 + payload]]);
            rest[..4].copy_from_slice(&crc);
            rest = &mut rest[24 + payload..];
        }
        let crc = checksum(&[&frame[40..40 + body]]);
        frame[36..40].copy_from_slice(&crc);
        let crc = checksum(&[&frame[..4], &frame[8..40]]);
        frame[4..8].copy_from_slice(&crc);
        at += (40 + body).next_multiple_of(SECTOR_BYTES);
    }
}

fn checksum(pieces: &[&[u8]]) -> [u8; 4] {
    let mut hasher = crc32fast::Hasher::new();
    pieces.iter().for_each(|piece| hasher.update(piece));
    hasher.finalize().to_le_bytes()
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    bytes[at..at + 4].iter().rev().fold(0, |number, byte| number << 8 | u32::from(*byte))
}

pub(super) fn seeds() -> Vec<Vec<u8>> {
    let mut seeds = Vec::new();
    let disk = MemoryDisk::new();
    for round in 0..6_u64 {
        with(&disk, |wal| {
            let group = wal.group(GroupId(round as u32 % 3));
            let start = group.state().next_index.unwrap_or(0);
            let entry = |at: u64| (at, Bytes::from(format!("{round} {at}").repeat(20)));
            let done = || Box::new(|_| {});
            group.append((start..start + 3).map(entry).collect(), done()).expect("room");
            group.save_vote(Bytes::from(format!("vote {round}")), done()).expect("room");
            match round {
                3 => group.truncate_from(start + 1, done()).expect("room"),
                4 => group.purge(1, Bytes::from_static(b"one"), done()).expect("room"),
                _ => group.save_committed(Bytes::from_static(b"committed")).expect("room"),
            }
        });
        let mut names = disk.list().expect("a directory");
        names.sort();
        let segments: Vec<Vec<u8>> = names.iter().filter_map(|name| disk.contents(name)).collect();
        seeds.push(join(segments.iter().map(Vec::as_slice)));
    }
    seeds
}
