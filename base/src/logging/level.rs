//! What this process logs, shown and changed while it runs.
//!
//! A change may be for a time: then the filter before comes back, whatever other changes for a time
//! were made meanwhile. The caller runs [`Passing::end`], which waits until that time is over.

use std::sync::{Mutex, MutexGuard, OnceLock};
use std::time::{Duration, Instant};

use crate::sync::lock;
use tracing::info;
use tracing_subscriber::EnvFilter;

use super::{LOG_VARIABLE, LoggingError};

/// Length of a filter, in bytes.
pub const FILTER_BYTES_MAX: usize = 1024;
/// Longest time for which a filter applies before the one before comes back.
pub const LIFE_MAX: Duration = Duration::from_secs(24 * 3600);

/// Sets the filter of this process; returns whether it did.
type Switch = Box<dyn Fn(EnvFilter) -> bool + Send + Sync>;

static CONTROL: OnceLock<Control> = OnceLock::new();

struct Control {
    switch: Switch,
    filters: Mutex<Filters>,
}

/// The filters of a process, as texts.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Filters {
    /// The filter that stays.
    lasting: String,
    /// The filter that applies for a time, and the number of the change.
    passing: Option<(String, u64)>,
    /// When the time of that is over.
    until: Option<Instant>,
    changes: u64,
}

/// What a process logs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Levels {
    /// The filter.
    pub filter: String,
    /// The filter that comes back, and when.
    pub then: Option<(String, Duration)>,
}

/// Why the filter of this process cannot be shown or changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LevelError {
    /// The filter is misspelt; the caller writes another.
    #[error("{0}")]
    Filter(String),
    /// Another program has installed the log of this process.
    #[error("the embedding program controls this log")]
    NotOurs,
}

impl Filters {
    fn new(lasting: &str) -> Self {
        Self { lasting: lasting.to_owned(), passing: None, until: None, changes: 0 }
    }

    /// Returns the number of the change.
    fn change(&mut self, filter: &str, life: Option<Duration>, now: Instant) -> u64 {
        self.changes += 1;
        match life {
            Some(life) => {
                self.passing = Some((filter.to_owned(), self.changes));
                self.until = now.checked_add(life);
            }
            None => *self = Self { changes: self.changes, ..Self::new(filter) },
        }
        self.changes
    }

    /// Returns the filter that comes back after a change, unless there was a later one.
    fn revert(&mut self, change: u64) -> Option<&str> {
        self.passing.take_if(|(_, number)| *number == change)?;
        self.until = None;
        Some(&self.lasting)
    }

    fn levels(&self, now: Instant) -> Levels {
        let passing = self.passing.as_ref().zip(self.until);
        match passing {
            Some(((filter, _), until)) => Levels {
                filter: filter.clone(),
                then: Some((self.lasting.clone(), until.saturating_duration_since(now))),
            },
            None => Levels { filter: self.lasting.clone(), then: None },
        }
    }
}

impl Control {
    fn filters(&self) -> MutexGuard<'_, Filters> {
        lock(&self.filters)
    }
}

/// Makes the filter of this process changeable.
pub(super) fn install(lasting: &str, switch: Switch) {
    let filters = Mutex::new(Filters::new(lasting));
    // Only the first log of a process gets here.
    let _ = CONTROL.set(Control { switch, filters });
}

/// Returns what this process logs.
///
/// # Errors
/// If its log is not dkv's.
pub fn levels() -> Result<Levels, LevelError> {
    let control = CONTROL.get().ok_or(LevelError::NotOurs)?;
    Ok(control.filters().levels(Instant::now()))
}

/// A change for a time, which its maker ends.
#[derive(Debug)]
#[must_use = "the filter before comes back only if this is run"]
pub struct Passing {
    number: u64,
    life: Duration,
}

impl Passing {
    /// Waits until the time of the change is over, and has the filter before come back, unless
    /// there was a later change.
    pub async fn end(self) {
        tokio::time::sleep(self.life).await;
        if let Some(filter) = revert(self.number) {
            info!(filter, "restored the previous log filter");
        }
    }
}

/// Changes what this process logs, for a time of at most [`LIFE_MAX`] if `life` says so.
///
/// # Errors
/// If the filter is too long or misspelt, or the log is not dkv's.
pub fn change(filter: &str, life: Option<Duration>) -> Result<Option<Passing>, LevelError> {
    if filter.len() > FILTER_BYTES_MAX {
        let why = format!("a log filter has at most {FILTER_BYTES_MAX} bytes");
        return Err(LevelError::Filter(why));
    }
    let parsed = parse(filter)?;
    let life = life.map(|life| life.min(LIFE_MAX));
    let control = CONTROL.get().ok_or(LevelError::NotOurs)?;
    let mut filters = control.filters();
    if !(control.switch)(parsed) {
        return Err(LevelError::NotOurs);
    }
    let number = filters.change(filter.trim(), life, Instant::now());
    Ok(life.map(|life| Passing { number, life }))
}

/// Has the filter before a change for a time come back. Does nothing if there was a later change.
/// Returns the filter that applies then.
fn revert(change: u64) -> Option<String> {
    let control = CONTROL.get()?;
    let mut filters = control.filters();
    let lasting = filters.revert(change)?.to_owned();
    // It was parsed before.
    let parsed = super::builder().parse(&lasting).map(super::keeping).ok()?;
    (control.switch)(parsed).then_some(lasting)
}

/// Checks that a filter can be used.
///
/// # Errors
/// If it is blank or misspelt.
pub fn check(filter: &str) -> Result<(), LevelError> {
    parse(filter).map(drop)
}

fn parse(filter: &str) -> Result<EnvFilter, LevelError> {
    if filter.trim().is_empty() {
        return Err(LevelError::Filter("the filter is empty".into()));
    }
    super::filter(filter.trim(), "").map_err(|error: LoggingError| {
        let text = error.to_string();
        let prefix = format!("{LOG_VARIABLE}: ");
        LevelError::Filter(text.strip_prefix(&prefix).unwrap_or(&text).to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: Duration = Duration::from_secs(1);

    #[test]
    fn a_filter_for_a_time_gives_way_to_the_one_before() {
        let (mut filters, start) = (Filters::new("info"), Instant::now());
        let first = filters.change("debug", Some(10 * S), start + S);
        let then = Some(("info".to_owned(), 9 * S));
        assert_eq!(filters.levels(start + 2 * S), Levels { filter: "debug".into(), then });
        // A second change for a time keeps what comes back, and the end of the first means nothing.
        let second = filters.change("trace", Some(10 * S), start + 5 * S);
        assert_eq!(filters.revert(first), None);
        assert_eq!(filters.levels(start + 5 * S).filter, "trace");
        assert_eq!(filters.revert(second), Some("info"));
        assert_eq!(filters.levels(start + 5 * S), Levels { filter: "info".into(), then: None });
        assert_eq!(filters.revert(second), None);
        // A lasting change ends the one for a time.
        let third = filters.change("trace", Some(10 * S), start + 5 * S);
        filters.change("warn", None, start + 6 * S);
        assert_eq!(filters.revert(third), None);
        assert_eq!(filters.levels(start + 6 * S), Levels { filter: "warn".into(), then: None });
    }

    #[test]
    fn a_misspelt_filter_is_refused_without_naming_the_variable() {
        for filter in ["", "  ", "loud", "dkv_nod=debug"] {
            let error = check(filter).unwrap_err().to_string();
            assert!(!error.contains(LOG_VARIABLE), "{error}");
        }
        let long = "info,".repeat(FILTER_BYTES_MAX);
        assert!(
            matches!(change(&long, None), Err(LevelError::Filter(why)) if why.contains("1024"))
        );
        assert!(check("dkv_node=debug,info").is_ok());
    }
}
