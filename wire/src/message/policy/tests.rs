use proptest::prelude::*;

use super::*;

const KEYSPACE: KeyspaceId = KeyspaceId(3);

fn rule(keyspace: Option<u32>, prefix: &[u8], rights: &[Right]) -> PolicyRule {
    PolicyRule {
        keyspace: keyspace.map(KeyspaceId),
        prefix: Bytes::copy_from_slice(prefix),
        rights: rights.iter().copied().collect(),
    }
}

/// All keys of up to four of these bytes. Between any two bounds made of [`BOUND_BYTES`] that leave
/// room for a key there is one of them.
fn all_keys() -> Vec<Vec<u8>> {
    let mut keys: Vec<Vec<u8>> = Vec::new();
    let mut longest: Vec<Vec<u8>> = vec![Vec::new()];
    for _ in 0..4 {
        longest = longest
            .iter()
            .flat_map(|key| [0, 1, 2, 254, 255].map(|byte| [&key[..], &[byte]].concat()))
            .collect();
        keys.extend(longest.iter().cloned());
    }
    keys
}

/// Judges key by key.
fn model(rules: &[PolicyRule], right: Right, keys: &Keys<'_>, all: &[Vec<u8>]) -> bool {
    let is_allowed = |key: &Vec<u8>| {
        rules.iter().any(|rule| {
            let here = rule.keyspace.is_none() || rule.keyspace == Some(KEYSPACE);
            here && rule.rights.has(right) && key.starts_with(&rule.prefix)
        })
    };
    all.iter().filter(|key| keys.contains(key)).all(is_allowed)
}

fn bound(longest: usize) -> impl Strategy<Value = Vec<u8>> {
    let byte = prop_oneof![Just(0), Just(1), Just(255)];
    proptest::collection::vec(byte, 0..=longest)
}

fn rules() -> impl Strategy<Value = Vec<PolicyRule>> {
    let keyspace = prop_oneof![Just(None), Just(Some(3)), Just(Some(4))];
    let rights = proptest::collection::vec(proptest::sample::select(&Right::ALL[..]), 0..4);
    let one = (keyspace, bound(2), rights);
    let one = one.prop_map(|(keyspace, prefix, rights)| rule(keyspace, &prefix, &rights));
    proptest::collection::vec(one, 0..9)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn ranges_are_judged_as_if_key_by_key(
        rules in rules(),
        from in bound(3),
        to in bound(3),
        right in proptest::sample::select(&Right::ALL[..]),
    ) {
        let all = all_keys();
        for keys in [Keys::Key(&from), Keys::Prefix(&from), Keys::Range(&from, &to)] {
            if matches!(keys, Keys::Key(key) if key.is_empty()) {
                continue;
            }
            if matches!(keys, Keys::Range(from, to) if !to.is_empty() && from >= to) {
                let some = allows_some(&rules, right, KEYSPACE);
                prop_assert_eq!(allows(&rules, right, KEYSPACE, keys), some);
                continue;
            }
            // A range may hold keys that are longer than those of the model.
            let holds_any = all.iter().any(|key| keys.contains(key));
            let allowed = allows(&rules, right, KEYSPACE, keys);
            if holds_any {
                prop_assert_eq!(allowed, model(&rules, right, &keys, &all), "{:?}", keys);
            }
            if allowed && holds_any {
                prop_assert!(allows_some(&rules, right, KEYSPACE));
            }
        }
    }
}

#[test]
fn prefixes_side_by_side_cover_a_range_over_both() {
    let rules = [rule(Some(3), b"a", &[Right::Read]), rule(None, b"b", &[Right::Read])];
    let read = |keys| allows(&rules, Right::Read, KEYSPACE, keys);
    assert!(read(Keys::Range(b"a", b"c")));
    assert!(!read(Keys::Range(b"a", b"c\0")));
    assert!(!read(Keys::Range(b"a", b"")));
    assert!(!read(Keys::Prefix(b"")));
    assert!(!allows(&rules, Right::Write, KEYSPACE, Keys::Key(b"a")));
    assert!(!allows(&rules, Right::Read, KeyspaceId(4), Keys::Key(b"a")));
    assert!(allows(&rules, Right::Read, KeyspaceId(4), Keys::Key(b"b")));
}

#[test]
fn the_last_prefix_has_no_end() {
    let rules = [rule(None, &[255], &[Right::Watch])];
    let watch = |keys| allows(&rules, Right::Watch, KEYSPACE, keys);
    assert!(watch(Keys::Range(&[255], &[])));
    assert!(watch(Keys::Prefix(&[255, 255])));
    assert!(!watch(Keys::Range(&[254, 255], &[])));
    let all: Vec<_> = (0..=255).map(|byte| rule(None, &[byte], &[Right::Watch])).collect();
    assert!(allows(&all, Right::Watch, KEYSPACE, Keys::Prefix(b"")));
    assert!(!allows(&all[1..], Right::Watch, KEYSPACE, Keys::Prefix(b"")));
}

#[test]
fn rights_are_written_as_words() {
    assert_eq!("read,watch".parse::<RightSet>().unwrap().to_string(), "read,watch");
    assert_eq!("watch, read".parse::<RightSet>().unwrap().to_string(), "read,watch");
    assert_eq!("none".parse::<RightSet>().unwrap().to_string(), "none");
    for bad in ["", "reads", "read,", "READ"] {
        assert_eq!(bad.parse::<RightSet>(), Err(InvalidRights), "{bad}");
    }
    assert!(RightSet::try_from(15).is_ok());
    assert!(RightSet::try_from(16).is_err());
}

#[test]
fn the_right_to_administer_is_for_whole_keyspaces() {
    let all = rule(Some(3), b"", &[Right::Administer]);
    assert_eq!(check_rules([&all]), Ok(()));
    let some = rule(Some(3), b"a", &[Right::Administer]);
    assert_eq!(check_rules([&some]), Err(BadRules::Administer));
    let many = vec![all; POLICY_RULES_MAX + 1];
    assert_eq!(check_rules(&many), Err(BadRules::TooMany));
}
