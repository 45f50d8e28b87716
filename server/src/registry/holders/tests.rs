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
            assert!(matches!(refusal, JoinRefusal::Full | JoinRefusal::Crowded(_)));
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

const WITHOUT_KEPT: usize = limits::HOLDERS_MAX - HOLDERS_KEPT;

fn knows(registry: &Registry, number: usize) -> bool {
    registry.holders.contains_key(&id(number))
}

/// Creates another token of a role.
fn add_token(registry: &mut Registry, token: u128, role: Role) {
    let (token, hash) = (Uuid::from_u128(token), SecretHash::of(&SECRET));
    registry.handle_create_token(token, hash, role, None, None, None, None, 0).0.unwrap();
}

fn join_with(
    registry: &mut Registry,
    token: u128,
    number: usize,
    at_ms: u64,
) -> Result<Role, JoinRefusal> {
    registry.handle_join(Uuid::from_u128(token), &SECRET, id(number), at_ms).0
}

#[test]
fn a_flood_of_clients_evicts_only_the_latest_of_its_own() {
    let roles = [Role::Admin, Role::Client, Role::Node];
    let mut registry = registry(&roles);
    add_token(&mut registry, 100, Role::Client);
    assert!(join(&mut registry, Role::Admin, 0, 0) && join(&mut registry, Role::Node, 1, 0));
    // An honest one, and the first of the flood.
    join_with(&mut registry, 100, 2, 1).unwrap();
    for number in 3..WITHOUT_KEPT {
        assert!(join(&mut registry, Role::Client, number, number as u64));
    }
    let count = WITHOUT_KEPT as u32 - 3;
    for number in 0..10 {
        let refused = join_with(&mut registry, Role::Client as u128, 20_000 + number, 60_000);
        assert_eq!(refused, Err(JoinRefusal::Crowded(count)), "it evicted a live holder");
    }
    assert!((0..WITHOUT_KEPT).all(|number| knows(&registry, number)));
    // Others are admitted, and the latest of the flood makes room.
    join_with(&mut registry, 100, 30_000, 70_000).unwrap();
    assert!(!knows(&registry, WITHOUT_KEPT - 1) && knows(&registry, 3) && knows(&registry, 2));
    assert!(join(&mut registry, Role::Node, 30_001, 70_000));
    assert!(!knows(&registry, WITHOUT_KEPT - 2));
    // Whom the flood has not outnumbered goes by when it was heard from: there is no flood now.
    registry.deny(&(4..WITHOUT_KEPT - 2).map(id).collect::<Vec<_>>());
    assert!(join(&mut registry, Role::Client, 30_002, 80_000), "the revoked make room");
    assert!((0..4).all(|number| knows(&registry, number)) && !knows(&registry, 4));
    // Administrators and nodes stay, long after their certificates expired.
    let life_ms = millis(limits::CERTIFICATE_LIFE);
    assert!(join(&mut registry, Role::Client, 1 << 21, 3 * life_ms));
    assert!(knows(&registry, 0) && knows(&registry, 1));
}

#[test]
fn live_clients_of_many_tokens_make_room_by_when_they_were_heard_from() {
    let mut registry = registry(&[]);
    for token in 0..8 {
        add_token(&mut registry, token, Role::Client);
    }
    for number in 0..WITHOUT_KEPT {
        join_with(&mut registry, number as u128 % 8, number, number as u64).unwrap();
    }
    let identity =
        Identity { network: registry.network(), role: Role::Client, holder: id(0), user: None };
    registry.handle_seen(identity, 50_000);
    join_with(&mut registry, 1, 1 << 20, 60_000).unwrap();
    assert!(knows(&registry, 0) && !knows(&registry, 1) && knows(&registry, 1 << 20));
}

#[test]
fn nodes_of_a_stolen_token_make_room_once_they_are_revoked() {
    let mut registry = registry(&[Role::Admin, Role::Node, Role::Client]);
    for number in 0..WITHOUT_KEPT {
        assert!(join(&mut registry, Role::Node, number, 5));
    }
    assert!(!join(&mut registry, Role::Client, 1 << 20, 6));
    let crowded = join_with(&mut registry, Role::Node as u128, 1 << 20, 6);
    assert_eq!(crowded, Err(JoinRefusal::Crowded(WITHOUT_KEPT as u32)));
    // There is room for administrators, and nobody makes it.
    assert!(join(&mut registry, Role::Admin, 1 << 20, 6));
    assert_eq!(registry.holders.len(), WITHOUT_KEPT + 1);
    // What the refusal advises helps.
    registry.deny(&(0..WITHOUT_KEPT).map(id).collect::<Vec<_>>());
    assert!(join(&mut registry, Role::Client, 1 << 21, 7));
    assert!(join(&mut registry, Role::Node, 1 << 22, 7));
    assert!(knows(&registry, 1 << 20) && knows(&registry, 1 << 21));
}

#[test]
fn certificates_that_lapsed_long_ago_make_room_whatever_their_role() {
    let mut registry = registry(&[Role::Node]);
    for number in 0..WITHOUT_KEPT {
        assert!(join(&mut registry, Role::Node, number, 5));
    }
    let end_ms = 5 + millis(limits::CERTIFICATE_LIFE) + millis(limits::RECERTIFY_WITHIN);
    assert!(!join(&mut registry, Role::Node, 1 << 20, end_ms - 1));
    assert!(join(&mut registry, Role::Node, 1 << 20, end_ms));
}

#[test]
fn a_holder_that_cannot_be_recorded_is_not_admitted() {
    let mut registry = registry(&[]);
    for token in 0..8 {
        add_token(&mut registry, token, Role::Admin);
    }
    for number in 0..limits::HOLDERS_MAX {
        join_with(&mut registry, number as u128 % 8, number, 0).unwrap();
    }
    assert_eq!(join_with(&mut registry, 0, 1 << 20, 0), Err(JoinRefusal::Full));
    let used = registry.tokens()[0].used;
    assert_eq!(used as usize, limits::HOLDERS_MAX / 8, "a token was used up for nothing");
}
