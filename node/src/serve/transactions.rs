//! The answers to transactions.
//!
//! The log decides what a transaction does; the results of its operations are read from the history
//! once it is applied, in the same way for its first execution and for every repetition.

use std::sync::Arc;

use bytes::Bytes;
use dkv_wire::message::{Answer, Refusal};

use crate::net::reply::ReplyTo;
use crate::replica::Replica;

/// Returns the destination for the outcome of a transaction with this body, which answers `reply`
/// with the outcome and the results.
pub(super) fn with_results(replica: &Arc<Replica>, body: Bytes, reply: ReplyTo) -> ReplyTo {
    let (here, decided) = ReplyTo::here();
    let reading = Arc::clone(replica);
    replica.spawn(async move {
        let answer = match decided.await {
            Ok(Ok(Answer::Transacted { receipt, succeeded, changed, .. })) => {
                let state_machine = reading.state_machine();
                let revision = receipt.revision;
                let results = state_machine.results(&body, revision, succeeded, changed).await;
                // The outcome stands, whether or not its results can be read.
                let results = results.unwrap_or_default();
                Ok(Answer::Transacted { receipt, succeeded, changed, results })
            }
            Ok(answer) => answer,
            Err(_) => Err(Refusal::Unknown("the node is stopping".into())),
        };
        reply.send(answer);
    });
    here
}
