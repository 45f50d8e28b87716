use std::fs;
use std::time::SystemTime;

use dkv_base::id::{HolderId, NetworkId};
use dkv_state::EngineOptions;
use dkv_wal::WalOptions;
use dkv_wire::certificate::{Authority, generate_key};
use dkv_wire::identity::{Identity, Role};
use dkv_wire::network::Settings;

use super::*;
use crate::storage::stores::{RealStorage, Storage};

/// Makes the data directory of a node that has begun its log, and stopped.
fn stopped(path: &Path) {
    let directory = DataDir::open(path).unwrap();
    let authority = Authority::create(NetworkId::random(), SystemTime::now()).unwrap();
    let (key, public_key) = generate_key().unwrap();
    let (network, holder) = (authority.network(), HolderId::random());
    let identity = Identity { network, role: Role::Node, holder, user: None };
    let certificate = authority.sign(identity, &public_key, SystemTime::now()).unwrap();
    let credentials = Credentials::new(&certificate, authority.certificate(), key).unwrap();
    directory.save_credentials(&credentials).unwrap();
    let (id, listen) = (identity.as_node().unwrap(), ([127, 0, 0, 1], 4401).into());
    let settings = Settings::default();
    let mut file = NodeFile::new(network, id, "n1".into(), listen, None, settings, true);
    file.log_begun = true;
    directory.save_node_file(&file).unwrap();
    let options = WalOptions::default();
    RealStorage.open_log(&directory.log_path(), options, Box::new(|_| ())).unwrap().close();
    RealStorage.open_engine(&directory.state_path(), EngineOptions::default()).unwrap();
}

#[test]
fn what_cannot_be_read_is_not_called_damaged() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("n1");
    stopped(&path);
    let node = Opened::open(&path).unwrap();
    let refusal = || node.read(GroupId::CONTROL).map(drop).unwrap_err().to_string();
    node.read(GroupId::CONTROL).map(drop).unwrap();
    // A directory in the place of a file can be opened, and not read.
    let tombstone = path.join("former").join(GroupId::CONTROL.0.to_string());
    fs::create_dir_all(&tombstone).unwrap();
    let said = refusal();
    assert!(said.contains("cannot be used") && said.contains("Is a directory"), "{said}");
    assert!(said.contains(&tombstone.display().to_string()), "{said}");
    assert!(!said.contains("damaged") && !said.contains("empty directory"), "{said}");
    // Something else than what was written is damage.
    fs::remove_dir(&tombstone).unwrap();
    fs::write(&tombstone, "{").unwrap();
    let said = refusal();
    assert!(said.contains("damaged") && said.contains("malformed"), "{said}");
}

#[test]
fn the_log_and_the_checkpoints_are_damaged_only_by_what_was_read() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("n1");
    stopped(&path);
    let node = Opened::open(&path).unwrap();
    let failed = || io::Error::from_raw_os_error(5);
    let engine = |error| io::Error::other::<EngineError>(error);
    let state = path.join("state");
    for error in [
        failed(),
        io::Error::from_raw_os_error(24),
        io::ErrorKind::PermissionDenied.into(),
        engine(EngineError::Failed { path: state.clone(), source: failed() }),
        engine(EngineError::InUse { path: state.clone() }),
    ] {
        let error = node.of_reading(error);
        assert!(matches!(error, DataDirError::Io { .. }), "{error}");
    }
    for error in [
        io::ErrorKind::InvalidData.into(),
        io::ErrorKind::UnexpectedEof.into(),
        engine(EngineError::Damaged { path: state.clone(), problem: "why".into() }),
    ] {
        let error = node.of_reading(error);
        assert!(matches!(error, DataDirError::Damaged { .. }), "{error}");
    }
    let error = node.of_reading(engine(EngineError::Missing(state)));
    assert!(matches!(error, DataDirError::Missing { .. }), "{error}");
}
