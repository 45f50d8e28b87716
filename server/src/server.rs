//! A running server: puts the parts together, starts them, stops them.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use dkv_base::id::{HolderId, NetworkId};
use dkv_base::logging::LoggingError;
use dkv_base::supervise::Failure;
use dkv_wire::certificate::{Authority, CertificateError, Credentials, generate_key};
use dkv_wire::gate::Gate;
use dkv_wire::identity::{Identity, Role};
use dkv_wire::limits::CERTIFICATE_CHECK;
use dkv_wire::network::{Settings, SettingsError};
use dkv_wire::quic::Endpoint;
use dkv_wire::tls::Admit;
use tokio::task::JoinHandle;
use tracing::{debug, error, info, warn};

use crate::callback::CallBack;
use crate::clock;
use crate::config::{Config, ConfigError};
use crate::data_dir::{DataDir, DataDirError, FirstToken, Network};
use crate::keeper::{Keeper, Stop};
use crate::leaving::LeftTokens;
use crate::limits::MARKS_SAVED_MS;
use crate::registry::Registry;
use crate::service::Service;

/// Why the server does not start: one sentence that says what is wrong and what to do.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The configuration cannot be used.
    #[error("{0}")]
    Config(#[from] ConfigError),
    /// A setting cannot be.
    #[error("{0}")]
    Settings(#[from] SettingsError),
    /// The data directory cannot be used.
    #[error("{0}")]
    DataDir(#[from] DataDirError),
    /// Its own certificate could not be made.
    #[error("cannot make the server's certificate: {0}")]
    Certificate(#[from] CertificateError),
    /// Another process listens there.
    #[error(
        "cannot listen on {0}: another process uses that UDP port; stop it, or choose another \
         address with --listen"
    )]
    PortTaken(SocketAddr),
    /// It cannot listen there.
    #[error(
        "cannot listen on {address}: {source}; choose an address of this machine with --listen"
    )]
    Listen {
        /// Where it would listen.
        address: SocketAddr,
        /// What the system says.
        source: io::Error,
    },
    /// The process cannot watch for signals.
    #[error("cannot watch for signals: {0}")]
    Signals(io::Error),
    /// What is to be logged cannot be told.
    #[error("{0}")]
    Logging(#[from] LoggingError),
    /// It ran, and cannot go on.
    #[error("{0}; start the server again")]
    Failed(String),
}

/// A server that runs. Dropped without [`shutdown`](Self::shutdown) it stops at once, as if it
/// were killed.
pub struct Server {
    address: SocketAddr,
    data_dir: PathBuf,
    is_new: bool,
    node_token: Result<(), String>,
    failure: Failure,
    keeper: Keeper,
    endpoint: Endpoint,
    authority: Arc<Authority>,
    tasks: Vec<JoinHandle<()>>,
    keeping: Option<Stop>,
}

impl Server {
    /// Starts a server within the current tokio runtime. When this returns it can be connected to.
    pub async fn start(config: Config) -> Result<Self, StartError> {
        config.settings.check()?;
        let mut data = DataDir::open(&config.data_dir)?;
        let found = data.load(&config.settings, clock::now())?;
        let is_new = found.is_none();
        let mut network = match found {
            Some(network) => network,
            None => Network::invent(&config.settings, clock::now())?,
        };
        warn_of_other_settings(&network.registry, &config);
        if let Some(voter) = config.trust_voter {
            info!(%voter, "reports are taken from this node, by the operator's word");
            network.registry.trust(voter);
        }
        // Before anything of a new network is written: a port that is taken leaves nothing behind.
        let endpoint = listen(config.listen, &network.authority)?;
        let address =
            endpoint.local_address().map_err(|source| listen_error(config.listen, source))?;
        if is_new {
            data.create(&network)?;
        }
        data.keep();
        let Network { registry, authority, .. } = network;

        let mut node_token = Ok(());
        let mut tokens = Vec::new();
        for token in data.first_tokens(&registry) {
            let (role, why) = match token {
                FirstToken::Admits(token) => {
                    let file = data.token_file(token.role);
                    tokens.push((token, file));
                    continue;
                }
                FirstToken::Gone(role) => (role, "is gone".to_owned()),
                FirstToken::Unreadable(role, why) => {
                    warn!("cannot read the initial {role} token: {why}");
                    (role, format!("cannot be read ({why})"))
                }
            };
            if role == Role::Node {
                node_token = Err(why);
            }
        }
        let left_tokens = LeftTokens::leave(tokens, config.tokens_home, address);

        let gate = Arc::new(Gate::default());
        gate.set_denied(registry.denied());
        let failure = Failure::default();
        let (keeper, keeping) =
            Keeper::start(registry, data.books_file(), Arc::clone(&gate), data.lock(), &failure);
        let authority = Arc::new(authority);
        let service = Arc::new(Service::new(
            Arc::clone(&authority),
            keeper.clone(),
            Arc::clone(&gate),
            left_tokens,
            CallBack::new(endpoint.clone()),
        ));
        let accepting = gate.serve(endpoint.clone(), move |connection, peer| {
            Arc::clone(&service).talk(connection, peer)
        });
        let tasks = vec![
            tokio::spawn(failure.if_ended("the task that accepts connections", accepting)),
            tokio::spawn(failure.if_ended(
                "the task that renews the server's certificate",
                keep_certificate_fresh(endpoint.clone(), Arc::clone(&authority)),
            )),
            tokio::spawn(
                failure
                    .if_ended("the task that keeps how far logs are", keep_marks(keeper.clone())),
            ),
        ];
        let data_dir = data.path().to_owned();
        info!(%address, data_dir = %data_dir.display(), network = %keeper.current().network(), "listening");
        Ok(Self {
            address,
            data_dir,
            is_new,
            node_token,
            failure,
            keeper,
            endpoint,
            authority,
            tasks,
            keeping: Some(keeping),
        })
    }

    /// Where it listens, with the port that it really has.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The network.
    pub fn network(&self) -> NetworkId {
        self.keeper.current().network()
    }

    /// Its data directory, as an absolute path.
    pub fn data_dir(&self) -> &Path {
        &self.data_dir
    }

    /// The file of the join token that the first start made for a role. It is gone if that token
    /// was revoked.
    pub fn token_file(&self, role: Role) -> PathBuf {
        self.data_dir.join("tokens").join(format!("{role}.token"))
    }

    /// Whether this start created the network.
    pub fn is_new(&self) -> bool {
        self.is_new
    }

    /// Whether the node token of the first start still admits, and why not.
    pub(crate) fn node_token(&self) -> Result<(), &str> {
        match &self.node_token {
            Ok(()) => Ok(()),
            Err(why) => Err(why),
        }
    }

    /// Completes when the server cannot go on, with why.
    pub async fn failed(&self) -> StartError {
        StartError::Failed(self.failure.happened().await)
    }

    /// What is in the books now.
    pub fn registry(&self) -> Arc<Registry> {
        self.keeper.current()
    }

    /// Takes a fresh certificate for connections from now on. It does so by itself when one is due.
    pub fn renew_certificate(&self) -> Result<(), StartError> {
        let renewed = own_credentials(&self.authority)?;
        self.endpoint
            .set_credentials(renewed, Some(Admit::CertifiedAndJoining))
            .map_err(|source| listen_error(self.address, source))
    }

    /// Stops: tells every peer, and writes what was taken by then.
    pub async fn shutdown(mut self) {
        self.endpoint.close().await;
        if let Some(keeping) = self.keeping.take() {
            keeping.stop().await;
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
        if let Some(keeping) = self.keeping.take() {
            keeping.abort();
        }
        self.endpoint.quinn().close(0_u32.into(), b"");
    }
}

fn listen(address: SocketAddr, authority: &Authority) -> Result<Endpoint, StartError> {
    let credentials = own_credentials(authority)?;
    // Its own key is made at each start; the authority's is what stays.
    let secret = authority.key_der();
    Endpoint::listen(address, credentials, Admit::CertifiedAndJoining, &secret)
        .map_err(|source| listen_error(address, source))
}

fn listen_error(address: SocketAddr, source: io::Error) -> StartError {
    match source.kind() {
        io::ErrorKind::AddrInUse => StartError::PortTaken(address),
        _ => StartError::Listen { address, source },
    }
}

/// A certificate for the server itself, under a fresh key. Nothing of it is kept on disk: whoever
/// holds the authority can make another at any time.
fn own_credentials(authority: &Authority) -> Result<Credentials, CertificateError> {
    let network = authority.network();
    let (key, public_key) = generate_key()?;
    let identity = Identity { network, role: Role::Server, holder: HolderId(network.0) };
    let certificate = authority.sign(identity, &public_key, clock::now())?;
    Credentials::new(&certificate, authority.certificate(), key)
}

/// Puts on disk how far the nodes' logs are, also if no node says more.
async fn keep_marks(keeper: Keeper) {
    loop {
        tokio::time::sleep(Duration::from_millis(MARKS_SAVED_MS)).await;
        if keeper.current().has_new_marks() {
            let keep = |books: &mut Registry| ((), books.handle_marks(clock::now_ms()));
            if let Err(error) = keeper.change(keep).await {
                debug!(%error, "how far logs are was not written");
            }
        }
    }
}

/// Looks often, for the clock may jump at any moment: it may be set, or the machine may have slept.
async fn keep_certificate_fresh(endpoint: Endpoint, authority: Arc<Authority>) {
    loop {
        tokio::time::sleep(CERTIFICATE_CHECK).await;
        let credentials = endpoint.credentials();
        let is_due = |own: &Credentials| {
            let now = clock::now();
            own.is_due(now).unwrap_or(true) || own.expired(now).unwrap_or(true)
        };
        if !credentials.as_ref().is_some_and(is_due) {
            continue;
        }
        match own_credentials(&authority) {
            Ok(renewed) => {
                match endpoint.set_credentials(renewed, Some(Admit::CertifiedAndJoining)) {
                    Ok(()) => info!("renewed the server's certificate"),
                    Err(error) => error!(%error, "cannot use the renewed certificate"),
                }
            }
            Err(error) => error!(%error, "cannot renew the server's certificate"),
        }
    }
}

/// The directory keeps what a network was made with; a file that says otherwise is worth a word.
fn warn_of_other_settings(registry: &Registry, config: &Config) {
    let Some(view) = registry.view() else { return };
    let others = other_settings(&view.settings, &config.settings);
    if !others.is_empty() {
        warn!(
            "the network keeps the settings that it was created with: {}; the configuration has another \
             value, which changes nothing",
            others.join(", ")
        );
    }
}

/// Each setting that two do not share, as text.
fn other_settings(kept: &Settings, configured: &Settings) -> Vec<String> {
    let fields = |settings: &Settings| match serde_json::to_value(settings) {
        Ok(serde_json::Value::Object(fields)) => fields,
        _ => serde_json::Map::new(),
    };
    let (kept, configured) = (fields(kept), fields(configured));
    let others = kept.iter().filter(|(name, value)| configured.get(*name) != Some(value));
    let text = others.map(|(name, value)| match (value, configured.get(name)) {
        // A matrix says nothing in a line.
        (serde_json::Value::Object(_), _) | (_, None) => name.clone(),
        (kept, Some(configured)) => format!("{name} is {kept}, not {configured}"),
    });
    text.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changed_settings_are_named_one_by_one() {
        let kept = Settings { shards: 16, replication: 3, ..Settings::default() };
        assert!(other_settings(&kept, &kept).is_empty());
        let other = Settings { shards: 4, replication: 5, ..kept.clone() };
        let said = other_settings(&kept, &other);
        assert_eq!(said, ["replication is 3, not 5", "shards is 16, not 4"]);
    }
}
