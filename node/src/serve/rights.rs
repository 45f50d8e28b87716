//! The rights of users: what a request does with which keys, and whether its user may.
//!
//! Every request of a client is judged by each node that it reaches, before it is served, forwarded
//! or relayed; the steps of a transaction go between nodes in their own name. The rules are those
//! of the directory as this node has applied it, so a change is in force here with its entry of the
//! log; a node that does not hear from the control group any more serves no users after a while. A
//! holder that is nobody's, as nodes are, is limited by its role alone.
//!
//! What a request touches is said here without a wildcard: a new kind of request does not compile
//! until it has a rule. A refusal depends on the request and the policies only, never on what is
//! stored, so it tells nothing about keys; only that of a lease depends on its owner.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use dkv_base::id::{GroupId, KeyspaceId, LeaseId};
use dkv_wire::codec::decode;
use dkv_wire::identity::{Identity, Role};
use dkv_wire::message::{
    Attach, Command, KeyRange, Keys, LeaseAction, LeaseCommand, PolicyRule, PutAttach, Refusal,
    Request, RequestBody, Right, Span, Transact, TransactOver, Transaction, TransactionOperation,
    WatchRequest, Write, WriteAttached, allows, allows_some,
};
use dkv_wire::user::User;

use super::needs::Needs;
use crate::node::{Node, Replicas};
use crate::replica::Replica;

/// Most bytes of a key that a refusal shows.
const SHOWN_BYTES: usize = 64;
/// Age from which on the directory here is too old to tell what users may. Longer than an election
/// takes, or the way of an entry to a node that is far away.
const POLICIES_AGE_MAX: Duration = Duration::from_secs(60);
/// Age from which on a right that is missing here may have been granted since, so that nothing is
/// denied for good. Longer than the usual age on a node that is far away, and no longer than a
/// change of a policy waits for the nodes: whom a change has been answered to meets no denial of
/// what it granted.
pub(super) const DENIALS_AGE_MAX: Duration = Duration::from_secs(3);

/// Longest time that a request of a user may wait once it is judged, whatever its deadline: what it
/// does must not come long after the right to do it is gone. A client sends it again.
const WAIT_MAX: Duration = Duration::from_secs(10);

/// What a request does, as far as rights are concerned.
enum Touch<'a> {
    /// No key. The role alone decides.
    Nothing,
    /// It changes the network, or is between nodes. No client does that for a user.
    ByRole,
    /// Something with keys of a shard.
    Keys(GroupId, Right, Keys<'a>),
    /// Something that concerns no key in particular; a right to any key of the keyspace will do.
    Some(GroupId, Right),
    /// The state of a shard without any keys: its revision. Any right in the keyspace will do.
    Receipt(GroupId),
    /// What a command for the log of a shard does.
    Command(GroupId, &'a [u8]),
}

/// All keys of a keyspace.
const ALL: Keys<'static> = Keys::Prefix(&[]);

impl<'a> Touch<'a> {
    fn of(body: &'a RequestBody) -> Self {
        match body {
            RequestBody::Read { shard, key, .. }
            | RequestBody::ReadAt { shard, key, .. }
            | RequestBody::History { shard, key, .. }
            | RequestBody::KeyTtl { shard, key } => Self::Keys(*shard, Right::Read, Keys::Key(key)),
            RequestBody::Scan { shard, span, .. } if is_receipt(span) => Self::Receipt(*shard),
            RequestBody::Scan { shard, span, .. } | RequestBody::ScanAt { shard, span, .. } => {
                Self::Keys(*shard, Right::Read, Keys::Prefix(&span.prefix))
            }
            RequestBody::Range { shard, keys, .. } => {
                Self::Keys(*shard, Right::Read, borrowed(keys))
            }
            RequestBody::Deposit { shard, key, .. } => {
                Self::Keys(*shard, Right::Write, Keys::Key(key))
            }
            RequestBody::Propose { shard, command, .. } => Self::Command(*shard, command),
            RequestBody::Compact { shard, .. } => Self::Keys(*shard, Right::Administer, ALL),
            // The moment of a snapshot, whose pages are judged one by one.
            RequestBody::Cut { shard, .. } => Self::Some(*shard, Right::Read),
            // Whose lease it is the primary judges, which knows.
            RequestBody::KeepAlive { shard, .. } => Self::Some(*shard, Right::Write),
            // They show leases of others, and the keys of those.
            RequestBody::Leases { shard, .. } | RequestBody::LeaseInfo { shard, .. } => {
                Self::Keys(*shard, Right::Read, ALL)
            }
            // A kind that reads or writes keys and is forgotten above is refused to users.
            _ => match Needs::of(body) {
                Needs::Nothing => Self::Nothing,
                Needs::Read | Needs::Write | Needs::Role(_) => Self::ByRole,
            },
        }
    }
}

/// Whether no key is asked for: a client looks for a replica, as before a watch. A span of some
/// keys only would tell, by the time that the answer takes, whether a transaction has locked one.
fn is_receipt(span: &Span) -> bool {
    span.keys_max == 0 && span.prefix.is_empty() && span.after.is_empty()
}

/// Checks that the user of a peer, and the one that it asks for, may do what a request does.
///
/// # Errors
/// [`Refusal::Denied`], or [`Refusal::Unavailable`] if this node does not know the shard yet, or
/// cannot know the policies of now.
pub(super) fn check(node: &Node, peer: Identity, request: &Request) -> Result<(), Refusal> {
    if request.user.is_some() && matches!(Touch::of(&request.body), Touch::ByRole) {
        let why = "this is not done for a user, only in one's own name";
        return Err(Refusal::Denied(why.into()));
    }
    if request.forward && both(peer.user, request.user).count() > 1 {
        // The request names one user only when it is passed on.
        let why = "a user's request for another user is not passed on";
        return Err(Refusal::Denied(why.into()));
    }
    for user in both(peer.user, request.user) {
        check_body(node.replicas(), user, &request.body)?;
    }
    Ok(())
}

/// Returns the time for which a request may wait, in milliseconds.
pub(super) fn deadline_ms(peer: Identity, request: &Request) -> u32 {
    match both(peer.user, request.user).next() {
        Some(_) => request.deadline_ms.min(u32::try_from(WAIT_MAX.as_millis()).unwrap_or(u32::MAX)),
        None => request.deadline_ms,
    }
}

/// Checks that a watch may begin, or go on.
///
/// # Errors
/// As for [`check`].
pub(super) fn check_watch(
    node: &Node,
    peer: Identity,
    request: &WatchRequest,
) -> Result<(), Refusal> {
    for user in both(peer.user, request.user) {
        let granted = Granted::of(node.replicas(), user, request.shard)?;
        granted.check(Right::Watch, borrowed(&request.keys))?;
    }
    Ok(())
}

/// Checks that the users of a request may use the leases that a command ends or attaches keys to,
/// on the primary, which knows to whom they were granted.
///
/// # Errors
/// As for [`check`].
pub(super) fn check_leases_of(
    node: &Node,
    users: impl Iterator<Item = User>,
    replica: &Replica,
    command: &Command<'_>,
) -> Result<(), Refusal> {
    let mut users = users.peekable();
    if users.peek().is_none() {
        return Ok(());
    }
    check_leases(node, users, replica, &leases_of(command)?)
}

/// Checks that the users of a request may use these leases, on the primary. Another user who
/// could end a lease, or keep it alive, would do so to keys that it may not write.
///
/// # Errors
/// As for [`check`].
pub(super) fn check_leases(
    node: &Node,
    users: impl Iterator<Item = User>,
    replica: &Replica,
    leases: &BTreeSet<LeaseId>,
) -> Result<(), Refusal> {
    if leases.is_empty() {
        return Ok(());
    }
    // Another node may not know all leases. Neither does a primary before it has applied all that
    // was committed before its term: the lease of another user that it lacks would pass.
    if !replica.leads() {
        return Err(Refusal::NotPrimary { primary: replica.leader() });
    }
    if !replica.knows_all() {
        let why = "this primary was just elected, and does not know all leases yet";
        return Err(Refusal::Unavailable(why.into()));
    }
    for user in users {
        let granted = Granted::of(node.replicas(), user, replica.id())?;
        for lease in leases {
            let found = replica.state_machine().with_shard(|shard| shard.lease(*lease));
            if let Some(found) = found.flatten()
                && !granted.may_use_lease_of(found.owner)
            {
                return Err(granted.denied(Right::Write, &format!("keys of lease {lease}")));
            }
        }
    }
    Ok(())
}

/// Returns the change of a lease that a node makes of one that is asked for a user, if that is
/// another one: a grant names its owner.
pub(super) fn owned(change: &LeaseCommand, user: Option<User>) -> Option<LeaseCommand> {
    let LeaseAction::Grant { ttl_ms } = change.action else { return None };
    user.map(|user| LeaseCommand { action: LeaseAction::GrantTo { ttl_ms, user }, ..*change })
}

/// Returns the leases that a command ends or attaches keys to.
fn leases_of(command: &Command<'_>) -> Result<BTreeSet<LeaseId>, Refusal> {
    let mut leases = BTreeSet::new();
    match *command {
        Command::Lease(LeaseCommand { action: LeaseAction::Revoke, lease, .. })
        | Command::WriteAttached(WriteAttached { attach: Attach::Lease(lease), .. }) => {
            leases.insert(lease);
        }
        Command::Transact(Transact { body, .. })
        | Command::TransactOver(TransactOver { body, .. }) => {
            let attaches = |operation: &TransactionOperation<'_>| {
                if let TransactionOperation::PutAttached { attach: Attach::Lease(lease), .. }
                | TransactionOperation::PutWith {
                    attach: PutAttach::To(Attach::Lease(lease)),
                    ..
                } = *operation
                {
                    leases.insert(lease);
                }
                Ok::<(), Refusal>(())
            };
            Transaction::decode(body)?.visit(|_| Ok(()), attaches)?;
        }
        _ => {}
    }
    Ok(leases)
}

/// Whether a request is for a user whose rights may be to some keys only.
pub(super) fn is_limited(peer: Identity, asked: Option<User>) -> bool {
    asked.is_some() || (peer.role != Role::Admin && peer.user.is_some())
}

/// The users of a request, each once: that of the peer, and the one that it asks for.
pub(super) fn both(peer: Option<User>, asked: Option<User>) -> impl Iterator<Item = User> {
    peer.into_iter().chain(asked.filter(|user| Some(*user) != peer))
}

fn check_body(replicas: &Replicas, user: User, body: &RequestBody) -> Result<(), Refusal> {
    match Touch::of(body) {
        Touch::Nothing | Touch::ByRole => Ok(()),
        Touch::Keys(shard, right, keys) => Granted::of(replicas, user, shard)?.check(right, keys),
        Touch::Some(shard, right) => Granted::of(replicas, user, shard)?.check_some(right),
        Touch::Receipt(shard) => Granted::of(replicas, user, shard)?.check_any(),
        Touch::Command(shard, command) => {
            check_command(&Granted::of(replicas, user, shard)?, command)
        }
    }
}

fn check_command(granted: &Granted, command: &[u8]) -> Result<(), Refusal> {
    let command: Command<'_> =
        decode(command).map_err(|error| Refusal::Invalid(error.to_string()))?;
    match command {
        // It writes no key, but takes room in the log.
        Command::OpenSession(_) | Command::OpenSessionOf { .. } => granted.check_any(),
        Command::Write(Write { key, .. })
        | Command::WriteAttached(WriteAttached { write: Write { key, .. }, .. }) => {
            granted.check(Right::Write, Keys::Key(key))
        }
        Command::Transact(Transact { body, .. })
        | Command::TransactOver(TransactOver { body, .. }) => check_transaction(granted, body),
        // Whose lease it is that ends, or that a write attaches its key to, the primary judges,
        // which knows.
        Command::Lease(LeaseCommand { action, lease, .. }) => match action {
            LeaseAction::Grant { .. } | LeaseAction::Revoke => granted.check_some(Right::Write),
            LeaseAction::GrantTo { user, .. } if granted.may_use_lease_of(Some(user)) => {
                granted.check_some(Right::Write)
            }
            LeaseAction::GrantTo { .. } => {
                Err(granted.denied(Right::Write, &format!("keys of lease {lease}")))
            }
        },
        Command::Deposited(_)
        | Command::Compact { .. }
        | Command::Expire(_)
        | Command::Cut { .. }
        | Command::Prepare(_)
        | Command::Decide(_)
        | Command::Finish { .. }
        | Command::Resolve { .. }
        | Command::Forget(_) => Err(Refusal::Denied("only nodes propose this".into())),
    }
}

/// Checks every compare and every operation, whether or not it will be executed.
fn check_transaction(granted: &Granted, body: &[u8]) -> Result<(), Refusal> {
    // One without compares and operations takes room in the log, too.
    granted.check_any()?;
    Transaction::decode(body)?.visit(
        |compare| granted.check(Right::Read, compare.keys),
        |operation| check_operation(granted, operation),
    )
}

fn check_operation(granted: &Granted, operation: &TransactionOperation<'_>) -> Result<(), Refusal> {
    let (keys, reads, writes) = match *operation {
        TransactionOperation::Get(key) => (Keys::Key(key), true, false),
        TransactionOperation::List { keys, .. } | TransactionOperation::Range { keys, .. } => {
            (keys, true, false)
        }
        TransactionOperation::Put(key, _)
        | TransactionOperation::PutAttached { key, .. }
        | TransactionOperation::Delete(key) => (Keys::Key(key), false, true),
        TransactionOperation::DeleteAll(keys) => (keys, false, true),
        // They tell what the value has become.
        TransactionOperation::Increment { key, .. } | TransactionOperation::Append { key, .. } => {
            (Keys::Key(key), true, true)
        }
        TransactionOperation::PutWith { key, previous, .. } => (Keys::Key(key), previous, true),
        TransactionOperation::DeleteWith { keys, previous } => (keys, previous, true),
        // Its own parts are visited.
        TransactionOperation::Nested(_) => return Ok(()),
    };
    if reads {
        granted.check(Right::Read, keys)?;
    }
    if writes {
        granted.check(Right::Write, keys)?;
    }
    Ok(())
}

/// What a user may do in a keyspace.
struct Granted {
    user: User,
    rules: Arc<[PolicyRule]>,
    keyspace: KeyspaceId,
    name: String,
    /// Whether there are no newer rules that this node should know.
    is_current: bool,
}

impl Granted {
    fn of(replicas: &Replicas, user: User, shard: GroupId) -> Result<Self, Refusal> {
        // The age first: the rules are no older.
        let age = replicas.directory_age();
        if !is_below(age, POLICIES_AGE_MAX) {
            let why = "this node has not heard from the control group for a minute, and cannot \
                       know what users may; another node may";
            return Err(Refusal::Unavailable(why.into()));
        }
        let found = replicas.with_directory(|directory| {
            let (keyspace, info) = directory.keyspace_of(shard)?;
            let (rules, name) = (directory.rights_of(user), info.name.clone());
            let is_current = is_below(age, DENIALS_AGE_MAX);
            Some(Self { user, rules, keyspace, name, is_current })
        });
        found.flatten().ok_or_else(|| match replicas.no_such_shard(shard) {
            // The directory here may be behind: nobody is let through, or sent away, for that.
            Refusal::Invalid(why) => Refusal::Unavailable(why),
            refusal => refusal,
        })
    }

    fn has(&self, right: Right, keys: Keys<'_>) -> bool {
        allows(&self.rules, right, self.keyspace, keys)
    }

    fn check(&self, right: Right, keys: Keys<'_>) -> Result<(), Refusal> {
        if self.has(right, keys) { Ok(()) } else { Err(self.denied(right, &shown(keys))) }
    }

    /// Whether the user may use a lease that was granted to somebody, if to a user at all: its own,
    /// or any if it may write all keys that a lease may have.
    fn may_use_lease_of(&self, owner: Option<User>) -> bool {
        owner == Some(self.user) || self.has(Right::Write, ALL)
    }

    fn check_some(&self, right: Right) -> Result<(), Refusal> {
        if allows_some(&self.rules, right, self.keyspace) {
            return Ok(());
        }
        Err(self.denied(right, "any keys"))
    }

    /// Checks that the user has some right in the keyspace.
    fn check_any(&self) -> Result<(), Refusal> {
        let mut all = Right::ALL.into_iter();
        match all.any(|right| allows_some(&self.rules, right, self.keyspace)) {
            true => Ok(()),
            false => Err(self.denied(Right::Watch, "any keys")),
        }
    }

    fn denied(&self, right: Right, keys: &str) -> Refusal {
        let Self { user, name, is_current, .. } = self;
        if !is_current {
            return Refusal::Unavailable(format!(
                "this node has not heard from the control group for some seconds, and does not \
                 know yet whether user {user} may {right} {keys} in keyspace {name}; another node \
                 may"
            ));
        }
        Refusal::Denied(format!(
            "user {user} may not {right} {keys} in keyspace {name}; `dkv ADDRESS whoami` shows \
             what it may"
        ))
    }
}

/// Whether a directory is of a known age, and younger than that.
fn is_below(age: Option<Duration>, most: Duration) -> bool {
    age.is_some_and(|age| age < most)
}

/// Returns a range with borrowed bounds.
pub(super) fn borrowed(keys: &KeyRange) -> Keys<'_> {
    match keys {
        KeyRange::Key(key) => Keys::Key(key),
        KeyRange::Prefix(prefix) => Keys::Prefix(prefix),
        KeyRange::Range(from, to) => Keys::Range(from, to),
    }
}

/// Describes keys in a refusal, and in the audit log.
pub(super) fn shown(keys: Keys<'_>) -> String {
    let quoted = |bytes: &[u8]| {
        let shown = bytes.get(..SHOWN_BYTES).unwrap_or(bytes).escape_ascii();
        let more = if bytes.len() > SHOWN_BYTES { "..." } else { "" };
        format!("\"{shown}{more}\"")
    };
    match keys {
        Keys::Key(key) => format!("key {}", quoted(key)),
        Keys::Prefix([]) => "all keys".into(),
        Keys::Prefix(prefix) => format!("the keys with prefix {}", quoted(prefix)),
        Keys::Range(from, []) => format!("the keys from {} on", quoted(from)),
        Keys::Range(from, to) => format!("the keys from {} to {}", quoted(from), quoted(to)),
    }
}

/// Returns the users of a request of this peer whose policies it may see: its own, or the one for
/// whom it asks if it is nobody's; `None` for all, which administrators see.
///
/// # Errors
/// [`Refusal::Denied`] to a user who asks for another one.
pub(super) fn asks_about(
    peer: Identity,
    asked: Option<User>,
) -> Result<Option<Option<User>>, Refusal> {
    let is_admin = peer.role == Role::Admin;
    match (peer.user, asked) {
        (_, None) if is_admin => Ok(None),
        (Some(own), Some(other)) if own != other && !is_admin => {
            Err(Refusal::Denied(format!("user {own} may see its own policies only")))
        }
        // A gateway asks for the users of its bearers, and is a client.
        (None, Some(user)) if !matches!(peer.role, Role::Client | Role::Admin) => {
            let role = peer.role;
            Err(Refusal::Denied(format!("a {role} may not see the policies of user {user}")))
        }
        (own, asked) => Ok(Some(asked.or(own))),
    }
}

#[cfg(test)]
mod tests;
