//! Samples of commands.

use dkv_base::id::{HolderId, Number, Revision, Serial, SessionId, Stamp};

use super::{commit, lease, node, uuid};
use crate::message::*;

pub(in crate::message::tests) fn conditions() -> Vec<Condition> {
    let revision = Condition::Revision(Revision(u64::MAX));
    vec![Condition::Always, Condition::Absent, Condition::Present, revision]
}

pub(in crate::message::tests) fn operations() -> Vec<Operation<'static>> {
    vec![Operation::Put(b"value"), Operation::Delete]
}

pub(in crate::message::tests) fn commands() -> Vec<Command<'static>> {
    let write = |(condition, operation)| {
        Command::Write(Write {
            session: SessionId(uuid('s')),
            serial: Serial(7),
            settled: Serial(5),
            after: Stamp(1 << 60),
            condition,
            key: b"\0key\xff",
            operation,
        })
    };
    let writes = conditions()
        .into_iter()
        .flat_map(|condition| operations().into_iter().map(move |operation| (condition, operation)))
        .map(write);
    let deposited = operations().into_iter().map(|operation| {
        let (node, number, after, stamp) = (node('d'), Number(12), Number(11), Stamp(1 << 61));
        Command::Deposited(Deposited { node, number, after, stamp, key: b"key", operation })
    });
    let open = std::iter::once(Command::OpenSession(SessionId(uuid('s'))));
    let holder = HolderId(uuid('h'));
    let open_of = Command::OpenSessionOf { session: SessionId(uuid('s')), holder };
    let compact = Command::Compact { floor: Revision(1 << 40) };
    let cut = Command::Cut { moment: Stamp(1 << 60) };
    let transact = Command::Transact(Transact {
        session: SessionId(uuid('s')),
        serial: Serial(7),
        settled: Serial(5),
        after: Stamp(1 << 60),
        body: b"body",
    });
    let rest = [open_of, compact, transact].into_iter().chain(lease::commands()).chain([cut]);
    let rest = rest.chain(commit::commands());
    open.chain(writes).chain(deposited).chain(rest).collect()
}
