//! What this node logs, and its circumstances, for administrators.

use std::time::Duration;

use dkv_base::logging::level::{self, LevelError, Levels};
use dkv_wire::message::{Answer, LogChange, LogFilter, Refusal};

use super::context::RequestContext;
use crate::net::reply::ReplyTo;

/// Tells what this node logs, after a change of that if there is one.
pub(super) fn log(context: &RequestContext<'_>, change: Option<LogChange>, reply: ReplyTo) {
    let changed = change.map_or(Ok(()), |change| apply(context, &change));
    reply.send(changed.and_then(|()| shown()).map(Answer::Log));
}

fn apply(context: &RequestContext<'_>, change: &LogChange) -> Result<(), Refusal> {
    let life = change.for_ms.map(Duration::from_millis);
    if let Some(passing) = level::change(&change.filter, life).map_err(refusal)? {
        context.node.tasks().spawn(passing.end());
    }
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
        Ok(Answer::Diagnosis(Box::new(node.diagnosis().await?)))
    });
}
