//! What a process keeps to prove who it is.

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

/// Who a process is, and what it needs to prove it.
#[derive(Clone)]
pub struct Credentials {
    /// What the certificate says.
    pub identity: Identity,
    /// The certificate.
    pub certificate: CertificateDer<'static>,
    /// The certificate of the network's authority.
    pub authority: CertificateDer<'static>,
    pub(super) key: Vec<u8>,
}

/// Name of the file in a credentials directory that is written last: the certificate.
pub const CERTIFICATE_FILE: &str = "certificate.der";
pub(super) const AUTHORITY_FILE: &str = "authority.der";
pub(super) const KEY_FILE: &str = "key.der";

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
    /// If a file cannot be read, is empty or a link to nothing, or a bit of one is not what it was:
    /// the authority must have signed itself and the certificate, and the key must fit.
    pub fn load(directory: &Path) -> Result<Option<Self>, CertificateError> {
        let missing = |name: &str| CertificateError::Missing(directory.join(name));
        let read = |name: &str| match durable::read(&directory.join(name)) {
            Ok(Some(content)) if content.is_empty() => Err(missing(name)),
            read => read.map_err(CertificateError::Io),
        };
        // The certificate is written last: without it the directory holds nothing yet.
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

    /// When the certificate is valid.
    pub fn life(&self) -> Result<Life, CertificateError> {
        Life::of(&self.certificate)
    }

    /// Time since the certificate was issued. Zero if that is in the future.
    pub fn age(&self, now: SystemTime) -> Result<Duration, CertificateError> {
        Ok(now.duration_since(self.life()?.issued()).unwrap_or_default())
    }

    /// Whether the certificate is not valid now: its life is over, or has not begun.
    pub fn expired(&self, now: SystemTime) -> Result<bool, CertificateError> {
        Ok(!self.life()?.contains(now))
    }

    /// Whether it is time for another certificate: this one has reached a good part of its life, or
    /// it was made by a clock that was ahead, and would live for longer than it should.
    pub fn is_due(&self, now: SystemTime) -> Result<bool, CertificateError> {
        let issued = self.life()?.issued();
        Ok(issued > now + CLOCK_SKEW || self.age(now)? >= CERTIFICATE_RENEW)
    }
}

/// From when to when a certificate is valid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Life {
    /// Its first second.
    pub from: SystemTime,
    /// Its last.
    pub until: SystemTime,
}

impl Life {
    /// That of a certificate in DER.
    pub fn of(certificate: &CertificateDer<'_>) -> Result<Self, CertificateError> {
        let parsed = parse(certificate)?;
        let at = |seconds: i64| UNIX_EPOCH + Duration::from_secs(seconds.max(0) as u64);
        let validity = parsed.validity();
        let (from, until) = (validity.not_before.timestamp(), validity.not_after.timestamp());
        Ok(Self { from: at(from), until: at(until) })
    }

    /// Whether it is valid then.
    pub fn contains(&self, now: SystemTime) -> bool {
        (self.from..=self.until).contains(&now)
    }

    /// Says why it is not valid at `now`, which is what the clock of this machine says.
    pub fn at_odds_with(&self, now: SystemTime) -> String {
        let clock = format!("this machine's clock says {}", utc(now));
        if now < self.from {
            format!("it is not valid before {}, and {clock}", utc(self.from))
        } else {
            format!("it was valid until {}, and {clock}", utc(self.until))
        }
    }

    /// When it was made: the beginning of its life is backdated.
    fn issued(&self) -> SystemTime {
        self.until.checked_sub(CERTIFICATE_LIFE).unwrap_or(self.from + CERTIFICATE_BACKDATED)
    }
}

/// A moment as people write it, in UTC.
pub(crate) fn utc(moment: SystemTime) -> String {
    let moment = time::OffsetDateTime::from(moment);
    let (hour, minute, second) = moment.to_hms();
    format!("{} {hour:02}:{minute:02}:{second:02} UTC", moment.date())
}

/// Refuses a key of another user, and takes one that others may read away from them.
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
