//! A running server: starts the parts, connects them, and stops them.

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use dkv_base::audit::{AuditError, UnusedAuditOption};
use dkv_base::id::{HolderId, NetworkId};
use dkv_base::logging::LoggingError;
use dkv_base::supervise::Failure;
use dkv_wire::acceptor::Acceptor;
use dkv_wire::certificate::{Authority, CertificateError, Credentials, generate_key};
use dkv_wire::identity::{Identity, Role};
use dkv_wire::limits::CERTIFICATE_CHECK;
use dkv_wire::network::{Settings, SettingsError};
use dkv_wire::quic::Endpoint;
use dkv_wire::tls::Admit;
use dkv_wire::token::Token;
use tokio::task::JoinHandle;
use tracing::{debug, error, info, warn};

use crate::address::reachable_address;
use crate::books::Books;
use crate::clock;
use crate::config::{Config, ConfigError};
use crate::coordinator_link::CoordinatorLink;
use crate::data_dir::{DataDir, DataDirError, InitialToken, StoredNetwork};
use crate::enlistment::{EnlistError, enlist};
use crate::limits::MARK_FLUSH_MS;
use crate::local_tokens::LocalTokens;
use crate::reachability::ReachabilityProbe;
use crate::registry::Registry;
use crate::registry_store::{RegistryStore, StoreTask};
use crate::service::Service;

/// Why the server does not start. Each error is one sentence: what is wrong, and what to do.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The configuration is invalid.
    #[error("{0}")]
    Config(#[from] ConfigError),
    /// A setting is invalid.
    #[error("{0}")]
    Settings(#[from] SettingsError),
    /// The data directory cannot be used.
    #[error("{0}")]
    DataDir(#[from] DataDirError),
    /// The server cannot join the network of another one.
    #[error("cannot join the network of another server: {0}")]
    Enlist(#[from] EnlistError),
    /// The server's own certificate could not be created.
    #[error("cannot create the server's certificate: {0}")]
    Certificate(#[from] CertificateError),
    /// Another process listens on the address.
    #[error(
        "cannot listen on {0}: another process uses that UDP port; stop it, or choose another \
         address with --listen"
    )]
    PortTaken(SocketAddr),
    /// The address cannot be bound.
    #[error(
        "cannot listen on {address}: {source}; choose an address of this machine with --listen"
    )]
    Listen {
        /// The address.
        address: SocketAddr,
        /// The error of the system.
        source: io::Error,
    },
    /// The process cannot watch for signals.
    #[error("cannot watch for signals: {0}")]
    Signals(io::Error),
    /// The log filter is invalid.
    #[error("{0}")]
    Logging(#[from] LoggingError),
    /// The audit log cannot be written.
    #[error(transparent)]
    Audit(#[from] AuditError),
    /// An option configures an audit log that is not there.
    #[error(transparent)]
    UnusedAudit(#[from] UnusedAuditOption),
    /// The server was removed from the network.
    #[error(
        "this server was removed from the network, and its identity cannot come back; to run one \
         here again, keep this data directory and start it with another, empty one and --join"
    )]
    Removed,
    /// A task that the server depends on has ended.
    #[error("{0}; start the server again")]
    Failed(String),
}

/// Why the initial token of a role no longer admits. Completes "the initial node token ...".
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum InitialTokenError {
    /// It was revoked, or its file was removed.
    #[error("is gone")]
    Gone,
    /// Its file cannot be read, or its content was changed.
    #[error("cannot be read ({0})")]
    Unreadable(String),
}

/// A running server. If dropped without [`shutdown`](Self::shutdown), it stops at once, as if
/// killed.
pub struct Server {
    address: SocketAddr,
    /// The address at which others reach it.
    advertised: SocketAddr,
    data_dir: PathBuf,
    is_new: bool,
    node_token: Result<(), InitialTokenError>,
    failure: Failure,
    store: RegistryStore,
    endpoint: Endpoint,
    authority: Arc<Authority>,
    tasks: Vec<JoinHandle<()>>,
    store_task: Option<StoreTask>,
}

impl Server {
    /// Starts a server in the current tokio runtime. Once this returns, it accepts connections.
    pub async fn start(config: Config) -> Result<Self, StartError> {
        config.settings.check()?;
        let mut data = DataDir::open(&config.data_dir)?;
        let found = data.load(&config.settings, clock::now())?;
        let is_new = found.is_none();
        let mut network = match found {
            Some(network) => network,
            None => match &config.join {
                Some(list) => {
                    // The token may be good for one use, so the port comes first.
                    may_listen(config.listen)?;
                    enlist(list, config.token_file.as_deref()).await?
                }
                None => StoredNetwork::generate(&config.settings, clock::now())?,
            },
        };
        if network.registry.is_removed() {
            return Err(StartError::Removed);
        }
        if network.registry.is_founding_server() {
            warn_of_ignored_settings(&network.registry, &config);
        }
        if let Some(voter) = config.trust_voter {
            info!(%voter, "trusting reports of this node, as the operator asked");
            network.registry.trust(voter);
        }
        // Bound before a new network is written, so that a taken port leaves nothing behind.
        let server = network.registry.server();
        let endpoint = listen(config.listen, &network.authority, server)?;
        let address =
            endpoint.local_address().map_err(|source| listen_error(config.listen, source))?;
        if is_new {
            data.create(&network)?;
        }
        data.keep();
        let StoredNetwork { registry, authority, .. } = network;

        let (tokens, node_token) = valid_initial_tokens(&data, &registry);
        let local_tokens = LocalTokens::publish(tokens, config.tokens_home, address);

        let acceptor = Arc::new(Acceptor::default());
        acceptor.set_denied(registry.denied());
        let failure = Failure::default();
        let (store, store_task) = RegistryStore::start(
            registry,
            data.registry_file(),
            Arc::clone(&acceptor),
            data.lock(),
            &failure,
        );
        let authority = Arc::new(authority);
        let advertised = config.advertise.unwrap_or_else(|| reachable_address(address));
        let is_guess = config.advertise.is_none() && address.ip().is_unspecified();
        let listed = (!is_guess || !advertised.ip().is_loopback()).then_some(advertised);
        if listed.is_none() {
            warn!(
                "no address of this machine is known at which others reach the server, so it \
                 lists none for nodes and clients; say which with --advertise"
            );
        }
        let control_group = CoordinatorLink::new(endpoint.clone());
        let (books, keeping) = Books::start(store.clone(), control_group, listed, &failure);
        let service = Arc::new(Service::new(
            Arc::clone(&authority),
            store.clone(),
            books,
            Arc::clone(&acceptor),
            local_tokens,
            ReachabilityProbe::new(endpoint.clone()),
        ));
        let accepting = acceptor.serve(endpoint.clone(), move |connection, peer| {
            Arc::clone(&service).serve(connection, peer)
        });
        let tasks = vec![
            keeping,
            tokio::spawn(failure.if_ended("the task that accepts connections", accepting)),
            tokio::spawn(failure.if_ended(
                "the task that renews the server's certificate",
                renew_certificate_when_due(endpoint.clone(), Arc::clone(&authority), server),
            )),
            tokio::spawn(
                failure.if_ended("the task that saves log marks", flush_marks(store.clone())),
            ),
        ];
        let data_dir = data.path().to_owned();
        info!(%address, data_dir = %data_dir.display(), network = %store.snapshot().network(), "listening");
        Ok(Self {
            address,
            advertised,
            data_dir,
            is_new,
            node_token,
            failure,
            store,
            endpoint,
            authority,
            tasks,
            store_task: Some(store_task),
        })
    }

    /// Returns the address that the server listens on, with the actual port.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Returns the address at which others reach the server.
    pub fn advertised(&self) -> SocketAddr {
        self.advertised
    }

    /// Returns the id of the network.
    pub fn network(&self) -> NetworkId {
        self.store.snapshot().network()
    }

    /// Returns the absolute path of the data directory.
    pub fn data_dir(&self) -> &Path {
        &self.data_dir
    }

    /// Returns the path of the initial join token of a role. The file does not exist if the token
    /// was revoked.
    pub fn token_file(&self, role: Role) -> PathBuf {
        self.data_dir.join("tokens").join(format!("{role}.token"))
    }

    /// Whether this start created the network.
    pub fn is_new(&self) -> bool {
        self.is_new
    }

    /// Whether this server has founded the network. Only that one has the initial tokens.
    pub fn is_founding(&self) -> bool {
        self.store.snapshot().is_founding_server()
    }

    /// Checks whether the initial node token still admits.
    pub(crate) fn node_token(&self) -> Result<(), &InitialTokenError> {
        self.node_token.as_ref().copied()
    }

    /// Completes with the reason once the server cannot go on.
    pub async fn failed(&self) -> StartError {
        tokio::select! {
            biased;
            () = self.store.until(Registry::is_removed) => StartError::Removed,
            why = self.failure.happened() => StartError::Failed(why),
        }
    }

    /// Returns the registry as it is on disk.
    pub fn registry(&self) -> Arc<Registry> {
        self.store.snapshot()
    }

    /// Switches to a fresh certificate for new connections. The server does so by itself when a
    /// renewal is due.
    pub fn renew_certificate(&self) -> Result<(), StartError> {
        let renewed = own_credentials(&self.authority, self.store.snapshot().server())?;
        self.endpoint
            .set_credentials(renewed, Some(Admit::CertifiedAndJoining))
            .map_err(|source| listen_error(self.address, source))
    }

    /// Stops the server: notifies every peer, and completes the updates accepted so far.
    pub async fn shutdown(mut self) {
        self.endpoint.close().await;
        if let Some(store_task) = self.store_task.take() {
            store_task.stop().await;
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
        if let Some(store_task) = self.store_task.take() {
            store_task.abort();
        }
        self.endpoint.quinn().close(0_u32.into(), b"");
    }
}

/// Returns the initial tokens that still admit, each with its file, and whether the one for nodes
/// does.
fn valid_initial_tokens(
    data: &DataDir,
    registry: &Registry,
) -> (Vec<(Token, PathBuf)>, Result<(), InitialTokenError>) {
    let (mut tokens, mut node_token) = (Vec::new(), Ok(()));
    for token in data.initial_tokens(registry) {
        let (role, error) = match token {
            InitialToken::Valid(token) => {
                let file = data.token_file(token.role);
                tokens.push((token, file));
                continue;
            }
            InitialToken::Gone(role) => (role, InitialTokenError::Gone),
            InitialToken::Unreadable(role, why) => {
                warn!("cannot read the initial {role} token: {why}");
                (role, InitialTokenError::Unreadable(why))
            }
        };
        if role == Role::Node {
            node_token = Err(error);
        }
    }
    (tokens, node_token)
}

fn listen(
    address: SocketAddr,
    authority: &Authority,
    server: HolderId,
) -> Result<Endpoint, StartError> {
    let credentials = own_credentials(authority, server)?;
    // The server's own key changes with each start; the authority's key is permanent.
    let secret = authority.key_der();
    Endpoint::listen(address, credentials, Admit::CertifiedAndJoining, &secret)
        .map_err(|source| listen_error(address, source))
}

/// Checks that the port is free.
fn may_listen(address: SocketAddr) -> Result<(), StartError> {
    UdpSocket::bind(address).map(drop).map_err(|source| listen_error(address, source))
}

fn listen_error(address: SocketAddr, source: io::Error) -> StartError {
    match source.kind() {
        io::ErrorKind::AddrInUse => StartError::PortTaken(address),
        _ => StartError::Listen { address, source },
    }
}

/// Creates a certificate for the server itself, with a fresh key. It is never written to disk: the
/// holder of the authority can create another at any time.
fn own_credentials(
    authority: &Authority,
    server: HolderId,
) -> Result<Credentials, CertificateError> {
    let network = authority.network();
    let (key, public_key) = generate_key()?;
    let identity = Identity { network, role: Role::Server, holder: server, user: None };
    let certificate = authority.sign(identity, &public_key, clock::now())?;
    Credentials::new(&certificate, authority.certificate(), key)
}

/// Saves the latest log marks periodically, even if no node reports again.
async fn flush_marks(store: RegistryStore) {
    loop {
        tokio::time::sleep(Duration::from_millis(MARK_FLUSH_MS)).await;
        if store.snapshot().has_unsaved_marks() {
            let flush = |registry: &mut Registry| ((), registry.flush_marks(clock::now_ms()));
            if let Err(error) = store.update(flush).await {
                debug!(%error, "cannot save log marks");
            }
        }
    }
}

/// Renews the server's certificate when it is due. Checks often, because the clock may jump at any
/// moment: somebody may set it, or the machine may wake from sleep.
async fn renew_certificate_when_due(
    endpoint: Endpoint,
    authority: Arc<Authority>,
    server: HolderId,
) {
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
        match own_credentials(&authority, server) {
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

/// Warns of settings in the configuration that have no effect, because the network keeps those that
/// it was created with.
fn warn_of_ignored_settings(registry: &Registry, config: &Config) {
    let Some(view) = registry.view() else { return };
    let ignored = differing_settings(&view.settings, &config.settings);
    if !ignored.is_empty() {
        warn!(
            "the configuration differs from the settings that the network was created with, and is \
             ignored: {}",
            ignored.join(", ")
        );
    }
}

/// Describes each setting whose configured value differs from that of the network.
fn differing_settings(kept: &Settings, configured: &Settings) -> Vec<String> {
    let fields = |settings: &Settings| match serde_json::to_value(settings) {
        Ok(serde_json::Value::Object(fields)) => fields,
        _ => serde_json::Map::new(),
    };
    let (kept, configured) = (fields(kept), fields(configured));
    let others = kept.iter().filter(|(name, value)| configured.get(*name) != Some(value));
    let text = others.map(|(name, value)| match (value, configured.get(name)) {
        // A matrix does not fit a line.
        (serde_json::Value::Object(_), _) | (_, None) => name.clone(),
        (kept, Some(configured)) => format!("{name} is {kept}, not {configured}"),
    });
    text.collect()
}

#[cfg(test)]
mod tests;
