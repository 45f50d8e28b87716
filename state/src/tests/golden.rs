//! Runs a script and compares its output with the output recorded in the file.
//!
//! A line that begins with `>` is a command; the lines below it, up to an empty line, a comment or
//! the next command, are its output. Comments begin with `#`. With `UPDATE_EXPECT=1` in the
//! environment the file is rewritten, and the author has to check the difference.

use std::fmt::Write as _;
use std::path::PathBuf;

pub(super) fn check(name: &str, mut run: impl FnMut(&str) -> String) {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("src/tests/scripts").join(name);
    let script = std::fs::read_to_string(&path).expect("the script is beside the tests");
    let mut printed = String::new();
    for line in script.lines() {
        if let Some(command) = line.strip_prefix('>') {
            writeln!(printed, "{line}").expect("a string takes all");
            let output = run(command.trim());
            if !output.is_empty() {
                writeln!(printed, "{}", output.trim_end()).expect("a string takes all");
            }
        } else if line.is_empty() || line.starts_with('#') {
            writeln!(printed, "{line}").expect("a string takes all");
        }
    }
    if std::env::var_os("UPDATE_EXPECT").is_some() {
        std::fs::write(&path, &printed).expect("the script can be written");
    } else if printed != script {
        let lines = script.lines().zip(printed.lines()).enumerate();
        let first = lines.into_iter().find(|(_, (expected, actual))| expected != actual);
        let (number, (expected, actual)) = first.unwrap_or((0, ("other length", "other length")));
        panic!(
            "{name}:{}: expected\n  {expected}\nbut it printed\n  {actual}\nwhole output:\n{printed}",
            number + 1
        );
    }
}
