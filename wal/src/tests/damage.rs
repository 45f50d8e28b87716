//! Every byte flipped, every tail cut: the log opens with everything that was acknowledged, or
//! refuses and says where; and no file at all makes it panic.

use proptest::prelude::*;

use super::*;
use crate::LogState;
use crate::disk::{Disk, SECTOR_BYTES};

/// State and entries of three groups.
type Contents = Vec<(LogState, Vec<(u64, Bytes)>)>;

fn contents(wal: &Manual) -> Contents {
    (0..3).map(|id| (wal.group(id).state(), wal.group(id).read(..).unwrap())).collect()
}

/// Builds a log of a few segments with every kind of record in it, and its contents after each
/// frame.
fn build() -> (MemoryDisk, Vec<Contents>) {
    let disk = MemoryDisk::new();
    let mut wal = Manual::open(&disk).unwrap();
    let mut history = vec![contents(&wal)];
    for round in 0..9_u64 {
        let group = wal.group((round % 3) as u32);
        let id = group.id().0;
        let start = group.state().next_index.unwrap_or(0);
        let entries = (start..start + 3).map(|at| (at, entry(id, at, round, 150))).collect();
        group.append(entries, ignore()).unwrap();
        group.save_vote(entry(id, 0, round, 0), ignore()).unwrap();
        match round {
            4 => group.truncate_from(start, ignore()).unwrap(),
            6 => group.purge(1, Bytes::from_static(b"one"), ignore()).unwrap(),
            _ => group.save_committed(entry(id, 0, round, 0)).unwrap(),
        }
        wal.settle();
        history.push(contents(&wal));
    }
    wal.close();
    (disk, history)
}

fn segment_names(disk: &MemoryDisk) -> Vec<String> {
    let mut names = disk.list().unwrap();
    names.retain(|name| name.ends_with(".wal"));
    names.sort();
    names
}

/// Returns the same disk with one file replaced.
fn with(disk: &MemoryDisk, name: &str, bytes: Vec<u8>) -> MemoryDisk {
    let changed = MemoryDisk::new();
    for other in disk.list().unwrap() {
        changed.put(&other, disk.contents(&other).unwrap());
    }
    changed.put(name, bytes);
    changed
}

#[test]
fn a_flipped_byte_never_loses_a_sealed_frame() {
    let (disk, history) = build();
    let names = segment_names(&disk);
    assert!(names.len() >= 4, "several segments and a spare: {names:?}");
    let (mut refused, mut opened) = (0, 0);
    for name in &names {
        let whole = disk.contents(name).unwrap();
        for at in 0..whole.len() {
            let mut bytes = whole.clone();
            bytes[at] ^= 1 << (at % 8);
            match Manual::open(&with(&disk, name, bytes)) {
                Ok(wal) => {
                    assert_eq!(&contents(&wal), history.last().unwrap(), "{name} at {at}");
                    opened += 1;
                }
                Err(WalError::Damaged { file, offset, .. }) => {
                    assert_eq!(&file, name, "flipped at {at}");
                    assert!(offset <= at as u64, "{offset} is behind {at}");
                    refused += 1;
                }
                Err(other) => panic!("{name} at {at}: {other}"),
            }
        }
    }
    assert!(refused > 2000 && opened > 2000, "{refused} refused, {opened} opened");
}

#[test]
fn zeros_over_the_tail_leave_what_lies_before_them() {
    let (disk, history) = build();
    let names = segment_names(&disk);
    let last = &names[names.len() - 2];
    let whole = disk.contents(last).unwrap();
    let (mut seen, mut refused) = (Vec::new(), 0);
    for cut in SECTOR_BYTES..whole.len() {
        let mut bytes = whole.clone();
        bytes[cut..].fill(0);
        match Manual::open(&with(&disk, last, bytes)) {
            Ok(wal) => {
                let now = contents(&wal);
                let at = history.iter().position(|then| *then == now);
                seen.push(at.unwrap_or_else(|| panic!("cut at {cut}: not a prefix")));
            }
            // The first frame of the segment: the spare behind it proves that it was there.
            Err(WalError::Damaged { file, offset, .. }) => {
                assert_eq!((&file, offset), (last, SECTOR_BYTES as u64), "cut at {cut}");
                assert!(seen.is_empty(), "cut at {cut}");
                refused += 1;
            }
            Err(other) => panic!("cut at {cut}: {other}"),
        }
    }
    assert!(refused > 0 && seen.is_sorted() && seen.last() == Some(&(history.len() - 1)));
    assert!(seen[0] < history.len() - 1, "{seen:?}");
}

#[test]
fn a_file_that_is_shorter_longer_missing_or_another_is_refused() {
    let (disk, _) = build();
    let names = segment_names(&disk);
    let refused = |disk: MemoryDisk| match Manual::open(&disk) {
        Err(WalError::Damaged { file, .. }) => file,
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("opened"),
    };
    for (position, name) in names.iter().enumerate() {
        let whole = disk.contents(name).unwrap();
        for cut in 0..whole.len() {
            assert_eq!(&refused(with(&disk, name, whole[..cut].to_vec())), name);
        }
        let mut longer = whole.clone();
        longer.push(0);
        assert_eq!(&refused(with(&disk, name, longer)), name);
        if position > 0 {
            let other = disk.contents(&names[position - 1]).unwrap();
            assert_eq!(&refused(with(&disk, name, other)), name);
        }
        if position + 2 < names.len() {
            let gone = with(&disk, name, whole);
            gone.take(name);
            refused(gone);
        }
    }
}

#[test]
fn a_value_that_is_the_image_of_a_frame_is_not_taken_for_one() {
    let disk = MemoryDisk::new();
    let mut wal =
        Manual::open_with(&disk, WalOptions { segment_bytes: 64 * 1024, ..small() }, no_hook())
            .unwrap();
    wal.group(1).save_vote(Bytes::from_static(b"vote"), ignore()).unwrap();
    wal.settle();
    let name = segment_names(&disk)[0].clone();
    let mut image = disk.contents(&name).unwrap()[SECTOR_BYTES..2 * SECTOR_BYTES].to_vec();
    // A client can guess everything but the salt.
    image[8] ^= 1;
    image[24..32].copy_from_slice(&9_u64.to_le_bytes());
    let crc = crate::format::checksum(&[&image[0..4], &image[8..40]]);
    image[4..8].copy_from_slice(&crc.to_le_bytes());
    let padding = SECTOR_BYTES - 40 - 24;
    let value: Vec<u8> = std::iter::repeat_n(0, padding).chain(image.repeat(8)).collect();
    wal.group(1).append(vec![(0, Bytes::from(value))], ignore()).unwrap();
    wal.settle();
    drop(wal);
    // The frame is torn: its header is lost, its body is on the disk.
    let mut bytes = disk.contents(&name).unwrap();
    bytes[2 * SECTOR_BYTES..3 * SECTOR_BYTES].fill(0);
    let wal = Manual::open(&with(&disk, &name, bytes)).unwrap();
    assert_eq!(wal.group(1).state().last_index, None);
}

#[test]
fn zeros_take_the_place_of_a_torn_header() {
    let disk = MemoryDisk::new();
    let mut wal = Manual::open(&disk).unwrap();
    wal.group(1).save_vote(Bytes::from_static(b"vote"), ignore()).unwrap();
    wal.settle();
    let name = segment_names(&disk)[0].clone();
    wal.group(1).append(vec![(0, entry(1, 0, 0, 1000))], ignore()).unwrap();
    wal.settle();
    // The last sector of the second frame is lost.
    let mut torn = disk.contents(&name).unwrap();
    torn[4 * SECTOR_BYTES..5 * SECTOR_BYTES].fill(0);
    let disk = with(&disk, &name, torn.clone());
    let wal = Manual::open(&disk).unwrap();
    assert_eq!(wal.group(1).state().vote, Some(Bytes::from_static(b"vote")));
    assert_eq!(wal.group(1).state().last_index, None);
    torn[2 * SECTOR_BYTES..3 * SECTOR_BYTES].fill(0);
    assert_eq!(disk.contents(&name).unwrap(), torn);
}

#[test]
fn an_impossible_length_is_not_believed() {
    use crate::format::{FrameHeader, SegmentHeader};
    let disk = MemoryDisk::new();
    let mut wal = Manual::open(&disk).unwrap();
    wal.group(1).save_vote(Bytes::from_static(b"vote"), ignore()).unwrap();
    wal.settle();
    let name = segment_names(&disk)[0].clone();
    let mut whole = disk.contents(&name).unwrap();
    let segment = SegmentHeader::decode(whole[..SECTOR_BYTES].try_into().unwrap()).unwrap();
    for body_bytes in [4096, 1 << 20, u32::MAX] {
        let (salt, sequence, number, body_crc) = (segment.salt, segment.sequence, 2, 0);
        let header = FrameHeader { salt, sequence, number, body_bytes, body_crc };
        whole[2 * SECTOR_BYTES..][..40].copy_from_slice(&header.encode());
        let wal = Manual::open(&with(&disk, &name, whole.clone())).unwrap();
        assert_eq!(wal.group(1).state().vote, Some(Bytes::from_static(b"vote")));
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 2000, failure_persistence: None, ..ProptestConfig::default()
    })]

    /// Writes random bytes over a real log, and corrects the checksums of headers so that
    /// impossible lengths, numbers and positions get past them to where they could do harm.
    #[test]
    fn no_file_makes_it_panic(
        spots in prop::collection::vec((0_usize..4, 0_usize..4096, any::<[u8; 8]>()), 1..6),
        mend in any::<bool>(),
    ) {
        let (disk, _) = build();
        let names = segment_names(&disk);
        for (file, at, bytes) in spots {
            let name = &names[file % names.len()];
            let mut whole = disk.contents(name).unwrap();
            // Half of the positions are moved to a header, where the interesting numbers are.
            let at = if at % 2 == 0 { at / SECTOR_BYTES * SECTOR_BYTES + 8 + at % 64 } else { at };
            let end = (at + 8).min(whole.len());
            whole[at..end].copy_from_slice(&bytes[..end - at]);
            if mend {
                mend_checksums(&mut whole);
            }
            disk.put(name, whole);
        }
        if let Ok(wal) = Manual::open(&disk) {
            for id in wal.wal.groups() {
                drop(wal.wal.group(id).read(..));
            }
        }
    }

    #[test]
    fn no_garbage_makes_it_panic(files in prop::collection::vec(
        prop::collection::vec(any::<u8>(), 0..3000), 0..4
    )) {
        let disk = MemoryDisk::new();
        for (sequence, bytes) in files.into_iter().enumerate() {
            disk.put(&crate::format::segment_name(sequence as u64), bytes);
        }
        drop(Manual::open(&disk));
    }
}

fn mend_checksums(bytes: &mut [u8]) {
    use crate::format::checksum;
    let crc = checksum(&[&bytes[0..12], &bytes[16..40]]);
    bytes[12..16].copy_from_slice(&crc.to_le_bytes());
    for at in (SECTOR_BYTES..bytes.len()).step_by(SECTOR_BYTES) {
        let (_, frame) = bytes.split_at_mut(at);
        if frame[0..4] != *b"frm\n" {
            continue;
        }
        let length = u32::from_le_bytes(frame[32..36].try_into().unwrap()) as usize;
        if let Some(body) = frame[40..].get_mut(..length) {
            mend_records(body);
            let crc = checksum(&[body]);
            frame[36..40].copy_from_slice(&crc.to_le_bytes());
        }
        let crc = checksum(&[&frame[0..4], &frame[8..40]]);
        frame[4..8].copy_from_slice(&crc.to_le_bytes());
    }
}

fn mend_records(mut body: &mut [u8]) {
    use crate::format::checksum;
    while body.len() >= 24 {
        let length = u32::from_le_bytes(body[4..8].try_into().unwrap()) as usize;
        if length > body.len() - 24 {
            return;
        }
        let (record, rest) = body.split_at_mut(24 + length);
        let crc = checksum(&[&record[4..]]);
        record[0..4].copy_from_slice(&crc.to_le_bytes());
        body = rest;
    }
}
