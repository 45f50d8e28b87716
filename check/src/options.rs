//! The assumptions of a check.

/// The assumptions of a check.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// Whether keys may have had values before the history began.
    pub any_start: bool,
    /// How much too late a lease may end, in milliseconds; `None` if at any time.
    pub lease_late_ms_max: Option<u64>,
}
