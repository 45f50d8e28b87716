//! Certificates: the network's authority, and the credentials of its members.
//!
//! The [`Authority`] lives with the registration server. Every other process has [`Credentials`]: a
//! private key that never leaves its machine, the certificate for it, and the certificate of the
//! authority to verify others. A signing request supplies a public key and nothing else.

mod authority;
mod credentials;

use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use rcgen::{KeyPair, PublicKeyData};
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

pub use authority::Authority;
pub(crate) use credentials::utc;
pub use credentials::{CERTIFICATE_FILE, Credentials, Life};

use crate::identity::{Identity, InvalidIdentity};

/// Why a certificate or a key cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    /// A certificate, key or signing request cannot be parsed or is of a kind that is not accepted.
    #[error("certificate or key is not usable: {0}")]
    Unusable(String),
    /// A certificate is valid X.509, but not one of a dkv network.
    #[error("certificate does not name a dkv identity")]
    NotOurs,
    /// A file has changed since it was written, or does not belong to the other files.
    #[error("{path}: {problem}")]
    Damaged {
        /// The file.
        path: String,
        /// The problem.
        problem: String,
    },
    /// One of the files that belong together is missing or empty.
    #[error("{}: the file is missing or empty", .0.display())]
    Missing(PathBuf),
    /// A file could not be read or written. The error names the file.
    #[error("{0}")]
    Io(std::io::Error),
}

impl From<rcgen::Error> for CertificateError {
    fn from(error: rcgen::Error) -> Self {
        Self::Unusable(error.to_string())
    }
}

impl From<InvalidIdentity> for CertificateError {
    fn from(_: InvalidIdentity) -> Self {
        Self::NotOurs
    }
}

/// Generates a private key, as PKCS#8 in DER, and its public key, as SubjectPublicKeyInfo in DER.
///
/// # Errors
/// If the cryptographic library fails.
pub fn generate_key() -> Result<(Vec<u8>, Bytes), CertificateError> {
    let key = KeyPair::generate()?;
    Ok((key.serialize_der(), Bytes::from(key.subject_public_key_info())))
}

/// The public key of a certificate, as a curve point.
pub(crate) fn public_key_of(certificate: &[u8]) -> Result<Vec<u8>, CertificateError> {
    let certificate = CertificateDer::from(certificate);
    Ok(parse(&certificate)?.public_key().subject_public_key.data.to_vec())
}

/// The identity of the holder, as the certificate states it.
///
/// # Errors
/// If the certificate cannot be parsed or has no identity of a dkv network.
pub fn identity_of(certificate: &CertificateDer<'_>) -> Result<Identity, CertificateError> {
    let parsed = parse(certificate)?;
    let names = parsed.subject_alternative_name().map_err(unusable)?;
    match names.map(|names| names.value.general_names.as_slice()) {
        Some([GeneralName::DNSName(name)]) => Ok(Identity::from_dns_name(name)?),
        _ => Err(CertificateError::NotOurs),
    }
}

fn private_key(der: &[u8]) -> Result<KeyPair, CertificateError> {
    Ok(KeyPair::try_from(&PrivatePkcs8KeyDer::from(der))?)
}

fn parse<'a>(certificate: &'a CertificateDer<'_>) -> Result<X509Certificate<'a>, CertificateError> {
    let (rest, parsed) = X509Certificate::from_der(certificate).map_err(unusable)?;
    if rest.is_empty() { Ok(parsed) } else { Err(unusable("bytes after the certificate")) }
}

/// The expiry of a certificate in DER.
///
/// # Errors
/// If it cannot be parsed.
pub fn end_of(certificate: &[u8]) -> Result<SystemTime, CertificateError> {
    let end = parse(&CertificateDer::from(certificate))?.validity().not_after.timestamp();
    Ok(SystemTime::UNIX_EPOCH + Duration::from_secs(end.max(0) as u64))
}

/// Verifies that the authority signed a certificate, expired or not.
fn signed_by(
    certificate: &CertificateDer<'_>,
    authority: &CertificateDer<'_>,
) -> Result<(), CertificateError> {
    // Parsed by rustls first, which is stricter about the encoding and is what TLS will use.
    rustls::server::ParsedCertificate::try_from(certificate).map_err(unusable)?;
    let authority = parse(authority)?;
    let parsed = parse(certificate)?;
    // RFC 5280, section 4.1.1.2: the two algorithm fields must agree, as only one of them is
    // signed. The signature must consist of whole bytes.
    if parsed.signature_algorithm != parsed.tbs_certificate.signature
        || parsed.signature_value.unused_bits != 0
    {
        return Err(unusable("the signature is of another kind than it should be"));
    }
    let fits = parsed.verify_signature(Some(authority.public_key()));
    fits.map_err(|_| unusable("the signature does not fit"))
}

/// Verifies the certificate of an authority by its self-signature.
///
/// # Errors
/// If it is not self-signed, or was altered.
pub fn check_authority(certificate: &[u8]) -> Result<(), CertificateError> {
    let certificate = CertificateDer::from(certificate);
    signed_by(&certificate, &certificate)
}

fn unusable(error: impl std::fmt::Display) -> CertificateError {
    CertificateError::Unusable(error.to_string())
}

#[cfg(test)]
mod tests;
