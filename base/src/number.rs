//! Numbers that people type: their bounds, and what to write instead.

use std::fmt::Display;
use std::ops::RangeInclusive;
use std::str::FromStr;

/// A text is not a number within bounds. The user writes another one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("write a {kind} from {least} to {most}")]
pub struct NumberError {
    kind: &'static str,
    least: String,
    most: String,
}

/// Returns a parser of whole numbers within bounds, such as those of an option.
///
/// # Examples
/// ```
/// let nodes = dkv_base::number::whole_number(1..=64_u16);
/// assert_eq!(nodes("3"), Ok(3));
/// for wrong in ["", "x", "-1", "0", "65", "1.5", "99999999999999999999"] {
///     assert_eq!(nodes(wrong).unwrap_err().to_string(), "write a whole number from 1 to 64");
/// }
/// ```
pub fn whole_number<T: Number>(
    bounds: RangeInclusive<T>,
) -> impl Fn(&str) -> Result<T, NumberError> + Clone {
    within("whole number", bounds)
}

/// Returns a parser of decimal numbers within bounds.
///
/// # Examples
/// ```
/// let seconds = dkv_base::number::decimal(0.1..=60.0);
/// assert_eq!(seconds("2.5"), Ok(2.5));
/// for wrong in ["", "x", "0", "-1", "1e9", "inf", "NaN"] {
///     assert_eq!(seconds(wrong).unwrap_err().to_string(), "write a number from 0.1 to 60");
/// }
/// ```
pub fn decimal(bounds: RangeInclusive<f64>) -> impl Fn(&str) -> Result<f64, NumberError> + Clone {
    within("number", bounds)
}

/// A type of number.
pub trait Number: FromStr + PartialOrd + Display + Copy {}

impl<T: FromStr + PartialOrd + Display + Copy> Number for T {}

fn within<T: Number>(
    kind: &'static str,
    bounds: RangeInclusive<T>,
) -> impl Fn(&str) -> Result<T, NumberError> + Clone {
    move |text| {
        // NaN is not within any bounds.
        let number = text.parse().ok().filter(|number| bounds.contains(number));
        number.ok_or_else(|| NumberError {
            kind,
            least: bounds.start().to_string(),
            most: bounds.end().to_string(),
        })
    }
}
