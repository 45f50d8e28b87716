//! Progress on demand: one answer for all watches of a stream.
//!
//! It promises that every watch of the stream has shown everything up to its revision. So it goes
//! through the queue of the answers after the events of all of them, and a watch that begins before
//! it is sent makes it void: the wait begins anew.

#[cfg(test)]
mod tests;

use dkv_api::Revision;
use futures::FutureExt;
use futures::future::BoxFuture;
use tokio::sync::watch;

use crate::proto::etcdserverpb::ResponseHeader;

/// The progress that a stream is asked for.
#[derive(Default)]
pub(super) struct Progress {
    /// Becomes the header of the answer.
    waiting: Option<BoxFuture<'static, Option<ResponseHeader>>>,
    /// Whether the caller has asked once more.
    asked_again: bool,
    /// Whether a watch has begun meanwhile.
    is_void: bool,
}

/// The end of a wait.
#[derive(Debug, PartialEq)]
pub(super) struct Told {
    /// The header of the answer; `None` if there is none to send.
    pub(super) header: Option<ResponseHeader>,
    /// Whether another wait has to begin.
    pub(super) again: bool,
}

impl Progress {
    /// Notes that the caller asks for progress; returns whether to begin a wait.
    pub(super) fn ask(&mut self) -> bool {
        self.asked_again = self.waiting.is_some();
        !self.asked_again
    }

    /// Notes that a watch has begun.
    pub(super) fn note_watch(&mut self) {
        self.is_void = self.waiting.is_some();
    }

    /// Begins a wait.
    pub(super) fn begin(
        &mut self,
        wait: impl Future<Output = Option<ResponseHeader>> + Send + 'static,
    ) {
        *self = Self { waiting: Some(wait.boxed()), ..Self::default() };
    }

    /// Waits for the end of the wait, for ever if none has begun. May be cancelled.
    pub(super) async fn told(&mut self) -> Told {
        let Some(waiting) = &mut self.waiting else { return std::future::pending().await };
        let header = waiting.await;
        let Self { asked_again, is_void, .. } = std::mem::take(self);
        Told { header: header.filter(|_| !is_void), again: is_void || asked_again }
    }
}

/// A watch whose progress counts.
pub(super) struct Waited {
    /// It has shown everything up to this revision.
    pub(super) through: watch::Receiver<Revision>,
    /// It is to tell of this revision, also if nothing changes.
    pub(super) awaited: watch::Sender<Revision>,
    /// The least revision at which it has progress to tell of.
    pub(super) progress_from: Revision,
}

/// Waits until all watches have shown everything up to a revision; returns whether that can be
/// told. One that has ended holds nothing back.
pub(super) async fn all_show(watches: Vec<Waited>, revision: Revision) -> bool {
    for Waited { awaited, .. } in &watches {
        awaited.send_if_modified(|awaited| {
            let later = *awaited < revision;
            *awaited = revision.max(*awaited);
            later
        });
    }
    for Waited { mut through, awaited: _awaited, progress_from } in watches {
        if through.wait_for(|through| *through >= revision).await.is_ok()
            && revision < progress_from
        {
            return false;
        }
    }
    true
}
