//! Actions of other threads between the write of a frame and its sync.

use super::*;

/// Runs `meanwhile` with the segment manager between the next write and its sync, then steps the
/// writer.
fn during_the_next_write(
    disk: &MemoryDisk,
    writer: &mut Writer,
    segment_manager: &Arc<Mutex<SegmentManager>>,
    meanwhile: impl FnOnce(&mut SegmentManager) + Send + 'static,
) {
    let segment_manager = segment_manager.clone();
    disk.before_next_sync(move || meanwhile(&mut segment_manager.lock().unwrap()));
    assert_eq!(writer.step(), WriterStep::Worked);
}

/// A crash while a frame is under way, after the segment manager has done all that it may, leaves a
/// log that opens: no segment that an unsynced purge frees is gone, and no segment exists that
/// proves an unsynced frame.
#[test]
fn the_segment_manager_does_not_run_ahead_of_a_sync() {
    for purge in [false, true] {
        for seed in 0..60 {
            let disk = MemoryDisk::new();
            let Manual { wal, mut writer, segment_manager } = Manual::open(&disk).unwrap();
            let segment_manager = Arc::new(Mutex::new(segment_manager));
            let log = wal.group(GroupId(1));
            let crashed: Arc<Mutex<Vec<MemoryDisk>>> = Arc::default();
            for index in 0..20 {
                log.append(vec![(index, entry(1, index, 0, 700))], ignore()).unwrap();
                if purge && index == 15 {
                    log.purge(12, Bytes::new(), ignore()).unwrap();
                }
                while segment_manager.lock().unwrap().step() == SegmentManagerStep::Worked {}
                if index < 15 {
                    assert_eq!(writer.step(), WriterStep::Worked);
                    continue;
                }
                let (copy, crashed) = (disk.clone(), crashed.clone());
                during_the_next_write(
                    &disk,
                    &mut writer,
                    &segment_manager,
                    move |segment_manager| {
                        while segment_manager.step() == SegmentManagerStep::Worked {}
                        crashed.lock().unwrap().push(copy.crash(seed));
                    },
                );
                break;
            }
            let disk = crashed.lock().unwrap().pop().unwrap();
            let reopened = Manual::open(&disk).unwrap();
            let state = reopened.group(1).state();
            assert!(state.last_index.unwrap() >= 14, "{state:?}");
        }
    }
}

/// The same for every frame of a log that rotates, also the first of a segment.
#[test]
fn a_crash_in_the_first_frame_of_a_segment_is_no_damage() {
    for frame in 0..24 {
        for seed in 0..8 {
            let disk = MemoryDisk::new();
            let Manual { wal, mut writer, segment_manager } = Manual::open(&disk).unwrap();
            let segment_manager = Arc::new(Mutex::new(segment_manager));
            let log = wal.group(GroupId(1));
            let crashed: Arc<Mutex<Vec<MemoryDisk>>> = Arc::default();
            for index in 0..=frame {
                while segment_manager.lock().unwrap().step() == SegmentManagerStep::Worked {}
                log.append(vec![(index, entry(1, index, 0, 700))], ignore()).unwrap();
                let (copy, crashed) = (disk.clone(), crashed.clone());
                during_the_next_write(
                    &disk,
                    &mut writer,
                    &segment_manager,
                    move |segment_manager| {
                        if index == frame {
                            while segment_manager.step() == SegmentManagerStep::Worked {}
                            crashed.lock().unwrap().push(copy.crash(seed));
                        }
                    },
                );
            }
            let disk = crashed.lock().unwrap().pop().unwrap();
            let mut reopened = Manual::open(&disk).unwrap();
            // A small frame now fits where the large one did not: nothing of the large one may
            // remain.
            for _ in 0..3 {
                let next = reopened.group(1).state().next_index.unwrap_or(0);
                assert!(next >= frame, "{next} of {frame}");
                reopened.group(1).append(vec![(next, Bytes::new())], ignore()).unwrap();
                reopened.settle();
                drop(reopened);
                reopened = Manual::open(&disk).unwrap();
            }
        }
    }
}

#[test]
fn what_is_not_written_yet_stays_in_memory() {
    let disk = MemoryDisk::new();
    let Manual { wal, mut writer, segment_manager } = Manual::open(&disk).unwrap();
    let segment_manager = Arc::new(Mutex::new(segment_manager));
    let log = wal.group(GroupId(1));
    log.append(vec![(0, entry(1, 0, 0, 500))], ignore()).unwrap();
    let later = log.clone();
    during_the_next_write(&disk, &mut writer, &segment_manager, move |_| {
        let entries = (1..5).map(|index| (index, entry(1, index, 0, 500))).collect();
        later.append(entries, ignore()).unwrap();
    });
    let all = log.read(..).unwrap();
    assert!(all.iter().eq(&(0..5).map(|at| (at, entry(1, at, 0, 500))).collect::<Vec<_>>()));
}
