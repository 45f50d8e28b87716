//! A request's sender and deadline, and how its answer is found.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use dkv_base::audit::What;
use dkv_wire::identity::Identity;
use dkv_wire::message::{Answer, Refusal};
use dkv_wire::user::User;
use tokio::time::{Instant, timeout_at};

use super::acts;
use crate::net::reply::ReplyTo;
use crate::node::{Node, Replicas};
use dkv_state::{DirectoryCommand, DirectoryResult};

/// The node that serves a request, the request's sender, and the time that it has.
pub(super) struct RequestContext<'a> {
    pub(super) node: &'a Arc<Node>,
    pub(super) peer: Identity,
    /// Where the sender is.
    pub(super) address: SocketAddr,
    /// The user for whom the sender asks, if it names one.
    pub(super) user: Option<User>,
    /// The time after which the sender no longer waits, in milliseconds.
    pub(super) deadline_ms: u32,
}

impl RequestContext<'_> {
    /// Refuses the request, which is described by `what`, and tells the operator if it is denied.
    pub(super) fn refuse(
        &self,
        refusal: Refusal,
        reply: ReplyTo,
        what: impl FnOnce(&Replicas) -> What,
    ) {
        let what = || what(self.node.replicas());
        acts::note_denied(self.peer, self.user, self.address, &refusal, what);
        reply.refuse(refusal);
    }

    /// Returns the time for which the sender waits.
    pub(super) fn patience(&self) -> Duration {
        Duration::from_millis(u64::from(self.deadline_ms))
    }

    /// Returns the time that may pass before the answer is on its way: the sender gets it before it
    /// gives up.
    pub(super) fn working_time(&self) -> Duration {
        self.patience() / 4 * 3
    }

    /// Answers when `work` is done. There are few of these, so each may have a task.
    pub(super) fn answer<F>(&self, reply: ReplyTo, work: impl FnOnce(Arc<Node>) -> F)
    where
        F: Future<Output = Result<Answer, Refusal>> + Send + 'static,
    {
        let working = work(Arc::clone(self.node));
        self.node.tasks().spawn(async move { reply.send(working.await) });
    }

    /// Proposes a change to the directory.
    pub(super) fn change_directory(&self, command: DirectoryCommand, reply: ReplyTo) {
        let until = Instant::now() + self.working_time();
        self.answer(
            reply,
            move |node| async move { change_directory(&node, command, until).await },
        );
    }
}

/// Proposes a change to the directory, and waits until it is applied here.
pub(super) async fn change_directory(
    node: &Node,
    command: DirectoryCommand,
    until: Instant,
) -> Result<Answer, Refusal> {
    match timeout_at(until, node.change_directory(command)).await {
        Ok(Ok(DirectoryResult::Done)) => Ok(Answer::Done),
        Ok(Ok(DirectoryResult::Rejected(why))) => Err(Refusal::Invalid(why)),
        Ok(Err(error)) => Err(error.into()),
        Err(_) => Err(Refusal::Unknown("no answer from a quorum in time".into())),
    }
}
