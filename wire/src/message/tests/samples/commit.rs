//! Samples of messages about transactions over several shards.

use dkv_base::id::{GroupId, Revision, Serial, SessionId, Stamp, Term};

use super::history::operation_results;
use super::uuid;
use crate::message::*;

fn id() -> AttemptId {
    AttemptId {
        home: GroupId(3),
        session: SessionId(uuid('s')),
        serial: Serial(7),
        attempt: Attempt { term: Term(300), number: 12 },
    }
}

fn commitment() -> Commitment {
    Commitment { succeeded: true, stamp: Stamp(1 << 61) }
}

fn parts() -> Vec<PartReceipt> {
    vec![PartReceipt { shard: GroupId(2), not_before: Revision(1000) }]
}

pub(super) fn commands() -> Vec<Command<'static>> {
    let (session, serial, settled) = (SessionId(uuid('s')), Serial(7), Serial(5));
    let after = Stamp(1 << 60);
    let shards = vec![GroupId(3), GroupId(300)];
    let over = TransactOver { session, serial, settled, after, shards: shards.clone(), body: b"b" };
    let home = PrepareHome { settled, patience_ms: 3000, participants: shards };
    let prepare = |at_home| {
        let over = Attempt { term: Term(300), number: 9 };
        let patient = true;
        Command::Prepare(Prepare { id: id(), over, after, patient, at_home, body: b"body" })
    };
    let decide = |decision| Command::Decide(Decide { id: id(), decision });
    vec![
        Command::TransactOver(over),
        prepare(Some(home)),
        prepare(None),
        decide(Decision::Commit { succeeded: true, changed: false, after, parts: parts() }),
        decide(Decision::Unfit { operation: 3, why: Unfit::Overflow }),
        Command::Finish { id: id(), committed: Some(commitment()) },
        Command::Finish { id: id(), committed: None },
        Command::Resolve { id: id(), abort: true },
        Command::Forget(id()),
    ]
}

pub(super) fn answers(receipt: Receipt) -> Vec<Answer> {
    let prospect = |results| Prospect { unfit: Some((2, Unfit::TooLong)), changes: true, results };
    let prepared = PrepareAnswer::Prepared {
        holds: true,
        revision: Revision(1000),
        stamp: Stamp(1 << 60),
        then: prospect(Some(operation_results())),
        otherwise: prospect(None),
    };
    let answers = [prepared, PrepareAnswer::Locked, PrepareAnswer::Over];
    let resolutions =
        [Resolution::Committed(commitment()), Resolution::Aborted, Resolution::Pending];
    let over = Answer::TransactedOver {
        receipt,
        succeeded: true,
        changed: true,
        parts: parts(),
        results: Some(operation_results()),
    };
    let answers = answers.into_iter().map(Answer::Prepared);
    std::iter::once(over).chain(answers).chain(resolutions.map(Answer::Resolved)).collect()
}
