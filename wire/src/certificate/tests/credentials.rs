use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use rcgen::SanType;

use super::*;
use crate::certificate::credentials::{AUTHORITY_FILE, CERTIFICATE_FILE, KEY_FILE};

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[test]
fn credentials_come_back_from_their_directory() {
    let home = tempfile::tempdir().unwrap();
    let directory = home.path().join("a/b");
    assert!(Credentials::load(&directory).unwrap().is_none());
    let saved = credentials(&authority(), Role::Node);
    saved.save(&directory).unwrap();
    let loaded = Credentials::load(&directory).unwrap().unwrap();
    assert_eq!(loaded.identity, saved.identity);
    assert_eq!(loaded.certificate, saved.certificate);
    assert_eq!(loaded.authority, saved.authority);
    assert_eq!(loaded.secret(), saved.secret());
    assert_eq!(loaded.public_key().unwrap(), saved.public_key().unwrap());
}

#[test]
fn nobody_else_can_read_credentials() {
    let home = tempfile::tempdir().unwrap();
    let directory = home.path().join("credentials");
    credentials(&authority(), Role::Node).save(&directory).unwrap();
    assert_eq!(mode(&directory), 0o700);
    let files: Vec<_> =
        fs::read_dir(&directory).unwrap().map(|file| file.unwrap().path()).collect();
    assert_eq!(files.len(), 3);
    for file in files {
        assert_eq!(mode(&file), 0o600, "{}", file.display());
    }
}

#[test]
fn a_first_save_that_was_cut_short_left_no_credentials() {
    let home = tempfile::tempdir().unwrap();
    credentials(&authority(), Role::Node).save(home.path()).unwrap();
    fs::remove_file(home.path().join(CERTIFICATE_FILE)).unwrap();
    assert!(Credentials::load(home.path()).unwrap().is_none());
}

#[test]
fn damaged_credentials_are_refused() {
    for file in [KEY_FILE, AUTHORITY_FILE] {
        let home = tempfile::tempdir().unwrap();
        credentials(&authority(), Role::Node).save(home.path()).unwrap();
        fs::remove_file(home.path().join(file)).unwrap();
        Credentials::load(home.path()).unwrap_err();
    }
    let other = credentials(&authority(), Role::Node);
    for (file, content) in [
        (KEY_FILE, other.secret()),
        (KEY_FILE, b""),
        (CERTIFICATE_FILE, &other.certificate),
        (CERTIFICATE_FILE, b""),
        (CERTIFICATE_FILE, &other.authority),
    ] {
        let home = tempfile::tempdir().unwrap();
        credentials(&authority(), Role::Node).save(home.path()).unwrap();
        fs::write(home.path().join(file), content).unwrap();
        Credentials::load(home.path()).unwrap_err();
    }
    let home = tempfile::tempdir().unwrap();
    fs::create_dir(home.path().join(CERTIFICATE_FILE)).unwrap();
    let error = Credentials::load(home.path()).unwrap_err();
    assert!(error.to_string().contains(CERTIFICATE_FILE), "{error}");
}

#[test]
fn a_changed_bit_is_refused_or_changes_nothing() {
    let (authority, home) = (authority(), tempfile::tempdir().unwrap());
    credentials(&authority, Role::Node).save(home.path()).unwrap();
    for name in [KEY_FILE, AUTHORITY_FILE, CERTIFICATE_FILE] {
        let file = home.path().join(name);
        let whole = fs::read(&file).unwrap();
        for place in 0..whole.len() {
            let mut content = whole.clone();
            content[place] ^= 1 << (place % 8);
            fs::write(&file, content).unwrap();
            match Credentials::load(home.path()) {
                Err(error) => {
                    assert!(error.to_string().contains(file.to_str().unwrap()), "{error}");
                }
                // Some bits of the key's file say what the others say too.
                Ok(loaded) if name == KEY_FILE => {
                    let loaded = loaded.unwrap();
                    let proof = loaded.prove(b"material").unwrap();
                    authority.recognise(&loaded.certificate, b"material", &proof).unwrap();
                }
                Ok(_) => panic!("{name} with another bit at {place} is taken"),
            }
        }
        fs::write(&file, whole).unwrap();
    }
}

#[test]
fn a_certificate_of_another_key_is_refused() {
    let authority = authority();
    let own = credentials(&authority, Role::Node);
    let other = credentials(&authority, Role::Node);
    let mixed = Credentials::new(&own.certificate, authority.certificate(), other.key.clone());
    assert!(matches!(mixed, Err(CertificateError::Unusable(_))));
    let longer = [&own.certificate[..], &[0]].concat();
    Credentials::new(&longer, authority.certificate(), own.key).unwrap_err();
}

#[test]
fn a_renewed_certificate_is_of_the_same_holder_and_key() {
    let authority = authority();
    let own = credentials(&authority, Role::Node);
    let public_key = own.public_key().unwrap();
    let later = now() + Duration::from_secs(1000);
    let renew = |identity, key: &[u8]| own.renewed(&authority.sign(identity, key, later).unwrap());
    let renewed = renew(own.identity, &public_key).unwrap();
    assert_eq!(renewed.identity, own.identity);
    assert_ne!(renewed.certificate, own.certificate);
    assert_eq!(renewed.age(later).unwrap(), Duration::ZERO);

    let other = Identity { holder: HolderId::random(), ..own.identity };
    assert!(matches!(renew(other, &public_key), Err(CertificateError::NotOurs)));
    let promoted = Identity { role: Role::Admin, ..own.identity };
    assert!(matches!(renew(promoted, &public_key), Err(CertificateError::NotOurs)));
    let other_key = generate_key().unwrap().1;
    assert!(matches!(renew(own.identity, &other_key), Err(CertificateError::Unusable(_))));
}

#[test]
fn a_certificate_ages_from_when_it_was_signed() {
    let own = credentials(&authority(), Role::Node);
    let day = Duration::from_secs(24 * 3600);
    assert_eq!(own.age(now()).unwrap(), Duration::ZERO);
    assert_eq!(own.age(now() + day).unwrap(), day);
    assert_eq!(own.age(now() - day).unwrap(), Duration::ZERO, "a clock that was set back");
    assert!(!own.expired(now() + CERTIFICATE_LIFE).unwrap());
    assert!(own.expired(now() + CERTIFICATE_LIFE + Duration::from_secs(1)).unwrap());
}

#[test]
fn what_a_clock_that_was_ahead_has_made_is_valid_and_due() {
    let authority = authority();
    let own = credentials(&authority, Role::Node);
    let year = Duration::from_secs(365 * 24 * 3600);
    // Made by a clock that was then set back.
    for back in [CLOCK_SKEW * 2, year, 5 * year] {
        assert!(!own.expired(now() - back).unwrap(), "{back:?}");
        assert!(own.is_due(now() - back).unwrap(), "{back:?}");
    }
    assert!(own.expired(now() - 11 * year).unwrap());
    assert!(!own.is_due(now()).unwrap() && !own.is_due(now() - CLOCK_SKEW / 2).unwrap());
    assert!(own.is_due(now() + CERTIFICATE_RENEW).unwrap());
}

#[test]
fn a_key_that_others_can_read_is_taken_away_from_them() {
    let home = tempfile::tempdir().unwrap();
    credentials(&authority(), Role::Node).save(home.path()).unwrap();
    let key = home.path().join(KEY_FILE);
    fs::set_permissions(&key, PermissionsExt::from_mode(0o644)).unwrap();
    Credentials::load(home.path()).unwrap().unwrap();
    assert_eq!(fs::metadata(&key).unwrap().permissions().mode() & 0o777, 0o600);
}

#[test]
fn a_certificate_with_other_names_is_none_of_ours() {
    let authority = authority();
    let dns = |name: String| SanType::DnsName(name.try_into().unwrap());
    let own = somebody(&authority, Role::Node).dns_name();
    let names = [
        vec![],
        vec![dns("www.example.com".into())],
        vec![dns(own.to_uppercase())],
        vec![dns(format!("www.{own}"))],
        // More than one name: which of both would it be?
        vec![dns(own.clone()), dns(somebody(&authority, Role::Admin).dns_name())],
        vec![dns(own.clone()), SanType::IpAddress([127, 0, 0, 1].into())],
        vec![SanType::URI(own.as_str().try_into().unwrap())],
        vec![SanType::Rfc822Name(own.as_str().try_into().unwrap())],
    ];
    for names in names {
        let (certificate, _) =
            signed_otherwise(&authority, |params| params.subject_alt_names = names.clone());
        let read = identity_of(&CertificateDer::from(certificate));
        assert!(matches!(read, Err(CertificateError::NotOurs)), "{names:?}: {read:?}");
    }
    let (certificate, _) =
        signed_otherwise(&authority, |params| params.subject_alt_names = vec![dns(own.clone())]);
    assert_eq!(identity_of(&CertificateDer::from(certificate)).unwrap().dns_name(), own);
}

#[test]
fn what_is_no_certificate_names_nobody() {
    let good = credentials(&authority(), Role::Node).certificate;
    for length in 0..good.len() {
        let cut = CertificateDer::from(&good[..length]);
        assert!(matches!(identity_of(&cut), Err(CertificateError::Unusable(_))), "{length}");
    }
    for at in 0..good.len() {
        let mut damaged = good.to_vec();
        damaged[at] ^= 0xff;
        // Some bytes say nothing about the name; none may bring us down.
        let _ = identity_of(&CertificateDer::from(damaged));
    }
}

#[test]
fn credentials_do_not_print_their_key() {
    let own = credentials(&authority(), Role::Node);
    let printed = format!("{own:?}");
    assert!(printed.len() < 400 && !printed.contains("key"), "{printed}");
}
