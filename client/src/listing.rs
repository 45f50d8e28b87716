//! Lists of keys: one CSV record or one JSON object per line.

use std::io;

use dkv_api::Pair;
use dkv_console::Console;

use crate::csv;
use crate::json_results;

/// Prints a key of a list.
pub(crate) fn print(console: &mut Console, pair: &Pair) -> io::Result<()> {
    if console.json {
        console.document(&json_results::pair(pair))
    } else {
        console.record(&line(pair))
    }
}

/// Returns a line of a list: a CSV record, or only its key.
fn line(pair: &Pair) -> Vec<u8> {
    match &pair.value {
        Some(value) => csv::record(&pair.key, value),
        None => {
            let mut line = Vec::new();
            csv::field(&pair.key, &mut line);
            line
        }
    }
}
