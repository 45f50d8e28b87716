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

#[test]
fn transactions_watches_and_leases_are_read_from_the_same_file() {
    let (status, text) = said(&check(&["whole.jsonl", "--lease-late-max", "1000"]));
    let expected = "\
2 operations on 2 keys, 0 unknown, 0 failed
3 transactions, 1 unknown
6 events of watches
2 reads of the past
3 calls that concern leases
linearizable, and all revisions agree; strictly serializable; watches show every change once and \
in order; the past is as it was; no lease ended too early
";
    assert_eq!((status, text.as_str()), (0, expected));
}

#[test]
fn a_lost_event_and_a_stale_transaction_are_shown() {
    let (status, text) = said(&check(&["broken.jsonl"]));
    let expected = "\
1 operations on 1 keys, 0 unknown, 0 failed
2 transactions, 0 unknown
2 events of watches
2 calls that concern leases
strict G-single: 2 transactions, each of which must come before the next, and the last before the first
  #1  2.000 ms to 3.000 ms  client 2  read x [] -> done
      comes before #0, which wrote \"x\" after the version that it read
  #0  0.000 ms to 1.000 ms  client 1  append x 1 -> done
      comes before #1, which began after it was answered
watcher 1, shard 1, opened after 0: it has come to 2, and does not show
  revision 1: [\"k\"], known by client 1
  revision 2: any change
lease 7: it ended before its time
  0.000 ms to 1.000 ms  renewed for 5000 ms
  3000.000 ms to 3001.000 ms  \"l\" is gone
VIOLATED: 3 contradictions
";
    assert_eq!((status, text.as_str()), (1, expected));
}

#[test]
fn a_malformed_record_is_told_in_a_line_with_its_number() {
    let wrong = |line: &str| {
        let path = std::env::temp_dir().join(format!("dkv-check-{}.jsonl", std::process::id()));
        std::fs::write(&path, format!("\n{line}\n")).unwrap();
        let (status, text) = said(&check(&[path.to_str().unwrap()]));
        std::fs::remove_file(&path).unwrap();
        assert_eq!((status, text.lines().count()), (2, 1), "{text}");
        text.split_once(": line 2 ").map(|(_, problem)| problem.trim_end().to_owned()).unwrap()
    };
    let transaction = |more: &str| {
        wrong(&format!(r#"{{"kind":"transaction","client":1,"start_ns":5,"ops":[],{more}}}"#))
    };
    assert_eq!(transaction(r#""result":"ok","end_ns":4"#), "ends before it begins");
    assert_eq!(transaction(r#""result":"ok""#), "has a result and no end_ns");
    assert!(transaction(r#""result":"maybe""#).contains("unknown variant `maybe`"));
    assert!(transaction(r#""result":"unknown","more":1"#).contains("unknown field `more`"));
    assert!(wrong(r#"{"kind":"txn"}"#).starts_with("is not a record: unknown variant `txn`"));
    let lease = r#"{"kind":"lease","lease":1,"start_ns":5,"event":{"gone":{"key":""}}}"#;
    assert_eq!(wrong(lease), "has a result and no end_ns");
}
