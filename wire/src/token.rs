//! Join tokens, which an operator carries to a new machine.
//!
//! A token authenticates both sides before there is a certificate: the fingerprint of the CA
//! authenticates the server to the joiner, and the secret the joiner to the server. The server
//! stores only a hash of the secret. Programs read tokens from a file or the environment, never
//! from their arguments, which every user of the machine can see.

use std::fmt;
use std::str::FromStr;

use aws_lc_rs::{constant_time, digest};
use data_encoding::BASE64URL_NOPAD;
use dkv_base::platform;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::identity::Role;
use crate::limits::TOKEN_BYTES_MAX;

const PREFIX: &str = "dkv1";

/// SHA-256 of a CA certificate in DER.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fingerprint(pub [u8; 32]);

impl Fingerprint {
    /// The fingerprint of a certificate in DER.
    pub fn of(certificate: &[u8]) -> Self {
        Self(sha256(certificate))
    }
}

/// A join token.
#[derive(Clone, PartialEq, Eq)]
pub struct Token {
    /// The role that its bearer gets.
    pub role: Role,
    /// The id of the token.
    pub id: Uuid,
    /// The secret that authenticates the bearer.
    pub secret: [u8; 32],
    /// The fingerprint of the network's CA.
    pub authority: Fingerprint,
}

impl Token {
    /// Generates a token for the network of that CA.
    pub fn generate(role: Role, authority: Fingerprint) -> Self {
        let mut secret = [0; 32];
        // Not from two random UUIDs, which hold 244 random bits instead of 256.
        if aws_lc_rs::rand::fill(&mut secret).is_err() {
            unreachable!("the system has no randomness");
        }
        Self { role, id: platform::random_uuid(), secret, authority }
    }

    /// The hash of the secret, which the server stores.
    pub fn secret_hash(&self) -> SecretHash {
        SecretHash::of(&self.secret)
    }
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{PREFIX}.{}.{}.{}.{}",
            self.role,
            BASE64URL_NOPAD.encode(self.id.as_bytes()),
            BASE64URL_NOPAD.encode(&self.secret),
            BASE64URL_NOPAD.encode(&self.authority.0),
        )
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{PREFIX}.{}.{}…", self.role, BASE64URL_NOPAD.encode(self.id.as_bytes()))
    }
}

/// A text that is not a token. The error does not quote the text, which may hold most of a secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a dkv join token (one begins with \"{PREFIX}.\" and has five parts)")]
pub struct InvalidToken;

impl FromStr for Token {
    type Err = InvalidToken;

    fn from_str(text: &str) -> Result<Self, InvalidToken> {
        let text = text.trim();
        if text.len() > TOKEN_BYTES_MAX {
            return Err(InvalidToken);
        }
        let mut parts = text.split('.');
        let mut part = || parts.next().ok_or(InvalidToken);
        if part()? != PREFIX {
            return Err(InvalidToken);
        }
        let role = part()?.parse().map_err(|_| InvalidToken)?;
        let id = Uuid::from_bytes(bytes(part()?)?);
        let secret = bytes(part()?)?;
        let authority = Fingerprint(bytes(part()?)?);
        if parts.next().is_some() {
            return Err(InvalidToken);
        }
        Ok(Self { role, id, secret, authority })
    }
}

fn bytes<const N: usize>(text: &str) -> Result<[u8; N], InvalidToken> {
    let decoded = BASE64URL_NOPAD.decode(text.as_bytes()).map_err(|_| InvalidToken)?;
    decoded.try_into().map_err(|_| InvalidToken)
}

/// SHA-256 of a token's secret.
///
/// A plain hash is enough: the secret is 256 random bits, not a password.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct SecretHash([u8; 32]);

impl SecretHash {
    /// Hashes a secret.
    pub fn of(secret: &[u8; 32]) -> Self {
        Self(sha256(secret))
    }

    /// Whether this is the hash of `secret`, in constant time.
    pub fn matches(&self, secret: &[u8; 32]) -> bool {
        constant_time::verify_slices_are_equal(&self.0, &sha256(secret)).is_ok()
    }
}

fn sha256(content: &[u8]) -> [u8; 32] {
    let mut hash = [0; 32];
    hash.copy_from_slice(digest::digest(&digest::SHA256, content).as_ref());
    hash
}

#[cfg(test)]
mod tests;
