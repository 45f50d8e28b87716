//! Looks at the network, and tells every open page.

use std::convert::Infallible;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::body::Body;
use bytes::Bytes;
use dkv_api::{Error, NetworkStatus, ReadOptions};
use futures::future::{self, BoxFuture, FutureExt};
use futures::stream;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, broadcast};
use tokio::time::{Instant, MissedTickBehavior};

use super::history::{History, Look};
use crate::access::Again;
use crate::limits::{
    LOOK_EVERY, LOOK_TIMEOUT, LOOKS_UNWATCHED, READY_TIMEOUT, TAB_LAG_MAX, TABS_MAX,
};
use crate::metrics::Metrics;
use crate::status;
use crate::store::Store;
use crate::v1::READY_KEY;

/// Time after which a browser comes back that has lost its connection, in milliseconds.
const COME_BACK_MS: u64 = 1000;

/// What the pages of one gateway are told.
pub(crate) struct Hub {
    history: Mutex<History>,
    /// None when the gateway stops.
    news: Mutex<Option<broadcast::Sender<Bytes>>>,
    tabs: Arc<Semaphore>,
    /// Somebody has opened a page.
    opened: Notify,
    is_running: AtomicBool,
}

impl Default for Hub {
    fn default() -> Self {
        Self {
            history: Mutex::default(),
            news: Mutex::new(Some(broadcast::Sender::new(TAB_LAG_MAX))),
            tabs: Arc::new(Semaphore::new(TABS_MAX)),
            opened: Notify::new(),
            is_running: AtomicBool::new(false),
        }
    }
}

/// A page that is told.
struct Tab {
    hub: Arc<Hub>,
    news: broadcast::Receiver<Bytes>,
    /// What it was let in by.
    again: Option<Again>,
    is_new: bool,
    _permit: OwnedSemaphorePermit,
}

impl Hub {
    /// The events for one page; none if there are too many pages.
    pub(crate) fn tell(self: &Arc<Self>, again: Option<Again>) -> Option<Body> {
        let permit = Arc::clone(&self.tabs).try_acquire_owned().ok()?;
        let news = lock(&self.news).as_ref()?.subscribe();
        self.opened.notify_one();
        let hub = Arc::clone(self);
        let tab = Tab { hub, news, again, is_new: true, _permit: permit };
        Some(Body::from_stream(stream::unfold(tab, Tab::next)))
    }

    /// Ends all events: the gateway stops.
    pub(crate) fn end(&self) {
        lock(&self.news).take();
    }

    /// Whether anybody looks at the network for it.
    pub(super) fn is_running(&self) -> bool {
        self.is_running.load(Ordering::Relaxed)
    }

    fn is_watched(&self) -> bool {
        self.tabs.available_permits() < TABS_MAX
    }

    fn publish(&self, look: Look) {
        let text = lock(&self.history).take(look);
        if let Some(news) = &*lock(&self.news) {
            // Nobody may be there.
            let _ = news.send(event("now", &text));
        }
    }
}

impl Tab {
    async fn next(mut self) -> Option<(Result<Bytes, Infallible>, Self)> {
        let news = if std::mem::take(&mut self.is_new) {
            self.whole()
        } else {
            if !self.hub.is_running() {
                return None;
            }
            match self.news.recv().await {
                Ok(news) => news,
                Err(broadcast::error::RecvError::Lagged(_)) => self.whole(),
                Err(broadcast::error::RecvError::Closed) => return None,
            }
        };
        // The right to see it may have ended.
        let may_see = self.again.as_ref().is_none_or(Again::holds);
        may_see.then_some((Ok(news), self))
    }

    fn whole(&mut self) -> Bytes {
        // What it would be told next is in there.
        self.news = self.news.resubscribe();
        event("history", &lock(&self.hub.history).whole())
    }
}

/// A server-sent event.
fn event(name: &str, text: &str) -> Bytes {
    format!("retry: {COME_BACK_MS}\nevent: {name}\ndata: {text}\n\n").into()
}

/// Looks at the network for as long as the gateway serves.
pub(crate) async fn run<S: Store>(
    hub: Arc<Hub>,
    store: S,
    network: Arc<str>,
    metrics: Arc<Metrics>,
) {
    hub.is_running.store(true, Ordering::Relaxed);
    let mut ticks = tokio::time::interval(LOOK_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut asking: Option<BoxFuture<'_, NetworkStatus>> = None;
    let mut reading: Option<BoxFuture<'_, Result<u64, String>>> = None;
    for tick in 0.. {
        let is_opened = tokio::select! {
            _ = ticks.tick() => false,
            () = hub.opened.notified() => true,
        };
        if !is_opened && !hub.is_watched() && tick % LOOKS_UNWATCHED != 0 {
            continue;
        }
        asking.get_or_insert_with(|| store.status().boxed());
        reading.get_or_insert_with(|| read(&store).boxed());
        let (mut report, mut answered) = (None, None);
        let looking = async {
            while asking.is_some() || reading.is_some() {
                tokio::select! {
                    status = end_of(&mut asking) => report = Some(status::report(&status, &network)),
                    read = end_of(&mut reading) => answered = Some(read),
                }
            }
        };
        // A node that has just died is waited for; the page is not.
        let _ = tokio::time::timeout(LOOK_TIMEOUT, looking).await;
        let traffic = metrics.of_keys();
        hub.publish(Look { at_ms: now_ms(), report, read: answered, traffic });
    }
}

/// Waits for something that was begun, and forgets it then.
async fn end_of<T>(begun: &mut Option<BoxFuture<'_, T>>) -> T {
    let Some(running) = begun else { return future::pending().await };
    let ended = running.await;
    *begun = None;
    ended
}

/// How long a strong read takes, in microseconds.
async fn read<S: Store>(store: &S) -> Result<u64, String> {
    let begun = Instant::now();
    let options = ReadOptions::default().timeout(READY_TIMEOUT);
    match store.read(READY_KEY, options).await {
        Ok(_) | Err(Error::NotFound { .. }) => Ok(micros(begun.elapsed())),
        Err(error) => Err(error.to_string()),
    }
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
