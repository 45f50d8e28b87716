//! What both shells do with a request beside its transport: who may ask, until when, and whether
//! there is room for the answer.

use std::task::{Poll, ready};

use futures::StreamExt;
use prost::Message;

use crate::auth::Guarded;
use crate::context::Context;
use crate::error::EtcdError;
use crate::etcd::{Answers, Etcd};
use crate::limits::ANSWER_LEAST_BYTES;
use crate::method::Method;

impl Etcd {
    /// Answers one message with one, within the time that the caller has, and counts it. `bytes_of`
    /// tells how long the answer will be on the wire.
    ///
    /// # Errors
    /// The caller may not ask; those of the call; there is no room for the answer. What may have
    /// changed something ends with a timeout then, after which clients of etcd do not repeat it.
    pub(crate) async fn answer_one<Q, A, F>(
        &self,
        method: Method,
        context: Context,
        message: Q,
        call: impl FnOnce(Self, Context, Q) -> F,
        bytes_of: impl FnOnce(&A) -> usize,
    ) -> Result<A, EtcdError>
    where
        Q: Guarded + Sync,
        A: Message,
        F: Future<Output = Result<A, EtcdError>>,
    {
        let (left, bytes) = (context.time_left(), context.bytes.clone());
        let (etcd, changes) = (self.clone(), method.changes());
        let answer = async move {
            etcd.permit(&context, &message).await?;
            if message.needs_room_first() {
                context.take_answer(ANSWER_LEAST_BYTES)?;
            }
            call(etcd, context, message).await
        };
        let answer = match left {
            Some(left) => {
                let answered = tokio::time::timeout(left, answer).await;
                answered.unwrap_or(Err(EtcdError::DEADLINE_EXCEEDED))?
            }
            None => answer.await?,
        };
        match bytes.map_or(Ok(()), |bytes| bytes.take_answer(bytes_of(&answer))) {
            Err(_) if changes => Err(EtcdError::TIMEOUT),
            taken => taken.map(|()| answer),
        }
    }
}

/// Passes on the messages of an answer that is a stream. Each takes room until it has been sent;
/// the stream ends with an error if there is none.
pub(crate) fn answers_that_fit<A: Send + 'static>(
    mut answers: Answers<A>,
    context: Context,
    bytes_of: impl Fn(&A) -> usize + Send + 'static,
) -> Answers<A> {
    let Some(bytes) = context.bytes else { return answers };
    bytes.begin_stream();
    let mut has_ended = false;
    let fitting = futures::stream::poll_fn(move |context| {
        if has_ended {
            return Poll::Ready(None);
        }
        let answer = ready!(answers.poll_next_unpin(context));
        let Some(Ok(message)) = &answer else { return Poll::Ready(answer) };
        let taken = bytes.take_next_answer(bytes_of(message));
        has_ended = taken.is_err();
        Poll::Ready(match taken {
            Ok(()) => answer,
            Err(error) => Some(Err(error)),
        })
    });
    fitting.boxed()
}

impl Method {
    /// Returns whether it may change something.
    pub(crate) fn changes(self) -> bool {
        !matches!(
            self,
            Self::Range
                | Self::LeaseTimeToLive
                | Self::LeaseLeases
                | Self::MemberList
                | Self::Status
                | Self::Hash
                | Self::HashKv
                | Self::AuthStatus
                | Self::UserGet
                | Self::UserList
                | Self::RoleGet
                | Self::RoleList
                | Self::Leader
        )
    }
}
