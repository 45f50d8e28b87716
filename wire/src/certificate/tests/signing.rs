use x509_parser::oid_registry::{OID_EC_P256, OID_KEY_TYPE_EC_PUBLIC_KEY};

use super::*;

#[test]
fn a_certificate_says_what_the_authority_decided_and_nothing_else() {
    let authority = authority();
    for role in ROLES {
        let (_, public_key) = generate_key().unwrap();
        let identity = somebody(&authority, role);
        let der = authority.sign(identity, &public_key, now()).unwrap();
        let (rest, certificate) = X509Certificate::from_der(&der).unwrap();
        assert!(rest.is_empty());
        assert_eq!(certificate.public_key().raw, public_key);

        let constraints = certificate.basic_constraints().unwrap().unwrap();
        assert!(!constraints.value.ca, "never an authority");
        assert!(constraints.critical);
        let names = certificate.subject_alternative_name().unwrap().unwrap();
        let own = identity.dns_name();
        assert_eq!(names.value.general_names, [GeneralName::DNSName(&own)]);

        let usage = certificate.key_usage().unwrap().unwrap();
        assert_eq!(usage.value.flags, 1, "digital signature alone");
        let extended = certificate.extended_key_usage().unwrap().unwrap().value;
        assert!(extended.client_auth);
        let connected_to = matches!(role, Role::Server | Role::Node);
        assert_eq!(extended.server_auth, connected_to, "{role}");
        assert!(!extended.any && !extended.code_signing && !extended.email_protection);
        assert!(!extended.time_stamping && !extended.ocsp_signing && extended.other.is_empty());

        let validity = certificate.validity();
        assert_eq!(validity.not_before.timestamp(), seconds(now() - CERTIFICATE_BACKDATED));
        assert_eq!(validity.not_after.timestamp(), seconds(now() + CERTIFICATE_LIFE));
        let (_, issuer) = X509Certificate::from_der(authority.certificate()).unwrap();
        assert_eq!(certificate.issuer(), issuer.subject());
        certificate.verify_signature(Some(issuer.public_key())).unwrap();
        assert_eq!(identity_of(&CertificateDer::from(&*der)).unwrap(), identity);
    }
}

#[test]
fn serial_numbers_are_never_the_same() {
    let authority = authority();
    let (_, public_key) = generate_key().unwrap();
    let identity = somebody(&authority, Role::Node);
    let serials = (0..20).map(|_| {
        let der = authority.sign(identity, &public_key, now()).unwrap();
        X509Certificate::from_der(&der).unwrap().1.raw_serial().to_vec()
    });
    assert_eq!(serials.collect::<std::collections::BTreeSet<_>>().len(), 20);
}

#[test]
fn the_authority_can_certify_holders_and_no_other_authority() {
    let authority = authority();
    let (_, own) = X509Certificate::from_der(authority.certificate()).unwrap();
    let constraints = own.basic_constraints().unwrap().unwrap().value;
    assert!(constraints.ca);
    assert_eq!(constraints.path_len_constraint, Some(0));
    let usage = own.key_usage().unwrap().unwrap().value;
    assert!(usage.key_cert_sign() && !usage.digital_signature());
    own.verify_signature(None).unwrap();
    identity_of(authority.certificate()).unwrap_err();
}

#[test]
fn only_keys_of_one_kind_are_signed() {
    let authority = authority();
    for kind in [
        &rcgen::PKCS_ECDSA_P384_SHA384,
        &rcgen::PKCS_ECDSA_P521_SHA256,
        &rcgen::PKCS_ED25519,
        &rcgen::PKCS_RSA_SHA256,
    ] {
        let public_key = KeyPair::generate_for(kind).unwrap().subject_public_key_info();
        let refused = authority.sign(somebody(&authority, Role::Node), &public_key, now());
        assert!(matches!(refused, Err(CertificateError::Unusable(_))), "{kind:?}");
    }
}

#[test]
fn what_is_no_public_key_is_refused() {
    let authority = authority();
    let (private_key, good) = generate_key().unwrap();
    let request = CertificateParams::new(vec!["evil.example".into()]).unwrap();
    let request = request.serialize_request(&KeyPair::generate().unwrap()).unwrap();
    let sign = |bytes: &[u8]| authority.sign(somebody(&authority, Role::Node), bytes, now());
    sign(&good).unwrap();
    for (what, bytes) in [
        ("nothing", &[][..]),
        ("zeros", &[0; 91]),
        ("a length over all bounds", &[0x30, 0x84, 0xff, 0xff, 0xff, 0xff]),
        ("a length without an end", &[0x30, 0x80, 0x30, 0x80]),
        ("text", b"-----BEGIN PUBLIC KEY-----"),
        ("a private key", &private_key),
        ("a signing request with names of its own", request.der()),
        ("a certificate", authority.certificate()),
        ("more than a key", &[&good[..], &[0]].concat()),
    ] {
        assert!(matches!(sign(bytes), Err(CertificateError::Unusable(_))), "{what}");
    }
    for length in 0..good.len() {
        sign(&good[..length]).unwrap_err();
    }
}

/// Whatever one byte of a key is changed to, there is no panic, and if there is a certificate, it
/// is for a key of the one kind and names the holder that it should.
#[test]
fn a_damaged_key_changes_nothing_but_the_key() {
    let authority = authority();
    let (_, good) = generate_key().unwrap();
    let identity = somebody(&authority, Role::Client);
    for at in 0..good.len() {
        for flip in [0x01, 0x20, 0x80, 0xff] {
            let mut bytes = good.to_vec();
            bytes[at] ^= flip;
            let Ok(der) = authority.sign(identity, &bytes, now()) else { continue };
            assert_eq!(identity_of(&CertificateDer::from(&*der)).unwrap(), identity);
            let (_, certificate) = X509Certificate::from_der(&der).unwrap();
            let algorithm = &certificate.public_key().algorithm;
            assert_eq!(algorithm.algorithm, OID_KEY_TYPE_EC_PUBLIC_KEY);
            let curve = algorithm.parameters.as_ref().unwrap().as_oid().unwrap();
            assert_eq!(curve, OID_EC_P256);
            assert!(!certificate.basic_constraints().unwrap().unwrap().value.ca);
        }
    }
}

#[test]
fn an_authority_is_the_same_after_a_restart() {
    let first = authority();
    let again = Authority::from_der(first.network(), first.certificate(), &first.key_der());
    let again = again.unwrap();
    assert_eq!(again.certificate(), first.certificate());
    assert_eq!(again.fingerprint(), first.fingerprint());
    let der = credentials(&again, Role::Node).certificate;
    let (_, own) = X509Certificate::from_der(first.certificate()).unwrap();
    let (_, signed) = X509Certificate::from_der(&der).unwrap();
    signed.verify_signature(Some(own.public_key())).unwrap();

    let other = authority();
    for (certificate, key) in [
        (&first.certificate()[..], &other.key_der()[..]),
        (&first.certificate()[1..], &first.key_der()[..]),
        (&first.certificate()[..], &first.key_der()[1..]),
        (b"", b""),
    ] {
        let refused = Authority::from_der(first.network(), certificate, key);
        assert!(matches!(refused, Err(CertificateError::Unusable(_))));
    }
}
