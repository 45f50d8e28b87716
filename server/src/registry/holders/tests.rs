//! The inventory of holders.

use dkv_base::id::NetworkId;
use dkv_wire::bearer::Rights;
use dkv_wire::message::JoinRefusal;
use dkv_wire::network::Settings;
use dkv_wire::token::SecretHash;

use super::*;

const SECRET: [u8; 32] = [7; 32];

fn id(number: usize) -> HolderId {
    HolderId(Uuid::from_u128(number as u128))
}

/// Creates a registry with one token per role; the id of a token is the number of its role.
fn registry(roles: &[Role]) -> Registry {
    let mut registry = Registry::new(NetworkId(Uuid::nil()), Settings::default(), 0);
    for role in roles {
        let (token, hash) = (Uuid::from_u128(*role as u128), SecretHash::of(&SECRET));
        let name = Some(format!("of-{role}"));
        registry.handle_create_token(token, hash, *role, None, None, name, None, 0).0.unwrap();
    }
    registry
}

fn join(registry: &mut Registry, role: Role, number: usize, at_ms: u64) -> bool {
    let token = Uuid::from_u128(role as u128);
    match registry.handle_join(token, &SECRET, id(number), at_ms).0 {
        Ok(joined) => joined == role,
        Err(refusal) => {
            assert_eq!(refusal, JoinRefusal::Full);
            false
        }
    }
}

#[test]
fn the_inventory_outlives_the_token_that_admitted() {
    let mut registry = registry(&[Role::Admin, Role::Client]);
    assert!(join(&mut registry, Role::Admin, 1, 5) && join(&mut registry, Role::Client, 2, 6));
    let token = Uuid::from_u128(Role::Admin as u128);
    registry.handle_revoke_token(token).0.unwrap();
    registry.deny(&[id(2)]);
    let books = crate::registry_file::encode(&registry).unwrap();
    let mut registry = crate::registry_file::decode(std::path::Path::new("b"), &books).unwrap();
    let holders = registry.holders();
    let shown: Vec<_> = holders.iter().map(|it| (it.id, it.kind, it.revoked)).collect();
    let of = HolderKind::Certificate;
    assert_eq!(shown, [(id(1), of(Role::Admin), false), (id(2), of(Role::Client), true)]);
    assert_eq!((holders[0].token, holders[0].since_ms), (Some(token), Some(5)));
    assert_eq!(holders[0].name.as_deref(), Some("of-admin"));
    let end_ms = 5 + millis(limits::CERTIFICATE_LIFE);
    assert_eq!((holders[0].ends_ms, holders[0].seen_ms), (Some(end_ms), Some(5)));

    let identity =
        Identity { network: registry.network(), role: Role::Admin, holder: id(1), user: None };
    assert!(!registry.is_sighting_due(id(1), 6) && registry.is_sighting_due(id(1), 20_000));
    assert_eq!(registry.handle_seen(identity, 20_000).1, Effects::NONE);
    assert_eq!(registry.holders()[0].seen_ms, Some(20_000));
    assert_eq!(registry.handle_certified(identity, 30_000).1, Effects::SAVE);
    assert_eq!(registry.holders()[0].ends_ms, Some(30_000 + millis(limits::CERTIFICATE_LIFE)));
    assert_eq!(registry.holders()[0].since_ms, Some(5));
}

#[test]
fn an_unknown_holder_is_recorded_when_it_is_heard_from() {
    let mut registry = registry(&[]);
    let identity =
        Identity { network: registry.network(), role: Role::Admin, holder: id(9), user: None };
    registry.handle_seen(identity, 100);
    let holders = registry.holders();
    assert_eq!((holders[0].id, holders[0].token, holders[0].since_ms), (id(9), None, None));
}

#[test]
fn a_bearer_token_expires_by_default_and_its_last_use_is_recorded() {
    let mut registry = registry(&[]);
    let held = HolderKind::Bearer(Rights::Read);
    let mut create = |number, life, name: Option<&str>| {
        let name = name.map(str::to_owned);
        registry.handle_create_bearer(id(number), held, life, name, None, id(1), 1000).0
    };
    let usual = 1000 + millis(limits::BEARER_LIFE);
    assert_eq!(create(1, BearerLife::Usual, None), Ok(Some(usual)));
    assert_eq!(create(2, BearerLife::Seconds(5), Some("ci")), Ok(Some(6000)));
    assert_eq!(create(3, BearerLife::Endless, None), Ok(None));
    assert!(create(4, BearerLife::Seconds(0), None).is_err());
    assert!(create(4, BearerLife::Usual, Some("a\u{1b}[2J")).is_err());
    let (_, effects) =
        registry.handle_bearers_seen(&[(id(2), 1500), (id(3), u64::MAX), (id(8), 1)], 2000);
    assert_eq!(effects, Effects::NONE);
    let seen: Vec<_> = registry.holders().iter().map(|it| it.seen_ms).collect();
    assert_eq!(seen, [None, Some(1500), Some(2000)]);
}

#[test]
fn a_flood_of_clients_evicts_only_clients() {
    let roles = [Role::Admin, Role::Client, Role::Node];
    let mut registry = registry(&roles);
    let life_ms = millis(limits::CERTIFICATE_LIFE);
    assert!(join(&mut registry, Role::Admin, 0, 0) && join(&mut registry, Role::Node, 1, 0));
    for number in 2..limits::HOLDERS_MAX {
        assert!(join(&mut registry, Role::Client, number, number as u64));
    }
    // The second one is heard from again, so the third is dropped.
    let identity =
        Identity { network: registry.network(), role: Role::Client, holder: id(2), user: None };
    registry.handle_seen(identity, 50_000);
    assert!(join(&mut registry, Role::Client, 1 << 20, 60_000));
    let knows = |registry: &Registry, number| registry.holders.contains_key(&id(number));
    assert_eq!(registry.holders.len(), limits::HOLDERS_MAX);
    assert!(knows(&registry, 0) && knows(&registry, 1) && knows(&registry, 2));
    assert!(!knows(&registry, 3) && knows(&registry, 1 << 20));
    // Administrators and nodes stay, long after their certificates expired.
    assert!(join(&mut registry, Role::Client, 1 << 21, 3 * life_ms));
    assert!(knows(&registry, 0) && knows(&registry, 1));
}

#[test]
fn a_holder_that_cannot_be_recorded_is_not_admitted() {
    let mut registry = registry(&[Role::Admin]);
    for number in 0..limits::HOLDERS_MAX {
        assert!(join(&mut registry, Role::Admin, number, 0));
    }
    assert!(!join(&mut registry, Role::Admin, 1 << 20, 0));
    let used = registry.tokens()[0].used;
    assert_eq!(used as usize, limits::HOLDERS_MAX, "a token was used up for nothing");
}
