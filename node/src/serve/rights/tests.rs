use bytes::Bytes;
use dkv_base::id::{HolderId, LeaseId, NetworkId, NodeId, Revision, Serial, SessionId, Stamp};
use dkv_wire::codec::encode;
use dkv_wire::message::{
    Attach, Compare, Condition, Operation, PutAttach, RangeOptions, RightSet, Test,
};
use uuid::Uuid;

use super::*;
use crate::serve::needs::of_each_kind;

const SHARD: GroupId = GroupId(1);

fn granted(rules: &[(&str, &[Right])]) -> Granted {
    let rules = rules.iter().map(|(prefix, rights)| PolicyRule {
        keyspace: None,
        prefix: Bytes::copy_from_slice(prefix.as_bytes()),
        rights: rights.iter().copied().collect::<RightSet>(),
    });
    let (user, keyspace) = ("alice".parse().unwrap(), KeyspaceId(3));
    let (rules, name) = (rules.collect(), "orders".into());
    Granted { user, rules, keyspace, name, is_current: true }
}

fn is_denied(result: &Result<(), Refusal>) -> bool {
    matches!(result, Err(Refusal::Denied(_)))
}

/// Each operation, with whether it reads and whether it writes what begins with `a/`.
fn operations<'a>(nested: &'a [u8]) -> Vec<(TransactionOperation<'a>, bool, bool)> {
    let (key, value, attach) = (b"a/k", b"v", Attach::Ttl(1000));
    let keys = Keys::Prefix(b"a/");
    let put_with = |previous| TransactionOperation::PutWith {
        key,
        value: Some(value),
        attach: PutAttach::Nothing,
        previous,
    };
    vec![
        (TransactionOperation::Get(key), true, false),
        (TransactionOperation::List { keys, keys_max: 1 }, true, false),
        (TransactionOperation::Range { keys, options: RangeOptions::default() }, true, false),
        (TransactionOperation::Put(key, value), false, true),
        (TransactionOperation::PutAttached { key, value, attach }, false, true),
        (put_with(false), false, true),
        (put_with(true), true, true),
        (TransactionOperation::Delete(key), false, true),
        (TransactionOperation::DeleteAll(keys), false, true),
        (TransactionOperation::DeleteWith { keys, previous: false }, false, true),
        (TransactionOperation::DeleteWith { keys, previous: true }, true, true),
        (TransactionOperation::Increment { key, by: 1 }, true, true),
        (TransactionOperation::Append { key, bytes: value }, true, true),
        (TransactionOperation::Nested(nested), true, true),
    ]
}

#[test]
fn each_operation_needs_what_it_does_and_no_more() {
    let compare = Compare { keys: Keys::Key(b"a/k"), test: Test::Exists(true) };
    let nested = Transaction {
        compares: vec![compare],
        otherwise: vec![TransactionOperation::Put(b"a/n", b"v")],
        ..Transaction::default()
    };
    let nested = encode(&nested);
    for (operation, reads, writes) in operations(&nested) {
        for branch in [true, false] {
            let (mut then, mut otherwise) = (vec![operation], Vec::new());
            if !branch {
                std::mem::swap(&mut then, &mut otherwise);
            }
            let body = encode(&Transaction { then, otherwise, ..Transaction::default() });
            let check = |rights: &[Right]| check_transaction(&granted(&[("a/", rights)]), &body);
            let both = [Right::Read, Right::Write];
            assert_eq!(check(&both), Ok(()), "{operation:?}");
            assert_eq!(is_denied(&check(&[Right::Read])), writes, "{operation:?}");
            assert_eq!(is_denied(&check(&[Right::Write])), reads, "{operation:?}");
            assert!(is_denied(&check(&[Right::Watch, Right::Administer])), "{operation:?}");
            let elsewhere = granted(&[("a/k/", &both), ("b", &both)]);
            assert!(is_denied(&check_transaction(&elsewhere, &body)), "{operation:?}");
        }
    }
    // A compare alone tells something, too.
    let body = encode(&Transaction { compares: vec![compare], ..Transaction::default() });
    assert!(is_denied(&check_transaction(&granted(&[("a/", &[Right::Write])]), &body)));
    assert!(matches!(
        check_transaction(&granted(&[("", &Right::ALL)]), b"x"),
        Err(Refusal::Invalid(_))
    ));
}

#[test]
fn each_command_needs_what_it_does() {
    let (session, serial, settled) = (SessionId(Uuid::nil()), Serial(1), Serial(1));
    let (after, condition) = (Stamp::default(), Condition::Always);
    let operation = Operation::Put(b"v");
    let write = Write { session, serial, settled, after, condition, key: b"a/k", operation };
    let body = encode(&Transaction {
        then: vec![TransactionOperation::Put(b"a/k", b"v")],
        ..Transaction::default()
    });
    let transact = Transact { session, serial, settled, after, body: &body };
    let over = TransactOver { session, serial, settled, after, shards: vec![SHARD], body: &body };
    let lease = |action| {
        Command::Lease(LeaseCommand { session, serial, settled, lease: LeaseId(7), action })
    };
    let writing = [
        Command::Write(write),
        Command::WriteAttached(WriteAttached { write, attach: Attach::Ttl(1000) }),
        Command::Transact(transact),
        Command::TransactOver(over),
        lease(LeaseAction::Grant { ttl_ms: 1000 }),
        lease(LeaseAction::GrantTo { ttl_ms: 1000, user: "alice".parse().unwrap() }),
        lease(LeaseAction::Revoke),
    ];
    let reads = granted(&[("", &[Right::Read, Right::Watch, Right::Administer])]);
    for command in &writing {
        let command = encode(command);
        assert_eq!(check_command(&granted(&[("a/", &[Right::Write])]), &command), Ok(()));
        assert!(is_denied(&check_command(&reads, &command)));
    }
    let open = encode(&Command::OpenSession(session));
    assert_eq!(check_command(&granted(&[("a/", &[Right::Read])]), &open), Ok(()));
    // A user who may do nothing takes no room in a log.
    let empty = encode(&Transaction::default());
    let empty = Transact { session, serial, settled, after, body: &empty };
    let empty = encode(&Command::Transact(empty));
    assert_eq!(check_command(&reads, &empty), Ok(()));
    for command in [&open, &empty] {
        assert!(is_denied(&check_command(&granted(&[]), command)));
    }
    let of_nodes = [
        Command::Compact { floor: Revision(1) },
        Command::Cut { moment: Stamp::default() },
        Command::Expire(dkv_wire::message::Expire::Keys),
    ];
    for command in of_nodes {
        let all = granted(&[("", &Right::ALL)]);
        assert!(is_denied(&check_command(&all, &encode(&command))), "{command:?}");
    }
    assert!(matches!(check_command(&reads, b"\xff"), Err(Refusal::Invalid(_))));
}

#[test]
fn a_page_without_keys_is_no_read() {
    let span = |keys_max| Span {
        prefix: Bytes::new(),
        after: Bytes::new(),
        keys_max,
        bytes_max: 1,
        values: true,
    };
    let mode = || dkv_wire::message::ReadMode::Primary;
    let scan = |keys_max| RequestBody::Scan { shard: SHARD, span: span(keys_max), mode: mode() };
    assert!(matches!(Touch::of(&scan(0)), Touch::Receipt(SHARD)));
    assert!(matches!(Touch::of(&scan(1)), Touch::Keys(SHARD, Right::Read, Keys::Prefix([]))));
    // With a part of the keys it might tell something of them.
    for (prefix, after) in [("a", ""), ("", "a")] {
        let (prefix, after) = (Bytes::from(prefix), Bytes::from(after));
        let span = Span { prefix, after, ..span(0) };
        let scan = RequestBody::Scan { shard: SHARD, span, mode: mode() };
        assert!(matches!(Touch::of(&scan), Touch::Keys(SHARD, Right::Read, _)));
    }
    // It stands for the receipt only where a page of none has none.
    let at = dkv_wire::message::Cut::at(Revision(1));
    let scan = RequestBody::ScanAt { shard: SHARD, span: span(0), at };
    assert!(matches!(Touch::of(&scan), Touch::Keys(SHARD, Right::Read, _)));
}

#[test]
fn a_lease_is_for_its_owner_and_for_those_who_may_write_all_keys() {
    let own = granted(&[("a/", &[Right::Write])]);
    let all = granted(&[("", &[Right::Write])]);
    let (alice, bob): (User, User) = ("alice".parse().unwrap(), "bob".parse().unwrap());
    for (owner, may) in [(Some(alice), true), (Some(bob), false), (None, false)] {
        assert_eq!(own.may_use_lease_of(owner), may, "{owner:?}");
        assert!(all.may_use_lease_of(owner), "{owner:?}");
    }
    let (session, serial, settled) = (SessionId(Uuid::nil()), Serial(1), Serial(1));
    let change = |action| LeaseCommand { session, serial, settled, lease: LeaseId(7), action };
    let (ttl_ms, grant) = (1000, change(LeaseAction::Grant { ttl_ms: 1000 }));
    let to = |user| change(LeaseAction::GrantTo { ttl_ms, user });
    assert_eq!(owned(&grant, Some(alice)), Some(to(alice)));
    assert_eq!(owned(&grant, None), None);
    for other in [change(LeaseAction::Revoke), to(bob)] {
        assert_eq!(owned(&other, Some(alice)), None);
    }
    // No user grants one in the name of another, by a request that is made by hand.
    let check = |change| check_command(&own, &encode(&Command::Lease(change)));
    assert_eq!(check(to(alice)), Ok(()));
    assert!(is_denied(&check(to(bob))));
}

#[test]
fn the_leases_of_a_command_are_those_that_it_ends_or_attaches_to() {
    let (session, serial, settled) = (SessionId(Uuid::nil()), Serial(1), Serial(1));
    let (after, condition) = (Stamp::default(), Condition::Always);
    let operation = Operation::Put(b"v");
    let write = Write { session, serial, settled, after, condition, key: b"a/k", operation };
    let value = b"v";
    let to_lease = |number| Attach::Lease(LeaseId(number));
    let attached = |key, attach| TransactionOperation::PutAttached { key, value, attach };
    let put_with = |key, attach| TransactionOperation::PutWith {
        key,
        value: Some(value),
        attach,
        previous: false,
    };
    let otherwise = vec![attached(b"a/1", to_lease(3))];
    let nested = encode(&Transaction { otherwise, ..Transaction::default() });
    let then = vec![
        attached(b"a/2", to_lease(1)),
        put_with(b"a/3", PutAttach::AsBefore),
        attached(b"a/4", Attach::Ttl(9)),
        TransactionOperation::Nested(&nested),
    ];
    let otherwise = vec![put_with(b"a/5", PutAttach::To(to_lease(2)))];
    let body = encode(&Transaction { then, otherwise, ..Transaction::default() });
    let lease = |action| {
        Command::Lease(LeaseCommand { session, serial, settled, lease: LeaseId(7), action })
    };
    let attach = |attach| Command::WriteAttached(WriteAttached { write, attach });
    let cases = [
        (Command::Write(write), vec![]),
        (attach(Attach::Ttl(9)), vec![]),
        (attach(to_lease(4)), vec![4]),
        (lease(LeaseAction::Grant { ttl_ms: 1000 }), vec![]),
        (lease(LeaseAction::Revoke), vec![7]),
        (
            Command::Transact(Transact { session, serial, settled, after, body: &body }),
            vec![1, 2, 3],
        ),
    ];
    for (command, expected) in cases {
        let found: Vec<u64> = leases_of(&command).unwrap().iter().map(|lease| lease.0).collect();
        assert_eq!(found, expected, "{command:?}");
    }
}

#[test]
fn a_directory_that_is_old_or_of_unknown_age_tells_no_rights() {
    for most in [DENIALS_AGE_MAX, POLICIES_AGE_MAX] {
        assert!(is_below(Some(Duration::ZERO), most));
        assert!(is_below(Some(most - Duration::from_millis(1)), most));
        assert!(!is_below(Some(most), most));
        assert!(!is_below(None, most));
    }
}

#[test]
fn what_may_have_been_granted_since_is_not_denied_for_good() {
    let behind = Granted { is_current: false, ..granted(&[("a/", &[Right::Read])]) };
    assert_eq!(behind.check(Right::Read, Keys::Key(b"a/k")), Ok(()));
    for refused in [behind.check(Right::Read, Keys::Key(b"b")), behind.check_some(Right::Write)] {
        assert!(matches!(refused, Err(Refusal::Unavailable(_))), "{refused:?}");
    }
}

#[test]
fn a_request_of_a_user_does_not_outwait_its_rights() {
    let (alice, network): (User, _) = ("alice".parse().unwrap(), NetworkId::random());
    let identity = |user| Identity {
        network,
        role: Role::Client,
        holder: HolderId::from(NodeId::random()),
        user,
    };
    let waits = |peer, user, deadline_ms| {
        let body = RequestBody::View;
        super::deadline_ms(
            identity(peer),
            &Request { id: 1, deadline_ms, forward: true, user, body },
        )
    };
    let longest = u32::try_from(WAIT_MAX.as_millis()).unwrap();
    assert_eq!(waits(None, None, u32::MAX), u32::MAX);
    for (peer, asked) in [(Some(alice), None), (None, Some(alice))] {
        assert_eq!(waits(peer, asked, u32::MAX), longest);
        assert_eq!(waits(peer, asked, 500), 500);
    }
}

#[test]
fn a_refusal_names_user_right_and_keys_and_fits_a_line() {
    let granted = granted(&[]);
    let said = |keys| granted.check(Right::Read, keys).unwrap_err().to_string();
    assert_eq!(
        said(Keys::Key(b"a\n")),
        "denied: user alice may not read key \"a\\n\" in keyspace orders; `dkv ADDRESS whoami` \
         shows what it may"
    );
    assert!(said(Keys::Prefix(b"")).contains("all keys in"));
    assert!(said(Keys::Range(b"a", b"")).contains("from \"a\" on"));
    assert!(said(Keys::Key(&[b'k'; 4096])).len() < 250);
}

#[test]
fn administrators_see_all_policies_and_others_their_own() {
    let (alice, bob): (User, User) = ("alice".parse().unwrap(), "bob".parse().unwrap());
    let identity = |role, user| Identity {
        network: NetworkId::random(),
        role,
        holder: HolderId::from(NodeId::random()),
        user,
    };
    let asks = |role, own, asked| asks_about(identity(role, own), asked).unwrap();
    assert_eq!(asks(Role::Admin, Some(alice), None), None);
    assert_eq!(asks(Role::Admin, Some(alice), Some(bob)), Some(Some(bob)));
    assert_eq!(asks(Role::Client, Some(alice), None), Some(Some(alice)));
    assert_eq!(asks(Role::Client, Some(alice), Some(alice)), Some(Some(alice)));
    // A gateway may ask for its bearer's user, and is a client.
    assert_eq!(asks(Role::Client, None, Some(bob)), Some(Some(bob)));
    for role in [Role::Reader, Role::Server, Role::Node] {
        let others = asks_about(identity(role, None), Some(bob));
        assert!(matches!(others, Err(Refusal::Denied(_))), "{role}");
    }
    assert_eq!(asks(Role::Reader, None, None), Some(None));
    let other = asks_about(identity(Role::Client, Some(alice)), Some(bob));
    assert!(matches!(other, Err(Refusal::Denied(_))));
}

#[test]
fn users_are_judged_by_key_for_each_kind_of_request_that_touches_data() {
    for body in of_each_kind() {
        let is_data = matches!(Needs::of(&body), Needs::Read | Needs::Write);
        assert_eq!(
            is_data,
            !matches!(Touch::of(&body), Touch::Nothing | Touch::ByRole),
            "{body:?}"
        );
    }
}
