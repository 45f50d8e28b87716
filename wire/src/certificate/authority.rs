//! The certificate authority of a network.

use std::time::{Duration, SystemTime};

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1, ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, UnparsedPublicKey,
};
use bytes::Bytes;
use dkv_base::id::NetworkId;
use dkv_base::platform;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, PublicKeyData, SerialNumber, SubjectPublicKeyInfo,
};
use rustls::pki_types::CertificateDer;
use time::OffsetDateTime;

use super::{CertificateError, identity_of, parse, private_key, signed_by, unusable};
use crate::identity::{Identity, Role};
use crate::limits::{CERTIFICATE_BACKDATED, CERTIFICATE_LIFE};
use crate::token::Fingerprint;

use crate::net_platform;

/// Validity of the authority's own certificate.
const AUTHORITY_LIFE: Duration = Duration::from_secs(20 * 365 * 24 * 3600);

/// The certificate authority of a network.
pub struct Authority {
    network: NetworkId,
    certificate: CertificateDer<'static>,
    pub(super) issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    /// Creates the authority of a new network.
    ///
    /// # Errors
    /// If the cryptographic library fails.
    pub fn create(network: NetworkId, now: SystemTime) -> Result<Self, CertificateError> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::default();
        params.not_before = at(now, -seconds(CERTIFICATE_BACKDATED));
        params.not_after = at(now, seconds(AUTHORITY_LIFE));
        params.distinguished_name = name(&format!("dkv {network}"));
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.serial_number = Some(serial());
        let certificate = signed(|| params.self_signed(&key))?;
        Ok(Self { network, certificate, issuer: Issuer::new(params, key) })
    }

    /// Loads the authority from its certificate and private key, both in DER.
    ///
    /// # Errors
    /// If either cannot be parsed, or the certificate is for another key or was altered.
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

    /// The network of this authority.
    pub fn network(&self) -> NetworkId {
        self.network
    }

    /// Its certificate in DER.
    pub fn certificate(&self) -> &CertificateDer<'static> {
        &self.certificate
    }

    /// Its private key in DER, to be stored.
    pub fn key_der(&self) -> Vec<u8> {
        self.issuer.key().serialize_der()
    }

    /// Signs a message with the authority's key (ECDSA, SHA-256, ASN.1). The message must have a
    /// prefix that no certificate has.
    pub(crate) fn sign_message(&self, message: &[u8]) -> Result<Vec<u8>, CertificateError> {
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &self.key_der());
        let signed = pair.map_err(unusable)?.sign(&SystemRandom::new(), message);
        Ok(signed.map_err(|_| unusable("the key cannot sign"))?.as_ref().to_vec())
    }

    /// The fingerprint of its certificate, by which tokens authenticate the server.
    pub fn fingerprint(&self) -> Fingerprint {
        Fingerprint::of(&self.certificate)
    }

    /// Signs a certificate for the holder of a public key (DER SubjectPublicKeyInfo).
    ///
    /// The authority decides everything but the key: the name, the usages (only the server and
    /// nodes may accept connections), the validity, and that the certificate is not an authority.
    ///
    /// # Errors
    /// If the key cannot be parsed or is of a kind that is not accepted.
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
        // Backdated, as the clock may be ahead now and be corrected later. Only the end limits the
        // use of a certificate.
        params.not_before = at(now, -seconds(CERTIFICATE_BACKDATED));
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

    /// The identity and public key of the holder of a certificate of this authority, expired or
    /// not.
    ///
    /// `proof` must be a signature over `material` by that key; see
    /// [`Credentials::prove`](super::Credentials::prove).
    ///
    /// # Errors
    /// If the certificate is not one of this authority, or the proof is not by its key.
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

/// Signs a certificate, repeatedly until the platform accepts the length of the signature.
fn signed(
    sign: impl Fn() -> Result<rcgen::Certificate, rcgen::Error>,
) -> Result<CertificateDer<'static>, CertificateError> {
    loop {
        let certificate = sign()?.der().clone();
        if net_platform::accepts_signature(parse(&certificate)?.signature_value.data.len()) {
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
    // X.509 has a resolution of seconds.
    let moment = OffsetDateTime::from(now).saturating_add(offset);
    moment.replace_nanosecond(0).unwrap_or(moment)
}

fn seconds(duration: Duration) -> time::Duration {
    time::Duration::seconds(duration.as_secs() as i64)
}
