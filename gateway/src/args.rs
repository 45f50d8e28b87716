//! How HTTP is served, as it is said on a command line.

use std::net::SocketAddr;
use std::path::PathBuf;

use crate::same_origin::Name;

/// How HTTP is served.
///
/// On loopback whoever reaches it reads and writes with the rights of a client. Elsewhere it takes
/// TLS and tokens, unless it is told otherwise.
#[derive(clap::Args, Clone, Debug, Default)]
#[group(skip)]
pub struct Args {
    /// Where HTTP is served; port 0 takes a free one
    #[arg(long, value_name = "IP:PORT", env = "DKV_HTTP")]
    pub http: Option<SocketAddr>,

    /// Name under which browsers reach it, as NAME or NAME:PORT; may be repeated
    #[arg(
        long,
        value_name = "NAME",
        env = "DKV_HTTP_HOST",
        value_delimiter = ',',
        value_parser = Name::parse
    )]
    pub host: Vec<Name>,

    /// File with the certificate for TLS, and those that lead to its authority, in PEM
    #[arg(long, value_name = "FILE", requires = "tls_key", env = "DKV_TLS_CERT")]
    pub tls_cert: Option<PathBuf>,

    /// File with the key of that certificate, in PEM
    #[arg(long, value_name = "FILE", requires = "tls_cert", env = "DKV_TLS_KEY")]
    pub tls_key: Option<PathBuf>,

    /// Ask for tokens on loopback too (see dkv ADDRESS token create --http)
    #[arg(long, conflicts_with = "without_authentication")]
    pub with_authentication: bool,

    /// Let anybody who reaches an address that is not of loopback read and write
    #[arg(long)]
    pub without_authentication: bool,

    /// Serve an address that is not of loopback without TLS, as behind a proxy that has it
    #[arg(long, conflicts_with_all = ["tls_cert", "tls_key"])]
    pub without_tls: bool,
}

impl Args {
    /// The first option that says how HTTP is served, by its name; where none is served it would
    /// be ignored.
    pub fn option_given(&self) -> Option<&'static str> {
        let given = [
            ("--http", self.http.is_some()),
            ("--tls-cert", self.tls_cert.is_some()),
            ("--with-authentication", self.with_authentication),
            ("--without-authentication", self.without_authentication),
            ("--without-tls", self.without_tls),
        ];
        given.into_iter().find_map(|(name, given)| given.then_some(name))
    }

    /// Whether requests at that address show tokens.
    pub fn asks_for_tokens(&self, address: SocketAddr) -> bool {
        self.with_authentication || !self.without_authentication && !is_loopback(address)
    }
}

/// Whether only this machine reaches an address.
pub(crate) fn is_loopback(address: SocketAddr) -> bool {
    address.ip().to_canonical().is_loopback()
}
