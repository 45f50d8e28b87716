//! Whether an import has changed something, so that a failure does not say that it has not.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use dkv_console::problem::{Effect, Problem};

/// Whether an import has changed something, or may have. Clones share it.
#[derive(Clone, Debug, Default)]
pub(super) struct Touched(Arc<AtomicBool>);

impl Touched {
    pub(super) fn set(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    pub(super) fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// Says what becomes of what a failed import has done.
    pub(super) fn told(&self, problem: Problem, keyspace: &str) -> Problem {
        match self.is_set() {
            false => problem.followed("; nothing was stored"),
            true => problem.with_effect(Effect::Partly).followed(&format!(
                "; what keyspace {keyspace} has so far stays: the same command with --continue \
                 goes on"
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use dkv_api::Error;
    use dkv_console::problem::Failure;

    use super::*;
    use crate::api_problems::partial_problem;

    #[test]
    fn a_failed_import_says_whether_something_stays() {
        let (touched, failed) = (Touched::default(), Error::Unavailable("no quorum".into()));
        let told = touched.told(partial_problem(&failed), "etcd");
        assert_eq!((told.failure, told.effect), (Failure::Unavailable, Effect::None));
        assert_eq!(told.message, "no quorum; nothing was stored");
        touched.clone().set();
        let told = touched.told(partial_problem(&failed), "etcd");
        assert_eq!((told.failure, told.effect), (Failure::Unavailable, Effect::Partly));
        assert!(told.message.contains("stays: the same command with --continue"), "{told:?}");
        assert!(!told.message.contains("nothing was"), "{told:?}");
    }
}
