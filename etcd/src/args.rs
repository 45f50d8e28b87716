//! Command-line options of the face.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use dkv_api::ClientBuilder;
use dkv_console::units::{DurationError, parse_duration};

use crate::access::tokens::TokenKind;
use crate::etcd::Options;
use crate::limits::{WATCH_PROGRESS_EVERY, WATCH_PROGRESS_MIN};
use crate::shared::SETTINGS_SUFFIX;

/// How to serve etcd's interface.
///
/// On loopback, anyone who reaches it reads and writes with the rights of a client. Elsewhere it
/// requires TLS, unless an option says otherwise.
#[derive(clap::Args, Clone, Debug, Default)]
#[group(skip)]
pub struct Args {
    /// Address to serve etcd's interface on, or a port of loopback; port 0 takes a free one
    #[arg(long, value_name = "[IP:]PORT", env = "DKV_ETCD", value_parser = address)]
    pub etcd: Option<SocketAddr>,

    /// Keyspace behind it, with one shard; created at the first use [default: etcd]
    #[arg(
        long,
        value_name = "NAME",
        env = "DKV_ETCD_KEYSPACE",
        value_parser = keyspace,
        requires = "etcd"
    )]
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

    /// Time without events after which a watch that asks for progress gets it [default: 10m]
    #[arg(
        long,
        value_name = "TIME",
        env = "DKV_ETCD_PROGRESS",
        value_parser = progress,
        requires = "etcd"
    )]
    pub etcd_progress: Option<Duration>,

    /// PEM file with the TLS certificate of etcd's interface and its chain
    #[arg(long, value_name = "FILE", requires_all = ["etcd", "etcd_tls_key"], env = "DKV_ETCD_TLS_CERT")]
    pub etcd_tls_cert: Option<PathBuf>,

    /// PEM file with the key of that certificate
    #[arg(long, value_name = "FILE", requires = "etcd_tls_cert", env = "DKV_ETCD_TLS_KEY")]
    pub etcd_tls_key: Option<PathBuf>,

    /// PEM file with the authorities whose clients may connect; without it every client may
    #[arg(long, value_name = "FILE", requires = "etcd_tls_cert", env = "DKV_ETCD_CLIENT_CA")]
    pub etcd_client_ca: Option<PathBuf>,

    /// How etcd's users get tokens: `simple`, or as for etcd
    /// `jwt,sign-method=METHOD,pub-key=FILE,priv-key=FILE,ttl=10m` [default: simple]
    #[arg(long, value_name = "KIND", env = "DKV_ETCD_AUTH_TOKEN", requires = "etcd")]
    pub etcd_auth_token: Option<TokenKind>,

    /// Seconds for which a simple token is valid after its last use [default: 300]
    #[arg(
        long,
        value_name = "SECONDS",
        env = "DKV_ETCD_AUTH_TOKEN_TTL",
        value_parser = clap::value_parser!(u64).range(1..=86_400),
        requires = "etcd"
    )]
    pub etcd_auth_token_ttl: Option<u64>,

    /// Serve etcd's interface on a non-loopback address without TLS
    #[arg(long, requires = "etcd", conflicts_with = "etcd_tls_cert")]
    pub etcd_without_tls: bool,
}

/// A keyspace has the users and roles of another one.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error(
    "names that end with {SETTINGS_SUFFIX} are those of the users and roles of another keyspace"
)]
pub struct KeyspaceError;

fn keyspace(text: &str) -> Result<String, KeyspaceError> {
    if text.ends_with(SETTINGS_SUFFIX) { Err(KeyspaceError) } else { Ok(text.to_owned()) }
}

/// A text is no address.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("use an address such as 127.0.0.1:2379, or a port")]
pub struct AddressError;

/// Parses an address; a port by itself is one of loopback.
fn address(text: &str) -> Result<SocketAddr, AddressError> {
    let port = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    text.parse().or_else(|_| text.parse().map(port)).map_err(|_| AddressError)
}

/// A text is no time after which a watch could get progress.
#[derive(Clone, Copy, Debug, thiserror::Error)]
pub enum ProgressError {
    /// It is no time.
    #[error(transparent)]
    Time(#[from] DurationError),
    /// It is too short.
    #[error("the time must be at least {} ms", WATCH_PROGRESS_MIN.as_millis())]
    Short,
}

fn progress(text: &str) -> Result<Duration, ProgressError> {
    let time = parse_duration(text)?;
    if time < WATCH_PROGRESS_MIN { Err(ProgressError::Short) } else { Ok(time) }
}

/// The keyspace, unless one is named.
const KEYSPACE_DEFAULT: &str = "etcd";

impl Args {
    /// Returns the options of a face at a URL. `founder` connects to its network.
    pub fn options(&self, url: String, founder: ClientBuilder) -> Options {
        let urls = &self.etcd_url;
        let client_urls = if urls.is_empty() { vec![url] } else { urls.clone() };
        let keyspace = self.etcd_keyspace.as_deref().unwrap_or(KEYSPACE_DEFAULT).to_owned();
        let progress_every = self.etcd_progress.unwrap_or(WATCH_PROGRESS_EVERY);
        let tokens = self.tokens();
        Options { keyspace, client_urls, progress_every, founder: Some(founder), tokens }
    }

    fn tokens(&self) -> TokenKind {
        match (self.etcd_auth_token.clone().unwrap_or_default(), self.etcd_auth_token_ttl) {
            (TokenKind::Simple { .. }, Some(ttl)) => {
                TokenKind::Simple { ttl: Duration::from_secs(ttl) }
            }
            (kind, _) => kind,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::progress;

    #[test]
    fn progress_is_not_told_all_the_time() {
        assert_eq!(progress("5s").unwrap(), Duration::from_secs(5));
        assert_eq!(progress("100ms").unwrap(), Duration::from_millis(100));
        let said = |text| progress(text).unwrap_err().to_string();
        assert_eq!(said("99ms"), "the time must be at least 100 ms");
        assert!(said("soon").starts_with("write a whole number and a unit"));
    }
}
