//! The assumptions of a check.

/// The assumptions of a check.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// Whether keys may have had values before the history began.
    pub any_start: bool,
}
