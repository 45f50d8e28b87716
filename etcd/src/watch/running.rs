//! The task of one watch.

use dkv_api::{Client, Error, Revision, WatchPage};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout};

use super::answer::{answers, event};
use super::request::Wanted;
use super::{Gone, Sender};
use crate::budget::Taken;
use crate::etcd::{Etcd, etcd_revision, watch_options};
use crate::hub::{News, Subscription, is_near};
use crate::limits::{HUB_LATEST_TIMEOUT, MESSAGE_BYTES_MAX};
use crate::proto::etcdserverpb::{ResponseHeader, WatchResponse};
use crate::proto::mvccpb::Event;

/// A watch that is about to run.
pub(super) struct BegunWatch {
    pub(super) etcd: Etcd,
    pub(super) store: Client,
    pub(super) id: i64,
    pub(super) wanted: Wanted,
    /// The changes after this revision are shown.
    pub(super) after: Revision,
    /// The first revision to show.
    pub(super) first: Revision,
    /// The latest revision when it began.
    pub(super) latest: Revision,
    /// The least revision at which it has progress to tell of.
    pub(super) progress_from: Revision,
    pub(super) _place: Option<Taken>,
}

/// Shows events until the watch ends or the caller is gone; returns the id of the watch. Tells of
/// the revisions that are awaited. `through` is dropped once nothing more is sent.
pub(super) async fn run(
    running: BegunWatch,
    to: Sender,
    through: watch::Sender<Revision>,
    awaited: watch::Receiver<Revision>,
) -> i64 {
    let id = running.id;
    let caller = Caller {
        progress_at: Instant::now() + running.etcd.options().progress_every,
        running: &running,
        to: &to,
        through: &through,
        awaited,
        latest: running.latest,
    };
    let last = match caller.show().await {
        Ok(Gone) => return id,
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

/// The caller of a watch.
struct Caller<'a> {
    running: &'a BegunWatch,
    to: &'a Sender,
    /// Everything up to this revision was shown.
    through: &'a watch::Sender<Revision>,
    awaited: watch::Receiver<Revision>,
    /// When to tell of progress, if the watch asks for that.
    progress_at: Instant,
    /// The latest revision that is known.
    latest: Revision,
}

impl Caller<'_> {
    /// Shows events as long as the caller listens.
    async fn show(mut self) -> Result<Gone, Error> {
        let mut subscription = match self.running.may_join().await? {
            true => self.join(self.running.after, true),
            false => None,
        };
        let mut after = self.running.after;
        loop {
            let joined = match subscription.take() {
                Some(joined) => joined,
                None => match self.show_alone(after).await? {
                    Ok(joined) => joined,
                    Err(gone) => return Ok(gone),
                },
            };
            after = match self.show_shared(joined).await {
                Ok(lost) => lost,
                Err(gone) => return Ok(gone),
            };
        }
    }

    /// Joins the hub, or one that begins here if it may.
    fn join(&self, shown: Revision, may_begin: bool) -> Option<Subscription> {
        let BegunWatch { etcd, store, wanted, first, .. } = self.running;
        let may_begin = may_begin && is_near(shown, self.latest);
        etcd.hubs().join(store, &wanted.interest(*first), shown, may_begin)
    }

    /// Shows what the hub has, until the watch falls out of it; returns the revision up to which
    /// everything was shown.
    async fn show_shared(&mut self, joined: Subscription) -> Result<Revision, Gone> {
        loop {
            let awaited = *self.awaited.borrow_and_update();
            match joined.take(awaited) {
                News::Changes(changes, shown) => {
                    let previous = self.running.wanted.previous;
                    let events = changes.iter().map(|it| event(it, previous)).collect();
                    // While the caller does not read, the versions before need not stay.
                    drop(changes);
                    self.send(events, shown).await?;
                }
                News::Progress(shown) => _ = self.through.send_replace(shown),
                News::Lost(shown) => {
                    self.through.send_replace(shown);
                    return Ok(shown);
                }
                News::Nothing => tokio::select! {
                    () = joined.woken() => {}
                    changed = self.awaited.changed() => changed.map_err(|_| Gone)?,
                    () = sleep_until(self.progress_at), if self.running.wanted.progress => {
                        if let Some(shown) = joined.shown() {
                            self.through.send_replace(shown);
                            self.tell_progress().await?;
                        }
                    }
                },
            }
        }
    }

    /// Shows what a watch of the network after a revision has, until it is where the hub is, and
    /// has joined that.
    async fn show_alone(&mut self, after: Revision) -> Result<Result<Subscription, Gone>, Error> {
        let BegunWatch { etcd, store, wanted, first, .. } = self.running;
        let _counted = etcd.hubs().count_alone();
        let interest = wanted.interest(*first);
        let options = watch_options(after).previous(wanted.previous);
        let mut watch = store.watch(wanted.keys.clone(), options).await?;
        loop {
            let page = tokio::select! {
                page = watch.next_page() => page?,
                () = sleep_until(self.progress_at), if wanted.progress => {
                    if let Err(gone) = self.tell_progress().await {
                        return Ok(Err(gone));
                    }
                    continue;
                }
            };
            let WatchPage { changes, through: shown, .. } = page;
            let changes = changes.iter().filter(|change| interest.wants(change));
            let events = changes.map(|change| event(change, wanted.previous)).collect();
            if let Err(gone) = self.send(events, shown).await {
                return Ok(Err(gone));
            }
            let has_hub = etcd.hubs().has_hub(store);
            if !has_hub {
                // A hub that begins here keeps all that join it waiting until it has caught up.
                if !is_near(shown, self.latest) {
                    continue;
                }
                let Ok(Ok(receipt)) = timeout(HUB_LATEST_TIMEOUT, store.latest()).await else {
                    continue;
                };
                self.latest = self.latest.max(receipt.revision);
            }
            if let Some(joined) = self.join(shown, !has_hub) {
                return Ok(Ok(joined));
            }
        }
    }

    /// Sends events; everything up to a revision is shown then.
    async fn send(&mut self, events: Vec<Event>, shown: Revision) -> Result<(), Gone> {
        let BegunWatch { etcd, id, wanted, .. } = self.running;
        if !events.is_empty() {
            self.progress_at = Instant::now() + etcd.options().progress_every;
            let header = self.running.header(shown).await;
            for answer in answers(header, *id, events, wanted.fragments, MESSAGE_BYTES_MAX) {
                self.to.send(Ok(answer)).await.map_err(|_| Gone)?;
            }
        }
        self.through.send_replace(shown);
        Ok(())
    }

    /// Tells how far the watch is, unless it has not begun yet.
    async fn tell_progress(&mut self) -> Result<(), Gone> {
        let BegunWatch { etcd, progress_from, .. } = self.running;
        self.progress_at = Instant::now() + etcd.options().progress_every;
        let shown = *self.through.borrow();
        if shown < *progress_from {
            return Ok(());
        }
        let answer = self.running.answer(shown).await;
        self.to.send(Ok(answer)).await.map_err(|_| Gone)
    }
}

impl BegunWatch {
    /// Returns whether the hub may show the watch from its beginning. A watch of the past has to
    /// know that its history is not compacted, which the hub cannot tell.
    async fn may_join(&self) -> Result<bool, Error> {
        if self.first > self.latest {
            return Ok(true);
        }
        let Ok(floor) = self.etcd.compacted().await else { return Ok(false) };
        match floor {
            // Nothing comes before the first revision, so nothing of it can be missed; but etcd
            // counts from 1, and says that this one is compacted.
            Some(floor) if self.first < floor => Err(Error::Compacted { floor }),
            _ => Ok(true),
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
