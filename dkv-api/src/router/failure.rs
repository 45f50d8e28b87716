//! What a caller learns about a request that timed out.

use std::time::Duration;

use dkv_base::id::NodeId;

use super::request::Pending;
use super::{RequestKind, Router, Stage, Target};
use crate::error::Error;

impl<W> Router<W> {
    /// Ends a request whose deadline has passed.
    pub(super) fn time_out(&mut self, now: Duration, id: u64) {
        let Some(pending) = self.requests.get(&id) else { return };
        let waited = format_wait(pending.deadline.saturating_sub(pending.started));
        let last = self.last_failure(pending);
        let text = match (&pending.stage, &self.no_view_reason, last) {
            // The reason may be whole sentences, so it cannot be the end of another one.
            (Stage::Unrouted, Some(why), None) => format!("not within {waited}: {why}"),
            (Stage::Unrouted, Some(why), Some(last)) => {
                format!("not within {waited}: {why}; before that: {last}")
            }
            // Every node that was asked has refused the request; the last one gave this reason.
            (Stage::Parked { .. }, _, Some(last)) => format!("not served within {waited}: {last}"),
            (.., None) => format!("{} within {waited}", self.describe_stage(pending)),
            (.., Some(last)) => {
                format!("{} within {waited}; before that: {last}", self.describe_stage(pending))
            }
        };
        let text = text + &self.describe_missing_deposits(pending);
        let error =
            if pending.may_have_effect() { Error::Unknown(text) } else { Error::Unavailable(text) };
        self.finish(now, id, Err(error));
    }

    /// Describes what a request is still waiting for.
    fn describe_stage(&self, pending: &Pending<W>) -> String {
        match pending.stage {
            Stage::Unrouted => self.no_view_reason.clone().unwrap_or_else(|| {
                "neither the registration server nor a node has told where the shards are".into()
            }),
            Stage::Queued => {
                // The request waits for another one, which has a stage of its own.
                let group = pending.group.and_then(|group| self.groups.get(&group));
                let opening = group.and_then(|group| group.opening);
                match opening.and_then(|opening| self.requests.get(&opening)) {
                    Some(opening) if opening.stage != Stage::Queued => self.describe_stage(opening),
                    _ => "earlier writes to the key's shard were not answered".into(),
                }
            }
            Stage::Parked { .. } if pending.retries > 0 => "nobody served the request".into(),
            Stage::Parked { .. } => match pending.kind.target() {
                Target::Primary => "no primary of the key's shard could be reached".into(),
                Target::Replica => "no replica of the key's shard could be reached".into(),
                Target::Node(node) => format!("{} could not be reached", self.describe(node)),
            },
            Stage::Sent(node) => format!("{} did not answer", self.describe(node)),
        }
    }

    /// Returns the last error of a request, or that of the opening of the session that it waits
    /// for.
    fn last_failure<'a>(&'a self, pending: &'a Pending<W>) -> Option<&'a String> {
        let opening =
            || self.requests.get(&self.groups.get(&pending.group?)?.opening?)?.last_error.as_ref();
        match pending.stage {
            Stage::Queued => opening().or(pending.last_error.as_ref()),
            _ => pending.last_error.as_ref(),
        }
    }

    /// Describes eventual writes that a session read must show and that only an unreachable node
    /// has.
    fn describe_missing_deposits(&self, pending: &Pending<W>) -> String {
        let (RequestKind::Read { bounds, .. } | RequestKind::Scan { bounds, .. }) = &pending.kind
        else {
            return String::new();
        };
        let silent =
            |node: &NodeId| self.peers.get(node).is_none_or(|peer| peer.connection.is_none());
        let nodes = bounds.deposits.iter().map(|(node, _)| *node).filter(silent);
        let names: Vec<String> = nodes.map(|node| self.describe(node)).collect();
        if names.is_empty() {
            return String::new();
        }
        format!(
            "; the session has to show eventual writes that {} took and may not have delivered, and it cannot \
             be reached; a strong read goes without them",
            names.join(" and ")
        )
    }

    pub(super) fn describe(&self, node: NodeId) -> String {
        match self.view.as_ref().and_then(|view| view.node(node)) {
            Some(info) => format!("{} at {}", info.name, info.address),
            None => match self.peers.get(&node) {
                Some(peer) => format!("the node at {}", peer.address),
                None => format!("node {}", node.short()),
            },
        }
    }
}

/// Formats a waiting time, rounded to about a hundredth, because the clock is read just before the
/// deadline.
fn format_wait(time: Duration) -> String {
    let ms = time.as_millis();
    let ms = if ms >= 100 { (ms + 5) / 10 * 10 } else { ms };
    if ms >= 1000 && ms % 1000 == 0 { format!("{} s", ms / 1000) } else { format!("{ms} ms") }
}
