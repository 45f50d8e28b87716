//! Policies in the directory: what they give to each user, their bounds, and their repetition.

use bytes::Bytes;
use dkv_base::id::{KeyspaceId, NetworkId, NodeId};
use dkv_wire::limits::{KEY_BYTES_MAX, POLICIES_MAX, POLICY_RULES_MAX, USER_RULES_MAX};
use dkv_wire::message::{PolicyAct, PolicyChange, PolicyLimits, PolicyRule};
use dkv_wire::network::Settings;
use dkv_wire::user::User;
use uuid::Uuid;

use crate::directory::{
    Announcement, Directory, DirectoryCommand, DirectoryEntry, DirectoryResult,
};
use crate::rows::{RowSink, Table};

fn order(directory: &mut Directory, command: DirectoryCommand) -> Result<(), String> {
    let entry = DirectoryEntry { time_ms: 1, command }.encode();
    match directory.apply(&entry).unwrap() {
        DirectoryResult::Done => Ok(()),
        DirectoryResult::Rejected(why) => Err(why),
    }
}

fn network() -> Directory {
    let mut directory = Directory::new();
    let (id, address) = (NodeId(Uuid::from_u128(1)), ([10, 0, 0, 1], 4401).into());
    let founder = Announcement { id, name: "n1".into(), address, region: None };
    let (network, settings) = (NetworkId(Uuid::nil()), Settings::default());
    order(&mut directory, DirectoryCommand::Create { network, settings, founder }).unwrap();
    directory
}

fn change(directory: &mut Directory, policy: &str, act: PolicyAct) -> Result<(), String> {
    let change = PolicyChange { policy: policy.into(), act };
    order(directory, DirectoryCommand::Policy(change))
}

fn rule(prefix: &[u8], rights: &str) -> PolicyRule {
    let (keyspace, prefix) = (Some(KeyspaceId::DEFAULT), Bytes::copy_from_slice(prefix));
    PolicyRule { keyspace, prefix, rights: rights.parse().unwrap() }
}

fn user(name: &str) -> User {
    name.parse().unwrap()
}

#[test]
fn a_user_has_the_rules_of_all_its_policies() {
    let mut directory = network();
    let create = PolicyAct::Create(vec![rule(b"a", "read")]);
    change(&mut directory, "p", create.clone()).unwrap();
    change(&mut directory, "q", PolicyAct::Create(vec![rule(b"b", "write")])).unwrap();
    assert!(directory.rights_of(user("alice")).is_empty());
    for policy in ["p", "q"] {
        change(&mut directory, policy, PolicyAct::Grant(user("alice"))).unwrap();
    }
    change(&mut directory, "q", PolicyAct::Grant(user("bob"))).unwrap();
    assert_eq!(directory.rights_of(user("alice")).len(), 2);
    assert_eq!(&directory.rights_of(user("bob"))[..], [rule(b"b", "write")]);
    let own: Vec<_> = directory.policies_of(user("bob")).collect();
    assert_eq!((own.len(), &own[0].users[..]), (1, &[user("bob")][..]));
    // What comes from a checkpoint or a snapshot gives the same rights.
    let row = directory.take_changes(Bytes::new()).directory.unwrap();
    let mut loaded = Directory::new();
    loaded.row(Table::Directory, &[], &row).unwrap();
    assert_eq!(loaded.rights_of(user("alice")), directory.rights_of(user("alice")));
    let hash = directory.hash();
    change(&mut directory, "p", PolicyAct::Grant(user("alice"))).unwrap();
    assert_eq!(directory.hash(), hash, "a repetition changes nothing");
    change(&mut directory, "p", PolicyAct::Set(rule(b"a", "read,watch"))).unwrap();
    assert!(directory.rights_of(user("alice")).contains(&rule(b"a", "read,watch")));
    change(&mut directory, "p", PolicyAct::Set(rule(b"a", "none"))).unwrap();
    change(&mut directory, "q", PolicyAct::Revoke(user("alice"))).unwrap();
    assert!(directory.rights_of(user("alice")).is_empty());
    change(&mut directory, "q", PolicyAct::Drop).unwrap();
    change(&mut directory, "q", PolicyAct::Drop).unwrap();
    assert!(directory.rights_of(user("bob")).is_empty());
    assert!(change(&mut directory, "p", create).is_err(), "it was changed since");
}

#[test]
fn a_change_that_is_not_allowed_has_no_effect() {
    let mut directory = network();
    change(&mut directory, "p", PolicyAct::Create(vec![rule(b"a", "read")])).unwrap();
    let before = directory.hash();
    let long = vec![b'k'; KEY_BYTES_MAX + 1];
    let nowhere = PolicyRule { keyspace: Some(KeyspaceId(9)), ..rule(b"", "read") };
    for (policy, act) in [
        ("p", PolicyAct::Create(Vec::new())),
        ("\u{1b}[2J", PolicyAct::Create(Vec::new())),
        ("x", PolicyAct::Create(vec![rule(&long, "read")])),
        ("x", PolicyAct::Create(vec![nowhere.clone()])),
        ("p", PolicyAct::Set(nowhere)),
        ("p", PolicyAct::Set(rule(b"a", "administer"))),
        ("x", PolicyAct::Set(rule(b"a", "read"))),
        ("x", PolicyAct::Grant(user("alice"))),
    ] {
        assert!(change(&mut directory, policy, act.clone()).is_err(), "{act:?}");
        assert_eq!(directory.hash(), before, "{act:?}");
    }
    for number in 1..POLICY_RULES_MAX {
        let prefix = number.to_string();
        change(&mut directory, "p", PolicyAct::Set(rule(prefix.as_bytes(), "read"))).unwrap();
    }
    assert!(change(&mut directory, "p", PolicyAct::Set(rule(b"z", "read"))).is_err());
    for number in 1..POLICIES_MAX {
        let name = format!("p{number}");
        change(&mut directory, &name, PolicyAct::Create(Vec::new())).unwrap();
    }
    assert!(change(&mut directory, "one-more", PolicyAct::Create(Vec::new())).is_err());
}

/// A policy with as many rules as one may have.
fn create_full(directory: &mut Directory, policy: &str) {
    let rules = (0..POLICY_RULES_MAX).map(|number| rule(&number.to_be_bytes()[7..], "read"));
    change(directory, policy, PolicyAct::Create(rules.collect())).unwrap();
}

#[test]
fn the_rules_of_a_user_and_those_of_all_users_are_bounded() {
    let mut directory = network();
    let policies = USER_RULES_MAX / POLICY_RULES_MAX;
    for number in 0..=policies {
        create_full(&mut directory, &format!("p{number}"));
    }
    let grant = |directory: &mut Directory, number: usize, name: &str| {
        change(directory, &format!("p{number}"), PolicyAct::Grant(user(name)))
    };
    for number in 0..policies {
        grant(&mut directory, number, "alice").unwrap();
    }
    let before = directory.hash();
    let why = grant(&mut directory, policies, "alice").unwrap_err();
    assert!(why.contains("alice would have more"), "{why}");
    change(&mut directory, "small", PolicyAct::Create(Vec::new())).unwrap();
    change(&mut directory, "small", PolicyAct::Grant(user("alice"))).unwrap();
    assert!(change(&mut directory, "small", PolicyAct::Set(rule(b"x", "read"))).is_err());
    change(&mut directory, "small", PolicyAct::Drop).unwrap();
    assert_eq!(directory.rights_of(user("alice")).len(), USER_RULES_MAX);
    assert_ne!(directory.hash(), before, "the revision counts");

    // Users with each choice of policies have as many rules as there may be.
    for choice in 1_usize..1 << policies {
        let name = format!("u{choice}");
        for number in (0..policies).filter(|number| choice & 1 << number != 0) {
            grant(&mut directory, number, &name).unwrap();
        }
    }
    let why = grant(&mut directory, policies, "one-more").unwrap_err();
    assert!(why.contains("grant the same policies"), "{why}");
    grant(&mut directory, 0, "one-more").unwrap();
    assert_eq!(directory.rights_of(user("one-more")), directory.rights_of(user("u1")));
}

#[test]
fn a_user_has_the_least_of_the_limits_of_its_policies() {
    let mut directory = network();
    let limits = |requests, connections| PolicyLimits { requests, connections, bytes: None };
    for policy in ["p", "q", "r"] {
        change(&mut directory, policy, PolicyAct::Create(Vec::new())).unwrap();
        change(&mut directory, policy, PolicyAct::Grant(user("alice"))).unwrap();
    }
    assert!(directory.limits_of(user("alice")).is_none());
    change(&mut directory, "p", PolicyAct::Limit(limits(Some(10), None))).unwrap();
    change(&mut directory, "q", PolicyAct::Limit(limits(Some(20), Some(3)))).unwrap();
    assert_eq!(directory.limits_of(user("alice")), limits(Some(10), Some(3)));
    assert!(directory.limits_of(user("bob")).is_none());
    let row = directory.take_changes(Bytes::new()).directory.unwrap();
    let mut loaded = Directory::new();
    loaded.row(Table::Directory, &[], &row).unwrap();
    assert_eq!(loaded.limits_of(user("alice")), limits(Some(10), Some(3)));
    let shown: Vec<_> = directory.policies_of(user("alice")).map(|it| it.limits).collect();
    assert_eq!(shown[1], limits(Some(20), Some(3)));
    // A limit that is out of its bounds, and one of a policy that is not there, change nothing.
    let hash = directory.hash();
    assert!(change(&mut directory, "p", PolicyAct::Limit(limits(Some(0), None))).is_err());
    assert!(change(&mut directory, "s", PolicyAct::Limit(limits(Some(1), None))).is_err());
    assert_eq!(directory.hash(), hash);
    change(&mut directory, "p", PolicyAct::Limit(PolicyLimits::default())).unwrap();
    assert_eq!(directory.limits_of(user("alice")).requests, Some(20));
    change(&mut directory, "q", PolicyAct::Revoke(user("alice"))).unwrap();
    assert!(directory.limits_of(user("alice")).is_none());
}
