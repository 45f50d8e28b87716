//! The time, and how people write it.

use std::time::{SystemTime, UNIX_EPOCH};

use time::UtcDateTime;

/// Returns the time in milliseconds since 1970.
pub(crate) fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// Returns the date and the clock of a time in milliseconds since 1970, with these separators; the
/// year 9999 stands for all later ones.
fn parts(ms: u64, (day, hour): (&str, &str)) -> String {
    let seconds = i64::try_from(ms / 1000).unwrap_or(i64::MAX);
    let at = UtcDateTime::from_unix_timestamp(seconds).unwrap_or(UtcDateTime::MAX);
    format!(
        "{:04}{day}{:02}{day}{:02}T{:02}{hour}{:02}{hour}{:02}Z",
        at.year(),
        u8::from(at.month()),
        at.day(),
        at.hour(),
        at.minute(),
        at.second()
    )
}

/// Returns a time as `--at` takes it: `2026-03-01T12:34:56Z`.
pub(crate) fn shown(ms: u64) -> String {
    parts(ms, ("-", ":"))
}

/// Returns a time as a part of a name: `20260301T123456Z`.
pub(crate) fn compact(ms: u64) -> String {
    parts(ms, ("", ""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_shown_to_the_second() {
        assert_eq!(shown(1_772_368_496_999), "2026-03-01T12:34:56Z");
        assert_eq!(compact(1_772_368_496_999), "20260301T123456Z");
        assert_eq!(shown(0), "1970-01-01T00:00:00Z");
        assert_eq!(compact(u64::MAX).len(), 16);
    }
}
