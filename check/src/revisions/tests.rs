use super::*;
use crate::finding::Kind;

fn kinds(text: &str) -> Vec<Kind> {
    let history = History::read(text.as_bytes()).unwrap();
    check(&history, Options::default()).iter().map(|finding| finding.kind).collect()
}

/// `client op value start result revision` in a line; answers come five nanoseconds later.
fn short(text: &str) -> Vec<Kind> {
    let mut lines = String::new();
    for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let words: Vec<&str> = line.split(' ').collect();
        let [client, op, value, start_ns, result, revision] = words[..] else { panic!("{line}") };
        let value = if value == "-" { String::new() } else { format!(r#""value":"{value}","#) };
        let end_ns = start_ns.parse::<u64>().unwrap() + 5;
        let revision =
            if revision == "-" { String::new() } else { format!(r#","revision":{revision}"#) };
        lines += &format!(
            r#"{{"client":{client},"key":"k","op":"{op}",{value}"start_ns":{start_ns},"end_ns":{end_ns},"result":"{result}"{revision}}}"#
        );
        lines += "\n";
    }
    kinds(&lines)
}

#[test]
fn what_is_right_is_not_complained_about() {
    let right = "
        1 get - 0 absent 0
        1 put a 10 ok 1
        2 get a 20 ok 1
        2 put b 30 unknown -
        1 get a 40 ok 1
        1 get b 50 ok 2
        1 delete - 60 ok 3
        3 get - 70 absent 3
        3 delete - 80 absent 3
        1 put c 90 failed -
        3 get - 100 absent 9
    ";
    assert_eq!(short(right), []);
}

#[test]
fn a_revision_belongs_to_one_write() {
    assert_eq!(short("1 put a 0 ok 1\n2 put b 1 ok 1"), [Kind::Reused]);
    assert_eq!(short("1 put a 0 ok 1\n2 get b 9 ok 1"), [Kind::Mismatch]);
    assert_eq!(
        short("1 put a 0 unknown -\n2 put b 1 unknown -\n2 get b 9 ok 1\n1 get a 10 ok 1"),
        [Kind::Mismatch]
    );
    assert_eq!(short("1 put a 0 ok 1\n1 delete - 10 ok 2\n2 get a 20 ok 2"), [Kind::Mismatch]);
    assert_eq!(short("1 put a 0 ok 3\n2 put b 10 ok 2"), [Kind::OutOfOrder]);
}

#[test]
fn what_is_read_was_written_before() {
    assert_eq!(short("1 put a 0 failed -\n2 get a 9 ok 1"), [Kind::NeverWritten]);
    assert_eq!(short("2 get a 0 ok 1\n1 put a 9 unknown -"), [Kind::NeverWritten]);
}

#[test]
fn nothing_goes_back() {
    let stale = "1 put a 0 ok 1\n1 put b 10 ok 2\n2 get a 20 ok 1\n2 get b 30 ok 2";
    assert_eq!(short(stale), [Kind::Stale]);
    let back = "1 put a 0 ok 1\n1 put b 10 ok 2\n1 get a 20 ok 1\n1 get b 30 ok 2";
    assert_eq!(short(back), [Kind::WentBack]);
    let read_back =
        "1 put a 0 ok 1\n1 put b 10 unknown -\n2 get b 20 ok 2\n2 get a 30 ok 1\n2 get b 40 ok 2";
    assert_eq!(short(read_back), [Kind::WentBack]);
    let at_once = "1 put a 0 ok 1\n1 put b 10 ok 2\n2 get a 13 ok 1";
    assert_eq!(short(at_once), []);
}

#[test]
fn what_was_acknowledged_is_there_at_the_end() {
    assert_eq!(short("1 put a 0 ok 1\n1 put b 10 ok 2\n2 get a 20 ok 1"), [Kind::Lost]);
    assert_eq!(short("1 put a 0 ok 1\n2 get - 20 absent 0"), [Kind::Lost]);
    // Other keys have moved the shard on.
    assert_eq!(short("1 put a 0 ok 1\n2 get - 20 absent 7"), [Kind::Lost]);
    assert_eq!(short("1 put a 0 ok 1\n2 get - 20 absent 7\n2 get a 30 ok 1"), [Kind::Stale]);
    assert_eq!(short("1 delete - 0 unknown -\n1 put a 5 ok 1\n2 get - 20 absent 7"), []);
    assert_eq!(short("1 put a 0 ok 1\n3 delete - 8 ok 4\n2 get - 20 absent 7"), []);
    assert_eq!(short("1 put a 0 ok 5\n3 delete - 0 ok 4\n2 get - 20 absent 7"), [Kind::Lost]);
}
