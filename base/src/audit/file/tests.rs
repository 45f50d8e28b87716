//! Tests of an audit file.

use super::*;

fn text(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

#[test]
fn a_file_is_rotated_by_size_and_the_oldest_go() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("audit.jsonl");
    let mut file = AuditFile::open(&path, 100, 3).unwrap();
    // Two lines fit.
    for number in 0..20 {
        file.append(format!("{number:040}\n").as_bytes()).unwrap();
        for found in fs::read_dir(dir.path()).unwrap() {
            let found = found.unwrap().metadata().unwrap();
            assert!(found.len() <= 100);
            assert_eq!(found.permissions().mode() & 0o777, MODE);
        }
    }
    let numbers = |path: &Path| -> Vec<u32> {
        text(path).lines().map(|line| line.parse().unwrap()).collect()
    };
    assert_eq!(numbers(&path), [18, 19]);
    assert_eq!(numbers(&file.rotated(1)), [16, 17]);
    assert_eq!(numbers(&file.rotated(3)), [12, 13]);
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 4);
    // A line that is too long for any file is in one of its own.
    file.append(&[b'x'; 300]).unwrap();
    assert_eq!(text(&path).len(), 300);
}

#[test]
fn a_restart_goes_on_behind_what_is_there_and_takes_the_file_from_others() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("audit.jsonl");
    fs::write(&path, "{\"cut").unwrap();
    fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
    let mut file = AuditFile::open(&path, 100, 1).unwrap();
    file.append(b"{}\n").unwrap();
    assert_eq!(text(&path), "{\"cut\n{}\n");
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, MODE);
    drop(file);
    let mut again = AuditFile::open(&path, 100, 1).unwrap();
    again.append(b"{}\n").unwrap();
    assert_eq!(text(&path), "{\"cut\n{}\n{}\n");
}

#[test]
fn a_file_that_was_moved_or_removed_is_made_anew() {
    let dir = tempfile::tempdir().unwrap();
    let (path, moved) = (dir.path().join("audit.jsonl"), dir.path().join("moved"));
    let mut file = AuditFile::open(&path, 1000, 1).unwrap();
    file.append(b"1\n").unwrap();
    fs::rename(&path, &moved).unwrap();
    file.append(b"2\n").unwrap();
    assert_eq!((text(&moved).as_str(), text(&path).as_str()), ("1\n", "2\n"));
    fs::remove_file(&path).unwrap();
    file.append(b"3\n").unwrap();
    assert_eq!(text(&path), "3\n");
    file.reopen();
    file.append(b"4\n").unwrap();
    assert_eq!(text(&path), "3\n4\n");
    // Truncated in place, as logrotate does with `copytruncate`: what is appended follows.
    File::options().write(true).open(&path).unwrap().set_len(0).unwrap();
    file.append(b"5\n").unwrap();
    assert_eq!(text(&path), "5\n");
}

#[test]
fn a_truncated_file_counts_from_what_is_left() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("audit.jsonl");
    let mut file = AuditFile::open(&path, 10, 1).unwrap();
    file.append(b"1234567\n").unwrap();
    File::options().write(true).open(&path).unwrap().set_len(0).unwrap();
    file.append(b"1234\n").unwrap();
    assert!(!file.rotated(1).exists());
    // To this length a write that fails would cut it.
    assert_eq!(file.current.as_ref().unwrap().bytes, 5);
    file.append(b"123456\n").unwrap();
    assert_eq!((text(&path).as_str(), text(&file.rotated(1)).as_str()), ("123456\n", "1234\n"));
}

#[test]
fn a_file_is_of_one_process() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("audit.jsonl");
    let mut file = AuditFile::open(&path, 10, 1).unwrap();
    let is_refused = || {
        let refused = AuditFile::open(&path, 10, 1).map(drop).unwrap_err();
        refused.kind() == io::ErrorKind::WouldBlock
    };
    assert!(is_refused());
    for _ in 0..3 {
        file.append(b"123456\n").unwrap();
        assert!(is_refused(), "also once it is rotated");
    }
    drop(file);
    assert!(AuditFile::open(&path, 10, 1).is_ok());
}

#[test]
fn a_file_that_cannot_be_moved_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("audit.jsonl");
    // A directory that is not empty stands in the way.
    fs::create_dir_all(dir.path().join("audit.jsonl.1/x")).unwrap();
    let mut file = AuditFile::open(&path, 10, 1).unwrap();
    for _ in 0..5 {
        file.append(b"123456\n").unwrap();
    }
    assert_eq!(text(&path).lines().count(), 5);
}

#[test]
fn only_a_regular_file_is_taken() {
    let dir = tempfile::tempdir().unwrap();
    let directory = AuditFile::open(dir.path(), 10, 1).unwrap_err();
    assert_eq!(directory.kind(), io::ErrorKind::InvalidInput);
    let device = AuditFile::open(Path::new("/dev/full"), 10, 1).unwrap_err();
    assert_eq!(device.kind(), io::ErrorKind::InvalidInput);
    assert!(AuditFile::open(&dir.path().join("no/such"), 10, 1).is_err());
}
