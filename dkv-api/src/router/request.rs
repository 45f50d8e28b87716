//! Requests under way: what they ask for, and how far they have come.

use std::time::Duration;

use bytes::Bytes;
use dkv_base::id::{GroupId, KeyspaceId, LeaseId, NodeId, Revision, SessionId, Stamp};
use dkv_wire::codec;
use dkv_wire::limits::SCAN_BYTES_MAX;
use dkv_wire::message::{
    Attach, Command, Condition, Cut, KeyRange, LeaseAction, LeaseCommand, Level, Operation,
    RangeOptions, ReadBounds, ReadMode, RequestBody, Span, Transact, TransactOver, Write,
    WriteAttached,
};
use dkv_wire::user::User;

use super::session::WriteId;

/// What a request asks for.
#[derive(Clone, Debug)]
pub(crate) enum RequestKind {
    /// Reads a key; within bounds at an eventual level, and from the nearest replica if a strong
    /// read is `nearest`.
    Read { key: Bytes, level: Level, bounds: ReadBounds, nearest: bool },
    /// Lists a page of the keys of a shard.
    Scan { shard: GroupId, span: Span, level: Level, bounds: ReadBounds },
    /// Asks which replica answers first, and for the shard's latest revision there. Goes to the
    /// nodes of `avoid` last; to the primary if the revision must be the `latest`.
    Locate { shard: GroupId, latest: bool, avoid: Vec<NodeId> },
    /// Reads a key at a cut.
    ReadAt { key: Bytes, at: Cut },
    /// Lists a page of the keys of a shard at a cut.
    ScanAt { shard: GroupId, span: Span, at: Cut },
    /// Cuts the history of a shard at a moment.
    Cut { shard: GroupId, moment: Stamp },
    /// Lists versions of a key.
    History { key: Bytes, before: Revision, versions_max: u32 },
    /// Reads the keys of a range of a shard with their versions.
    Range { shard: GroupId, query: Box<RangeQuery>, level: Level, bounds: ReadBounds },
    /// Raises the floor of a shard's history.
    Compact { shard: GroupId, floor: Revision },
    /// Puts a key, or deletes it without a value; `everywhere` if all replicas have to confirm it.
    Write {
        condition: Condition,
        everywhere: bool,
        key: Bytes,
        value: Option<Bytes>,
        /// What to attach the key to; only a put has it.
        attach: Option<Attach>,
        write_id: Option<WriteId>,
        /// The write gets a later stamp than this.
        after: Stamp,
    },
    /// Executes a transaction. If it has `ranges` of keys, the network must have one shard.
    Transact {
        /// The keys of its compares and operations, in order.
        keys: Vec<Bytes>,
        ranges: bool,
        /// The shards of the keys, if they are several. The first one decides.
        shards: Vec<GroupId>,
        /// The encoded transaction.
        body: Bytes,
        write_id: Option<WriteId>,
        /// The transaction gets a later stamp than this.
        after: Stamp,
    },
    /// Grants a lease in a shard, or ends it there.
    Lease { shard: GroupId, lease: LeaseId, action: LeaseAction, write_id: Option<WriteId> },
    /// A question to the primary of a shard. It may be repeated without harm.
    Ask { shard: GroupId, body: RequestBody },
    /// Puts a key eventually, or deletes it without a value. The stamp is zero until the client
    /// knows the network's time.
    Deposit { key: Bytes, value: Option<Bytes>, stamp: Stamp },
    /// Opens a session at a shard. Only the router itself asks for it.
    Open { session: SessionId },
    /// A question to the coordinator. It may be repeated without harm.
    Control(RequestBody),
    /// A question to one node. It is not repeated elsewhere.
    Direct { node: NodeId, body: RequestBody },
}

/// A question about the keys of a range.
#[derive(Clone, Debug)]
pub(crate) struct RangeQuery {
    pub(crate) keys: KeyRange,
    /// Only keys after this one; empty for all.
    pub(crate) after: Bytes,
    pub(crate) options: RangeOptions,
    pub(crate) bytes_max: u32,
    /// Whether to count all keys of the range.
    pub(crate) count: bool,
}

/// The body of a request to a node. The task of the stream encodes it, so that no lock is held over
/// a large value.
#[derive(Clone, Debug)]
pub(crate) enum Payload {
    /// A body that is sent unchanged.
    Plain(RequestBody),
    /// A write for the log of a shard.
    Write {
        shard: GroupId,
        everywhere: bool,
        write_id: WriteId,
        after: Stamp,
        condition: Condition,
        key: Bytes,
        value: Option<Bytes>,
        attach: Option<Attach>,
    },
    /// A transaction for the log of a shard.
    Transact {
        shard: GroupId,
        /// The shards of the keys, if they are several.
        shards: Vec<GroupId>,
        write_id: WriteId,
        after: Stamp,
        body: Bytes,
    },
    /// A change of a lease for the log of a shard.
    Lease { shard: GroupId, write_id: WriteId, lease: LeaseId, action: LeaseAction },
}

/// Values of at least this length are sent from where they are in memory; shorter ones are copied
/// into the frame.
const ZERO_COPY_BYTES: usize = 16 * 1024;

impl Payload {
    /// Returns the body of the request, and the parts of a long value. If there is one, the byte
    /// string that ends the body is empty, and the parts are its content.
    pub(crate) fn body(self) -> (RequestBody, Vec<Bytes>) {
        match self {
            Self::Plain(RequestBody::Deposit { shard, stamp, again, key, value }) => {
                let (value, long) = split_long(value);
                (RequestBody::Deposit { shard, stamp, again, key, value }, long)
            }
            Self::Plain(body) => (body, Vec::new()),
            Self::Write { shard, everywhere, write_id, after, condition, key, value, attach } => {
                // What a put is attached to follows its value, which therefore is not at the end.
                let (value, long) = match attach {
                    None => split_long(value),
                    Some(_) => (value, Vec::new()),
                };
                let operation = value.as_deref().map_or(Operation::Delete, Operation::Put);
                let WriteId { session, serial, settled } = write_id;
                let key = &key;
                let write = Write { session, serial, settled, after, condition, key, operation };
                let command = match attach {
                    None => Command::Write(write),
                    Some(attach) => Command::WriteAttached(WriteAttached { write, attach }),
                };
                let (command, parts) = encoded(&command, long);
                (RequestBody::Propose { shard, everywhere, command }, parts)
            }
            Self::Lease { shard, write_id, lease, action } => {
                let WriteId { session, serial, settled } = write_id;
                let change = LeaseCommand { session, serial, settled, lease, action };
                let command = codec::encode(&Command::Lease(change));
                (RequestBody::Propose { shard, everywhere: false, command }, Vec::new())
            }
            Self::Transact { shard, shards, write_id, after, body } => {
                let (body, long) = split_long(Some(body));
                let WriteId { session, serial, settled } = write_id;
                let body = body.as_deref().unwrap_or_default();
                let command = match shards.is_empty() {
                    true => Command::Transact(Transact { session, serial, settled, after, body }),
                    false => Command::TransactOver(TransactOver {
                        session,
                        serial,
                        settled,
                        after,
                        shards,
                        body,
                    }),
                };
                let (command, parts) = encoded(&command, long);
                (RequestBody::Propose { shard, everywhere: false, command }, parts)
            }
        }
    }
}

/// Encodes a command that ends with an empty byte string if it has a `long` one.
fn encoded(command: &Command<'_>, long: Vec<Bytes>) -> (Bytes, Vec<Bytes>) {
    match long.is_empty() {
        true => (codec::encode(command), long),
        false => (Bytes::new(), codec::encode_ending(command, long)),
    }
}

/// Separates a long value, in whose place it leaves an empty one.
fn split_long(value: Option<Bytes>) -> (Option<Bytes>, Vec<Bytes>) {
    match value {
        Some(long) if long.len() >= ZERO_COPY_BYTES => (Some(Bytes::new()), vec![long]),
        short => (short, Vec::new()),
    }
}

/// Marks the ids of attempts that ask for the time.
pub(crate) const CLOCK_QUERY: u64 = 1 << 63;

/// Returns the request that an attempt belongs to.
pub(crate) fn request_of(attempt: u64) -> u64 {
    attempt & !CLOCK_QUERY
}

/// Which nodes can serve a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Target {
    /// The primary of the group.
    Primary,
    /// Any replica of the group.
    Replica,
    /// This node only.
    Node(NodeId),
}

impl RequestKind {
    pub(crate) fn target(&self) -> Target {
        match self {
            Self::Read { level: Level::Eventual | Level::Session, .. }
            | Self::Read { level: Level::Strong, nearest: true, .. }
            | Self::Scan { level: Level::Eventual | Level::Session, .. }
            | Self::Range { level: Level::Eventual | Level::Session, .. }
            | Self::Locate { latest: false, .. }
            | Self::ReadAt { .. }
            | Self::ScanAt { .. }
            | Self::History { .. }
            | Self::Deposit { .. } => Target::Replica,
            Self::Direct { node, .. } => Target::Node(*node),
            _ => Target::Primary,
        }
    }

    /// Returns whether an unanswered attempt may have changed what the caller can see.
    pub(crate) fn has_effect(&self) -> bool {
        match self {
            Self::Write { .. }
            | Self::Transact { .. }
            | Self::Lease { .. }
            | Self::Compact { .. } => true,
            Self::Deposit { .. } => !self.is_clock_query(),
            Self::Control(body) | Self::Direct { body, .. } | Self::Ask { body, .. } => {
                body.has_effect()
            }
            Self::Read { .. }
            | Self::Scan { .. }
            | Self::Range { .. }
            | Self::Locate { .. }
            | Self::ReadAt { .. }
            | Self::ScanAt { .. }
            | Self::History { .. }
            | Self::Cut { .. }
            | Self::Open { .. } => false,
        }
    }

    /// Returns whether a replica may have to ask the primary before it answers.
    pub(crate) fn may_be_forwarded(&self) -> bool {
        match self {
            Self::Read { level: Level::Strong, nearest, .. } => *nearest,
            Self::ReadAt { .. } | Self::ScanAt { .. } | Self::History { .. } => true,
            Self::Read { bounds, .. } | Self::Scan { bounds, .. } | Self::Range { bounds, .. } => {
                !bounds.is_empty()
            }
            _ => false,
        }
    }

    /// Returns whether this is an eventual write that has no stamp yet. No node accepts it; each
    /// refuses with the time.
    pub(crate) fn is_clock_query(&self) -> bool {
        matches!(self, Self::Deposit { stamp: Stamp(0), .. })
    }

    /// Returns the id of an attempt at this request. A write that asked for the time gets another
    /// id when it is sent with a stamp, because a late answer to the question says nothing about
    /// the write.
    pub(crate) fn attempt(&self, request: u64) -> u64 {
        if self.is_clock_query() { request | CLOCK_QUERY } else { request }
    }

    /// Returns the write id, if this is a write, a transaction or a change of a lease: those have
    /// one as soon as their session admits them.
    pub(crate) fn write_id(&self) -> Option<&Option<WriteId>> {
        match self {
            Self::Write { write_id, .. }
            | Self::Transact { write_id, .. }
            | Self::Lease { write_id, .. } => Some(write_id),
            _ => None,
        }
    }

    /// Returns the write id to set or to take, if the request has one.
    pub(crate) fn write_id_mut(&mut self) -> Option<&mut Option<WriteId>> {
        match self {
            Self::Write { write_id, .. }
            | Self::Transact { write_id, .. }
            | Self::Lease { write_id, .. } => Some(write_id),
            _ => None,
        }
    }

    /// Returns the key, if the request is about one.
    pub(crate) fn key(&self) -> Option<&Bytes> {
        match self {
            Self::Read { key, .. }
            | Self::ReadAt { key, .. }
            | Self::History { key, .. }
            | Self::Write { key, .. }
            | Self::Deposit { key, .. } => Some(key),
            _ => None,
        }
    }

    /// Returns the shard, if the request names it.
    pub(crate) fn shard(&self) -> Option<GroupId> {
        match self {
            Self::Scan { shard, .. }
            | Self::Range { shard, .. }
            | Self::Locate { shard, .. }
            | Self::ScanAt { shard, .. }
            | Self::Cut { shard, .. }
            | Self::Compact { shard, .. }
            | Self::Lease { shard, .. }
            | Self::Ask { shard, .. } => Some(*shard),
            _ => None,
        }
    }

    /// Returns the bytes that the request carries, or that its page may have.
    pub(crate) fn bytes(&self) -> usize {
        match self {
            Self::Read { key, .. } | Self::ReadAt { key, .. } => key.len(),
            Self::Scan { span, .. } | Self::ScanAt { span, .. } => span.bytes_max as usize,
            Self::Range { query, .. } => query.bytes_max as usize,
            Self::History { .. } => SCAN_BYTES_MAX,
            Self::Write { key, value, .. } | Self::Deposit { key, value, .. } => {
                key.len() + value.as_ref().map_or(0, Bytes::len)
            }
            Self::Transact { body, .. } => body.len(),
            _ => 0,
        }
    }

    /// Returns the payload to send to a node; `None` for a write that has no write id yet. `detour`
    /// if a replica has to serve the request in place of the primary, `again` if an earlier attempt
    /// may have had an effect.
    pub(crate) fn payload(&self, shard: GroupId, detour: bool, again: bool) -> Option<Payload> {
        Some(Payload::Plain(match self {
            Self::Read { key, level, bounds, nearest } => {
                let mode = mode(*level, bounds, *nearest || detour);
                RequestBody::Read { shard, key: key.clone(), mode }
            }
            Self::Scan { span, level, bounds, .. } => {
                let mode = mode(*level, bounds, detour);
                RequestBody::Scan { shard, span: span.clone(), mode }
            }
            Self::Range { query, level, bounds, .. } => {
                let RangeQuery { keys, after, options, bytes_max, count } = &**query;
                RequestBody::Range {
                    shard,
                    keys: keys.clone(),
                    after: after.clone(),
                    options: *options,
                    bytes_max: *bytes_max,
                    count: *count,
                    mode: mode(*level, bounds, detour),
                }
            }
            Self::Locate { latest, .. } => {
                let mode = match latest {
                    true => mode(Level::Strong, &ReadBounds::default(), detour),
                    false => ReadMode::Eventual(ReadBounds::default()),
                };
                RequestBody::Scan { shard, span: empty_span(), mode }
            }
            Self::ReadAt { key, at } => RequestBody::ReadAt { shard, key: key.clone(), at: *at },
            Self::ScanAt { span, at, .. } => {
                RequestBody::ScanAt { shard, span: span.clone(), at: *at }
            }
            Self::Cut { moment, .. } => RequestBody::Cut { shard, moment: *moment },
            Self::History { key, before, versions_max } => RequestBody::History {
                shard,
                key: key.clone(),
                before: *before,
                versions_max: *versions_max,
            },
            Self::Compact { floor, .. } => RequestBody::Compact { shard, floor: *floor },
            Self::Write { condition, everywhere, key, value, attach, write_id, after } => {
                return Some(Payload::Write {
                    shard,
                    everywhere: *everywhere,
                    after: *after,
                    write_id: (*write_id)?,
                    condition: *condition,
                    key: key.clone(),
                    value: value.clone(),
                    attach: *attach,
                });
            }
            Self::Lease { lease, action, write_id, .. } => {
                let (write_id, lease, action) = ((*write_id)?, *lease, *action);
                return Some(Payload::Lease { shard, write_id, lease, action });
            }
            Self::Transact { body, shards, write_id, after, .. } => {
                let (write_id, after, body) = ((*write_id)?, *after, body.clone());
                let shards = shards.clone();
                return Some(Payload::Transact { shard, shards, write_id, after, body });
            }
            Self::Deposit { key, value, stamp } => RequestBody::Deposit {
                shard,
                stamp: *stamp,
                again,
                key: key.clone(),
                value: value.clone(),
            },
            Self::Open { session } => RequestBody::Propose {
                shard,
                everywhere: false,
                command: codec::encode(&Command::OpenSession(*session)),
            },
            Self::Control(body) | Self::Direct { body, .. } | Self::Ask { body, .. } => {
                body.clone()
            }
        }))
    }
}

/// Returns a page without keys, whose receipt is all that matters.
fn empty_span() -> Span {
    Span { prefix: Bytes::new(), after: Bytes::new(), keys_max: 0, bytes_max: 1, values: false }
}

fn mode(level: Level, bounds: &ReadBounds, anywhere: bool) -> ReadMode {
    match level {
        Level::Strong if anywhere => ReadMode::Replica,
        Level::Strong => ReadMode::Primary,
        Level::Eventual | Level::Session => ReadMode::Eventual(bounds.clone()),
        Level::All => ReadMode::All,
    }
}

/// How far a request has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    /// Waits for the first view with shards.
    Unrouted,
    /// A write that waits for its shard's session to open, or for room in the session's window.
    Queued,
    /// Ready, but no node can take it now, or it has to back off.
    Parked { not_before: Duration },
    /// Last sent to this node, and not answered.
    Sent(NodeId),
}

/// A request that is under way.
#[derive(Debug)]
pub(crate) struct Pending<W> {
    pub(crate) kind: RequestKind,
    /// The keyspace of its keys.
    pub(crate) keyspace: KeyspaceId,
    /// The user for whom the caller asks, if it names one.
    pub(crate) user: Option<User>,
    /// Its group; `None` while it is [`Stage::Unrouted`], and for a question to one node.
    pub(crate) group: Option<GroupId>,
    pub(crate) started: Duration,
    pub(crate) deadline: Duration,
    /// Who waits for the outcome; `None` for requests of the router itself.
    pub(crate) waiter: Option<W>,
    pub(crate) stage: Stage,
    /// Nodes whose answers can still come.
    pub(crate) attempts: Vec<NodeId>,
    /// When it was last sent.
    pub(crate) sent: Duration,
    /// Whether an attempt whose answer can no longer come may have had an effect.
    pub(crate) in_doubt: bool,
    /// Replicas that declined it since all of them were last asked.
    pub(crate) declined: Vec<NodeId>,
    /// Refusals that asked to try again.
    pub(crate) retries: u32,
    /// Times that the shard did not know its session.
    pub(crate) session_expiries: u32,
    /// The last error, to report at a timeout.
    pub(crate) last_error: Option<String>,
    /// The latest revision of its shard that this client had seen when it began. A strong answer
    /// must not be older.
    pub(crate) revision_floor: Revision,
}

impl<W> Pending<W> {
    /// Returns whether an attempt may have had an effect, or may still have one.
    pub(crate) fn may_have_effect(&self) -> bool {
        self.kind.has_effect() && (self.in_doubt || !self.attempts.is_empty())
    }

    /// Returns whether it waits for the group's primary.
    pub(crate) fn waits_for_primary(&self) -> bool {
        self.kind.target() == Target::Primary
            && matches!(self.stage, Stage::Parked { .. } | Stage::Sent(_))
    }
}

#[cfg(test)]
mod tests {
    use dkv_base::id::Serial;
    use dkv_wire::message::Request;
    use uuid::Uuid;

    use super::*;

    #[test]
    fn a_long_value_is_sent_as_it_lies_in_memory() {
        let (shard, key) = (GroupId(1), Bytes::from_static(b"key"));
        let session = SessionId(Uuid::from_u128(7));
        let write_id = WriteId { session, serial: Serial(3), settled: Serial(1) };
        let kind = |value: Option<Bytes>, deposit| match deposit {
            true => RequestKind::Deposit { key: key.clone(), value, stamp: Stamp(9) },
            false => RequestKind::Write {
                condition: Condition::Absent,
                everywhere: true,
                key: key.clone(),
                value,
                attach: None,
                write_id: Some(write_id),
                after: Stamp(5),
            },
        };
        for (bytes, deposit) in [0, 1, ZERO_COPY_BYTES - 1, ZERO_COPY_BYTES, 3 << 20]
            .into_iter()
            .flat_map(|bytes| [(bytes, false), (bytes, true)])
        {
            let value = Bytes::from(vec![b'v'; bytes]);
            let payload = kind(Some(value.clone()), deposit).payload(shard, false, true).unwrap();
            let (body, parts) = payload.body();
            let is_shared = parts.last().map(|last| last.as_ptr() == value.as_ptr());
            assert_eq!(is_shared, (bytes >= ZERO_COPY_BYTES).then_some(true));
            let request = Request { id: 4, deadline_ms: 5, forward: false, user: None, body };
            let sent = match parts.is_empty() {
                true => codec::encode(&request).to_vec(),
                false => codec::encode_ending(&request, parts).concat(),
            };
            let arrived: Request = codec::decode(&sent).unwrap();
            match arrived.body {
                RequestBody::Deposit { value: arrived, .. } => assert_eq!(arrived, Some(value)),
                RequestBody::Propose { command, .. } => match codec::decode(&command).unwrap() {
                    Command::Write(write) => {
                        assert_eq!((write.key, write.serial), (&b"key"[..], Serial(3)));
                        assert_eq!(write.operation, Operation::Put(&value));
                    }
                    other => panic!("{other:?}"),
                },
                other => panic!("{other:?}"),
            }
        }
    }
}
