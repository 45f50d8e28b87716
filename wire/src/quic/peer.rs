//! What a connection tells about its peer.

use quinn::Connection;
use rustls::pki_types::CertificateDer;

use crate::certificate::identity_of;
use crate::identity::Identity;
use crate::tls;
use crate::token::Fingerprint;

/// The identity of the peer by its certificate; `None` for a joiner, who has none.
pub fn peer_identity(connection: &Connection) -> Option<Identity> {
    let chain = connection.peer_identity()?.downcast::<Vec<CertificateDer<'static>>>().ok()?;
    identity_of(chain.first()?).ok()
}

/// The certificate with this fingerprint in the chain that the peer showed: the authority's.
pub fn peer_authority(
    connection: &Connection,
    fingerprint: Fingerprint,
) -> Option<CertificateDer<'static>> {
    let chain = connection.peer_identity()?.downcast::<Vec<CertificateDer<'static>>>().ok()?;
    chain.iter().find(|certificate| Fingerprint::of(certificate) == fingerprint).cloned()
}

/// Length of the keying material that [`proof_material`] exports, in bytes.
pub const PROOF_BYTES: usize = 32;

/// Keying material that only the two ends of this connection have (RFC 8446, section 7.5). Signing
/// it proves the possession of a key, on this connection and nowhere else.
pub fn proof_material(connection: &Connection) -> Option<[u8; PROOF_BYTES]> {
    let mut material = [0; PROOF_BYTES];
    connection.export_keying_material(&mut material, b"EXPORTER-dkv-recertify", b"").ok()?;
    Some(material)
}

/// Whether the peer connected with the join protocol.
pub fn is_joining(connection: &Connection) -> bool {
    let data = connection.handshake_data();
    let data = data.and_then(|data| data.downcast::<quinn::crypto::rustls::HandshakeData>().ok());
    data.is_some_and(|data| data.protocol.as_deref() == Some(tls::ALPN_JOIN))
}
