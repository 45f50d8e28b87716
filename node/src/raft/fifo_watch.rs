//! The watch channel of a group, and of openraft, which wakes its receivers in the order in which
//! they began to wait.
//!
//! Tokio's own channel spreads its receivers over several queues at random, to serve thousands of
//! them. Here there are about a dozen, and a simulation must be able to repeat a run exactly.

use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use openraft::async_runtime::watch::{RecvError, SendError, Watch, WatchReceiver, WatchSender};
use parking_lot::{RwLock, RwLockReadGuard};
use tokio::sync::Notify;

/// The type that stands for this kind of channel in openraft's traits.
pub(crate) struct FifoWatch;

struct FifoWatchInner<T> {
    value: RwLock<T>,
    /// Twice the number of changes so far; odd once all senders are gone.
    version: AtomicUsize,
    senders: AtomicUsize,
    receivers: AtomicUsize,
    changed: Notify,
}

const CLOSED: usize = 1;

pub(crate) struct Sender<T>(Arc<FifoWatchInner<T>>);

pub(crate) struct Receiver<T> {
    shared: Arc<FifoWatchInner<T>>,
    seen: usize,
}

/// A read guard on the value of a channel. Must not be kept across an await.
pub(crate) struct Ref<'a, T>(RwLockReadGuard<'a, T>);

impl<T> Deref for Ref<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

impl<T> FifoWatchInner<T> {
    /// Borrows the value. A thread that has borrowed it already borrows it again at once, also
    /// while a change waits: with a lock that lets the change go first, both would wait for ever.
    fn read(&self) -> Ref<'_, T> {
        Ref(self.value.read_recursive())
    }

    fn version(&self) -> usize {
        self.version.load(Ordering::Acquire)
    }
}

impl<T: Send + Sync> Sender<T> {
    pub(crate) fn new(value: T) -> Self {
        FifoWatch::channel(value).0
    }

    /// Sets the value, whether or not a receiver waits for it.
    pub(crate) fn set(&self, value: T) {
        self.send_if_modified(|current| {
            *current = value;
            true
        });
    }
}

impl<T: Send + Sync + Copy> Sender<T> {
    /// Returns the current value.
    pub(crate) fn get(&self) -> T {
        *self.0.read()
    }
}

impl<T: Send + Sync> Receiver<T> {
    /// Waits until the value has changed since this receiver last saw it.
    pub(crate) async fn changed(&mut self) -> Result<(), RecvError> {
        WatchReceiver::changed(self).await
    }

    /// Returns the current value.
    pub(crate) fn get(&self) -> T
    where
        T: Copy,
    {
        *self.shared.read()
    }

    /// Waits until the value satisfies `wanted`.
    pub(crate) async fn wait_for(&mut self, wanted: impl Fn(&T) -> bool) -> Result<(), RecvError> {
        while !wanted(&self.borrow_and_update()) {
            self.changed().await?;
        }
        Ok(())
    }
}

impl<T> Sender<T> {
    /// Creates another receiver, which has seen the current value.
    pub(crate) fn receiver(&self) -> Receiver<T> {
        self.0.receivers.fetch_add(1, Ordering::Relaxed);
        Receiver { shared: Arc::clone(&self.0), seen: self.0.version() & !CLOSED }
    }
}

impl<T> Clone for Sender<T> {
    fn clone(&self) -> Self {
        self.0.senders.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(&self.0))
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        if self.0.senders.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.0.version.fetch_or(CLOSED, Ordering::Release);
            self.0.changed.notify_waiters();
        }
    }
}

impl<T> Clone for Receiver<T> {
    fn clone(&self) -> Self {
        self.shared.receivers.fetch_add(1, Ordering::Relaxed);
        Self { shared: Arc::clone(&self.shared), seen: self.seen }
    }
}

impl<T> Drop for Receiver<T> {
    fn drop(&mut self) {
        self.shared.receivers.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Watch for FifoWatch {
    type Sender<T: Send + Sync> = Sender<T>;
    type Receiver<T: Send + Sync> = Receiver<T>;
    type Ref<'a, T: Send + 'a> = Ref<'a, T>;

    fn channel<T: Send + Sync>(value: T) -> (Sender<T>, Receiver<T>) {
        let sender = Sender(Arc::new(FifoWatchInner {
            value: RwLock::new(value),
            version: AtomicUsize::new(0),
            senders: AtomicUsize::new(1),
            receivers: AtomicUsize::new(0),
            changed: Notify::new(),
        }));
        let receiver = sender.receiver();
        (sender, receiver)
    }
}

impl<T: Send + Sync> WatchSender<FifoWatch, T> for Sender<T> {
    fn send(&self, value: T) -> Result<(), SendError<T>> {
        if self.0.receivers.load(Ordering::Relaxed) == 0 {
            return Err(SendError(value));
        }
        self.set(value);
        Ok(())
    }

    fn send_if_modified<F>(&self, modify: F) -> bool
    where
        F: FnOnce(&mut T) -> bool,
    {
        {
            let mut value = self.0.value.write();
            if !modify(&mut value) {
                return false;
            }
            // Under the lock, so that a receiver that has read the value has seen its version too.
            self.0.version.fetch_add(2, Ordering::Release);
        }
        self.0.changed.notify_waiters();
        true
    }

    fn borrow_watched(&self) -> Ref<'_, T> {
        self.0.read()
    }

    fn subscribe(&self) -> Receiver<T> {
        self.receiver()
    }
}

impl<T: Send + Sync> WatchReceiver<FifoWatch, T> for Receiver<T> {
    async fn changed(&mut self) -> Result<(), RecvError> {
        loop {
            // Registered before the version is read, or a change could fall between the two.
            let changed = self.shared.changed.notified();
            let mut changed = std::pin::pin!(changed);
            changed.as_mut().enable();
            let version = self.shared.version();
            if version & !CLOSED != self.seen {
                self.seen = version & !CLOSED;
                return Ok(());
            }
            if version & CLOSED != 0 {
                return Err(RecvError(()));
            }
            changed.await;
        }
    }

    fn borrow_watched(&self) -> Ref<'_, T> {
        self.shared.read()
    }

    fn borrow_and_update(&mut self) -> Ref<'_, T> {
        let value = self.shared.read();
        self.seen = self.shared.version() & !CLOSED;
        value
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    #[test]
    fn a_value_can_be_borrowed_again_while_a_change_waits() {
        let (sender, receiver) = FifoWatch::channel(1);
        let first = receiver.shared.read();
        let changing = std::thread::spawn(move || sender.set(2));
        // Until the change waits: then a lock of the standard library lends to no thread.
        while receiver.shared.value.try_read().is_some() {
            std::thread::yield_now();
        }
        let borrowed = *receiver.shared.read();
        drop(first);
        changing.join().unwrap();
        assert_eq!((borrowed, receiver.get()), (1, 2));
    }

    #[tokio::test]
    async fn receivers_are_woken_in_order_and_told_the_end() {
        let (sender, receiver) = FifoWatch::channel(0);
        let order = Arc::new(Mutex::new(Vec::new()));
        let mut tasks = Vec::new();
        for number in 0..32 {
            let (mut receiver, order) = (receiver.clone(), Arc::clone(&order));
            tasks.push(tokio::spawn(async move {
                while receiver.changed().await.is_ok() {
                    let value = *receiver.borrow_watched();
                    order.lock().unwrap().push((value, number));
                }
            }));
            tokio::task::yield_now().await;
        }
        for value in 1..=3 {
            sender.send(value).unwrap();
            // The second pass shows that receivers report each value only once.
            for _ in 0..2 {
                tokio::task::yield_now().await;
            }
        }
        drop(sender);
        for task in tasks {
            task.await.unwrap();
        }
        let expected: Vec<_> =
            (1..=3).flat_map(|value| (0..32).map(move |number| (value, number))).collect();
        assert_eq!(*order.lock().unwrap(), expected);
    }

    #[tokio::test]
    async fn a_receiver_learns_of_changes_and_of_nothing_else() {
        let (sender, mut receiver) = FifoWatch::channel('a');
        assert!(!sender.send_if_modified(|_| false));
        assert!(sender.send_if_modified(|value| {
            *value = 'b';
            true
        }));
        assert_eq!(*receiver.borrow_and_update(), 'b');
        let mut late = sender.clone().subscribe();
        sender.send('c').unwrap();
        receiver.changed().await.unwrap();
        late.changed().await.unwrap();
        assert_eq!(*late.borrow_watched(), 'c');
        drop(sender);
        assert!(receiver.changed().await.is_err() && late.changed().await.is_err());

        let (sender, receiver) = FifoWatch::channel(1);
        drop(receiver);
        assert_eq!(sender.send(2).unwrap_err().0, 2, "nobody listens");
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn no_change_is_missed() {
        let (sender, receiver) = FifoWatch::channel(0_u64);
        let mut tasks = Vec::new();
        for _ in 0..8 {
            let mut receiver = receiver.clone();
            tasks.push(tokio::spawn(async move {
                while *receiver.borrow_watched() < 20_000 {
                    receiver.changed().await.unwrap();
                }
            }));
        }
        for value in 1..=20_000 {
            sender.send(value).unwrap();
        }
        for task in tasks {
            task.await.unwrap();
        }
    }
}
