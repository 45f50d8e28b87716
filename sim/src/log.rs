//! What the processes log, with the simulated time and machine in front.

use std::cell::RefCell;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::FormatTime;

thread_local! {
    static PLACE: RefCell<(u64, String)> = const { RefCell::new((0, String::new())) };
}

/// Says which machine runs in which tick from now on.
pub fn at(now: u64, machine: &str) {
    PLACE.with_borrow_mut(|place| {
        place.0 = now;
        place.1.clear();
        place.1.push_str(machine);
    });
}

/// Prints what the processes log to standard error.
pub fn print(filter: &str) {
    tracing_subscriber::fmt()
        .with_env_filter(EnvFilter::new(filter))
        .with_writer(std::io::stderr)
        .with_timer(Place)
        .with_ansi(false)
        .init();
}

struct Place;

impl FormatTime for Place {
    fn format_time(&self, writer: &mut Writer<'_>) -> std::fmt::Result {
        PLACE.with_borrow(|(now, machine)| write!(writer, "{now:>7} ms  {machine:<9}"))
    }
}
