//! Times, sizes and counts as people read and write them.

use std::time::Duration;

/// Formats a duration in its natural unit: `850 µs`, `12.3 ms`, `4.2 s`, `3 min`, `5 h`, `2 d`.
pub fn duration(duration: Duration) -> String {
    let us = duration.as_micros();
    let s = duration.as_secs();
    match us {
        0..1_000 => format!("{us} µs"),
        1_000..100_000 => format!("{:.1} ms", us as f64 / 1e3),
        100_000..1_000_000 => format!("{} ms", us / 1000),
        1_000_000..60_000_000 => format!("{:.1} s", us as f64 / 1e6),
        _ if s < 3600 => format!("{} min", s / 60),
        _ if s < 48 * 3600 => format!("{} h", s / 3600),
        _ => format!("{} d", s / 86_400),
    }
}

/// Formats an age or an uptime, given in milliseconds.
pub fn duration_ms(ms: u64) -> String {
    if ms < 1000 { format!("{ms} ms") } else { duration(Duration::from_millis(ms)) }
}

/// Formats a size: `17 B`, `1.2 KiB`, `256.0 MiB`.
pub fn bytes(bytes: u64) -> String {
    let mut size = bytes as f64;
    for unit in ["B", "KiB", "MiB", "GiB"] {
        if size < 1024.0 {
            return if unit == "B" { format!("{bytes} B") } else { format!("{size:.1} {unit}") };
        }
        size /= 1024.0;
    }
    format!("{size:.1} TiB")
}

/// Formats a number in groups of three digits: `1 234 567`.
pub fn number(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(' ');
        }
        text.push(digit);
    }
    text
}

/// Formats a time, given in milliseconds since 1970: `2026-03-01 12:34:56 UTC`.
pub fn timestamp(ms: u64) -> String {
    let seconds = i64::try_from(ms / 1000).unwrap_or(i64::MAX);
    let Ok(timestamp) = time::OffsetDateTime::from_unix_timestamp(seconds) else {
        return format!("{ms} ms after 1970");
    };
    format!(
        "{:04}-{:02}-{:02} {:02}:{:02}:{:02} UTC",
        timestamp.year(),
        u8::from(timestamp.month()),
        timestamp.day(),
        timestamp.hour(),
        timestamp.minute(),
        timestamp.second()
    )
}

/// Parses a time: `2026-03-01T12:34:56Z`, or as [`timestamp`] prints it. Returns the last of its
/// milliseconds since 1970, so that what happened in that second is included.
pub fn parse_timestamp(text: &str) -> Option<u64> {
    let text = text.strip_suffix(" UTC").or_else(|| text.strip_suffix('Z'))?;
    let (date, clock) = text.split_once(['T', ' '])?;
    let numbers = |text: &str, between: char| -> Option<[u32; 3]> {
        let mut parts = text.split(between).map(|part| {
            let digits = !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
            part.parse::<u32>().ok().filter(|_| digits)
        });
        let numbers = [parts.next()??, parts.next()??, parts.next()??];
        parts.next().is_none().then_some(numbers)
    };
    let ([year, month, day], [hour, minute, second]) = (numbers(date, '-')?, numbers(clock, ':')?);
    let month = time::Month::try_from(u8::try_from(month).ok()?).ok()?;
    let year = i32::try_from(year).ok().filter(|year| (1970..10_000).contains(year))?;
    let date = time::Date::from_calendar_date(year, month, u8::try_from(day).ok()?).ok()?;
    let small = |number: u32| u8::try_from(number).ok();
    let clock = time::Time::from_hms(small(hour)?, small(minute)?, small(second)?).ok()?;
    let seconds = time::UtcDateTime::new(date, clock).unix_timestamp();
    u64::try_from(seconds).ok()?.checked_mul(1000)?.checked_add(999)
}

/// Why a text is not a duration. The user writes another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DurationError {
    /// It is not a whole number with a known unit.
    #[error("write a whole number and a unit, such as 500ms, 5s, 10m, 1h or 7d")]
    Malformed,
    /// It is zero, or longer than ten years.
    #[error("the time must be from 1ms to 3650d, as in 500ms, 5s, 10m, 1h or 7d")]
    OutOfBounds,
}

/// Parses a duration: a number and `ms`, `s`, `m`, `h` or `d`; without a unit, seconds.
///
/// # Errors
/// The text is malformed, or the duration is out of bounds.
pub fn parse_duration(text: &str) -> Result<Duration, DurationError> {
    let digits = text.len() - text.trim_start_matches(|it: char| it.is_ascii_digit()).len();
    let (number, unit) = text.split_at(digits);
    let unit_ms = match unit.trim() {
        "ms" => 1,
        "" | "s" => 1000,
        "m" | "min" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return Err(DurationError::Malformed),
    };
    if number.is_empty() {
        return Err(DurationError::Malformed);
    }
    let ms = number.parse::<u64>().ok().and_then(|number| number.checked_mul(unit_ms));
    match ms {
        Some(ms) if (1..=3650 * 86_400_000).contains(&ms) => Ok(Duration::from_millis(ms)),
        _ => Err(DurationError::OutOfBounds),
    }
}

/// Why a text is not a size. The user writes another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("write a whole number and a unit, such as 512KiB, 64MiB, 4GiB or 1TiB")]
pub struct BytesError;

/// Parses a size: a number and `KiB`, `MiB`, `GiB` or `TiB`; with `B` or without a unit, bytes.
///
/// # Errors
/// The text is malformed, or the size is out of bounds.
pub fn parse_bytes(text: &str) -> Result<u64, BytesError> {
    let digits = text.len() - text.trim_start_matches(|it: char| it.is_ascii_digit()).len();
    let (number, unit) = text.split_at(digits);
    let unit = match unit.trim() {
        "" | "B" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        "TiB" => 1_u64 << 40,
        _ => return Err(BytesError),
    };
    let bytes = number.parse::<u64>().ok().and_then(|number| number.checked_mul(unit));
    bytes.ok_or(BytesError)
}

/// Returns `one` for a count of one, otherwise `many`.
pub fn plural<'a>(count: u64, one: &'a str, many: &'a str) -> &'a str {
    if count == 1 { one } else { many }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_their_natural_unit() {
        let shown = |us| duration(Duration::from_micros(us));
        assert_eq!(shown(850), "850 µs");
        assert_eq!(shown(12_345), "12.3 ms");
        assert_eq!(shown(312_000), "312 ms");
        assert_eq!(shown(4_210_000), "4.2 s");
        assert_eq!(shown(185_000_000), "3 min");
        assert_eq!(duration_ms(5 * 3_600_000), "5 h");
        assert_eq!(duration_ms(12), "12 ms");
        assert_eq!(duration_ms(72 * 3_600_000), "3 d");
    }

    #[test]
    fn sizes_numbers_and_moments() {
        assert_eq!(bytes(17), "17 B");
        assert_eq!(bytes(1229), "1.2 KiB");
        assert_eq!(bytes(256 * 1024 * 1024), "256.0 MiB");
        assert_eq!(number(0), "0");
        assert_eq!(number(123), "123");
        assert_eq!(number(1_234_567), "1 234 567");
        assert_eq!(timestamp(1_772_368_496_000), "2026-03-01 12:34:56 UTC");
    }

    #[test]
    fn sizes_are_read_with_their_unit() {
        assert_eq!(parse_bytes("17"), Ok(17));
        assert_eq!(parse_bytes("17B"), Ok(17));
        assert_eq!(parse_bytes("4GiB"), Ok(4 << 30));
        assert_eq!(parse_bytes("64 MiB"), Ok(64 << 20));
        for wrong in ["", "MiB", "-1", "4GB", "4gib", "1.5MiB", "99999999999TiB"] {
            assert_eq!(parse_bytes(wrong), Err(BytesError), "{wrong}");
        }
    }

    #[test]
    fn times_are_read_with_their_unit() {
        assert_eq!(parse_duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(parse_duration("5"), Ok(Duration::from_secs(5)));
        assert_eq!(parse_duration("1h"), Ok(Duration::from_secs(3600)));
        for wrong in ["", "ms", "0", "-1", "5 weeks", "99999999999999999999d", "1.5s"] {
            assert!(parse_duration(wrong).is_err(), "{wrong}");
        }
    }
}
