//! Public keys to sign, and certificates to verify. Whatever the bytes are, a certificate says what
//! the authority decided, and no holder passes for another.

use std::sync::LazyLock;
use std::time::SystemTime;

use dkv_api::Uuid;
use dkv_base::id::{HolderId, NetworkId};
use dkv_wire::certificate::{Authority, Credentials, generate_key, identity_of};
use dkv_wire::identity::{Identity, Role};
use rustls::pki_types::CertificateDer;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::parts::Parts;

const NETWORK: NetworkId = NetworkId(Uuid::from_u128(1));
const ROLES: [Role; 5] = [Role::Server, Role::Node, Role::Client, Role::Admin, Role::Reader];
/// The bytes that a holder signs to prove its key.
const MATERIAL: &[u8] = b"material";

/// An authority, and the holder of a certificate by it.
struct Known {
    authority: Authority,
    holder: Credentials,
    key: Vec<u8>,
    proof: Vec<u8>,
}

static KNOWN: LazyLock<Known> = LazyLock::new(|| {
    let now = SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(1_767_225_600);
    let authority = Authority::create(NETWORK, now).expect("an authority");
    let (key, public_key) = generate_key().expect("a key");
    let der = authority.sign(identity(Role::Client), &public_key, now).expect("a certificate");
    let holder = Credentials::new(&der, authority.certificate(), key.clone()).expect("credentials");
    let proof = holder.prove(MATERIAL).expect("a signature").to_vec();
    Known { authority, holder, key, proof }
});

fn identity(role: Role) -> Identity {
    Identity { network: NETWORK, role, holder: HolderId(Uuid::from_u128(2)), user: None }
}

pub(super) fn read(input: &[u8]) {
    let mut parts = Parts::new(input);
    let role = ROLES[usize::from(parts.byte()) % ROLES.len()];
    let bytes = parts.rest();
    request(role, bytes);
    shown(bytes);
}

/// Reads bytes as a public key to be certified.
fn request(role: Role, public_key: &[u8]) {
    let signed = KNOWN.authority.sign(identity(role), public_key, SystemTime::UNIX_EPOCH);
    let Ok(der) = signed else { return };
    let (rest, certificate) = X509Certificate::from_der(&der).expect("a certificate");
    assert!(rest.is_empty());
    let constraints = certificate.basic_constraints().expect("extensions").expect("constraints");
    assert!(constraints.critical && !constraints.value.ca, "an authority was signed");
    let usage = certificate.key_usage().expect("extensions").expect("usage").value;
    assert_eq!(usage.flags, 1, "more than a digital signature");
    let extended = certificate.extended_key_usage().expect("extensions").expect("usage").value;
    assert!(extended.client_auth && !extended.any && extended.other.is_empty());
    assert_eq!(extended.server_auth, matches!(role, Role::Server | Role::Node));
    assert_eq!(identity_of(&CertificateDer::from(&*der)).ok(), Some(identity(role)));
}

/// Reads bytes as a certificate that a peer shows.
fn shown(bytes: &[u8]) {
    let known = &*KNOWN;
    let _ = identity_of(&CertificateDer::from(bytes));
    if let Ok((who, _)) = known.authority.recognise(bytes, MATERIAL, &known.proof) {
        assert_eq!(who, known.holder.identity, "somebody was taken for somebody else");
        assert_eq!(bytes, &*known.holder.certificate, "a certificate that was not signed");
    }
    assert!(known.authority.recognise(&known.holder.certificate, b"other", bytes).is_err());
    if let Ok(credentials) =
        Credentials::new(bytes, known.authority.certificate(), known.key.clone())
    {
        let _ = credentials.age(SystemTime::UNIX_EPOCH);
    }
    let _ = Credentials::new(&known.holder.certificate, bytes, known.key.clone());
    let _ = Credentials::new(&known.holder.certificate, bytes, bytes.to_vec());
    let _ = Authority::from_der(NETWORK, bytes, &known.authority.key_der());
    let _ = Authority::from_der(NETWORK, known.authority.certificate(), bytes);
}

pub(super) fn seeds() -> Vec<Vec<u8>> {
    let known = &*KNOWN;
    let public_key = known.holder.public_key().expect("a key");
    let contents: [&[u8]; 5] = [
        &public_key,
        &known.holder.certificate,
        known.authority.certificate(),
        &known.key,
        &known.proof,
    ];
    let seed = |(role, content): (u8, &&[u8])| [&[role], *content].concat();
    (0..4).flat_map(|role| contents.iter().map(move |content| seed((role, content)))).collect()
}
