//! The data plane: requests for keys and their values.

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;
use dkv_base::id::{GroupId, Revision, Stamp, Term};
use dkv_state::{ShardState, check_key, check_lease};
use dkv_wire::codec::decode;
use dkv_wire::identity::{Identity, Role};
use dkv_wire::limits;
use dkv_wire::message::{
    Answer, Command, KeyRange, Level, Prepare, ReadBounds, ReadMode, Receipt, Refusal, RequestBody,
    Span, Transact, TransactOver, Write, WriteAttached,
};
use tokio::time::Instant;

use super::acts;
use super::context::RequestContext;
use super::eventual_reads;
use super::eventual_writes::{self, Deposit};
use super::history;
use super::level_all;
use super::rights;
use super::transactions;
use crate::net::reply::ReplyTo;
use crate::node::{Node, Replicas};
use crate::raft::{HistoryQuery, LeaseQuery, RangeQuery};
use crate::replica::Replica;
use crate::replica::backlog::Place;
use crate::replica::strong_reads::{PendingRead, ReadQuery};
use crate::replica::write_batches::PendingWrite;

/// Time after which to try again if too many cuts are being made, in milliseconds.
const CUT_RETRY_MS: u32 = 20;

/// Proposes a command to a shard that this node leads, and with `everywhere` waits until every
/// replica has it.
pub(super) fn propose(
    context: &RequestContext<'_>,
    shard: GroupId,
    everywhere: bool,
    command: Bytes,
    reply: ReplyTo,
) {
    let Some(replica) = shard_here(context.node.replicas(), shard) else {
        return reply.refuse(elsewhere(context.node, shard));
    };
    let at_level = |reply| match everywhere {
        true => at_all(&replica, context.deadline_ms, reply),
        false => reply,
    };
    let reply = match decode(&command) {
        // The results are read last: there must be room for them until they are written.
        Ok(Command::Transact(transact)) => {
            let body = command.slice_ref(transact.body);
            at_level(transactions::with_results(&replica, body, reply))
        }
        Ok(Command::Prepare(prepare)) => {
            let reply = at_level(reply);
            transactions::with_foreseen(&replica, command.slice_ref(prepare.body), reply)
        }
        Ok(Command::TransactOver(_)) => {
            return match may_write(context, &replica, &command) {
                Ok(()) => transactions::drive(context, &replica, &command, at_level(reply)),
                Err(refusal) => context
                    .refuse(refusal, reply, |replicas| acts::of_command(replicas, shard, &command)),
            };
        }
        _ => at_level(reply),
    };
    write(context, &replica, command, reply);
}

/// Takes an eventual write into this node's outbox.
pub(super) fn deposit(context: &RequestContext<'_>, deposit: Deposit, reply: ReplyTo) {
    eventual_writes::take(context.node, deposit, reply);
}

/// Reads a key.
pub(super) fn read(
    context: &RequestContext<'_>,
    shard: GroupId,
    key: Bytes,
    mode: ReadMode,
    reply: ReplyTo,
) {
    let Some(replica) = shard_here(context.node.replicas(), shard) else {
        return reply.refuse(elsewhere(context.node, shard));
    };
    if key.is_empty() || key.len() > limits::KEY_BYTES_MAX {
        return reply.refuse(Refusal::Invalid("a key has 1 to 4096 bytes".into()));
    }
    read_by_mode(context, &replica, ReadQuery::Key(key), mode, reply);
}

/// Reads a page of keys.
pub(super) fn scan(
    context: &RequestContext<'_>,
    shard: GroupId,
    span: Span,
    mode: ReadMode,
    reply: ReplyTo,
) {
    let Some(replica) = shard_here(context.node.replicas(), shard) else {
        return reply.refuse(elsewhere(context.node, shard));
    };
    if span.prefix.len().max(span.after.len()) > limits::KEY_BYTES_MAX {
        return reply.refuse(Refusal::Invalid("a key has at most 4096 bytes".into()));
    }
    read_by_mode(context, &replica, ReadQuery::Page(span, Vec::new()), mode, reply);
}

/// Reads the keys of a range with their versions.
pub(super) fn range(
    context: &RequestContext<'_>,
    shard: GroupId,
    query: RangeQuery,
    mode: ReadMode,
    reply: ReplyTo,
) {
    let Some(replica) = shard_here(context.node.replicas(), shard) else {
        return reply.refuse(elsewhere(context.node, shard));
    };
    let RangeQuery { keys, after, bytes_max, .. } = &query;
    let bounds = match keys {
        KeyRange::Key(key) | KeyRange::Prefix(key) => [key, after, after],
        KeyRange::Range(from, to) => [from, to, after],
    };
    if bounds.iter().any(|bound| bound.len() > limits::KEY_BYTES_MAX) {
        return reply.refuse(Refusal::Invalid("a key has at most 4096 bytes".into()));
    }
    let query = RangeQuery { bytes_max: (*bytes_max).min(limits::SCAN_BYTES_MAX), ..query };
    let mode = reaching(mode, query.options.at);
    let query = ReadQuery::History(HistoryQuery::Range(query));
    read_by_mode(context, &replica, query, mode, reply);
}

/// Returns the mode of a read at a revision: an eventual one waits until the replica has reached
/// it.
fn reaching(mode: ReadMode, at: Option<Revision>) -> ReadMode {
    match (mode, at) {
        (ReadMode::Eventual(bounds), Some(at)) => {
            let at_least = bounds.at_least.max(at);
            ReadMode::Eventual(ReadBounds { at_least, ..bounds })
        }
        (mode, _) => mode,
    }
}

/// Cuts the history of a shard that this node leads, for a snapshot.
pub(super) fn cut(context: &RequestContext<'_>, shard: GroupId, moment: Stamp, reply: ReplyTo) {
    let node = context.node;
    let Some(replica) = shard_here(node.replicas(), shard) else {
        return reply.refuse(elsewhere(node, shard));
    };
    if !node.clock().allows(moment) {
        let why = "the moment is more than an hour ahead of this node's clock";
        return reply.refuse(Refusal::Invalid(why.into()));
    }
    if node.store().disk_full() {
        return reply.refuse(disk_full());
    }
    let Some(permit) = replica.may_cut() else {
        return reply.refuse(Refusal::Overloaded { retry_after_ms: CUT_RETRY_MS });
    };
    let patience = context.patience();
    let cutting = Arc::clone(&replica);
    replica.spawn(async move {
        let _permit = permit;
        let cut = tokio::time::timeout(patience, cutting.cut(moment)).await;
        reply.send(match cut {
            Ok(Ok(Some((term, cut)))) => {
                let receipt = cutting.who().receipt(term, Level::Strong, Some(0));
                let receipt = Receipt { revision: cut.revision, stamp: moment, ..receipt };
                Ok(Answer::Cut(receipt, cut))
            }
            // It has written too much since that moment; a later one will do.
            Ok(Ok(None)) => Err(Refusal::Compacted {
                floor: cutting.state_machine().with_shard(ShardState::floor).unwrap_or_default(),
            }),
            Ok(Err(error)) => Err(error.into()),
            Err(_) => Err(Refusal::Unavailable("no quorum accepted it before its deadline".into())),
        });
    });
}

/// Answers a request about the history of a shard.
pub(super) fn history(
    context: &RequestContext<'_>,
    shard: GroupId,
    body: RequestBody,
    reply: ReplyTo,
) {
    match shard_here(context.node.replicas(), shard) {
        Some(replica) => history::serve(&replica, body, context.deadline_ms, reply),
        None => reply.refuse(elsewhere(context.node, shard)),
    }
}

/// Answers a question about leases or expiry.
pub(super) fn about_leases(
    context: &RequestContext<'_>,
    shard: GroupId,
    query: LeaseQuery,
    reply: ReplyTo,
) {
    let Some(replica) = shard_here(context.node.replicas(), shard) else {
        return reply.refuse(elsewhere(context.node, shard));
    };
    let checked = match &query {
        LeaseQuery::KeepAlive(lease) => check_lease(*lease).and_then(|()| {
            let users = rights::both(context.peer.user, context.user);
            rights::check_leases(context.node, users, &replica, &BTreeSet::from([*lease]))
        }),
        LeaseQuery::Lease { lease, after, .. } if after.len() <= limits::KEY_BYTES_MAX => {
            check_lease(*lease)
        }
        LeaseQuery::Lease { .. } => Err(Refusal::Invalid("a key has at most 4096 bytes".into())),
        LeaseQuery::Leases { .. } => Ok(()),
        LeaseQuery::Key(key) => check_key(key),
    };
    match checked {
        Ok(()) => {
            replica.read(PendingRead { query: ReadQuery::Lease(query), anywhere: false, reply });
        }
        Err(refusal) => context.refuse(refusal, reply, |replicas| {
            acts::on_keys(replicas, "keep a lease", shard, None)
        }),
    }
}

/// Tells another replica how far a group that this node leads is committed. `followed` is the term
/// in which the sender follows this node.
pub(super) fn committed(
    context: &RequestContext<'_>,
    group: GroupId,
    followed: Option<Term>,
    reply: ReplyTo,
) {
    match context.node.group(group) {
        Some(replica) => replica.tell_committed(context.peer.as_node().zip(followed), reply),
        None => reply.refuse(elsewhere(context.node, group)),
    }
}

/// Tells the primary when the replica here has applied an entry.
pub(super) fn reach(context: &RequestContext<'_>, group: GroupId, index: u64, reply: ReplyTo) {
    match context.node.group(group) {
        Some(replica) => level_all::report(&replica, index, context.deadline_ms, reply),
        None => reply.refuse(elsewhere(context.node, group)),
    }
}

pub(super) fn shard_here(replicas: &Replicas, shard: GroupId) -> Option<Arc<Replica>> {
    if shard.is_shard() { replicas.get(shard) } else { None }
}

/// The refusal of a node that does not hold a shard.
pub(super) fn elsewhere(node: &Node, shard: GroupId) -> Refusal {
    match node.replicas().knows_shard(shard) {
        true => Refusal::NotPrimary {
            // A node that should have a replica knows who leads.
            primary: node.primary_of(shard).or_else(|| node.holder_of(shard, &BTreeSet::new())),
        },
        false => node.replicas().no_such_shard(shard),
    }
}

fn read_by_mode(
    context: &RequestContext<'_>,
    replica: &Arc<Replica>,
    query: ReadQuery,
    mode: ReadMode,
    reply: ReplyTo,
) {
    let node = context.node;
    let (anywhere, reply) = match mode {
        ReadMode::Eventual(bounds) => {
            return eventual_reads::read(node, replica, query, bounds, reply);
        }
        ReadMode::Held => {
            return eventual_reads::read(node, replica, query, ReadBounds::default(), reply);
        }
        ReadMode::Primary => (false, reply),
        ReadMode::Replica => (true, reply),
        ReadMode::All => (false, at_all(replica, context.deadline_ms, reply)),
    };
    replica.read(PendingRead { query, anywhere, reply });
}

/// The destination of an answer that is to wait for every replica.
fn at_all(replica: &Arc<Replica>, deadline_ms: u32, mut reply: ReplyTo) -> ReplyTo {
    let (here, done) = reply.part();
    level_all::answer(replica, done, deadline_ms, reply);
    here
}

fn write(context: &RequestContext<'_>, replica: &Replica, command: Bytes, reply: ReplyTo) {
    if let Err(refusal) = may_write(context, replica, &command) {
        return context
            .refuse(refusal, reply, |replicas| acts::of_command(replicas, replica.id(), &command));
    }
    let expires = Instant::now() + context.patience();
    let (holder, place) = (context.peer.holder, Place::default());
    replica.write(PendingWrite { command, holder, expires, reply, place });
}

/// Checks that a command is valid, that there is room for it, and that it may go into the log in
/// the name of its sender.
fn may_write(
    context: &RequestContext<'_>,
    replica: &Replica,
    command: &Bytes,
) -> Result<(), Refusal> {
    let node = context.node;
    let valid = dkv_state::validate(command, node.settings().value_bytes_max);
    valid.and_then(|command| {
        may_propose(context, replica, &command)?;
        replica.check_quota(&command)
    })?;
    if node.store().disk_full() {
        return Err(disk_full());
    }
    Ok(())
}

fn disk_full() -> Refusal {
    let why = "the disk of the primary is full; writes go on once there is room on it";
    Refusal::Unavailable(why.into())
}

/// Checks that a command may be passed on to another node, where it arrives in this node's name.
pub(super) fn may_pass_on(peer: Identity, command: &[u8]) -> Result<(), Refusal> {
    let command = decode(command).map_err(|error| Refusal::Invalid(error.to_string()))?;
    if matches!(command, Command::Deposited(_)) {
        return Err(Refusal::Denied("what is in an outbox is not passed on".into()));
    }
    may_name(peer, &command)
}

/// Checks that a command is one that its sender may send, or that names its sender.
fn may_name(peer: Identity, command: &Command<'_>) -> Result<(), Refusal> {
    if peer.role == Role::Node {
        return Ok(());
    }
    match command {
        Command::OpenSessionOf { holder, .. } if *holder != peer.holder => {
            Err(Refusal::Denied("a client may open sessions only in its own name".into()))
        }
        Command::Prepare(_)
        | Command::Decide(_)
        | Command::Finish { .. }
        | Command::Resolve { .. }
        | Command::Forget(_) => {
            Err(Refusal::Denied("only nodes may send the steps of a transaction".into()))
        }
        _ => Ok(()),
    }
}

/// Checks that a command may go into the log in the name of its sender.
fn may_propose(
    context: &RequestContext<'_>,
    replica: &Replica,
    command: &Command<'_>,
) -> Result<(), Refusal> {
    let peer = context.peer;
    let users = rights::both(peer.user, context.user);
    rights::check_leases_of(context.node, users, replica, command)?;
    may_name(peer, command)?;
    match command {
        Command::OpenSession(_) | Command::OpenSessionOf { .. } | Command::Lease(_) => Ok(()),
        Command::Compact { .. } => {
            Err(Refusal::Denied("only a node may propose a compaction".into()))
        }
        Command::Cut { .. } => Err(Refusal::Denied("only a node may propose a cut".into())),
        Command::Expire(_) => Err(Refusal::Denied("only a node may propose an expiry".into())),
        Command::Decide(_)
        | Command::Finish { .. }
        | Command::Resolve { .. }
        | Command::Forget(_) => Ok(()),
        Command::Write(Write { after, .. })
        | Command::WriteAttached(WriteAttached { write: Write { after, .. }, .. })
        | Command::Transact(Transact { after, .. })
        | Command::TransactOver(TransactOver { after, .. })
        | Command::Prepare(Prepare { after, .. })
            if context.node.clock().allows(*after) =>
        {
            Ok(())
        }
        Command::Write(_)
        | Command::WriteAttached(_)
        | Command::Transact(_)
        | Command::TransactOver(_)
        | Command::Prepare(_) => Err(Refusal::Invalid(
            "the stamp of the write is more than an hour ahead of this node's clock".into(),
        )),
        Command::Deposited(deposited) if peer.as_node() == Some(deposited.node) => Ok(()),
        Command::Deposited(_) => {
            Err(Refusal::Denied("only a node may deliver from its outbox".into()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_eventual_read_at_a_revision_waits_for_it() {
        let eventual = |at_least| {
            let bounds = ReadBounds { at_least: Revision(at_least), ..ReadBounds::default() };
            ReadMode::Eventual(bounds)
        };
        for (asked, at, bound) in [(0, Some(7), 7), (3, Some(7), 7), (9, Some(7), 9), (3, None, 3)]
        {
            assert_eq!(reaching(eventual(asked), at.map(Revision)), eventual(bound));
        }
        assert_eq!(reaching(ReadMode::Replica, Some(Revision(7))), ReadMode::Replica);
    }
}
