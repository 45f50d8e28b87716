//! Command-line options of the face.

use std::net::SocketAddr;
use std::path::PathBuf;

/// How to serve etcd's interface.
///
/// On loopback, anyone who reaches it reads and writes with the rights of a client. Elsewhere it
/// requires TLS, unless an option says otherwise.
#[derive(clap::Args, Clone, Debug, Default)]
#[group(skip)]
pub struct Args {
    /// Address to serve etcd's interface on; port 0 takes a free one
    #[arg(long, value_name = "IP:PORT", env = "DKV_ETCD")]
    pub etcd: Option<SocketAddr>,

    /// Keyspace behind it, with one shard; created at the first use [default: etcd]
    #[arg(long, value_name = "NAME", env = "DKV_ETCD_KEYSPACE", requires = "etcd")]
    pub etcd_keyspace: Option<String>,

    /// URL at which clients reach it, for the list of members; may be repeated [default: its
    /// address]
    #[arg(
        long,
        value_name = "URL",
        env = "DKV_ETCD_URL",
        value_delimiter = ',',
        requires = "etcd"
    )]
    pub etcd_url: Vec<String>,

    /// PEM file with the TLS certificate of etcd's interface and its chain
    #[arg(long, value_name = "FILE", requires_all = ["etcd", "etcd_tls_key"], env = "DKV_ETCD_TLS_CERT")]
    pub etcd_tls_cert: Option<PathBuf>,

    /// PEM file with the key of that certificate
    #[arg(long, value_name = "FILE", requires = "etcd_tls_cert", env = "DKV_ETCD_TLS_KEY")]
    pub etcd_tls_key: Option<PathBuf>,

    /// PEM file with the authorities whose clients may connect; without it every client may
    #[arg(long, value_name = "FILE", requires = "etcd_tls_cert", env = "DKV_ETCD_CLIENT_CA")]
    pub etcd_client_ca: Option<PathBuf>,

    /// Serve etcd's interface on a non-loopback address without TLS
    #[arg(long, requires = "etcd", conflicts_with = "etcd_tls_cert")]
    pub etcd_without_tls: bool,
}

/// The keyspace, unless one is named.
const KEYSPACE_DEFAULT: &str = "etcd";

impl Args {
    /// Returns the name of the keyspace.
    pub fn keyspace(&self) -> &str {
        self.etcd_keyspace.as_deref().unwrap_or(KEYSPACE_DEFAULT)
    }
}
