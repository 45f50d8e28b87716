//! The join protocol: the one conversation without a client certificate.
//!
//! By the time of the first message the joiner has checked that the server's certificate chain ends
//! in the CA whose fingerprint is in its token. It sends the token's secret and its own public key,
//! and nothing else that could get into the certificate: the server decides names, usages and
//! validity.

use bytes::Bytes;
use dkv_base::id::{HolderId, NetworkId};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::identity::Role;
use crate::limits::RECERTIFY_WITHIN;

/// The requests that need no valid certificate. Each is answered by a [`JoinAnswer`] or a
/// [`JoinRefusal`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Joining {
    /// Asks for a certificate with a join token.
    Join(JoinRequest),
    /// Asks for a new certificate in place of an expired one.
    Recertify(RecertifyRequest),
    /// Asks for a new certificate in place of one that expired long ago, with a join token.
    Readmit(ReadmitRequest),
}

/// Asks for a new certificate for the holder of an expired one, with the same key.
///
/// A machine that was off for longer than a certificate is valid keeps its identity: the old
/// certificate shows that the network admitted this key, and the proof that the sender has it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecertifyRequest {
    /// The old certificate, in DER.
    pub certificate: Bytes,
    /// An ECDSA signature, in ASN.1, by the certificate's key over
    /// [`PROOF_BYTES`](crate::quic::PROOF_BYTES) of keying material that TLS exports from this
    /// very connection (RFC 8446, section 7.5), so that it proves nothing anywhere else.
    pub proof: Bytes,
}

/// Asks for a new certificate for the holder of one that expired longer ago than
/// [`RECERTIFY_WITHIN`]: an old disk alone must not be enough to get in. The holder keeps its
/// identity, and the token shows that an administrator vouches for it once more.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReadmitRequest {
    /// The old certificate, and the proof of its key.
    pub again: RecertifyRequest,
    /// A join token of the holder's role.
    pub token: Uuid,
    /// The token's secret.
    pub secret: [u8; 32],
}

impl std::fmt::Debug for ReadmitRequest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ReadmitRequest").field("token", &self.token).finish_non_exhaustive()
    }
}

/// Asks for a certificate.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JoinRequest {
    /// The id of the token.
    pub token: Uuid,
    /// The token's secret.
    pub secret: [u8; 32],
    /// The joiner's public key: a DER SubjectPublicKeyInfo.
    pub public_key: Bytes,
}

impl std::fmt::Debug for JoinRequest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("JoinRequest").field("token", &self.token).finish_non_exhaustive()
    }
}

/// The joiner's new identity.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JoinAnswer {
    /// The network it belongs to.
    pub network: NetworkId,
    /// Its role.
    pub role: Role,
    /// Its fresh id.
    pub holder: HolderId,
    /// Its certificate, in DER.
    pub certificate: Bytes,
}

/// Why no certificate is issued.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum JoinRefusal {
    /// No such token, or a wrong secret. The joiner is not told which.
    #[error("the join token is not one of this network's")]
    Unknown,
    /// The token has expired.
    #[error("the join token has expired; ask an administrator of the network for a new one")]
    Expired,
    /// The token has no uses left.
    #[error("the join token has been used up; ask an administrator of the network for a new one")]
    UsedUp,
    /// The public key is malformed or of a kind that is not accepted.
    #[error("the public key is malformed or of a kind that is not accepted")]
    Key,
    /// The old certificate is not one of this network's, or the proof is not of its key.
    #[error("the expired certificate is not one of this network's")]
    Certificate,
    /// The holder was removed or revoked.
    #[error("this certificate holder was removed from the network")]
    Denied,
    /// Too many requests at once.
    #[error("too many are joining at once; try again in a moment")]
    Busy,
    /// The server could not count the token's use; the token was not used.
    #[error("the server cannot write to its data directory: {0}")]
    Storage(String),
    /// The old certificate expired so long ago that a token is needed as well.
    #[error(
        "this certificate expired more than {} days ago, and takes a join token to be renewed",
        RECERTIFY_WITHIN.as_secs() / (24 * 3600)
    )]
    Lapsed,
    /// The server's inventory of holders is full.
    #[error(
        "the network has too many holders of certificates; an administrator must revoke those that \
         are gone (dkv holders lists them)"
    )]
    Full,
    /// The control group, which counts the uses of tokens, did not answer; the token was probably
    /// not used.
    #[error("{0}")]
    Waiting(String),
    /// The server's inventory of holders is full, and this token has admitted so many that live
    /// that no other holder makes room for more of them.
    #[error(
        "this join token has admitted {0} holders, and there is no room for more; an administrator \
         must revoke those that are gone, or revoke the token with its holders"
    )]
    Crowded(u32),
}
