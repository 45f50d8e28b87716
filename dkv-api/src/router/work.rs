//! What is under way: requests, what they are for, and how far they are.

use std::time::Duration;

use bytes::Bytes;
use dkv_base::id::{GroupId, NodeId, Revision, SessionId, Stamp as Moment};
use dkv_wire::codec;
use dkv_wire::message::{
    Command, Condition, Level, Operation, ReadBounds, ReadMode, RequestBody, Span, Write,
};

use crate::session::Stamp;

/// What a request is for.
#[derive(Clone, Debug)]
pub(crate) enum Work {
    /// The value of a key; within bounds if the level is an eventual one, and a strong one from the
    /// nearest replica if that is wanted.
    Read { key: Bytes, level: Level, bounds: ReadBounds, nearest: bool },
    /// A page of the keys of a shard.
    Scan { shard: GroupId, span: Span, level: Level, bounds: ReadBounds },
    /// A put, or without a value a delete; `everywhere` if it is to wait for all replicas.
    Write {
        condition: Condition,
        everywhere: bool,
        key: Bytes,
        value: Option<Bytes>,
        stamp: Option<Stamp>,
        /// It is later than that.
        after: Moment,
    },
    /// An eventual put, or without a value a delete. Its moment is zero until the client has a
    /// clock.
    Deposit { key: Bytes, value: Option<Bytes>, moment: Moment },
    /// Makes a shard remember a session. Only the router asks for it.
    Open { session: SessionId },
    /// A question to the coordinator, whoever that is; doing it twice does no harm.
    Control(RequestBody),
    /// A question to one node. It is not repeated elsewhere.
    Direct { node: NodeId, body: RequestBody },
}

/// What is sent to a node. It is encoded by whoever writes it to the stream, so that no lock is
/// held over a large value.
#[derive(Clone, Debug)]
pub(crate) enum Message {
    /// As it is.
    Plain(RequestBody),
    /// A write for the log of a shard.
    Write {
        shard: GroupId,
        everywhere: bool,
        stamp: Stamp,
        after: Moment,
        condition: Condition,
        key: Bytes,
        value: Option<Bytes>,
    },
}

/// Values of so many bytes are sent as they lie in memory; shorter ones are copied beside others.
const SHARED_BYTES: usize = 16 * 1024;

impl Message {
    /// The body of the request. If it has a long value, that is left out, and with it what it is
    /// in: then the byte string that the body ends with is empty, and has the parts for its
    /// content.
    pub(crate) fn body(self) -> (RequestBody, Vec<Bytes>) {
        match self {
            Self::Plain(RequestBody::Deposit { shard, stamp, again, key, value }) => {
                let (value, long) = apart(value);
                (RequestBody::Deposit { shard, stamp, again, key, value }, long)
            }
            Self::Plain(body) => (body, Vec::new()),
            Self::Write { shard, everywhere, stamp, after, condition, key, value } => {
                let (value, long) = apart(value);
                let operation = value.as_deref().map_or(Operation::Delete, Operation::Put);
                let Stamp { session, serial, settled } = stamp;
                let key = &key;
                let write = Write { session, serial, settled, after, condition, key, operation };
                let command = Command::Write(write);
                let (command, parts) = match long.is_empty() {
                    true => (codec::encode(&command), long),
                    false => (Bytes::new(), codec::encode_ending(&command, long)),
                };
                (RequestBody::Propose { shard, everywhere, command }, parts)
            }
        }
    }
}

/// A value; one that is long is empty, and beside it.
fn apart(value: Option<Bytes>) -> (Option<Bytes>, Vec<Bytes>) {
    match value {
        Some(long) if long.len() >= SHARED_BYTES => (Some(Bytes::new()), vec![long]),
        short => (short, Vec::new()),
    }
}

/// Set in the names of attempts that ask for the time.
pub(crate) const ASKS_THE_TIME: u64 = 1 << 63;

/// The request that an attempt belongs to.
pub(crate) fn request_of(attempt: u64) -> u64 {
    attempt & !ASKS_THE_TIME
}

/// Who can serve a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Whom {
    /// The leader of the group.
    Primary,
    /// Any replica of the group.
    Replica,
    /// That node.
    Node(NodeId),
}

impl Work {
    pub(crate) fn whom(&self) -> Whom {
        match self {
            Self::Read { level: Level::Eventual | Level::Session, .. }
            | Self::Read { level: Level::Strong, nearest: true, .. }
            | Self::Scan { level: Level::Eventual | Level::Session, .. }
            | Self::Deposit { .. } => Whom::Replica,
            Self::Direct { node, .. } => Whom::Node(*node),
            _ => Whom::Primary,
        }
    }

    /// Whether an attempt that was not answered may change what the caller can see.
    pub(crate) fn has_effect(&self) -> bool {
        match self {
            Self::Write { .. } => true,
            Self::Deposit { .. } => !self.asks_the_time(),
            Self::Control(body) | Self::Direct { body, .. } => body.has_effect(),
            Self::Read { .. } | Self::Scan { .. } | Self::Open { .. } => false,
        }
    }

    /// Whether a replica may have to ask the primary before it answers.
    pub(crate) fn may_ask_on(&self) -> bool {
        match self {
            Self::Read { level: Level::Strong, nearest, .. } => *nearest,
            Self::Read { bounds, .. } | Self::Scan { bounds, .. } => !bounds.is_empty(),
            _ => false,
        }
    }

    /// Whether it is an eventual write that has no moment yet. Nobody takes it; what comes of it is
    /// the time.
    pub(crate) fn asks_the_time(&self) -> bool {
        matches!(self, Self::Deposit { moment: Moment(0), .. })
    }

    /// The name that an attempt at this request has on its way. A write that asked for the time and
    /// is sent again with it has another one: a late answer to the question says nothing of the
    /// write.
    pub(crate) fn attempt(&self, request: u64) -> u64 {
        if self.asks_the_time() { request | ASKS_THE_TIME } else { request }
    }

    /// The key, if it is about one.
    pub(crate) fn key(&self) -> Option<&Bytes> {
        match self {
            Self::Read { key, .. } | Self::Write { key, .. } | Self::Deposit { key, .. } => {
                Some(key)
            }
            _ => None,
        }
    }

    /// Bytes that it carries, or that a page may have.
    pub(crate) fn bytes(&self) -> usize {
        match self {
            Self::Read { key, .. } => key.len(),
            Self::Scan { span, .. } => span.bytes_max as usize,
            Self::Write { key, value, .. } | Self::Deposit { key, value, .. } => {
                key.len() + value.as_ref().map_or(0, Bytes::len)
            }
            _ => 0,
        }
    }

    /// What to send to a node for `group`; `None` for a write that has no stamp yet. `detour`: the
    /// node is not taken for the primary that the request is for. `again`: an earlier attempt may
    /// have had an effect.
    pub(crate) fn message(&self, shard: GroupId, detour: bool, again: bool) -> Option<Message> {
        Some(Message::Plain(match self {
            Self::Read { key, level, bounds, nearest } => {
                let mode = mode(*level, bounds, *nearest || detour);
                RequestBody::Read { shard, key: key.clone(), mode }
            }
            Self::Scan { span, level, bounds, .. } => {
                let mode = mode(*level, bounds, detour);
                RequestBody::Scan { shard, span: span.clone(), mode }
            }
            Self::Write { condition, everywhere, key, value, stamp, after } => {
                return Some(Message::Write {
                    shard,
                    everywhere: *everywhere,
                    after: *after,
                    stamp: (*stamp)?,
                    condition: *condition,
                    key: key.clone(),
                    value: value.clone(),
                });
            }
            Self::Deposit { key, value, moment } => RequestBody::Deposit {
                shard,
                stamp: *moment,
                again,
                key: key.clone(),
                value: value.clone(),
            },
            Self::Open { session } => RequestBody::Propose {
                shard,
                everywhere: false,
                command: codec::encode(&Command::OpenSession(*session)),
            },
            Self::Control(body) | Self::Direct { body, .. } => body.clone(),
        }))
    }
}

fn mode(level: Level, bounds: &ReadBounds, anywhere: bool) -> ReadMode {
    match level {
        Level::Strong if anywhere => ReadMode::Replica,
        Level::Strong => ReadMode::Primary,
        Level::Eventual | Level::Session => ReadMode::Eventual(bounds.clone()),
        Level::All => ReadMode::All,
    }
}

/// How far a request is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    /// No view with shards has come yet.
    Unrouted,
    /// A write that waits for its shard's session to open, or for room in its window.
    Queued,
    /// Ready, and there is nobody to send it to now, or it is too early to send it again.
    Parked { not_before: Duration },
    /// Sent to that node last, and not answered.
    Sent(NodeId),
}

/// A request that is under way.
#[derive(Debug)]
pub(crate) struct Pending<W> {
    pub(crate) work: Work,
    /// Its group; unknown while it is [`Stage::Unrouted`], and for a question to one node.
    pub(crate) group: Option<GroupId>,
    pub(crate) begun: Duration,
    pub(crate) deadline: Duration,
    /// Who waits for it; nobody for what the router asks for itself.
    pub(crate) waiter: Option<W>,
    pub(crate) stage: Stage,
    /// Nodes whose answer can still come.
    pub(crate) attempts: Vec<NodeId>,
    /// When it was sent last.
    pub(crate) sent: Duration,
    /// Whether an attempt whose answer cannot come any more may have had an effect.
    pub(crate) doubt: bool,
    /// Replicas that could not serve it, since all of them were asked last.
    pub(crate) passed: Vec<NodeId>,
    /// Answers that asked to come again.
    pub(crate) tries: u32,
    /// Times that the shard had forgotten its session.
    pub(crate) expiries: u32,
    /// What stood in the way last, for the error.
    pub(crate) why: Option<String>,
    /// The latest revision of its shard that had been seen when it began: a strong answer is not
    /// older.
    pub(crate) floor: Revision,
}

impl<W> Pending<W> {
    /// Whether an attempt may have had, or may yet have, an effect.
    pub(crate) fn may_have_effect(&self) -> bool {
        self.work.has_effect() && (self.doubt || !self.attempts.is_empty())
    }

    /// Whether the group's primary is what it waits for.
    pub(crate) fn waits_for_primary(&self) -> bool {
        self.work.whom() == Whom::Primary
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
        let stamp = Stamp { session, serial: Serial(3), settled: Serial(1) };
        let work = |value: Option<Bytes>, deposit| match deposit {
            true => Work::Deposit { key: key.clone(), value, moment: Moment(9) },
            false => Work::Write {
                condition: Condition::Absent,
                everywhere: true,
                key: key.clone(),
                value,
                stamp: Some(stamp),
                after: Moment(5),
            },
        };
        for (bytes, deposit) in [0, 1, SHARED_BYTES - 1, SHARED_BYTES, 3 << 20]
            .into_iter()
            .flat_map(|bytes| [(bytes, false), (bytes, true)])
        {
            let value = Bytes::from(vec![b'v'; bytes]);
            let message = work(Some(value.clone()), deposit).message(shard, false, true).unwrap();
            let (body, parts) = message.body();
            let is_shared = parts.last().map(|last| last.as_ptr() == value.as_ptr());
            assert_eq!(is_shared, (bytes >= SHARED_BYTES).then_some(true));
            let request = Request { id: 4, deadline_ms: 5, forward: false, body };
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
