//! Errors, one sentence each.

use dkv_api::Error;

/// Why a backup or a restore did not succeed.
#[non_exhaustive]
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// The destination is not one.
    #[error("{0}")]
    Destination(String),
    /// The destination cannot be read.
    #[error("cannot read {place}: {why}")]
    Read {
        /// The object.
        place: String,
        /// The reason.
        why: String,
    },
    /// The destination cannot be written.
    #[error("cannot write {place}: {why}; what was written is kept: run the same command again")]
    Write {
        /// The object.
        place: String,
        /// The reason.
        why: String,
    },
    /// Another process has written what this one was about to write.
    #[error("{0} is there already: another process writes this backup")]
    Taken(String),
    /// A part of a backup is not what was written.
    #[error("{place} is damaged: {why}")]
    Damaged {
        /// The object.
        place: String,
        /// The fault.
        why: String,
    },
    /// There is no such backup, or none of that time.
    #[error("{0}")]
    NotFound(String),
    /// Something is in the way, and was not touched.
    #[error("{0}")]
    Refused(String),
    /// The restored keys are not those of the backup.
    #[error("{0}")]
    Different(String),
    /// A part was done, or may have been, before this.
    #[error("{source}; {stays}")]
    Partly {
        /// What ended it.
        source: Box<BackupError>,
        /// What becomes of the part that was done, and what to do.
        stays: String,
    },
    /// The network did not serve a request.
    #[error("{what}: {source}")]
    Network {
        /// What failed.
        what: String,
        /// Why.
        source: Box<Error>,
    },
    /// A file for what does not fit into memory cannot be used.
    #[error("cannot use a temporary file: {0}")]
    Spool(std::io::Error),
}

impl BackupError {
    /// Names what failed in the network.
    pub(crate) fn network(what: &str) -> impl Fn(Error) -> Self + use<'_> {
        move |source| Self::Network { what: what.to_owned(), source: Box::new(source) }
    }

    /// Says that a part was done.
    pub(crate) fn partly(self, stays: impl Into<String>) -> Self {
        match self {
            Self::Partly { source, stays: own } => {
                Self::Partly { source, stays: format!("{own}; {}", stays.into()) }
            }
            source => Self::Partly { source: Box::new(source), stays: stays.into() },
        }
    }

    /// Returns whether the network refuses this client, which no patience changes.
    pub(crate) fn is_denied(&self) -> bool {
        matches!(self, Self::Network { source, .. } if matches!(**source, Error::Denied(_)))
    }

    /// Returns whether the same may succeed later: the network did not serve a request, or the
    /// destination was out of reach or full.
    pub(crate) fn may_pass(&self) -> bool {
        matches!(self, Self::Network { .. } | Self::Read { .. } | Self::Write { .. })
            && !self.is_denied()
    }

    /// Returns the error without what the user can do, for a command that tries again by itself.
    pub(crate) fn fault(&self) -> String {
        match self {
            Self::Write { place, why } => format!("cannot write {place}: {why}"),
            error => error.to_string(),
        }
    }

    pub(crate) fn damaged(place: &str, why: impl ToString) -> Self {
        Self::Damaged { place: place.to_owned(), why: why.to_string() }
    }
}
