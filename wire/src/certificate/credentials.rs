//! The credentials with which a process authenticates itself.

use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair};
use bytes::Bytes;
use dkv_base::durable;
use rcgen::PublicKeyData;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use tracing::warn;

use super::{CertificateError, identity_of, parse, private_key, signed_by, unusable};
use crate::identity::Identity;
use crate::limits::{CERTIFICATE_BACKDATED, CERTIFICATE_LIFE, CERTIFICATE_RENEW, CLOCK_SKEW};

/// The identity of a process, and what it needs to prove it.
#[derive(Clone)]
pub struct Credentials {
    /// The identity in the certificate.
    pub identity: Identity,
    /// The certificate.
    pub certificate: CertificateDer<'static>,
    /// The certificate of the network's authority.
    pub authority: CertificateDer<'static>,
    pub(super) key: Vec<u8>,
}

/// Name of the file with the certificate in a credentials directory. It is written last.
pub const CERTIFICATE_FILE: &str = "certificate.der";
pub(super) const AUTHORITY_FILE: &str = "authority.der";
pub(super) const KEY_FILE: &str = "key.der";

impl Credentials {
    /// Credentials from a certificate, its authority and its private key.
    ///
    /// # Errors
    /// If the certificate is for another key or not one of a dkv network. Whether the authority
    /// signed it is left to the handshake.
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

    /// Loads credentials from a directory; `None` if it has none.
    ///
    /// # Errors
    /// If a file cannot be read, is empty, a dangling link or altered in any bit: the authority
    /// must have signed itself and the certificate, and the key must fit the certificate.
    pub fn load(directory: &Path) -> Result<Option<Self>, CertificateError> {
        let missing = |name: &str| CertificateError::Missing(directory.join(name));
        let read = |name: &str| match durable::read(&directory.join(name)) {
            Ok(Some(content)) if content.is_empty() => Err(missing(name)),
            read => read.map_err(CertificateError::Io),
        };
        // The certificate is written last, so without it there are no credentials yet.
        let Some(certificate) = read(CERTIFICATE_FILE)? else { return Ok(None) };
        let authority = read(AUTHORITY_FILE)?.ok_or_else(|| missing(AUTHORITY_FILE))?;
        guard_key(&directory.join(KEY_FILE))?;
        let key = read(KEY_FILE)?.ok_or_else(|| missing(KEY_FILE))?;
        let named = |name: &str| {
            let path = directory.join(name).display().to_string();
            move |error: CertificateError| CertificateError::Damaged {
                path,
                problem: error.to_string(),
            }
        };
        // The handshake would fail too, but blame another network.
        let authority_der = CertificateDer::from(authority.as_slice());
        signed_by(&authority_der, &authority_der).map_err(named(AUTHORITY_FILE))?;
        signed_by(&CertificateDer::from(certificate.as_slice()), &authority_der)
            .map_err(named(CERTIFICATE_FILE))?;
        Self::new(&certificate, &authority, key).map(Some).map_err(named(KEY_FILE))
    }

    /// Writes the credentials to a directory, which is created if it does not exist.
    ///
    /// Renewed credentials keep their key, so that a crash between two files leaves a consistent
    /// pair.
    ///
    /// # Errors
    /// If a file cannot be written.
    pub fn save(&self, directory: &Path) -> Result<(), CertificateError> {
        durable::create_dir(directory).map_err(CertificateError::Io)?;
        for (name, content) in [
            (KEY_FILE, self.key.as_slice()),
            (AUTHORITY_FILE, &self.authority),
            (CERTIFICATE_FILE, &self.certificate),
        ] {
            durable::write(&directory.join(name), content).map_err(CertificateError::Io)?;
        }
        Ok(())
    }

    /// The private key, as a secret from which to derive others.
    pub fn secret(&self) -> &[u8] {
        &self.key
    }

    /// The private key, for TLS.
    pub fn key(&self) -> PrivateKeyDer<'static> {
        PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(self.key.clone()))
    }

    /// The public key, as SubjectPublicKeyInfo in DER, with which to request a new certificate.
    ///
    /// # Errors
    /// If the private key cannot be parsed.
    pub fn public_key(&self) -> Result<Bytes, CertificateError> {
        Ok(Bytes::from(private_key(&self.key)?.subject_public_key_info()))
    }

    /// Proves the possession of the private key by an ECDSA signature, in ASN.1, over `material`.
    ///
    /// # Errors
    /// If the key cannot sign.
    pub fn prove(&self, material: &[u8]) -> Result<Bytes, CertificateError> {
        let key = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &self.key);
        let signature = key.map_err(unusable)?.sign(&SystemRandom::new(), material);
        Ok(Bytes::copy_from_slice(signature.map_err(unusable)?.as_ref()))
    }

    /// The credentials of the same holder with a newer certificate.
    ///
    /// # Errors
    /// If the certificate is for another key or holder.
    pub fn renewed(&self, certificate: &[u8]) -> Result<Self, CertificateError> {
        let renewed = Self::new(certificate, &self.authority, self.key.clone())?;
        if renewed.identity == self.identity { Ok(renewed) } else { Err(CertificateError::NotOurs) }
    }

    /// The validity period of the certificate.
    ///
    /// # Errors
    /// If the certificate cannot be parsed.
    pub fn life(&self) -> Result<Life, CertificateError> {
        Life::of(&self.certificate)
    }

    /// Time since the certificate was issued; zero if that is in the future.
    ///
    /// # Errors
    /// If the certificate cannot be parsed.
    pub fn age(&self, now: SystemTime) -> Result<Duration, CertificateError> {
        Ok(now.duration_since(self.life()?.issued()).unwrap_or_default())
    }

    /// Whether `now` is outside the validity period of the certificate.
    ///
    /// # Errors
    /// If the certificate cannot be parsed.
    pub fn expired(&self, now: SystemTime) -> Result<bool, CertificateError> {
        Ok(!self.life()?.contains(now))
    }

    /// Whether the certificate is due for renewal: it is old enough, or it was issued by a clock
    /// that was ahead and would be valid for too long.
    ///
    /// # Errors
    /// If the certificate cannot be parsed.
    pub fn is_due(&self, now: SystemTime) -> Result<bool, CertificateError> {
        let issued = self.life()?.issued();
        Ok(issued > now + CLOCK_SKEW || self.age(now)? >= CERTIFICATE_RENEW)
    }
}

/// The validity period of a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Life {
    /// The first second.
    pub from: SystemTime,
    /// The last second.
    pub until: SystemTime,
}

impl Life {
    /// The validity period of a certificate in DER.
    ///
    /// # Errors
    /// If the certificate cannot be parsed.
    pub fn of(certificate: &CertificateDer<'_>) -> Result<Self, CertificateError> {
        let parsed = parse(certificate)?;
        let at = |seconds: i64| UNIX_EPOCH + Duration::from_secs(seconds.max(0) as u64);
        let validity = parsed.validity();
        let (from, until) = (validity.not_before.timestamp(), validity.not_after.timestamp());
        Ok(Self { from: at(from), until: at(until) })
    }

    /// Whether the certificate is valid at `now`.
    pub fn contains(&self, now: SystemTime) -> bool {
        (self.from..=self.until).contains(&now)
    }

    /// Explains why the certificate is not valid at `now`, the time of this machine's clock.
    pub fn at_odds_with(&self, now: SystemTime) -> String {
        let clock = format!("this machine's clock says {}", utc(now));
        if now < self.from {
            format!("it is not valid before {}, and {clock}", utc(self.from))
        } else {
            format!("it was valid until {}, and {clock}", utc(self.until))
        }
    }

    /// When the certificate was issued; its start is backdated.
    fn issued(&self) -> SystemTime {
        self.until.checked_sub(CERTIFICATE_LIFE).unwrap_or(self.from + CERTIFICATE_BACKDATED)
    }
}

/// Formats a moment for people, in UTC.
pub(crate) fn utc(moment: SystemTime) -> String {
    let moment = time::OffsetDateTime::from(moment);
    let (hour, minute, second) = moment.to_hms();
    format!("{} {hour:02}:{minute:02}:{second:02} UTC", moment.date())
}

/// Refuses a key file of another user, and restricts one that others can read.
fn guard_key(path: &Path) -> Result<(), CertificateError> {
    if !durable::exists(path).map_err(CertificateError::Io)? {
        return Ok(());
    }
    durable::require_own(path).map_err(CertificateError::Io)?;
    if durable::narrow(path).map_err(CertificateError::Io)? {
        warn!(
            "others could read the private key {}: anyone with this key can impersonate its owner; permissions \
             are now 0600, and if others may have read it, replace it",
            path.display()
        );
    }
    Ok(())
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Credentials").field("identity", &self.identity).finish_non_exhaustive()
    }
}
