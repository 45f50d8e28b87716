//! The command `dkv-check` and histories that are known to be good or bad.

#![allow(clippy::unwrap_used)]

use std::path::Path;
use std::process::{Command, Output};

fn check(arguments: &[&str]) -> Output {
    let histories = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/histories");
    let program = env!("CARGO_BIN_EXE_dkv-check");
    Command::new(program).args(arguments).current_dir(histories).output().unwrap()
}

fn said(output: &Output) -> (i32, String) {
    let text = [&output.stdout[..], &output.stderr[..]].concat();
    (output.status.code().unwrap(), String::from_utf8(text).unwrap())
}

#[test]
fn a_good_history_is_good() {
    let (status, said) = said(&check(&["good.jsonl"]));
    let expected = "10 operations on 1 keys, 1 unknown, 1 failed\n\
                    linearizable, and all revisions agree\n";
    assert_eq!((status, said.as_str()), (0, expected));
}

#[test]
fn a_stale_read_is_shown_with_what_it_contradicts() {
    let (status, said) = said(&check(&["stale.jsonl"]));
    let expected = "\
5 operations on 1 keys, 0 unknown, 0 failed
key \"k\": a read is older than what was known before it
  0.000 ms to 0.000 ms  client 1  put \"b\" -> done at revision 2
  0.000 ms to 0.000 ms  client 3  get -> \"a\" at revision 1
key \"k\": no order explains these operations, whatever happened before
  0.000 ms to 0.000 ms  client 2  get -> \"b\" at revision 2
  0.000 ms to 0.000 ms  client 3  get -> \"a\" at revision 1
VIOLATED: 2 contradictions
";
    assert_eq!((status, said.as_str()), (1, expected));
}

#[test]
fn without_revisions_the_search_alone_finds_it() {
    let (status, text) = said(&check(&["twice.jsonl"]));
    assert_eq!(status, 1, "{text}");
    assert!(text.ends_with("VIOLATED: 1 contradiction\n"), "{text}");
    let (status, text) = said(&check(&["false_failure.jsonl"]));
    assert_eq!(status, 1, "{text}");
    assert!(text.contains("a value was read that nobody wrote there"), "{text}");
    assert!(text.contains("no order explains"), "{text}");
}

#[test]
fn what_is_no_history_is_told_in_a_line() {
    let (status, text) = said(&check(&["nowhere.jsonl"]));
    assert_eq!(status, 2);
    assert_eq!(text, "error: nowhere.jsonl: No such file or directory (os error 2)\n");
    let (status, text) = said(&check(&["../command.rs"]));
    assert_eq!(status, 2);
    assert!(text.starts_with("error: ../command.rs: line 1 is not an operation: "), "{text}");
    assert_eq!(text.lines().count(), 1);
}
