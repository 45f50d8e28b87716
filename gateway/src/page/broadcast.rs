//! Sends news to every open page, as server-sent events.

use std::convert::Infallible;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use axum::body::Body;
use bytes::Bytes;
use dkv_base::sync::lock;
use futures::stream;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, broadcast};

use super::history::{History, Observation};
use crate::access::Recheck;
use crate::limits::{SUBSCRIBER_LAG_MAX, SUBSCRIBERS_MAX};

/// Time after which a browser reconnects a lost stream, in milliseconds.
const RECONNECT_MS: u64 = 1000;

/// The news of one gateway, and the pages that receive them.
pub(crate) struct Broadcaster {
    history: Mutex<History>,
    /// `None` once the gateway stops.
    news: Mutex<Option<broadcast::Sender<Bytes>>>,
    /// Limits the subscribers.
    permits: Arc<Semaphore>,
    /// Signalled when a page is opened.
    opened: Notify,
    is_running: AtomicBool,
}

impl Default for Broadcaster {
    fn default() -> Self {
        Self {
            history: Mutex::default(),
            news: Mutex::new(Some(broadcast::Sender::new(SUBSCRIBER_LAG_MAX))),
            permits: Arc::new(Semaphore::new(SUBSCRIBERS_MAX)),
            opened: Notify::new(),
            is_running: AtomicBool::new(false),
        }
    }
}

/// An open page.
struct Subscriber {
    broadcaster: Arc<Broadcaster>,
    news: broadcast::Receiver<Bytes>,
    /// Repeats the check that admitted the page.
    recheck: Option<Recheck>,
    is_new: bool,
    _permit: OwnedSemaphorePermit,
}

impl Broadcaster {
    /// Returns the event stream for one page: the history first, then the news. `None` if too many
    /// pages are open, or the gateway is stopping.
    pub(crate) fn subscribe(self: &Arc<Self>, recheck: Option<Recheck>) -> Option<Body> {
        let permit = Arc::clone(&self.permits).try_acquire_owned().ok()?;
        let news = lock(&self.news).as_ref()?.subscribe();
        self.opened.notify_one();
        let broadcaster = Arc::clone(self);
        let subscriber = Subscriber { broadcaster, news, recheck, is_new: true, _permit: permit };
        Some(Body::from_stream(stream::unfold(subscriber, Subscriber::next)))
    }

    /// Ends all streams: the gateway is stopping.
    pub(crate) fn end(&self) {
        lock(&self.news).take();
    }

    /// Whether a sampler feeds this broadcaster.
    pub(super) fn is_running(&self) -> bool {
        self.is_running.load(Ordering::Relaxed)
    }

    /// Records that a sampler feeds this broadcaster.
    pub(super) fn set_running(&self) {
        self.is_running.store(true, Ordering::Relaxed);
    }

    /// Whether any page is open.
    pub(super) fn has_subscribers(&self) -> bool {
        self.permits.available_permits() < SUBSCRIBERS_MAX
    }

    /// Completes when a page is opened.
    pub(super) async fn page_opened(&self) {
        self.opened.notified().await;
    }

    /// Adds an observation to the history, and sends its news to all pages.
    pub(super) fn publish(&self, observation: Observation) {
        let text = lock(&self.history).add(observation);
        if let Some(news) = &*lock(&self.news) {
            // Fails only without subscribers.
            let _ = news.send(event("now", &text));
        }
    }
}

impl Subscriber {
    async fn next(mut self) -> Option<(Result<Bytes, Infallible>, Self)> {
        let news = if std::mem::take(&mut self.is_new) {
            self.history()
        } else {
            if !self.broadcaster.is_running() {
                return None;
            }
            match self.news.recv().await {
                Ok(news) => news,
                Err(broadcast::error::RecvError::Lagged(_)) => self.history(),
                Err(broadcast::error::RecvError::Closed) => return None,
            }
        };
        // The token may have expired or been revoked since.
        let may_see = self.recheck.as_ref().is_none_or(Recheck::holds);
        may_see.then_some((Ok(news), self))
    }

    fn history(&mut self) -> Bytes {
        // Skips pending news: the history contains them.
        self.news = self.news.resubscribe();
        event("history", &lock(&self.broadcaster.history).whole())
    }
}

/// Formats a server-sent event.
fn event(name: &str, text: &str) -> Bytes {
    debug_assert!(!text.contains('\n'), "a line feed would end the data");
    format!("retry: {RECONNECT_MS}\nevent: {name}\ndata: {text}\n\n").into()
}
