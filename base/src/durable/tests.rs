use super::*;

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

fn names(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).unwrap();
    let mut names: Vec<_> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn a_file_is_replaced_and_never_written_over() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("file");
    write(&path, b"the old content").unwrap();
    // A second name of the old file: it would show whatever is written into that.
    let before = directory.path().join("before");
    fs::hard_link(&path, &before).unwrap();
    write(&path, b"new").unwrap();
    assert_eq!(read(&path).unwrap().unwrap(), b"new");
    assert_eq!(read(&before).unwrap().unwrap(), b"the old content");
    assert_eq!(names(directory.path()), ["before", "file"]);
}

#[test]
fn a_file_is_for_its_owner_alone() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("file");
    fs::write(&path, "readable by all").unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    write(&path, b"secret").unwrap();
    assert_eq!(mode(&path), 0o600);
}

#[test]
fn what_a_crash_left_behind_is_not_in_the_way() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("file");
    let left = directory.path().join(format!("file.{}.new", std::process::id()));
    fs::write(&left, "a longer content that was never finished").unwrap();
    assert_eq!(read(&path).unwrap(), None, "what was not finished is not there");
    write(&path, b"short").unwrap();
    assert_eq!(read(&path).unwrap().unwrap(), b"short");
    assert_eq!(names(directory.path()), ["file"]);
}

#[test]
fn a_failed_write_leaves_nothing_and_changes_nothing() {
    let directory = tempfile::tempdir().unwrap();
    // A directory cannot be replaced by a file: the last step fails.
    let path = directory.path().join("taken");
    fs::create_dir(&path).unwrap();
    write(&path, b"content").unwrap_err();
    assert_eq!(names(directory.path()), ["taken"]);
    write(&directory.path().join("absent").join("file"), b"content").unwrap_err();
    write(Path::new("/"), b"content").unwrap_err();
}

#[test]
fn a_file_that_is_not_there_is_no_error_and_a_directory_is() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("file");
    assert_eq!(read(&path).unwrap(), None);
    remove(&path).unwrap();
    write(&path, b"").unwrap();
    assert_eq!(read(&path).unwrap().unwrap(), b"");
    remove(&path).unwrap();
    assert!(!path.exists());
    read(directory.path()).unwrap_err();
    remove(directory.path()).unwrap_err();
}

#[test]
fn a_file_that_is_far_too_large_is_not_read() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("file");
    // Holes take no room on the disk.
    let file = File::create(&path).unwrap();
    file.set_len(FILE_BYTES_MAX + 1).unwrap();
    assert_eq!(read(&path).unwrap_err().kind(), io::ErrorKind::InvalidData);
    file.set_len(FILE_BYTES_MAX).unwrap();
    assert_eq!(read(&path).unwrap().unwrap().len() as u64, FILE_BYTES_MAX);
}

#[test]
fn directories_are_for_their_owner_alone() {
    let directory = tempfile::tempdir().unwrap();
    let outer = directory.path().join("outer");
    let inner = outer.join("inner");
    create_dir(&inner).unwrap();
    assert_eq!((mode(&outer), mode(&inner)), (0o700, 0o700));
    fs::set_permissions(&inner, fs::Permissions::from_mode(0o755)).unwrap();
    create_dir(&inner).unwrap();
    assert_eq!(mode(&inner), 0o700, "narrowed");
    let file = inner.join("file");
    write(&file, b"").unwrap();
    create_dir(&file).unwrap_err();
}

#[test]
fn a_locked_directory_is_locked_until_its_lock_is_dropped() {
    let directory = tempfile::tempdir().unwrap();
    let lock = lock_dir(directory.path()).unwrap();
    for _ in 0..2 {
        let refused = lock_dir(directory.path()).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::WouldBlock);
    }
    drop(lock);
    lock_dir(directory.path()).unwrap();
    let absent = lock_dir(&directory.path().join("absent")).unwrap_err();
    assert_eq!(absent.kind(), io::ErrorKind::NotFound);
}

#[test]
fn an_error_names_its_file_once() {
    let directory = tempfile::tempdir().unwrap();
    let inside = directory.path().join("file").join("inside");
    fs::write(directory.path().join("file"), "").unwrap();
    let error = read(&inside).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::NotADirectory);
    let said = error.to_string();
    assert!(said.starts_with(&format!("{}: Not a directory", inside.display())), "{said}");
    assert_eq!(named(directory.path(), error).to_string(), said);
    for error in [
        write(&inside, b"").unwrap_err(),
        create_dir(&inside).unwrap_err(),
        remove(&inside).unwrap_err(),
        lock_dir(&inside).map(drop).unwrap_err(),
        sync_dir(Some(&inside)).unwrap_err(),
        has_entries(&inside).map(drop).unwrap_err(),
        narrow(&inside).map(drop).unwrap_err(),
    ] {
        assert!(error.to_string().contains(inside.to_str().unwrap()), "{error}");
    }
}

#[test]
fn what_others_can_read_is_narrowed() {
    let directory = tempfile::tempdir().unwrap();
    let inner = directory.path().join("inner");
    let file = inner.join("file");
    fs::create_dir(&inner).unwrap();
    fs::write(&file, "").unwrap();
    fs::set_permissions(&inner, fs::Permissions::from_mode(0o755)).unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o664)).unwrap();
    assert!(narrow(directory.path()).unwrap());
    assert_eq!((mode(&inner), mode(&file)), (0o700, 0o600));
    assert!(!narrow(directory.path()).unwrap());
    require_own(&file).unwrap();
}

#[test]
fn only_directories_that_are_missing_are_made() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("a").join("b");
    assert_eq!(missing_dirs(&path), [path.clone(), directory.path().join("a")]);
    create_dir(&path).unwrap();
    assert!(missing_dirs(&path).is_empty());
}

#[test]
fn what_dead_writers_left_is_removed_by_the_next() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("nodes");
    // A process that is gone, and one that lives.
    let mut gone = std::process::Command::new("true").spawn().unwrap();
    gone.wait().unwrap();
    let kept = ["nodes.1.new", "nodes.x.new", "nodes.new", "other.2.new", "nodes.-1.new"];
    let left = format!("nodes.{}.new", gone.id());
    for name in kept.into_iter().chain([left.as_str()]) {
        fs::write(directory.path().join(name), "half").unwrap();
    }
    write(&path, b"content").unwrap();
    let mut expected: Vec<_> = kept.to_vec();
    expected.push("nodes");
    expected.sort_unstable();
    assert_eq!(names(directory.path()), expected);
}

#[test]
fn a_link_to_nothing_is_not_taken_for_no_file() {
    let directory = tempfile::tempdir().unwrap();
    let (file, below) = (directory.path().join("file"), directory.path().join("below"));
    for link in [&file, &below] {
        std::os::unix::fs::symlink("gone", link).unwrap();
    }
    for path in [&file, &below.join("file")] {
        let said = read(path).unwrap_err().to_string();
        assert!(said.contains("it is a symbolic link to gone, which does not exist"), "{said}");
    }
    let said = create_dir(&below).unwrap_err().to_string();
    assert!(said.starts_with(&format!("{}: it is a symbolic link", below.display())), "{said}");
    fs::write(directory.path().join("taken"), "").unwrap();
    let said = create_dir(&directory.path().join("taken")).unwrap_err().to_string();
    assert!(said.ends_with("taken: it is not a directory"), "{said}");
}

#[test]
fn a_copy_that_fails_names_the_file() {
    let home = tempfile::tempdir().unwrap();
    let (from, to) = (home.path().join("from"), home.path().join("to"));
    let refusal = || copy_dir(&from, &to).unwrap_err().to_string();
    assert!(refusal().starts_with(&format!("{}: ", from.display())), "{}", refusal());
    fs::remove_dir(&to).unwrap();
    fs::create_dir_all(from.join("inner")).unwrap();
    fs::write(from.join("inner/file"), "content").unwrap();
    copy_dir(&from, &to).unwrap();
    assert_eq!(fs::read(to.join("inner/file")).unwrap(), b"content");
    assert!(refusal().starts_with(&format!("{}: ", to.display())), "{}", refusal());
    fs::remove_dir_all(&to).unwrap();
    let link = from.join("inner/link");
    std::os::unix::fs::symlink(home.path().join("gone"), &link).unwrap();
    let said = refusal();
    assert!(said.starts_with(&format!("cannot copy {} to ", link.display())), "{said}");
}
