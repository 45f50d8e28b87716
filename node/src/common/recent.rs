//! A result that one task computes and others share for a while.

use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::Instant;

/// The latest finding, and its time.
#[derive(Debug)]
pub(crate) struct Recent<T> {
    last: Mutex<Option<(Instant, T)>>,
}

impl<T> Default for Recent<T> {
    fn default() -> Self {
        Self { last: Mutex::default() }
    }
}

impl<T: Clone> Recent<T> {
    /// Returns what was found out within a time, or finds it out.
    ///
    /// # Errors
    /// Those of `find`.
    pub(crate) async fn get<E>(
        &self,
        within: Duration,
        find: impl Future<Output = Result<T, E>>,
    ) -> Result<T, E> {
        let mut last = self.last.lock().await;
        if let Some((at, found)) = &*last
            && at.elapsed() < within
        {
            return Ok(found.clone());
        }
        let found = find.await?;
        *last = Some((Instant::now(), found.clone()));
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn many_who_ask_at_once_have_one_look() {
        let (recent, looks) = (Recent::default(), AtomicU32::new(0));
        let get = || {
            recent.get(Duration::from_secs(1), async {
                let look = looks.fetch_add(1, Ordering::Relaxed);
                tokio::time::sleep(Duration::from_millis(100)).await;
                Ok::<_, ()>(look)
            })
        };
        let found = futures::future::join_all((0..100).map(|_| get())).await;
        assert!(found.iter().all(|found| *found == Ok(0)));
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!((get().await, get().await), (Ok(1), Ok(1)));
    }
}
