//! What this node logs, and its circumstances, for administrators.

use std::time::Duration;

use dkv_base::logging::level::{self, LevelError, Levels};
use dkv_base::platform::run_blocking;
use dkv_wire::limits::{LOG_FILTER_BYTES_MAX, LOG_FILTER_LIFE_MAX};
use dkv_wire::message::{Answer, LogChange, LogFilter, Refusal};
use tracing::info;

use super::context::RequestContext;
use crate::net::reply::ReplyTo;

/// Tells what this node logs, after a change of that if there is one.
pub(super) fn log(context: &RequestContext<'_>, change: Option<LogChange>, reply: ReplyTo) {
    let changed = change.map_or(Ok(()), |change| apply(context, &change));
    reply.send(changed.and_then(|()| shown()).map(Answer::Log));
}

fn apply(context: &RequestContext<'_>, change: &LogChange) -> Result<(), Refusal> {
    let LogChange { filter, for_ms } = change;
    if filter.len() > LOG_FILTER_BYTES_MAX {
        let why = format!("a log filter has at most {LOG_FILTER_BYTES_MAX} bytes");
        return Err(Refusal::Invalid(why));
    }
    let life = for_ms.map(|ms| Duration::from_millis(ms).min(LOG_FILTER_LIFE_MAX));
    let number = level::set(filter, life).map_err(refusal)?;
    let Some(life) = life else { return Ok(()) };
    context.node.tasks().spawn(async move {
        tokio::time::sleep(life).await;
        if let Some(filter) = level::revert(number) {
            info!(filter, "the log filter before is back");
        }
    });
    Ok(())
}

fn shown() -> Result<LogFilter, Refusal> {
    let Levels { filter, then } = level::levels().map_err(refusal)?;
    let then = then.map(|(filter, left)| (filter, left.as_millis() as u64));
    Ok(LogFilter { filter, then })
}

fn refusal(error: LevelError) -> Refusal {
    match error {
        LevelError::Filter(why) => Refusal::Invalid(why),
        LevelError::NotOurs => Refusal::Unavailable(error.to_string()),
    }
}

/// Tells the circumstances of this node.
pub(super) fn diagnose(context: &RequestContext<'_>, reply: ReplyTo) {
    context.answer(reply, move |node| async move {
        let found = run_blocking(move || node.diagnosis()).await;
        found
            .map(|found| Answer::Diagnosis(Box::new(found)))
            .map_err(|_| Refusal::Unavailable("the node is stopping".into()))
    });
}
