//! Bearer tokens, with which programs authenticate to a gateway over HTTP.
//!
//! The server signs the claims of a token with the key of the network's authority. Any process with
//! the authority's certificate can verify a token offline, so the server need not be up. A token
//! names its bearer by an id, as a certificate does, and the same deny list revokes both. Its text
//! is `dkvb1.`, the claims, a dot, and the signature; claims and signature are in base64url.
//!
//! Deliberately missing: the keys that a bearer may use. A token that names a user has the rights
//! of the user's policies, within its own, and they may change while it is valid.

use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1, UnparsedPublicKey};
use data_encoding::BASE64URL_NOPAD;
use dkv_base::id::{HolderId, NetworkId};
use serde::{Deserialize, Serialize};

use crate::certificate::{Authority, CertificateError};
use crate::codec::{decode, encode};
use crate::limits::TOKEN_BYTES_MAX;
use crate::user::User;

const PREFIX: &str = "dkvb1.";
/// Prefix of the signed bytes, which separates tokens from certificates: no signature of one passes
/// for one of the other.
const DOMAIN: &[u8] = b"dkv bearer token 1\0";

/// The rights of a bearer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Rights {
    /// Read.
    Read,
    /// Read and write.
    Write,
}

/// The claims of a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bearer {
    /// The network that the token is for.
    pub network: NetworkId,
    /// The id of the bearer, by which the token is revoked.
    pub holder: HolderId,
    /// The rights of the bearer.
    pub rights: Rights,
    /// When it expires, in milliseconds since 1970; `None` if never.
    pub expires_ms: Option<u64>,
    /// The user, whose policies limit the rights further.
    pub user: Option<User>,
}

/// Why a token is refused. The gateway does not tell its bearer which.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BearerError {
    /// The token is malformed, of another network, or not signed by the network's authority.
    #[error("this is no token of this network")]
    Invalid,
    /// The token has expired.
    #[error("the token has expired")]
    Expired,
}

/// Signs a token.
///
/// # Errors
/// If the authority's key cannot sign.
pub fn sign(authority: &Authority, bearer: &Bearer) -> Result<String, CertificateError> {
    let said = encode(bearer);
    let signature = authority.sign_message(&[DOMAIN, &said].concat())?;
    let (said, signature) = (BASE64URL_NOPAD.encode(&said), BASE64URL_NOPAD.encode(&signature));
    Ok(format!("{PREFIX}{said}.{signature}"))
}

/// Verifies the tokens of one network.
#[derive(Clone, Debug)]
pub struct Verifier {
    network: NetworkId,
    /// The authority's public key, as a curve point.
    key: Vec<u8>,
}

impl Verifier {
    /// A verifier by the certificate of the network's authority, in DER.
    ///
    /// # Errors
    /// If that is not a certificate.
    pub fn new(network: NetworkId, authority: &[u8]) -> Result<Self, CertificateError> {
        Ok(Self { network, key: crate::certificate::public_key_of(authority)? })
    }

    /// Verifies a token at the time `now_ms`, in milliseconds since 1970, and returns its claims.
    ///
    /// # Errors
    /// See [`BearerError`].
    pub fn verify(&self, text: &str, now_ms: u64) -> Result<Bearer, BearerError> {
        let parts = || {
            if text.len() > TOKEN_BYTES_MAX {
                return None;
            }
            let (said, signature) = text.strip_prefix(PREFIX)?.split_once('.')?;
            let said = BASE64URL_NOPAD.decode(said.as_bytes()).ok()?;
            Some((said, BASE64URL_NOPAD.decode(signature.as_bytes()).ok()?))
        };
        let (said, signature) = parts().ok_or(BearerError::Invalid)?;
        UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, &self.key)
            .verify(&[DOMAIN, &said].concat(), &signature)
            .map_err(|_| BearerError::Invalid)?;
        let bearer: Bearer = decode(&said).map_err(|_| BearerError::Invalid)?;
        if bearer.network != self.network {
            return Err(BearerError::Invalid);
        }
        match bearer.expires_ms {
            Some(end) if end <= now_ms => Err(BearerError::Expired),
            _ => Ok(bearer),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;

    #[test]
    fn only_tokens_signed_by_the_authority_are_accepted() {
        let network = NetworkId::random();
        let create = |network| Authority::create(network, SystemTime::now()).unwrap();
        let (authority, impostor) = (create(network), create(network));
        let holder = HolderId::random();
        let bearer =
            Bearer { network, holder, rights: Rights::Read, expires_ms: Some(1000), user: None };
        let verifier = Verifier::new(network, authority.certificate()).unwrap();
        let text = sign(&authority, &bearer).unwrap();
        assert!(text.len() < TOKEN_BYTES_MAX / 2, "{text}");
        assert_eq!(verifier.verify(&text, 999), Ok(bearer));
        assert_eq!(verifier.verify(&text, 1000), Err(BearerError::Expired));
        let forged = sign(&impostor, &bearer).unwrap();
        assert_eq!(verifier.verify(&forged, 0), Err(BearerError::Invalid));
        let elsewhere = Bearer { network: NetworkId::random(), ..bearer };
        let elsewhere = sign(&authority, &elsewhere).unwrap();
        assert_eq!(verifier.verify(&elsewhere, 0), Err(BearerError::Invalid));
        // Claims with altered rights have no valid signature.
        let (said, signature) = text.strip_prefix(PREFIX).unwrap().split_once('.').unwrap();
        let forge = |bearer: Bearer| {
            let claims = BASE64URL_NOPAD.encode(&encode(&bearer));
            format!("{PREFIX}{claims}.{signature}")
        };
        let more = forge(Bearer { rights: Rights::Write, ..bearer });
        let other = forge(Bearer { user: Some("root".parse().unwrap()), ..bearer });
        for bad in ["", PREFIX, said, &text[1..], &text[..text.len() - 1], &more, &other] {
            assert_eq!(verifier.verify(bad, 0), Err(BearerError::Invalid), "{bad}");
        }
        assert!(Verifier::new(network, b"no certificate").is_err());
    }
}
