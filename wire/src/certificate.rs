//! Certificates: the network's authority, what it signs, and what a process keeps of it.
//!
//! The [`Authority`] lives with the registration server. Everybody else has [`Credentials`]: a
//! private key that never leaves its machine, the certificate for it, and the authority's own
//! certificate to check others by. A request to sign supplies a public key and nothing else.

use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1, ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, UnparsedPublicKey,
};
use bytes::Bytes;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, PublicKeyData, SerialNumber, SubjectPublicKeyInfo,
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use time::OffsetDateTime;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::durable;
use crate::id::NetworkId;
use crate::identity::{Identity, InvalidIdentity, Role};
use crate::limits::{CERTIFICATE_LIFE, CLOCK_SKEW};
use crate::platform;
use crate::token::Fingerprint;

/// Life of the authority itself.
const AUTHORITY_LIFE: Duration = Duration::from_secs(20 * 365 * 24 * 3600);

/// Why a certificate or a key cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    /// A certificate, key or signing request that cannot be read or is of a kind that is not
    /// accepted.
    #[error("certificate or key is not usable: {0}")]
    Unusable(String),
    /// A certificate that is valid X.509 and none of ours.
    #[error("certificate does not name a dkv identity")]
    NotOurs,
    /// A file that is not what it was when it was written, or does not belong to the others.
    #[error("{path}: {problem}")]
    Damaged {
        /// Which file.
        path: String,
        /// What is wrong with it.
        problem: String,
    },
    /// A file could not be read or written.
    #[error("{path}: {source}")]
    Io {
        /// Which file.
        path: String,
        /// What the system says.
        source: std::io::Error,
    },
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

/// A fresh private key, as PKCS#8 in DER, and its public key, as SubjectPublicKeyInfo in DER.
pub fn generate_key() -> Result<(Vec<u8>, Bytes), CertificateError> {
    let key = KeyPair::generate()?;
    Ok((key.serialize_der(), Bytes::from(key.subject_public_key_info())))
}

/// The certificate authority of a network.
pub struct Authority {
    network: NetworkId,
    certificate: CertificateDer<'static>,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    /// Creates the authority of a network that does not exist yet.
    pub fn create(network: NetworkId, now: SystemTime) -> Result<Self, CertificateError> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::default();
        params.not_before = at(now, -seconds(CLOCK_SKEW));
        params.not_after = at(now, seconds(AUTHORITY_LIFE));
        params.distinguished_name = name(&format!("dkv {network}"));
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.serial_number = Some(serial());
        let certificate = signed(|| params.self_signed(&key))?;
        Ok(Self { network, certificate, issuer: Issuer::new(params, key) })
    }

    /// The authority from its certificate and its private key, both in DER.
    ///
    /// # Errors
    /// If either cannot be read, or the certificate is for another key or not what was signed.
    pub fn from_der(
        network: NetworkId,
        certificate: &[u8],
        key: &[u8],
    ) -> Result<Self, CertificateError> {
        let key = private_key(key)?;
        let certificate = CertificateDer::from(certificate.to_vec());
        if parse(&certificate)?.public_key().raw != key.subject_public_key_info() {
            return Err(unusable("the authority's certificate is for another key"));
        }
        signed_by(&certificate, &certificate)?;
        let issuer = Issuer::from_ca_cert_der(&certificate, key)?;
        Ok(Self { network, certificate, issuer })
    }

    /// The network that it is the authority of.
    pub fn network(&self) -> NetworkId {
        self.network
    }

    /// Its certificate in DER.
    pub fn certificate(&self) -> &CertificateDer<'static> {
        &self.certificate
    }

    /// Its private key in DER, for the file that keeps it.
    pub fn key_der(&self) -> Vec<u8> {
        self.issuer.key().serialize_der()
    }

    /// Signs a message with its key (ECDSA, SHA-256, ASN.1). What is signed must begin with what no
    /// certificate begins with.
    pub(crate) fn sign_message(&self, message: &[u8]) -> Result<Vec<u8>, CertificateError> {
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &self.key_der());
        let signed = pair.map_err(unusable)?.sign(&SystemRandom::new(), message);
        Ok(signed.map_err(|_| unusable("the key cannot sign"))?.as_ref().to_vec())
    }

    /// What tokens carry to prove the server.
    pub fn fingerprint(&self) -> Fingerprint {
        Fingerprint::of(&self.certificate)
    }

    /// Signs a certificate for the holder of a public key (DER SubjectPublicKeyInfo).
    ///
    /// Everything but the key is decided here: the name, what the certificate may be used for (only
    /// the server and nodes may be connected *to*), its life, and that it is no authority.
    pub fn sign(
        &self,
        identity: Identity,
        public_key: &[u8],
        now: SystemTime,
    ) -> Result<Bytes, CertificateError> {
        debug_assert_eq!(identity.network, self.network);
        let public_key = SubjectPublicKeyInfo::from_der(public_key)?;
        if public_key.algorithm() != &rcgen::PKCS_ECDSA_P256_SHA256 {
            return Err(CertificateError::Unusable("only ECDSA P-256 keys are accepted".into()));
        }
        let mut params = CertificateParams::new(vec![identity.dns_name()])?;
        params.not_before = at(now, -seconds(CLOCK_SKEW));
        params.not_after = at(now, seconds(CERTIFICATE_LIFE));
        params.distinguished_name = name(&identity.to_string());
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        if matches!(identity.role, Role::Server | Role::Node) {
            params.extended_key_usages.push(ExtendedKeyUsagePurpose::ServerAuth);
        }
        params.serial_number = Some(serial());
        params.use_authority_key_identifier_extension = true;
        let certificate = signed(|| params.signed_by(&public_key, &self.issuer))?;
        Ok(Bytes::copy_from_slice(&certificate))
    }
}

impl Authority {
    /// Who the holder of a certificate of this authority is, and the public key in it, whether or
    /// not it has expired.
    ///
    /// `proof` must be a signature over `material` by that key; see [`Credentials::prove`].
    pub fn recognise(
        &self,
        certificate: &[u8],
        material: &[u8],
        proof: &[u8],
    ) -> Result<(Identity, Bytes), CertificateError> {
        let certificate = CertificateDer::from(certificate);
        let identity = identity_of(&certificate)?;
        let parsed = parse(&certificate)?;
        signed_by(&certificate, &self.certificate)?;
        let key = parsed.public_key();
        UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, &*key.subject_public_key.data)
            .verify(material, proof)
            .map_err(|_| unusable("the proof is not of the certificate's key"))?;
        if identity.network != self.network {
            return Err(CertificateError::NotOurs);
        }
        Ok((identity, Bytes::copy_from_slice(key.raw)))
    }
}

/// The public key of a certificate, as a point.
pub(crate) fn public_key_of(certificate: &[u8]) -> Result<Vec<u8>, CertificateError> {
    let certificate = CertificateDer::from(certificate);
    Ok(parse(&certificate)?.public_key().subject_public_key.data.to_vec())
}

/// What a certificate says about its holder.
pub fn identity_of(certificate: &CertificateDer<'_>) -> Result<Identity, CertificateError> {
    let parsed = parse(certificate)?;
    let names = parsed.subject_alternative_name().map_err(unusable)?;
    match names.map(|names| names.value.general_names.as_slice()) {
        Some([GeneralName::DNSName(name)]) => Ok(Identity::from_dns_name(name)?),
        _ => Err(CertificateError::NotOurs),
    }
}

/// Who a process is, and what it needs to prove it.
#[derive(Clone)]
pub struct Credentials {
    /// What the certificate says.
    pub identity: Identity,
    /// The certificate.
    pub certificate: CertificateDer<'static>,
    /// The certificate of the network's authority.
    pub authority: CertificateDer<'static>,
    key: Vec<u8>,
}

/// Names of the files in a credentials directory.
const CERTIFICATE_FILE: &str = "certificate.der";
const AUTHORITY_FILE: &str = "authority.der";
const KEY_FILE: &str = "key.der";

impl Credentials {
    /// Puts together what belongs together.
    ///
    /// # Errors
    /// If the certificate is not for this key or is none of ours. Whether the authority signed it
    /// is for the handshake to find out.
    pub fn new(
        certificate: &[u8],
        authority: &[u8],
        key: Vec<u8>,
    ) -> Result<Self, CertificateError> {
        let certificate = CertificateDer::from(certificate.to_vec());
        let identity = identity_of(&certificate)?;
        let public_key = private_key(&key)?.subject_public_key_info();
        if parse(&certificate)?.public_key().raw != public_key {
            return Err(CertificateError::Unusable("certificate is for another key".into()));
        }
        let authority = CertificateDer::from(authority.to_vec());
        Ok(Self { identity, certificate, authority, key })
    }

    /// Reads credentials from a directory; `None` if there are none.
    ///
    /// # Errors
    /// If a file cannot be read, or a bit of one is not what it was: the authority must have signed
    /// itself and the certificate, and the key must fit.
    pub fn load(directory: &Path) -> Result<Option<Self>, CertificateError> {
        let read = |name: &str| {
            let path = directory.join(name);
            durable::read(&path)
                .map_err(|source| CertificateError::Io { path: path.display().to_string(), source })
        };
        // The certificate is written last: without it the directory holds nothing yet.
        let Some(certificate) = read(CERTIFICATE_FILE)? else { return Ok(None) };
        let missing = || CertificateError::Unusable("a file of the credentials is missing".into());
        let authority = read(AUTHORITY_FILE)?.ok_or_else(missing)?;
        let key = read(KEY_FILE)?.ok_or_else(missing)?;
        let named = |name: &str| {
            let path = directory.join(name).display().to_string();
            move |error: CertificateError| CertificateError::Damaged {
                path,
                problem: error.to_string(),
            }
        };
        // Who connects finds out too, but says that the network is another one.
        let authority_der = CertificateDer::from(authority.as_slice());
        signed_by(&authority_der, &authority_der).map_err(named(AUTHORITY_FILE))?;
        signed_by(&CertificateDer::from(certificate.as_slice()), &authority_der)
            .map_err(named(CERTIFICATE_FILE))?;
        Self::new(&certificate, &authority, key).map(Some).map_err(named(KEY_FILE))
    }

    /// Writes credentials to a directory that is made if need be.
    ///
    /// Renewed credentials keep their key, so that a crash between two files leaves a pair that
    /// fits.
    pub fn save(&self, directory: &Path) -> Result<(), CertificateError> {
        let io = |source| CertificateError::Io { path: directory.display().to_string(), source };
        durable::create_dir(directory).map_err(io)?;
        for (name, content) in [
            (KEY_FILE, self.key.as_slice()),
            (AUTHORITY_FILE, &self.authority),
            (CERTIFICATE_FILE, &self.certificate),
        ] {
            durable::write(&directory.join(name), content).map_err(io)?;
        }
        Ok(())
    }

    /// The private key, as a secret to derive others from.
    pub fn secret(&self) -> &[u8] {
        &self.key
    }

    /// The private key, for TLS.
    pub fn key(&self) -> PrivateKeyDer<'static> {
        PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(self.key.clone()))
    }

    /// The public key, as SubjectPublicKeyInfo in DER, to ask for a new certificate with.
    pub fn public_key(&self) -> Result<Bytes, CertificateError> {
        Ok(Bytes::from(private_key(&self.key)?.subject_public_key_info()))
    }

    /// Proves to have the private key: an ECDSA signature, in ASN.1, over `material`.
    pub fn prove(&self, material: &[u8]) -> Result<Bytes, CertificateError> {
        let key = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &self.key);
        let signature = key.map_err(unusable)?.sign(&SystemRandom::new(), material);
        Ok(Bytes::copy_from_slice(signature.map_err(unusable)?.as_ref()))
    }

    /// The same holder with a newer certificate.
    pub fn renewed(&self, certificate: &[u8]) -> Result<Self, CertificateError> {
        let renewed = Self::new(certificate, &self.authority, self.key.clone())?;
        if renewed.identity == self.identity { Ok(renewed) } else { Err(CertificateError::NotOurs) }
    }

    /// Time since the certificate was issued. Zero if that is in the future.
    pub fn age(&self, now: SystemTime) -> Result<Duration, CertificateError> {
        let issued = parse(&self.certificate)?.validity().not_before.timestamp();
        let issued = UNIX_EPOCH + Duration::from_secs(issued.max(0) as u64) + CLOCK_SKEW;
        Ok(now.duration_since(issued).unwrap_or_default())
    }

    /// Whether the certificate's life is over.
    pub fn expired(&self, now: SystemTime) -> Result<bool, CertificateError> {
        Ok(self.age(now)? > CERTIFICATE_LIFE)
    }
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Credentials").field("identity", &self.identity).finish_non_exhaustive()
    }
}

fn private_key(der: &[u8]) -> Result<KeyPair, CertificateError> {
    Ok(KeyPair::try_from(&PrivatePkcs8KeyDer::from(der))?)
}

fn parse<'a>(certificate: &'a CertificateDer<'_>) -> Result<X509Certificate<'a>, CertificateError> {
    let (rest, parsed) = X509Certificate::from_der(certificate).map_err(unusable)?;
    if rest.is_empty() { Ok(parsed) } else { Err(unusable("bytes after the certificate")) }
}

/// Whether the authority signed a certificate, expired or not.
fn signed_by(
    certificate: &CertificateDer<'_>,
    authority: &CertificateDer<'_>,
) -> Result<(), CertificateError> {
    // Stricter about the encoding, and what will read it in the end.
    rustls::server::ParsedCertificate::try_from(certificate).map_err(unusable)?;
    let authority = parse(authority)?;
    let parsed = parse(certificate)?;
    // RFC 5280, section 4.1.1.2: the two must be the same; only one of them is signed. And the
    // signature is whole bytes.
    if parsed.signature_algorithm != parsed.tbs_certificate.signature
        || parsed.signature_value.unused_bits != 0
    {
        return Err(unusable("the signature is of another kind than it should be"));
    }
    let fits = parsed.verify_signature(Some(authority.public_key()));
    fits.map_err(|_| unusable("the signature does not fit"))
}

fn unusable(error: impl std::fmt::Display) -> CertificateError {
    CertificateError::Unusable(error.to_string())
}

/// Has a certificate signed, again and again until the platform likes the length of the signature.
fn signed(
    sign: impl Fn() -> Result<rcgen::Certificate, rcgen::Error>,
) -> Result<CertificateDer<'static>, CertificateError> {
    loop {
        let certificate = sign()?.der().clone();
        if platform::accepts_signature(parse(&certificate)?.signature_value.data.len()) {
            return Ok(certificate);
        }
    }
}

fn name(common_name: &str) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, common_name);
    name
}

fn serial() -> SerialNumber {
    SerialNumber::from_slice(platform::random_uuid().as_bytes())
}

fn at(now: SystemTime, offset: time::Duration) -> OffsetDateTime {
    // X.509 counts whole seconds.
    let moment = OffsetDateTime::from(now).saturating_add(offset);
    moment.replace_nanosecond(0).unwrap_or(moment)
}

fn seconds(duration: Duration) -> time::Duration {
    time::Duration::seconds(duration.as_secs() as i64)
}

#[cfg(test)]
mod tests;
