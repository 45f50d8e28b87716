//! The cryptography of TLS, with signatures that all have the same length, and random numbers that
//! repeat.
//!
//! Keys and signatures are random, and their content does not influence a run. Their length would:
//! ECDSA signatures in DER differ by a few bytes, which moves the boundaries of packets. So a
//! message is signed again until the signature has the usual length, as every second one does.
//!
//! The first messages of a handshake begin with random numbers, and their ciphertext may influence
//! a run: see `wire/src/quic/connection_ids.rs`. These numbers come from the machine's.

use std::sync::{Arc, OnceLock};

use dkv_base::platform;
use dkv_wire::net_platform::SIGNATURE_BYTES;
use rustls::crypto::{CryptoProvider, GetRandomFailed, KeyProvider, SecureRandom};
use rustls::pki_types::{PrivateKeyDer, SubjectPublicKeyInfoDer};
use rustls::sign::{Signer, SigningKey};
use rustls::{Error, SignatureAlgorithm, SignatureScheme};

/// Returns the provider of all simulated machines.
pub(crate) fn provider() -> Arc<CryptoProvider> {
    static PROVIDER: OnceLock<Arc<CryptoProvider>> = OnceLock::new();
    let make = || {
        let usual = rustls::crypto::aws_lc_rs::default_provider();
        Arc::new(CryptoProvider { key_provider: &EvenKeys, secure_random: &Repeated, ..usual })
    };
    Arc::clone(PROVIDER.get_or_init(make))
}

/// The random numbers of the machine that runs.
#[derive(Debug)]
struct Repeated;

impl SecureRandom for Repeated {
    fn fill(&self, bytes: &mut [u8]) -> Result<(), GetRandomFailed> {
        for part in bytes.chunks_mut(8) {
            part.copy_from_slice(&platform::random_u64().to_le_bytes()[..part.len()]);
        }
        Ok(())
    }
}

#[derive(Debug)]
struct EvenKeys;

impl KeyProvider for EvenKeys {
    fn load_private_key(&self, key: PrivateKeyDer<'static>) -> Result<Arc<dyn SigningKey>, Error> {
        let usual = rustls::crypto::aws_lc_rs::default_provider().key_provider;
        Ok(Arc::new(EvenKey(usual.load_private_key(key)?)))
    }
}

#[derive(Debug)]
struct EvenKey(Arc<dyn SigningKey>);

impl SigningKey for EvenKey {
    fn choose_scheme(&self, offered: &[SignatureScheme]) -> Option<Box<dyn Signer>> {
        Some(Box::new(EvenSigner(self.0.choose_scheme(offered)?)))
    }

    fn public_key(&self) -> Option<SubjectPublicKeyInfoDer<'_>> {
        self.0.public_key()
    }

    fn algorithm(&self) -> SignatureAlgorithm {
        self.0.algorithm()
    }
}

#[derive(Debug)]
struct EvenSigner(Box<dyn Signer>);

impl Signer for EvenSigner {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, Error> {
        loop {
            let signature = self.0.sign(message)?;
            if signature.len() == SIGNATURE_BYTES {
                return Ok(signature);
            }
        }
    }

    fn scheme(&self) -> SignatureScheme {
        self.0.scheme()
    }
}
