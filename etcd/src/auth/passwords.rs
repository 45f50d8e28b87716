//! Passwords and their hashes.

use tokio::sync::Semaphore;

use crate::error::{Code, EtcdError};
use crate::limits::{HASHES_AT_ONCE, HASHES_WAITING_MAX};

/// Work of hashing a password: 2 to this power, as etcd's.
const BCRYPT_COST: u32 = 10;
/// Longest password in bytes; bcrypt looks at no more.
const PASSWORD_BYTES_MAX: usize = 72;
/// The hash of no password.
pub(super) const NO_HASH: &str = "";

/// Hashes passwords. Each takes a core for long, so only some do at the same time.
pub(super) struct Hashing {
    running: Semaphore,
    /// Those that run or wait.
    all: Semaphore,
}

impl Default for Hashing {
    fn default() -> Self {
        let all = Semaphore::new(HASHES_AT_ONCE + HASHES_WAITING_MAX);
        Self { running: Semaphore::new(HASHES_AT_ONCE), all }
    }
}

impl Hashing {
    /// Returns the hash of a password.
    ///
    /// # Errors
    /// It is too long; too many wait.
    pub(super) async fn hash(&self, password: String) -> Result<String, EtcdError> {
        if password.len() > PASSWORD_BYTES_MAX {
            let why = "bcrypt: password length exceeds 72 bytes";
            return Err(EtcdError::new(Code::Unknown, why));
        }
        let hash = self.run(move || bcrypt::hash(password, BCRYPT_COST)).await?;
        hash.map_err(|error| EtcdError::new(Code::Internal, format!("bcrypt: {error}")))
    }

    /// Returns whether a password has a hash.
    ///
    /// # Errors
    /// Too many wait.
    pub(super) async fn matches(&self, password: String, hash: String) -> Result<bool, EtcdError> {
        self.run(move || matches(&password, &hash)).await
    }

    async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, EtcdError> {
        let all = self.all.try_acquire();
        let _waiting = all.map_err(|_| EtcdError::REQUEST_TOO_MANY_REQUESTS)?;
        let _running = self.running.acquire().await.map_err(|_| EtcdError::STOPPED)?;
        tokio::task::spawn_blocking(work).await.map_err(|_| EtcdError::STOPPED)
    }
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

    #[tokio::test]
    async fn too_many_passwords_are_refused() {
        let hashing = Hashing::default();
        let _all = hashing.all.acquire_many((HASHES_AT_ONCE + HASHES_WAITING_MAX) as u32).await;
        let refused = hashing.matches("Mars".into(), NO_HASH.into()).await;
        assert_eq!(refused, Err(EtcdError::REQUEST_TOO_MANY_REQUESTS));
    }
}
