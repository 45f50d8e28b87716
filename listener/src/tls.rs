//! TLS: the acceptor, from PEM files, and the name in a client's certificate.

#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustls::RootCertStore;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{VerifierBuilderError, WebPkiClientVerifier};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tracing::debug;
use x509_parser::prelude::{FromDer, X509Certificate};

/// Longest handshake.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// A file that cannot be used for TLS.
#[derive(Debug, thiserror::Error)]
#[error("cannot use {} for TLS: {source}", .path.display())]
pub struct FileError {
    /// Its path.
    pub path: PathBuf,
    /// The reason why it cannot be used.
    pub source: TlsError,
}

/// The reason why a file for TLS cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The file cannot be read, or is not PEM.
    #[error("{0}")]
    Pem(#[from] pem::Error),
    /// The file holds no certificate.
    #[error("it holds no certificate")]
    NoCertificate,
    /// The certificate cannot be used with the key.
    #[error("{0}")]
    Certificate(#[from] rustls::Error),
    /// No client can be verified by the authorities.
    #[error("{0}")]
    Authorities(#[from] VerifierBuilderError),
}

/// Creates an acceptor of TLS 1.2 and 1.3 for HTTP/2 and HTTP/1.1. With `authorities`, clients need
/// a certificate of one of them.
///
/// # Errors
/// The first file that cannot be used.
pub fn acceptor(
    certificate: &Path,
    key: &Path,
    authorities: Option<&Path>,
) -> Result<TlsAcceptor, FileError> {
    let wrong = |path: &Path| {
        let path = path.to_owned();
        move |source| FileError { path, source }
    };
    let chain = certificates(certificate).map_err(wrong(certificate))?;
    let private = PrivateKeyDer::from_pem_file(key).map_err(|error| wrong(key)(error.into()))?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|error| wrong(certificate)(error.into()))?;
    let config = match authorities {
        Some(path) => {
            let mut roots = RootCertStore::empty();
            for authority in certificates(path).map_err(wrong(path))? {
                roots.add(authority).map_err(|error| wrong(path)(error.into()))?;
            }
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
            let verifier = verifier.build().map_err(|error| wrong(path)(error.into()))?;
            config.with_client_cert_verifier(verifier)
        }
        None => config.with_no_client_auth(),
    };
    let config = config.with_single_cert(chain, private);
    let mut config = config.map_err(|error| wrong(certificate)(error.into()))?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let chain = CertificateDer::pem_file_iter(path)?.collect::<Result<Vec<_>, _>>()?;
    if chain.is_empty() { Err(TlsError::NoCertificate) } else { Ok(chain) }
}

/// Makes a connection one of TLS; `None` if the peer does not, or takes too long.
pub async fn handshake<S: AsyncRead + AsyncWrite + Unpin>(
    tls: &TlsAcceptor,
    stream: S,
) -> Option<TlsStream<S>> {
    match tokio::time::timeout(HANDSHAKE_TIMEOUT, tls.accept(stream)).await {
        Ok(Ok(stream)) => return Some(stream),
        Ok(Err(error)) => debug!(%error, "the TLS handshake failed"),
        Err(_) => debug!("the TLS handshake took too long"),
    }
    None
}

/// Returns the common name of the verified certificate of a client.
pub fn common_name(connection: &rustls::ServerConnection) -> Option<String> {
    let certificate = connection.peer_certificates()?.first()?;
    let (_, certificate) = X509Certificate::from_der(certificate).ok()?;
    let name = certificate.subject().iter_common_name().next()?;
    name.as_str().ok().map(str::to_owned)
}
