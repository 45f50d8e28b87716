use std::time::SystemTime;

use dkv_base::id::HolderId;
use dkv_wire::certificate::{Authority, generate_key};
use dkv_wire::identity::Identity;

use super::*;

fn credentials(role: Role) -> Credentials {
    let authority = Authority::create(NetworkId::random(), SystemTime::now()).unwrap();
    let (key, public_key) = generate_key().unwrap();
    let identity =
        Identity { network: authority.network(), role, holder: HolderId::random(), user: None };
    let certificate = authority.sign(identity, &public_key, SystemTime::now()).unwrap();
    Credentials::new(&certificate, authority.certificate(), key).unwrap()
}

fn file_of(credentials: &Credentials) -> NodeFile {
    let Identity { network, .. } = credentials.identity;
    let id = credentials.identity.as_node().unwrap();
    let listen = ([127, 0, 0, 1], 4401).into();
    NodeFile::new(network, id, "name".into(), listen, None, Settings::default(), true)
}

/// Names of a file of the log and of one of the checkpoints.
const SEGMENT: &str = "0000000000000001.wal";
const VERSION_FILE: &str = "version";

/// The directory of a node that has run.
struct Used {
    _parent: tempfile::TempDir,
    directory: DataDir,
    credentials: Credentials,
}

impl Used {
    fn new() -> Self {
        let parent = tempfile::tempdir().unwrap();
        let directory = DataDir::open(&parent.path().join("data")).unwrap();
        let credentials = credentials(Role::Node);
        directory.save_credentials(&credentials).unwrap();
        let file = NodeFile { log_begun: true, ..file_of(&credentials) };
        directory.save_node_file(&file).unwrap();
        fs::create_dir(directory.log_path()).unwrap();
        fs::write(directory.log_path().join(SEGMENT), "entries").unwrap();
        fs::create_dir(directory.state_path()).unwrap();
        fs::write(directory.state_path().join(VERSION_FILE), "rows").unwrap();
        Self { _parent: parent, directory, credentials }
    }

    fn read(&self) -> Result<Option<NodeFile>, DataDirError> {
        self.directory.node_file(&self.credentials)
    }

    fn damage(&self) -> String {
        match self.read() {
            Err(DataDirError::Damaged { problem, path }) => {
                assert_eq!(path, self.directory.path());
                problem
            }
            other => panic!("{other:?}"),
        }
    }

    /// Returns the path that is reported missing, and not damaged.
    fn missing(&self) -> PathBuf {
        match self.read() {
            Err(error @ DataDirError::Missing { .. }) => {
                let said = error.to_string();
                assert!(!said.contains("damaged") && said.contains("mount"), "{said}");
                let DataDirError::Missing { missing, .. } = error else { unreachable!() };
                missing
            }
            other => panic!("{other:?}"),
        }
    }

    /// Changes the text of node.json.
    fn edit(&self, from: &str, to: &str) {
        let path = self.directory.node_path();
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.contains(from), "{text}");
        fs::write(&path, text.replacen(from, to, 1)).unwrap();
    }
}

#[test]
fn a_second_process_does_not_get_the_directory() {
    let used = Used::new();
    let path = used.directory.path().to_owned();
    assert!(matches!(DataDir::open(&path), Err(DataDirError::InUse(taken)) if taken == path));
    drop(used.directory);
    DataDir::open(&path).unwrap();
}

#[test]
fn without_a_name_the_first_free_directory_is_taken() {
    let parent = tempfile::tempdir().unwrap();
    let open = || DataDir::open_default(parent.path()).unwrap();
    let name = |directory: &DataDir| directory.path().file_name().unwrap().to_owned();
    let (one, two, three) = (open(), open(), open());
    assert_eq!([name(&one), name(&two), name(&three)], ["node-1", "node-2", "node-3"]);
    drop(two);
    assert_eq!(name(&open()), "node-2", "the one that nobody uses any more");
    // A directory that is unusable for another reason is not skipped: it may hold a user's data.
    let blocked = tempfile::tempdir().unwrap();
    fs::write(blocked.path().join("node-1"), "a file").unwrap();
    assert!(matches!(DataDir::open_default(blocked.path()), Err(DataDirError::Io { .. })));
}

#[test]
fn a_fresh_directory_holds_nobody() {
    let parent = tempfile::tempdir().unwrap();
    let directory = DataDir::open(&parent.path().join("a/b")).unwrap();
    assert!(directory.credentials().unwrap().is_none());
    assert!(directory.node_file(&credentials(Role::Node)).unwrap().is_none());
}

#[test]
fn a_node_finds_itself_again() {
    let used = Used::new();
    let found = used.directory.credentials().unwrap().unwrap();
    assert_eq!(found.identity, used.credentials.identity);
    let file = used.read().unwrap().unwrap();
    assert_eq!(file, NodeFile { log_begun: true, ..file_of(&used.credentials) });
    assert!(!file_of(&used.credentials).log_begun, "a node without a log has begun none");
}

#[test]
fn the_certificate_must_be_one_of_a_node() {
    let used = Used::new();
    used.directory.save_credentials(&credentials(Role::Client)).unwrap();
    let Err(DataDirError::Damaged { problem, .. }) = used.directory.credentials() else { panic!() };
    assert_eq!(problem, "it holds the certificate of a client");
    fs::write(used.directory.credentials_path().join("key.der"), "garbage").unwrap();
    let broken = used.directory.credentials();
    assert!(matches!(broken, Err(DataDirError::Damaged { .. })), "{broken:?}");
}

#[test]
fn a_node_that_lost_its_log_does_not_go_on() {
    let used = Used::new();
    let (log, state) = (used.directory.log_path(), used.directory.state_path());
    fs::rename(log.join(SEGMENT), log.join("lost+found")).unwrap();
    assert_eq!(used.missing(), log, "a disk that is empty");
    fs::remove_dir_all(&log).unwrap();
    assert_eq!(used.missing(), log);
    // A path that cannot be inspected does not count as empty.
    fs::write(&log, "").unwrap();
    let said = used.read().unwrap_err().to_string();
    assert!(said.contains(&format!("{}: Not a directory", log.display())), "{said}");
    fs::remove_file(&log).unwrap();
    fs::create_dir(&log).unwrap();
    fs::write(log.join(SEGMENT), "entries").unwrap();
    assert!(used.read().unwrap().is_some());
    fs::remove_dir_all(&state).unwrap();
    assert_eq!(used.missing(), state);
    // A directory that never had a log begins one.
    used.directory.save_node_file(&file_of(&used.credentials)).unwrap();
    assert!(used.read().unwrap().is_some());
}

#[test]
fn a_mount_point_without_its_disk_is_missing_whatever_lies_in_it() {
    for kept in [DataDir::log_path, DataDir::state_path] {
        let used = Used::new();
        let mount_point = kept(&used.directory);
        fs::remove_dir_all(&mount_point).unwrap();
        fs::create_dir(&mount_point).unwrap();
        for marker in ["NOT_MOUNTED", ".keep", "lock", "lost+found"] {
            fs::write(mount_point.join(marker), "").unwrap();
            assert_eq!(used.missing(), mount_point);
        }
        // Before the first start, it shows nothing of an earlier one.
        for name in ["node.json", "credentials/certificate.der"] {
            fs::remove_file(used.directory.path().join(name)).unwrap();
        }
        let other = [used.directory.log_path(), used.directory.state_path()];
        for other in other.iter().filter(|other| **other != mount_point) {
            fs::remove_dir_all(other).unwrap();
        }
        assert!(used.directory.credentials().unwrap().is_none());
        assert!(used.read().unwrap().is_none());
    }
}

#[test]
fn a_node_that_lost_its_node_json_does_not_go_on() {
    let used = Used::new();
    fs::remove_file(used.directory.node_path()).unwrap();
    assert_eq!(used.missing(), used.directory.node_path());
    fs::remove_dir_all(used.directory.log_path()).unwrap();
    assert!(used.read().unwrap().is_none(), "without a log it never began");
}

#[test]
fn node_json_and_certificate_must_be_of_one_node() {
    let used = Used::new();
    let file = file_of(&used.credentials);
    for other in [
        NodeFile { network: NetworkId::random(), ..file.clone() },
        NodeFile { id: NodeId::random(), ..file },
    ] {
        used.directory.save_node_file(&other).unwrap();
        assert_eq!(used.damage(), "node.json and the certificate are of different nodes");
    }
}

#[test]
fn a_damaged_node_json_is_told_as_such() {
    for (from, to) in [
        ("{", ""),
        ("\"name\"", "\"nome\""),
        ("\"log_begun\": true", "\"log_begun\": true, \"more\": 1"),
        ("\"log_begun\": true", "\"log_begun\": 1"),
        ("\"version\": 3,", ""),
        ("\"heartbeat_ms\": 50", "\"heartbeat_ms\": 0"),
    ] {
        let used = Used::new();
        used.edit(from, to);
        let problem = used.damage();
        assert!(problem.starts_with("node.json: "), "{problem}");
    }
    let used = Used::new();
    fs::write(used.directory.node_path(), "").unwrap();
    assert!(used.damage().starts_with("node.json: "));
}

#[test]
fn a_changed_bit_of_node_json_is_refused_or_changes_nothing() {
    let used = Used::new();
    let path = used.directory.node_path();
    let whole = fs::read(&path).unwrap();
    let file = used.read().unwrap();
    for place in 0..whole.len() {
        let mut content = whole.clone();
        content[place] ^= 1 << (place % 8);
        fs::write(&path, content).unwrap();
        // White space between the fields carries no meaning.
        if let Ok(read) = used.read() {
            assert_eq!(read, file, "at {place}");
        }
    }
}

#[test]
fn a_node_json_without_a_checksum_is_read() {
    let used = Used::new();
    let text = fs::read_to_string(used.directory.node_path()).unwrap();
    let (kept, _) = text.rsplit_once(",\n  \"checksum\"").unwrap();
    fs::write(used.directory.node_path(), format!("{kept}\n}}")).unwrap();
    assert!(used.read().unwrap().is_some());
}

#[test]
fn a_directory_in_which_nothing_was_kept_is_taken_back() {
    let parent = tempfile::tempdir().unwrap();
    let path = parent.path().join("a/b");
    drop(DataDir::open(&path).unwrap());
    assert_eq!(fs::read_dir(parent.path()).unwrap().count(), 0);
    fs::create_dir_all(&path).unwrap();
    drop(DataDir::open(&path).unwrap());
    assert_eq!(fs::read_dir(&path).unwrap().count(), 0);
    DataDir::open(&path).unwrap().save_credentials(&credentials(Role::Node)).unwrap();
    assert!(path.join("credentials").exists());
}

#[test]
fn a_directory_of_another_user_is_refused() {
    let used = Used::new();
    let path = used.directory.path().to_owned();
    drop(used.directory);
    // Only root can give files away.
    if std::os::unix::fs::chown(&path, Some(65_534), None).is_ok() {
        let said = DataDir::open(&path).map(drop).unwrap_err().to_string();
        assert!(said.contains("it belongs to user 65534"), "{said}");
    }
}

#[test]
fn another_version_is_no_damage() {
    let used = Used::new();
    // A later version may have fields that this one does not know.
    used.edit("\"version\": 3,", "\"version\": 4, \"more\": [],");
    let refused = used.read().unwrap_err();
    assert!(matches!(refused, DataDirError::Version { found: 4, .. }), "{refused}");
}

#[test]
fn without_its_certificate_a_directory_is_nobody_elses() {
    let lost = |what: &str| {
        let used = Used::new();
        let path = used.directory.path().join(what);
        if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) }.unwrap();
        used
    };
    let refused = |used: &Used| {
        let certificate = used.directory.credentials_path().join(CERTIFICATE_FILE);
        match used.directory.credentials() {
            Err(DataDirError::Missing { missing, .. }) => assert_eq!(missing, certificate),
            other => panic!("{other:?}"),
        }
    };
    refused(&lost("credentials/certificate.der"));
    refused(&lost("credentials"));
    let used = lost("credentials");
    fs::create_dir(used.directory.credentials_path()).unwrap();
    refused(&used);
    fs::write(used.directory.credentials_path().join(CERTIFICATE_FILE), "").unwrap();
    refused(&used);
    // Each of these shows that a node has used the directory.
    let parts = ["node.json", "wal", "state"];
    for kept in parts {
        let used = lost("credentials");
        for part in parts.into_iter().filter(|part| *part != kept) {
            let path = used.directory.path().join(part);
            if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) }.unwrap();
        }
        refused(&used);
    }
    for kept in BEGUN {
        let parent = tempfile::tempdir().unwrap();
        fs::write(parent.path().join(kept), "something").unwrap();
        let directory = DataDir::open(parent.path()).unwrap();
        assert!(matches!(directory.credentials(), Err(DataDirError::Missing { .. })), "{kept}");
    }
}

#[test]
fn a_first_start_that_was_cut_off_starts_again() {
    let used = Used::new();
    fs::remove_file(used.directory.credentials_path().join(CERTIFICATE_FILE)).unwrap();
    fs::remove_file(used.directory.node_path()).unwrap();
    for disk in [used.directory.log_path(), used.directory.state_path()] {
        fs::remove_dir_all(&disk).unwrap();
        // Disks that were mounted for it beforehand.
        fs::create_dir_all(disk.join("lost+found")).unwrap();
    }
    assert!(used.directory.credentials().unwrap().is_none());
}

#[test]
fn a_directory_of_something_else_is_refused_and_left_as_it_is() {
    use std::os::unix::fs::PermissionsExt;
    let parent = tempfile::tempdir().unwrap();
    fs::set_permissions(parent.path(), fs::Permissions::from_mode(0o755)).unwrap();
    fs::write(parent.path().join("holiday.jpg"), "sun").unwrap();
    let refused = DataDir::open(parent.path()).map(drop).unwrap_err();
    assert!(matches!(refused, DataDirError::Foreign(_)), "{refused}");
    assert!(refused.to_string().contains("holds no dkv node"), "{refused}");
    assert_eq!(fs::read_dir(parent.path()).unwrap().count(), 1);
    assert_eq!(fs::metadata(parent.path()).unwrap().permissions().mode() & 0o777, 0o755);
    // The files at the root of a disk, and those that a killed start leaves, count as nothing.
    fs::remove_file(parent.path().join("holiday.jpg")).unwrap();
    fs::create_dir(parent.path().join("lost+found")).unwrap();
    fs::write(parent.path().join(LOCK), "").unwrap();
    DataDir::open(parent.path()).unwrap();
}

#[test]
fn a_link_to_nothing_is_told_as_one() {
    let used = Used::new();
    let credentials = used.directory.credentials_path();
    fs::remove_dir_all(&credentials).unwrap();
    std::os::unix::fs::symlink("/nowhere", &credentials).unwrap();
    let said = used.directory.credentials().unwrap_err().to_string();
    let expected = format!("{}: it is a symbolic link to /nowhere", credentials.display());
    assert!(said.contains(&expected), "{said}");
    let parent = tempfile::tempdir().unwrap();
    let link = parent.path().join("data");
    std::os::unix::fs::symlink("/nowhere", &link).unwrap();
    let said = DataDir::open(&link).map(drop).unwrap_err().to_string();
    assert!(said.contains("a symbolic link to /nowhere"), "{said}");
}
