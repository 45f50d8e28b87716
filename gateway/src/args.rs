//! Command-line options of the gateway.

use std::net::SocketAddr;
use std::path::PathBuf;

use dkv_listener::host_name::HostName;
use dkv_listener::is_loopback;

/// How to serve HTTP.
///
/// On loopback, anyone who reaches the gateway reads and writes with the rights of a client.
/// Elsewhere the gateway requires TLS and tokens, unless an option says otherwise.
#[derive(clap::Args, Clone, Debug, Default)]
#[group(skip)]
pub struct Args {
    /// Address to serve HTTP on; port 0 takes a free one
    #[arg(long, value_name = "IP:PORT", env = "DKV_HTTP")]
    pub http: Option<SocketAddr>,

    /// Name under which browsers reach the gateway, as NAME or NAME:PORT; may be repeated
    #[arg(
        long,
        value_name = "NAME",
        env = "DKV_HTTP_HOST",
        value_delimiter = ',',
        value_parser = HostName::parse
    )]
    pub host: Vec<HostName>,

    /// PEM file with the TLS certificate and its chain
    #[arg(long, value_name = "FILE", requires = "tls_key", env = "DKV_TLS_CERT")]
    pub tls_cert: Option<PathBuf>,

    /// PEM file with the key of that certificate
    #[arg(long, value_name = "FILE", requires = "tls_cert", env = "DKV_TLS_KEY")]
    pub tls_key: Option<PathBuf>,

    /// Require tokens on loopback too (see dkv ADDRESS token create --http)
    #[arg(long, conflicts_with = "without_authentication")]
    pub with_authentication: bool,

    /// Let anyone who reaches a non-loopback address read and write
    #[arg(long)]
    pub without_authentication: bool,

    /// Serve a non-loopback address without TLS, for example behind a proxy that terminates it
    #[arg(long, conflicts_with_all = ["tls_cert", "tls_key"])]
    pub without_tls: bool,
}

impl Args {
    /// Returns the name of the first option that configures HTTP, if any is given. Without `--http`
    /// it would have no effect.
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

    /// Whether requests to an address need a token.
    pub fn needs_token(&self, address: SocketAddr) -> bool {
        self.with_authentication || !self.without_authentication && !is_loopback(address)
    }
}
