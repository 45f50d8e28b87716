use super::*;

const MATERIAL: &[u8] = &[7; 32];

#[test]
fn the_holder_of_a_key_is_recognised_however_old_its_certificate() {
    let authority = authority();
    for role in ROLES {
        // Signed at `now`, which was years ago.
        let own = credentials(&authority, role);
        let proof = own.prove(MATERIAL).unwrap();
        let recognised = authority.recognise(&own.certificate, MATERIAL, &proof).unwrap();
        assert_eq!(recognised, (own.identity, own.public_key().unwrap()));
    }
}

#[test]
fn a_proof_is_of_one_key_and_for_one_connection() {
    let authority = authority();
    let own = credentials(&authority, Role::Node);
    let proof = own.prove(MATERIAL).unwrap();
    let refused = |certificate: &[u8], material: &[u8], proof: &[u8]| {
        let outcome = authority.recognise(certificate, material, proof);
        assert!(matches!(outcome, Err(CertificateError::Unusable(_))), "{outcome:?}");
    };
    refused(&own.certificate, &[8; 32], &proof);
    refused(&own.certificate, &[], &proof);
    refused(&own.certificate, MATERIAL, b"");
    refused(&own.certificate, MATERIAL, &[0; 72]);
    refused(&own.certificate, MATERIAL, &proof[1..]);
    let thief = credentials(&authority, Role::Node);
    refused(&own.certificate, MATERIAL, &thief.prove(MATERIAL).unwrap());
    refused(b"", MATERIAL, &proof);
    refused(&own.certificate[1..], MATERIAL, &proof);
}

#[test]
fn a_certificate_of_another_authority_is_not_recognised() {
    let own = authority();
    // The same network by name: its maker knows everything but the authority's key.
    let impostor = Authority::create(own.network(), now()).unwrap();
    let forged = credentials(&impostor, Role::Admin);
    let proof = forged.prove(MATERIAL).unwrap();
    impostor.recognise(&forged.certificate, MATERIAL, &proof).unwrap();
    let outcome = own.recognise(&forged.certificate, MATERIAL, &proof);
    assert!(matches!(outcome, Err(CertificateError::Unusable(_))), "{outcome:?}");
}

#[test]
fn a_certificate_of_another_network_is_not_recognised() {
    let authority = authority();
    let elsewhere = Identity { network: NetworkId::random(), ..somebody(&authority, Role::Node) };
    let (certificate, key) = signed_otherwise(&authority, |params| {
        *params = CertificateParams::new(vec![elsewhere.dns_name()]).unwrap();
    });
    let own = Credentials::new(&certificate, authority.certificate(), key).unwrap();
    let outcome = authority.recognise(&certificate, MATERIAL, &own.prove(MATERIAL).unwrap());
    assert!(matches!(outcome, Err(CertificateError::NotOurs)), "{outcome:?}");
}

#[test]
fn a_certificate_that_was_changed_is_not_recognised() {
    let authority = authority();
    let own = credentials(&authority, Role::Client);
    let proof = own.prove(MATERIAL).unwrap();
    let signed = parse(&own.certificate).unwrap().tbs_certificate.as_ref().to_vec();
    for at in 0..own.certificate.len() {
        let mut changed = own.certificate.to_vec();
        changed[at] ^= 0x01;
        // How the name of the algorithm after the signed part is encoded, nobody vouches for.
        if let Ok(recognised) = authority.recognise(&changed, MATERIAL, &proof) {
            assert!(at >= 4 + signed.len(), "byte {at}");
            assert_eq!(recognised, (own.identity, own.public_key().unwrap()));
        }
    }
}
