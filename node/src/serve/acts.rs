//! What a request is, in words: for the [audit log](dkv_base::audit), and for its denials.
//!
//! The log has all administrative acts and denials, and writes only if the process was asked to.
//! The node that a client asked records its request, not the one to which it was passed on.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use dkv_base::audit::{self, Act, What};
use dkv_base::id::{GroupId, KeyspaceId};
use dkv_base::logging::brief;
use dkv_wire::codec::decode;
use dkv_wire::identity::{Identity, Role};
use dkv_wire::message::{
    Command, Keys, LeaseAction, LeaseCommand, LogChange, Operation, PolicyAct, PolicyChange,
    Refusal, Request, RequestBody, Transact, TransactOver, Transaction, TransactionOperation,
    Write, WriteAttached,
};
use dkv_wire::user::User;

use super::needs::Needs;
use super::rights::{borrowed, shown};
use crate::node::Replicas;

/// Most keys of a transaction that the log has.
const KEYS_TOLD: usize = 8;

/// Returns the act of a request that its sender may make, whose outcome comes with its answer.
pub(super) fn begin(
    replicas: &Replicas,
    peer: Identity,
    address: SocketAddr,
    request: &Request,
) -> Act {
    let who = || peer.audited(request.user, address);
    // What a node passes on was told where it came from. Compaction is for good, and a node may ask
    // for it of its own accord.
    if peer.role == Role::Node && !matches!(request.body, RequestBody::Compact { .. }) {
        return Act::default();
    }
    if let Some(what) = administrative(replicas, &request.body) {
        return match peer.role {
            Role::Admin => audit::act(who(), what),
            // Some of these anybody may do who may write, over and over.
            _ => audit::rated("act", who(), what),
        };
    }
    if audit::wants_writes() && is_write(&request.body) {
        return audit::write(who(), of(replicas, &request.body));
    }
    Act::default()
}

/// Tells that a request was denied, if it was.
pub(super) fn note_denied(
    peer: Identity,
    asked: Option<User>,
    address: SocketAddr,
    refusal: &Refusal,
    what: impl FnOnce() -> What,
) {
    if let Refusal::Denied(why) = refusal {
        audit::denied(peer.audited(asked, address), what(), why);
    }
}

/// Describes a request.
pub(super) fn of(replicas: &Replicas, body: &RequestBody) -> What {
    let keys = |act, shard, keys| on_keys(replicas, act, shard, Some(keys));
    match body {
        RequestBody::Read { shard, key, .. } | RequestBody::ReadAt { shard, key, .. } => {
            keys("read", *shard, Keys::Key(key))
        }
        RequestBody::History { shard, key, .. } => keys("read the history", *shard, Keys::Key(key)),
        RequestBody::KeyTtl { shard, key } => keys("read the time to live", *shard, Keys::Key(key)),
        RequestBody::Scan { shard, span, .. } | RequestBody::ScanAt { shard, span, .. } => {
            keys("list", *shard, Keys::Prefix(&span.prefix))
        }
        RequestBody::Range { shard, keys: range, .. } => keys("list", *shard, borrowed(range)),
        RequestBody::Cut { shard, .. } => on_keys(replicas, "begin a snapshot", *shard, None),
        RequestBody::Deposit { shard, key, value, .. } => {
            let act = if value.is_some() { "put" } else { "delete" };
            keys(act, *shard, Keys::Key(key))
        }
        RequestBody::Propose { shard, command, .. } => of_command(replicas, *shard, command),
        RequestBody::KeepAlive { shard, lease } => {
            What { target: lease.to_string(), ..on_keys(replicas, "keep lease", *shard, None) }
        }
        RequestBody::Leases { shard, .. } => on_keys(replicas, "list leases", *shard, None),
        RequestBody::LeaseInfo { shard, lease, .. } => {
            What { target: lease.to_string(), ..on_keys(replicas, "show lease", *shard, None) }
        }
        RequestBody::Policies => What::new("list policies", ""),
        RequestBody::Log(None) => What::new("show the log's filter", ""),
        RequestBody::Books { .. } => What::new("read the books", ""),
        RequestBody::ChangeBooks(_) => What::new("change the books", ""),
        _ => administrative(replicas, body).unwrap_or_else(|| match Needs::of(body) {
            Needs::Nothing => What::new("look at the network", ""),
            Needs::Role(Role::Node) => What::new("speak as a node", ""),
            Needs::Read | Needs::Write | Needs::Role(_) => What::new("ask", kind_of(body)),
        }),
    }
}

/// The name of a request's kind, for one that has no words of its own.
fn kind_of(body: &RequestBody) -> String {
    format!("{body:?}").split([' ', '(', '{']).next().unwrap_or_default().to_owned()
}

/// Describes a request that changes the network or forgets its history; `None` for any other one.
fn administrative(replicas: &Replicas, body: &RequestBody) -> Option<What> {
    let of_keyspace = |act, id: KeyspaceId, target: String| {
        let keyspace = name_of(replicas, id);
        Some(What { keyspace, ..What::new(act, target) })
    };
    match body {
        RequestBody::RemoveNode(node) => Some(What::new("remove node", node.to_string())),
        RequestBody::ExpelNode(node) => Some(What::new("expel node", node.to_string())),
        RequestBody::Revoke(holder) => Some(What::new("revoke", holder.to_string())),
        RequestBody::Drain { node, on: true } => Some(What::new("drain node", node.to_string())),
        RequestBody::Drain { node, on: false } => {
            Some(What::new("use again node", node.to_string()))
        }
        RequestBody::Compact { shard, floor } => {
            let target = format!("{shard} to revision {floor}");
            Some(What { target, ..on_keys(replicas, "compact shard", *shard, None) })
        }
        RequestBody::Rebalance => Some(What::new("rebalance", "")),
        RequestBody::MovePrimary { shard, to } => {
            let target = format!("{shard}: {to}");
            Some(What { target, ..on_keys(replicas, "move the primary of shard", *shard, None) })
        }
        RequestBody::CreateKeyspace { name, .. } => {
            let name = brief(name);
            Some(What { keyspace: Some(name.clone()), ..What::new("create keyspace", name) })
        }
        RequestBody::SetKeyspace { keyspace, change } => {
            of_keyspace("change keyspace", *keyspace, format!("{keyspace}: {change:?}"))
        }
        RequestBody::DropKeyspace(keyspace) => {
            of_keyspace("drop keyspace", *keyspace, keyspace.to_string())
        }
        RequestBody::Log(Some(change)) => Some(of_log(change)),
        RequestBody::ChangePolicy(change) => Some(of_policy(replicas, change)),
        RequestBody::Log(None) => None,
        // The log has one that is forgotten above all the same.
        _ if Needs::of(body) == Needs::Role(Role::Admin) => Some(What::new("ask", kind_of(body))),
        _ => None,
    }
}

fn of_log(change: &LogChange) -> What {
    What::new("log", format!("\"{}\"", brief(&change.filter)))
}

fn of_policy(replicas: &Replicas, change: &PolicyChange) -> What {
    let policy = brief(&change.policy);
    match &change.act {
        PolicyAct::Create(_) => What::new("create policy", policy),
        PolicyAct::Set(rule) => {
            let keyspace = match rule.keyspace {
                Some(id) => name_of(replicas, id).unwrap_or_else(|| id.to_string()),
                None => "*".into(),
            };
            What {
                keyspace: Some(keyspace),
                keys: Some(shown(Keys::Prefix(&rule.prefix))),
                ..What::new("set policy", format!("{policy}: {}", rule.rights))
            }
        }
        PolicyAct::Drop => What::new("drop policy", policy),
        PolicyAct::Grant(user) => What::new("grant policy", format!("{policy} to {user}")),
        PolicyAct::Limit(limits) => What::new("limit policy", format!("{policy}: {limits}")),
        PolicyAct::Revoke(user) => What::new("revoke policy", format!("{policy} from {user}")),
    }
}

/// Describes a command for the log of a shard.
pub(super) fn of_command(replicas: &Replicas, shard: GroupId, command: &[u8]) -> What {
    let keys = |act, keys| on_keys(replicas, act, shard, Some(keys));
    match decode(command) {
        Ok(Command::Write(Write { key, operation, .. }))
        | Ok(Command::WriteAttached(WriteAttached {
            write: Write { key, operation, .. }, ..
        })) => {
            let act = match operation {
                Operation::Put(_) => "put",
                Operation::Delete => "delete",
            };
            keys(act, Keys::Key(key))
        }
        Ok(Command::Transact(Transact { body, .. }))
        | Ok(Command::TransactOver(TransactOver { body, .. })) => What {
            keys: Some(keys_of_transaction(body)),
            ..on_keys(replicas, "transaction", shard, None)
        },
        Ok(Command::Lease(LeaseCommand { lease, action, .. })) => {
            let act = match action {
                LeaseAction::Grant { .. } | LeaseAction::GrantTo { .. } => "grant lease",
                LeaseAction::Revoke => "revoke lease",
            };
            What { target: lease.to_string(), ..on_keys(replicas, act, shard, None) }
        }
        Ok(Command::OpenSession(_) | Command::OpenSessionOf { .. }) => {
            on_keys(replicas, "open a session", shard, None)
        }
        _ => on_keys(replicas, "propose a command", shard, None),
    }
}

/// Whether a request writes data of its sender.
fn is_write(body: &RequestBody) -> bool {
    match body {
        RequestBody::Deposit { .. } => true,
        RequestBody::Propose { command, .. } => {
            let opens = |command| {
                matches!(command, Command::OpenSession(_) | Command::OpenSessionOf { .. })
            };
            decode(command).is_ok_and(|command| !opens(command))
        }
        _ => false,
    }
}

/// Lists the keys that a transaction may change.
fn keys_of_transaction(body: &[u8]) -> String {
    let mut keys = BTreeSet::new();
    let mut note = |operation: &TransactionOperation<'_>| {
        let changed = match *operation {
            TransactionOperation::Put(key, _)
            | TransactionOperation::PutAttached { key, .. }
            | TransactionOperation::PutWith { key, .. }
            | TransactionOperation::Increment { key, .. }
            | TransactionOperation::Append { key, .. }
            | TransactionOperation::Delete(key) => Keys::Key(key),
            TransactionOperation::DeleteAll(keys)
            | TransactionOperation::DeleteWith { keys, .. } => keys,
            TransactionOperation::Get(_)
            | TransactionOperation::List { .. }
            | TransactionOperation::Range { .. }
            | TransactionOperation::Nested(_) => return Ok(()),
        };
        // One more than the log has shows that there are more.
        if keys.len() <= KEYS_TOLD {
            keys.insert(shown(changed));
        }
        Ok::<(), Refusal>(())
    };
    if let Ok(transaction) = Transaction::decode(body) {
        // A malformed one is refused, and changes nothing.
        let _ = transaction.visit(|_| Ok(()), &mut note);
    }
    let more = if keys.len() > KEYS_TOLD { " and more" } else { "" };
    let told: Vec<String> = keys.into_iter().take(KEYS_TOLD).collect();
    if told.is_empty() { "none".into() } else { told.join(", ") + more }
}

/// Describes something with keys of a shard.
pub(super) fn on_keys(
    replicas: &Replicas,
    act: &'static str,
    shard: GroupId,
    keys: Option<Keys<'_>>,
) -> What {
    let name = replicas.with_directory(|directory| {
        directory.keyspace_of(shard).map(|(_, keyspace)| keyspace.name.clone())
    });
    let keyspace = name.flatten().or_else(|| Some(format!("of shard {shard}")));
    What { keyspace, keys: keys.map(shown), ..What::new(act, "") }
}

fn name_of(replicas: &Replicas, keyspace: KeyspaceId) -> Option<String> {
    let name = replicas.with_directory(|directory| {
        directory.keyspace(keyspace).map(|keyspace| keyspace.name.clone())
    });
    name.flatten()
}

#[cfg(test)]
mod tests {
    use dkv_base::id::{Serial, SessionId, Stamp};
    use dkv_wire::codec::encode;
    use dkv_wire::message::Condition;

    use super::*;

    #[test]
    fn a_long_text_is_cut_before_it_is_logged() {
        let log = |filter: String| of_log(&LogChange { filter, for_ms: None }).to_string();
        assert_eq!(log("debug".into()), "log \"debug\"");
        let told = log("ä\n".repeat(1 << 20));
        assert!(told.len() < 1000 && told.ends_with("...\"") && !told.contains('\n'), "{told}");
    }

    #[test]
    fn the_log_has_the_keys_that_a_transaction_may_change_up_to_a_number() {
        let told = |operations: Vec<TransactionOperation<'_>>| {
            let transaction = Transaction { compares: vec![], then: operations, otherwise: vec![] };
            keys_of_transaction(&encode(&transaction))
        };
        assert_eq!(told(vec![TransactionOperation::Get(b"a")]), "none");
        let some = vec![
            TransactionOperation::Put(b"b\"", b"secret"),
            TransactionOperation::DeleteAll(Keys::Prefix(b"c")),
        ];
        assert_eq!(told(some), "key \"b\\\"\", the keys with prefix \"c\"");
        let names: Vec<String> = (0..100).map(|name| format!("{name:03}")).collect();
        let many = names.iter().map(|name| TransactionOperation::Delete(name.as_bytes()));
        let many = told(many.collect());
        assert!(many.ends_with("key \"007\" and more"), "{many}");
    }

    #[test]
    fn opening_a_session_is_no_write() {
        let propose = |command: &Command<'_>| {
            let (shard, everywhere) = (GroupId(1), false);
            RequestBody::Propose { shard, everywhere, command: encode(command) }
        };
        let session = SessionId::random();
        assert!(!is_write(&propose(&Command::OpenSession(session))));
        let write = Write {
            session,
            serial: Serial(1),
            settled: Serial(1),
            after: Stamp::default(),
            condition: Condition::Always,
            key: b"a",
            operation: Operation::Delete,
        };
        assert!(is_write(&propose(&Command::Write(write))));
        assert!(!is_write(&RequestBody::Status));
    }
}
