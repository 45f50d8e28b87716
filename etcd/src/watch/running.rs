//! The task of one watch.

use dkv_api::{Client, Error, Revision, WatchPage};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use super::Sender;
use super::answer::{answers, events};
use super::request::Wanted;
use crate::budget::Taken;
use crate::etcd::{Etcd, etcd_revision, watch_options};
use crate::limits::MESSAGE_BYTES_MAX;
use crate::proto::etcdserverpb::{ResponseHeader, WatchResponse};

/// A watch that is about to run.
pub(super) struct BegunWatch {
    pub(super) etcd: Etcd,
    pub(super) store: Client,
    pub(super) id: i64,
    pub(super) wanted: Wanted,
    /// The network is watched after this revision.
    pub(super) after: Revision,
    /// The first revision to show.
    pub(super) first: Revision,
    /// The least revision at which it has progress to tell of.
    pub(super) progress_from: Revision,
    pub(super) _place: Option<Taken>,
}

/// Shows events until the watch ends or the caller is gone; returns the id of the watch.
pub(super) async fn run(running: BegunWatch, to: Sender, through: watch::Sender<Revision>) -> i64 {
    let id = running.id;
    let last = match running.show(&to, &through).await {
        Ok(()) => return id,
        Err(Error::Compacted { floor }) => WatchResponse {
            compact_revision: etcd_revision(floor),
            ..running.answer(running.after).await
        },
        Err(error) => {
            let cancel_reason = running.etcd.failed(error).to_string();
            WatchResponse { cancel_reason, ..running.answer(running.after).await }
        }
    };
    _ = to.send(Ok(WatchResponse { canceled: true, ..last })).await;
    id
}

impl BegunWatch {
    /// Shows events as long as the caller listens.
    async fn show(&self, to: &Sender, through: &watch::Sender<Revision>) -> Result<(), Error> {
        // Nothing comes before the first revision, so nothing of it can be missed; but etcd counts
        // from 1, and says that this one is compacted.
        if self.first == Revision(0)
            && let Ok(Some(floor)) = self.etcd.compacted().await
        {
            return Err(Error::Compacted { floor });
        }
        let options = watch_options(self.after).previous(self.wanted.previous);
        let mut watch = self.store.watch(self.wanted.keys.clone(), options).await?;
        let progress_every = self.etcd.options().progress_every;
        let mut progress_at = Instant::now() + progress_every;
        loop {
            let page = tokio::select! {
                page = watch.next_page() => page?,
                () = sleep_until(progress_at), if self.wanted.progress => {
                    progress_at = Instant::now() + progress_every;
                    let shown = *through.borrow();
                    if shown < self.progress_from {
                        continue;
                    }
                    if to.send(Ok(self.answer(shown).await)).await.is_err() {
                        return Ok(());
                    }
                    continue;
                }
            };
            let WatchPage { changes, through: shown, .. } = page;
            let events = events(changes, &self.wanted, self.first);
            if !events.is_empty() {
                progress_at = Instant::now() + progress_every;
                let header = self.header(shown).await;
                let fragments = self.wanted.fragments;
                for answer in answers(header, self.id, events, fragments, MESSAGE_BYTES_MAX) {
                    if to.send(Ok(answer)).await.is_err() {
                        return Ok(());
                    }
                }
            }
            through.send_replace(shown);
        }
    }

    /// Returns an answer without events, which says that everything up to a revision was shown.
    async fn answer(&self, shown: Revision) -> WatchResponse {
        let header = Some(self.header(shown).await);
        WatchResponse { header, watch_id: self.id, ..WatchResponse::default() }
    }

    async fn header(&self, shown: Revision) -> ResponseHeader {
        let known = self.etcd.known_header().await.unwrap_or_default();
        ResponseHeader { revision: etcd_revision(shown), ..known }
    }
}
