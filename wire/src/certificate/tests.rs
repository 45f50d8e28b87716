//! What the authority signs and what it does not; what a process keeps and what it refuses.

mod credentials;
mod recognising;
mod signing;

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use dkv_base::id::{HolderId, NetworkId};
use rcgen::CertificateParams;

use super::*;
use crate::identity::Role;
use crate::limits::{CERTIFICATE_BACKDATED, CERTIFICATE_LIFE, CERTIFICATE_RENEW, CLOCK_SKEW};

const ROLES: [Role; 4] = [Role::Server, Role::Node, Role::Client, Role::Admin];

/// 2023-11-14, 22:13:20 UTC.
fn now() -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(1_700_000_000)
}

fn authority() -> Authority {
    Authority::create(NetworkId::random(), now()).unwrap()
}

fn somebody(authority: &Authority, role: Role) -> Identity {
    Identity { network: authority.network(), role, holder: HolderId::random(), user: None }
}

fn credentials(authority: &Authority, role: Role) -> Credentials {
    let (key, public_key) = generate_key().unwrap();
    let certificate = authority.sign(somebody(authority, role), &public_key, now()).unwrap();
    Credentials::new(&certificate, authority.certificate(), key).unwrap()
}

fn seconds(moment: SystemTime) -> i64 {
    moment.duration_since(UNIX_EPOCH).unwrap().as_secs() as i64
}

/// A certificate that the authority never made, though its key has signed it.
fn signed_otherwise(
    authority: &Authority,
    change: impl FnOnce(&mut CertificateParams),
) -> (Vec<u8>, Vec<u8>) {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::default();
    change(&mut params);
    let certificate = params.signed_by(&key, &authority.issuer).unwrap();
    (certificate.der().to_vec(), key.serialize_der())
}
