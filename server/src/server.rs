//! A running server: puts the parts together, starts them, stops them.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use dkv_wire::certificate::{Authority, CertificateError, Credentials, generate_key};
use dkv_wire::gate::Gate;
use dkv_wire::id::{HolderId, NetworkId};
use dkv_wire::identity::{Identity, Role};
use dkv_wire::limits::CERTIFICATE_RENEW;
use dkv_wire::network::SettingsError;
use dkv_wire::quic::Endpoint;
use dkv_wire::tls::Admit;
use tokio::task::JoinHandle;
use tracing::{error, info, warn};

use crate::clock;
use crate::config::{Config, ConfigError};
use crate::data_dir::{DataDir, DataDirError, Network};
use crate::keeper::{Keeper, Stop};
use crate::leaving::LeftTokens;
use crate::limits::RENEWAL_CHECK;
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
}

/// A server that runs. Dropped without [`shutdown`](Self::shutdown) it stops at once, as if it
/// were killed.
pub struct Server {
    address: SocketAddr,
    data_dir: PathBuf,
    is_new: bool,
    has_node_token: bool,
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
        let data = DataDir::open(&config.data_dir)?;
        let Network { registry, authority, is_new } =
            data.load_or_create(&config.settings, clock::now())?;
        warn_of_other_settings(&registry, &config);
        let endpoint = listen(config.listen, &authority)?;
        let address =
            endpoint.local_address().map_err(|source| listen_error(config.listen, source))?;

        let tokens = data.first_tokens(&registry);
        let has_node_token = tokens.iter().any(|token| token.role == Role::Node);
        let tokens = tokens.into_iter().map(|token| {
            let file = data.token_file(token.role);
            (token, file)
        });
        let left_tokens = LeftTokens::leave(tokens, config.tokens_home, address);

        let gate = Arc::new(Gate::default());
        gate.set_denied(registry.denied());
        let (keeper, keeping) =
            Keeper::start(registry, data.books_file(), Arc::clone(&gate), data.lock());
        let authority = Arc::new(authority);
        let service = Arc::new(Service::new(
            Arc::clone(&authority),
            keeper.clone(),
            Arc::clone(&gate),
            left_tokens,
        ));
        let accepting = gate.serve(endpoint.clone(), move |connection, peer| {
            Arc::clone(&service).talk(connection, peer)
        });
        let tasks = vec![
            tokio::spawn(accepting),
            tokio::spawn(keep_certificate_fresh(endpoint.clone(), Arc::clone(&authority))),
        ];
        let data_dir = data.path().to_owned();
        info!(%address, data_dir = %data_dir.display(), network = %keeper.current().network(), "listening");
        Ok(Self {
            address,
            data_dir,
            is_new,
            has_node_token,
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

    /// Whether the node token of the first start still admits.
    pub(crate) fn has_node_token(&self) -> bool {
        self.has_node_token
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

async fn keep_certificate_fresh(endpoint: Endpoint, authority: Arc<Authority>) {
    loop {
        tokio::time::sleep(RENEWAL_CHECK).await;
        let credentials = endpoint.credentials();
        let is_due =
            |own: &Credentials| own.age(clock::now()).is_ok_and(|age| age >= CERTIFICATE_RENEW);
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
    if let Some(view) = registry.view()
        && view.settings != config.settings
    {
        warn!(
            network = ?view.settings, configuration = ?config.settings,
            "the network keeps the settings that it was created with"
        );
    }
}
