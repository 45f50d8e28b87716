//! A whole node in this process, the founder of a network of its own. It has no registration
//! server: a node that has registered before does not need one.

use std::time::SystemTime;

use dkv_base::id::{HolderId, NetworkId};
use dkv_wire::certificate::{Authority, generate_key};
use dkv_wire::identity::{Identity, Role};
use dkv_wire::network::Settings;
use tempfile::TempDir;

use super::*;

/// Data directory and identity from which a founder starts.
pub(crate) struct Founder {
    authority: Authority,
    directory: TempDir,
}

impl Founder {
    /// Makes a data directory as it is after the server has admitted the node.
    pub(crate) fn new(settings: Settings) -> Self {
        let authority = Authority::create(NetworkId::random(), SystemTime::now()).unwrap();
        let founder = Self { authority, directory: tempfile::tempdir().unwrap() };
        let credentials = founder.credentials(Role::Node);
        let directory = DataDir::open(founder.directory.path()).unwrap();
        directory.save_credentials(&credentials).unwrap();
        let Identity { network, .. } = credentials.identity;
        let id = credentials.identity.as_node().unwrap();
        let listen = SocketAddr::from(([127, 0, 0, 1], 0));
        let file = NodeFile::new(network, id, "founder".into(), listen, None, settings, true);
        directory.save_node_file(&file).unwrap();
        founder
    }

    /// Makes credentials of another member of its network.
    pub(crate) fn credentials(&self, role: Role) -> Credentials {
        let (key, public_key) = generate_key().unwrap();
        let network = self.authority.network();
        let identity = Identity { network, role, holder: HolderId::random(), user: None };
        let certificate = self.authority.sign(identity, &public_key, SystemTime::now()).unwrap();
        Credentials::new(&certificate, self.authority.certificate(), key).unwrap()
    }

    /// Makes the log, which a test may keep elsewhere, appear to be where it belongs.
    pub(crate) fn pretend_log(&self) {
        let path = self.directory.path().join("wal");
        std::fs::create_dir_all(&path).unwrap();
        std::fs::write(path.join("0000000000000001.wal"), "").unwrap();
    }

    /// Returns the arguments of the node. No server answers at the address in them.
    pub(crate) fn args(&self) -> Args {
        Args {
            server: "127.0.0.1:9".into(),
            data_dir: Some(self.directory.path().to_owned()),
            name: None,
            listen: Some(([127, 0, 0, 1], 0).into()),
            advertise: None,
            region: None,
            token_file: None,
            threads: None,
            value_memory: None,
            slow_request_ms: 0,
            audit: dkv_base::audit::AuditArgs::default(),
            audit_writes: false,
            log_format: dkv_base::logging::Format::Text,
        }
    }
}
