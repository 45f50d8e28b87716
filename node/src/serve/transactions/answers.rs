//! The answers to transactions and to their parts.

use std::sync::Arc;

use bytes::Bytes;
use dkv_base::id::Revision;
use dkv_state::FoundResult;
use dkv_wire::limits::SCAN_BYTES_MAX;
use dkv_wire::message::{Answer, OperationResult, PrepareAnswer, Prospect, Refusal, Version};
use tokio::time::Instant;

use crate::common::timeline::Stage;
use crate::net::reply::ReplyTo;
use crate::raft::{LOOK_UPS_MAX, StateMachineHandle};
use crate::replica::Replica;

/// Returns the destination for the outcome of a transaction with this body, which answers `reply`
/// with the outcome and the results.
pub(in crate::serve) fn with_results(
    replica: &Arc<Replica>,
    body: Bytes,
    mut reply: ReplyTo,
) -> ReplyTo {
    let (here, decided) = reply.part();
    let reading = Arc::clone(replica);
    replica.spawn(async move {
        let answer = match decided.await {
            Ok(Ok(Answer::Transacted { receipt, succeeded, changed, path, .. })) => {
                reply.enter(Stage::Read, Instant::now());
                let outcome = (receipt.revision, (succeeded, path), changed);
                // The outcome stands, whether or not its results can be read.
                let results = results(reading.state_machine(), &body, outcome, &mut reply).await;
                Ok(Answer::Transacted { receipt, succeeded, changed, results, path })
            }
            Ok(answer) => answer,
            Err(_) => Err(Refusal::Unknown("the node is stopping".into())),
        };
        reply.send(answer);
    });
    here
}

/// Returns the results of a transaction that was executed, once there is room for them in the
/// answer; `None` if they cannot be read.
async fn results(
    state_machine: &StateMachineHandle,
    body: &[u8],
    (revision, way, changed): (Revision, (bool, u64), bool),
    reply: &mut ReplyTo,
) -> Option<Vec<OperationResult>> {
    for _ in 0..LOOK_UPS_MAX {
        let found = state_machine.found_results(body, revision, way, changed).await?;
        reply.take_results(found.iter().map(FoundResult::bytes).sum()).await;
        // Some may have been compacted meanwhile.
        if let Some(results) = state_machine.complete_found(found).await.ok()? {
            return Some(results);
        }
    }
    None
}

/// Returns the destination for the verdict on preparing a part, which answers `reply` with the
/// verdict and the results that the part will have. The keys are locked, so that they are still
/// the same when the transaction is decided.
pub(in crate::serve) fn with_foreseen(
    replica: &Arc<Replica>,
    body: Bytes,
    mut reply: ReplyTo,
) -> ReplyTo {
    let (here, prepared) = reply.part();
    let reading = Arc::clone(replica);
    replica.spawn(async move {
        let answer = match prepared.await {
            Ok(Ok(Answer::Prepared(PrepareAnswer::Prepared {
                holds,
                revision,
                stamp,
                then,
                otherwise,
            }))) => {
                reply.enter(Stage::Read, Instant::now());
                let foreseen = reading.state_machine().foreseen_results(&body).await;
                let [first, second] = match foreseen {
                    Ok(Some([then, otherwise])) => [fitting(then), fitting(otherwise)],
                    Ok(None) | Err(_) => [None, None],
                };
                let then = Prospect { results: first, ..then };
                let otherwise = Prospect { results: second, ..otherwise };
                let prepared = PrepareAnswer::Prepared { holds, revision, stamp, then, otherwise };
                Ok(Answer::Prepared(prepared))
            }
            Ok(answer) => answer,
            Err(_) => Err(Refusal::Unknown("the node is stopping".into())),
        };
        reply.send(answer);
    });
    here
}

/// Returns the results, unless they are longer than a page: those of all shards go into one answer.
fn fitting(results: Vec<OperationResult>) -> Option<Vec<OperationResult>> {
    let of = |version: &Version| version.value.as_ref().map_or(0, Bytes::len);
    let bytes = |result: &OperationResult| match result {
        OperationResult::Got(Some(version)) | OperationResult::Changed(version) => of(version),
        OperationResult::Listed { keys, .. } => keys.iter().map(|(_, version)| of(version)).sum(),
        _ => 0,
    };
    // One long value passes.
    let longest = results.iter().map(bytes).max().unwrap_or_default();
    let all: usize = results.iter().map(bytes).sum();
    (all - longest <= SCAN_BYTES_MAX).then_some(results)
}
