//! Passwords and their hashes.

use std::sync::Arc;

use tokio::sync::Semaphore;

use crate::error::{Code, EtcdError};
use crate::limits::{HASHES_AT_ONCE, HASHES_WAITING_MAX};

/// Work of hashing a password: 2 to this power, as etcd's.
const BCRYPT_COST: u32 = 10;
/// Longest password in bytes; bcrypt looks at no more.
const PASSWORD_BYTES_MAX: usize = 72;
/// Most work that a caller's own hash may make.
const BCRYPT_COST_MAX: u32 = 14;
/// The hash of no password.
pub(crate) const NO_HASH: &str = "";

/// Hashes passwords. Each takes a core for long, so only some do at the same time.
pub(crate) struct Hashing {
    running: Arc<Semaphore>,
    /// Those that run or wait: of unauthenticated callers, and of users.
    checks: Arc<Semaphore>,
    changes: Arc<Semaphore>,
}

impl Default for Hashing {
    fn default() -> Self {
        let all = || Arc::new(Semaphore::new(HASHES_WAITING_MAX));
        let running = Arc::new(Semaphore::new(HASHES_AT_ONCE));
        Self { running, checks: all(), changes: all() }
    }
}

impl Hashing {
    /// Returns the hash of a password.
    ///
    /// # Errors
    /// It is too long; too many wait.
    pub(crate) async fn hash(&self, password: String) -> Result<String, EtcdError> {
        if password.len() > PASSWORD_BYTES_MAX {
            let why = "bcrypt: password length exceeds 72 bytes";
            return Err(EtcdError::new(Code::Unknown, why));
        }
        let hash = self.run(&self.changes, move || bcrypt::hash(password, BCRYPT_COST)).await?;
        hash.map_err(|error| EtcdError::new(Code::Internal, format!("bcrypt: {error}")))
    }

    /// Returns whether a password has a hash.
    ///
    /// # Errors
    /// Too many wait.
    pub(crate) async fn matches(&self, password: String, hash: String) -> Result<bool, EtcdError> {
        self.run(&self.checks, move || matches(&password, &hash)).await
    }

    async fn run<T: Send + 'static>(
        &self,
        all: &Arc<Semaphore>,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, EtcdError> {
        let waiting = Arc::clone(all).try_acquire_owned();
        let waiting = waiting.map_err(|_| EtcdError::REQUEST_TOO_MANY_REQUESTS)?;
        let running = Arc::clone(&self.running).acquire_owned().await;
        let running = running.map_err(|_| EtcdError::STOPPED)?;
        // The work goes on if the caller goes away meanwhile, and keeps its place.
        let work = move || {
            let _places = (waiting, running);
            work()
        };
        tokio::task::spawn_blocking(work).await.map_err(|_| EtcdError::STOPPED)
    }
}

/// Returns whether a hash that a caller has made can be used: one of bcrypt, or that of no
/// password.
pub(crate) fn is_usual(hash: &str) -> bool {
    let parts = hash.parse::<bcrypt::HashParts>();
    hash == NO_HASH || parts.is_ok_and(|parts| parts.get_cost() <= BCRYPT_COST_MAX)
}

/// Returns whether a password has a hash. It takes as long without a hash, so that nobody learns
/// which users there are.
fn matches(password: &str, hash: &str) -> bool {
    if password.len() > PASSWORD_BYTES_MAX {
        return false;
    }
    match hash {
        NO_HASH => {
            _ = bcrypt::hash(password, BCRYPT_COST);
            false
        }
        hash => bcrypt::verify(password, hash).unwrap_or(false),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_match_their_own_hashes_only() {
        let hash = bcrypt::hash("Mars", 4).unwrap();
        assert!(matches("Mars", &hash));
        assert!(!matches("Venus", &hash) && !matches("", &hash) && !matches("Mars", NO_HASH));
        assert!(!matches("", NO_HASH), "nobody has no password");
        let longest = "a".repeat(PASSWORD_BYTES_MAX);
        let hash = bcrypt::hash(&longest, 4).unwrap();
        assert!(matches(&longest, &hash));
        assert!(!matches(&format!("{longest}b"), &hash), "bcrypt looks at the first 72 bytes only");
    }

    #[test]
    fn hashes_that_take_for_ever_are_none() {
        let hash = bcrypt::hash("Mars", 4).unwrap();
        assert!(is_usual(&hash) && is_usual(NO_HASH));
        assert!(!is_usual(&hash.replace("$04$", "$31$")) && !is_usual("Mars"));
    }

    #[tokio::test]
    async fn too_many_passwords_are_refused() {
        let hashing = Hashing::default();
        let _all = hashing.checks.acquire_many(HASHES_WAITING_MAX as u32).await;
        let refused = hashing.matches("Mars".into(), NO_HASH.into()).await;
        assert_eq!(refused, Err(EtcdError::REQUEST_TOO_MANY_REQUESTS));
    }

    #[tokio::test]
    async fn work_keeps_its_place_though_its_caller_has_gone() {
        let hashing = Hashing::default();
        let (end, ended) = std::sync::mpsc::channel::<()>();
        let work = hashing.run(&hashing.checks, move || _ = ended.recv());
        let soon = std::time::Duration::from_millis(50);
        assert!(tokio::time::timeout(soon, work).await.is_err());
        assert_eq!(hashing.running.available_permits(), HASHES_AT_ONCE - 1);
        drop(end);
        let all = hashing.running.acquire_many(HASHES_AT_ONCE as u32).await;
        assert!(all.is_ok(), "its place is free once it has ended");
    }
}
