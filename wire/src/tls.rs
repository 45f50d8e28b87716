//! TLS for QUIC: which process may connect to which.
//!
//! TLS 1.3 only, certificates on both sides, the network's authority as the only root. The client
//! states which peer it [expects](Expect); the server takes the peer's [`Identity`] from its
//! certificate. Session tickets are off, so that every connection shows a currently valid
//! certificate.
//!
//! The one exception is the join protocol: it has a separate ALPN and no client certificate, and
//! the fingerprint in the joiner's token authenticates the authority.

use std::sync::{Arc, OnceLock};
use std::time::UNIX_EPOCH;

use dkv_base::id::{NetworkId, NodeId};
use dkv_base::platform;
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::time_provider::TimeProvider;
use rustls::{CertificateError as TlsCertificateError, DigitallySignedStruct, SignatureScheme};
use rustls::{ClientConfig, RootCertStore, ServerConfig};

use crate::certificate::{Credentials, Life, identity_of};
use crate::identity::{Identity, Role};
use crate::token::Fingerprint;

use crate::net_platform;

/// ALPN of everything but joining. The number is the version of the protocol and of the meaning of
/// log entries. A change of either that another release does not understand must increment it, so
/// that two such releases refuse each other instead of diverging.
pub const ALPN: &[u8] = b"dkv/1";
/// ALPN of the join protocol. Its number changes together with that of [`ALPN`].
pub const ALPN_JOIN: &[u8] = b"dkv-join/1";

/// The peer that a client expects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expect {
    /// The network's registration server.
    Server,
    /// Any node of the network.
    AnyNode,
    /// This node of the network.
    Node(NodeId),
}

impl Expect {
    fn accepts(self, identity: &Identity, network: NetworkId) -> bool {
        identity.network == network
            && match self {
                Self::Server => identity.role == Role::Server,
                Self::AnyNode => identity.role == Role::Node,
                Self::Node(id) => identity.as_node() == Some(id),
            }
    }
}

/// The peers that a server admits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admit {
    /// Holders of a certificate of the network only.
    Certified,
    /// Joiners too, which have no certificate yet; for the registration server. Every peer begins
    /// with [`JOIN_STREAMS_MAX`](crate::limits::JOIN_STREAMS_MAX) streams, and the server must
    /// grant more to the holder of a certificate.
    CertifiedAndJoining,
}

/// The validity period of a certificate that was refused for the time alone, for the error message.
/// The error of TLS tells neither which side refused nor the time of its clock.
pub type OutOfTime = Arc<OnceLock<Life>>;

/// The TLS configuration of a client within its network.
///
/// # Errors
/// If the credentials are not usable.
pub fn client(
    credentials: &Credentials,
    expect: Expect,
    out_of_time: &OutOfTime,
) -> Result<QuicClientConfig, rustls::Error> {
    let provider = net_platform::cryptography();
    let verifier = NetworkVerifier {
        out_of_time: Arc::clone(out_of_time),
        expect,
        network: credentials.identity.network,
        inner: web_pki(&provider, roots(&credentials.authority)?)?,
    };
    let mut config = ClientConfig::builder_with_details(provider, Arc::new(WallClock))
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_client_auth_cert(vec![credentials.certificate.clone()], credentials.key())?;
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.resumption = rustls::client::Resumption::disabled();
    quic_client(config)
}

/// The TLS configuration of a joiner, which has nothing but its token.
///
/// # Errors
/// If rustls refuses the configuration.
pub fn joiner(
    authority: Fingerprint,
    out_of_time: &OutOfTime,
) -> Result<QuicClientConfig, rustls::Error> {
    let provider = net_platform::cryptography();
    let out_of_time = Arc::clone(out_of_time);
    let verifier = JoinVerifier { authority, provider: provider.clone(), out_of_time };
    let mut config = ClientConfig::builder_with_details(provider, Arc::new(WallClock))
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_no_client_auth();
    config.alpn_protocols = vec![ALPN_JOIN.to_vec()];
    config.resumption = rustls::client::Resumption::disabled();
    quic_client(config)
}

/// The TLS configuration of a server.
///
/// # Errors
/// If the credentials are not usable.
pub fn server(credentials: &Credentials, admit: Admit) -> Result<QuicServerConfig, rustls::Error> {
    let provider = net_platform::cryptography();
    let roots = roots(&credentials.authority)?;
    let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider.clone());
    let (verifier, protocols) = match admit {
        Admit::Certified => (verifier, vec![ALPN.to_vec()]),
        Admit::CertifiedAndJoining => {
            (verifier.allow_unauthenticated(), vec![ALPN.to_vec(), ALPN_JOIN.to_vec()])
        }
    };
    let verifier = verifier.build().map_err(|error| rustls::Error::General(error.to_string()))?;
    // Includes the authority's certificate, which a joiner compares with its fingerprint.
    let chain = vec![credentials.certificate.clone(), credentials.authority.clone()];
    let mut config = ServerConfig::builder_with_details(provider, Arc::new(WallClock))
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain, credentials.key())?;
    config.alpn_protocols = protocols;
    config.send_tls13_tickets = 0;
    QuicServerConfig::try_from(config).map_err(|error| rustls::Error::General(error.to_string()))
}

fn quic_client(config: ClientConfig) -> Result<QuicClientConfig, rustls::Error> {
    QuicClientConfig::try_from(config).map_err(|error| rustls::Error::General(error.to_string()))
}

fn roots(authority: &CertificateDer<'static>) -> Result<Arc<RootCertStore>, rustls::Error> {
    let mut roots = RootCertStore::empty();
    roots.add(authority.clone())?;
    Ok(Arc::new(roots))
}

fn web_pki(
    provider: &Arc<CryptoProvider>,
    roots: Arc<RootCertStore>,
) -> Result<Arc<WebPkiServerVerifier>, rustls::Error> {
    WebPkiServerVerifier::builder_with_provider(roots, provider.clone())
        .build()
        .map_err(|error| rustls::Error::General(error.to_string()))
}

/// Verifies chain, validity and usage as on the web, but takes the name from the certificate and
/// compares it with the expected peer: an operator types addresses, not names.
#[derive(Debug)]
struct NetworkVerifier {
    out_of_time: OutOfTime,
    expect: Expect,
    network: NetworkId,
    inner: Arc<WebPkiServerVerifier>,
}

impl ServerCertVerifier for NetworkVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let identity =
            expected(end_entity, |identity| self.expect.accepts(identity, self.network))?;
        let verified = self.inner.verify_server_cert(
            end_entity,
            intermediates,
            &server_name(&identity)?,
            ocsp_response,
            now,
        );
        note_time(verified, end_entity, &self.out_of_time)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.inner.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.inner.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inner.supported_verify_schemes()
    }
}

/// Uses the certificate in the chain with the token's fingerprint as the root, and verifies the
/// rest like [`NetworkVerifier`].
#[derive(Debug)]
struct JoinVerifier {
    out_of_time: OutOfTime,
    authority: Fingerprint,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for JoinVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let authority = intermediates
            .iter()
            .find(|certificate| Fingerprint::of(certificate) == self.authority)
            .ok_or(TlsCertificateError::UnknownIssuer)?;
        let identity = expected(end_entity, |identity| identity.role == Role::Server)?;
        let roots = roots(&authority.clone().into_owned())?;
        let verified = web_pki(&self.provider, roots)?.verify_server_cert(
            end_entity,
            &[],
            &server_name(&identity)?,
            ocsp_response,
            now,
        );
        note_time(verified, end_entity, &self.out_of_time)
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(rustls::Error::General("TLS 1.2 is not spoken here".into()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(
            message,
            certificate,
            signature,
            &self.provider.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// Notes the validity period of a certificate that is refused for the time alone.
fn note_time(
    verified: Result<ServerCertVerified, rustls::Error>,
    certificate: &CertificateDer<'_>,
    out_of_time: &OutOfTime,
) -> Result<ServerCertVerified, rustls::Error> {
    use TlsCertificateError::{Expired, ExpiredContext, NotValidYet, NotValidYetContext};
    if let Err(rustls::Error::InvalidCertificate(
        Expired | ExpiredContext { .. } | NotValidYet | NotValidYetContext { .. },
    )) = &verified
        && let Ok(life) = Life::of(certificate)
    {
        let _ = out_of_time.set(life);
    }
    verified
}

/// The wall clock of the platform, by which certificates are valid.
#[derive(Debug)]
struct WallClock;

impl TimeProvider for WallClock {
    fn current_time(&self) -> Option<UnixTime> {
        let since = platform::wall_clock().duration_since(UNIX_EPOCH).ok()?;
        Some(UnixTime::since_unix_epoch(since))
    }
}

fn expected(
    certificate: &CertificateDer<'_>,
    accepts: impl Fn(&Identity) -> bool,
) -> Result<Identity, rustls::Error> {
    let identity = identity_of(certificate).map_err(|_| TlsCertificateError::BadEncoding)?;
    if accepts(&identity) { Ok(identity) } else { Err(TlsCertificateError::NotValidForName.into()) }
}

fn server_name(identity: &Identity) -> Result<ServerName<'static>, rustls::Error> {
    ServerName::try_from(identity.dns_name())
        .map_err(|error| rustls::Error::General(error.to_string()))
}
