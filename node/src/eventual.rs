//! The eventual reads of a replica: answered at once, from whatever it has.
//!
//! How old that may be counts from the last time that a quorum confirmed the leader, here as at a
//! replica that follows it.
//!
//! A read may set bounds: how old the answer may be, and which revision it must have reached. A
//! replica that does not keep within them waits a moment for what is on its way, then goes as far as
//! the primary by a strong read of its own, and if that does not help either says how far behind it
//! is. It never answers from outside of the bounds.

use std::sync::Arc;
use std::time::Duration;

use dkv_wire::message::{Level, ReadBounds, Refusal};

use crate::group::Group;
use crate::reads::{self, Asked, PendingRead};
use crate::replies::ReplyTo;

/// Time that a read waits for a revision that is on its way. A replica that follows is behind by a
/// round trip and an fsync.
const ON_ITS_WAY: Duration = Duration::from_millis(10);

/// Answers an eventual read.
pub(crate) fn read(group: &Arc<Group>, asked: Asked, bounds: ReadBounds, reply: ReplyTo) {
    if bounds == ReadBounds::default() || bounds.allow(group.revision(), group.staleness_ms()) {
        return at_once(group, asked, reply);
    }
    let later = later(Arc::clone(group), asked, bounds, reply);
    group.spawn(later);
}

fn at_once(group: &Group, asked: Asked, reply: ReplyTo) {
    let receipt = group.who().receipt(group.term(), Level::Eventual, group.staleness_ms());
    let read = PendingRead { asked, anywhere: true, reply };
    reads::serve(group.machine(), std::iter::once(read), receipt);
}

async fn later(group: Arc<Group>, asked: Asked, bounds: ReadBounds, reply: ReplyTo) {
    let mut applied = group.machine().applied();
    let arrived = applied.wait_for(|_| group.revision() >= bounds.at_least);
    let arrived = tokio::time::timeout(ON_ITS_WAY, arrived).await.is_ok();
    if arrived && bounds.allow(group.revision(), group.staleness_ms()) {
        return at_once(&group, asked, reply);
    }
    let (strong, answered) = ReplyTo::here();
    group.read(PendingRead { asked, anywhere: true, reply: strong });
    let behind =
        || Refusal::Behind { revision: group.revision(), staleness_ms: group.staleness_ms() };
    match answered.await {
        // It is told for what it is, a strong one: more than was asked for.
        Ok(Ok(answer)) if group.revision() >= bounds.at_least => reply.send(Ok(answer)),
        Ok(Err(refusal @ Refusal::Overloaded { .. })) => reply.refuse(refusal),
        _ => reply.refuse(behind()),
    }
}
