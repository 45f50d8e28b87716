//! TLS: the acceptor, from PEM files.

use std::path::Path;
use std::sync::Arc;

use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::TlsAcceptor;

use super::ListenError;

/// Why a file cannot be used for TLS.
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
}

/// Creates an acceptor of TLS 1.2 and 1.3 for HTTP/2 and HTTP/1.1.
pub(super) fn acceptor(certificate: &Path, key: &Path) -> Result<TlsAcceptor, ListenError> {
    let wrong = |path: &Path| {
        let path = path.to_owned();
        move |source| ListenError::Tls { path, source }
    };
    let chain = CertificateDer::pem_file_iter(certificate)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| wrong(certificate)(error.into()))?;
    if chain.is_empty() {
        return Err(wrong(certificate)(TlsError::NoCertificate));
    }
    let private = PrivateKeyDer::from_pem_file(key).map_err(|error| wrong(key)(error.into()))?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .and_then(|config| config.with_no_client_auth().with_single_cert(chain, private));
    let mut config = config.map_err(|error| wrong(certificate)(error.into()))?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}
