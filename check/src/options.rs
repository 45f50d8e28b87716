//! What a check assumes.

/// How to check.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// Whether keys may have had values before the history began.
    pub any_start: bool,
}
