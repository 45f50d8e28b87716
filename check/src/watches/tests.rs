use super::*;

/// Checks a history with writes 1 to 6 of shard 1: puts of a, b, a; a transaction on a and b; a
/// delete of a; a put of b. The other lines are those of the watch.
fn kinds(lines: &str) -> Vec<Kind> {
    let mut text = String::new();
    for (revision, key, value) in [(1, "a", "v1"), (2, "b", "v2"), (3, "a", "v3"), (6, "b", "v6")] {
        text += &format!(
            r#"{{"client":1,"shard":1,"key":"{key}","op":"put","value":"{value}","start_ns":{revision}0,"end_ns":{revision}5,"result":"ok","revision":{revision}}}"#
        );
        text += "\n";
    }
    text += r#"{"client":1,"shard":1,"key":"a","op":"delete","start_ns":50,"end_ns":55,"result":"ok","revision":5}
        {"kind":"changes","shard":1,"revision":4,"keys":{"a":"v4","b":"v4"}}
        {"kind":"compaction","shard":1,"revision":3}
    "#;
    for line in lines.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let (watcher, event) = line.split_once(' ').unwrap();
        let words: Vec<&str> = event.split(' ').collect();
        let event = match words[..] {
            ["open", after] => format!(r#"{{"opened":{{"after":{after},"previous":true}}}}"#),
            ["open", after, key] => format!(
                r#"{{"opened":{{"after":{after},"keys":{{"key":"{key}"}},"previous":true}}}}"#
            ),
            ["at", revision] => format!(r#"{{"progress":{revision}}}"#),
            ["token", revision] => format!(r#"{{"token":{revision}}}"#),
            ["compacted", floor] => format!(r#"{{"compacted":{floor}}}"#),
            [revision, key, value, at, before] => format!(
                r#"{{"change":{{"revision":{revision},"key":"{key}","value":"{value}","previous":{{"revision":{at},"value":"{before}"}}}}}}"#
            ),
            [revision, key, "-"] => {
                format!(
                    r#"{{"change":{{"revision":{revision},"key":"{key}","previous":{{"revision":4,"value":"v4"}}}}}}"#
                )
            }
            [revision, key, value] => {
                format!(r#"{{"change":{{"revision":{revision},"key":"{key}","value":"{value}"}}}}"#)
            }
            _ => panic!("{line}"),
        };
        text += &format!(r#"{{"kind":"watch","watcher":{watcher},"shard":1,"event":{event}}}"#);
        text += "\n";
    }
    let history = History::read(text.as_bytes()).unwrap();
    check(&history).into_iter().map(|finding| finding.kind).collect()
}

const ALL: &str = "
    1 open 0
    1 1 a v1
    1 2 b v2
    1 token 2
    1 3 a v3 1 v1
    1 4 a v4 3 v3
    1 token 3
    1 4 b v4 2 v2
    1 token 4
    1 5 a -
    1 6 b v6 4 v4
    1 at 6
    1 token 6
";

fn without(line: &str) -> String {
    let kept = ALL.lines().filter(|kept| !kept.contains(line));
    kept.collect::<Vec<_>>().join("\n")
}

#[test]
fn a_whole_watch_is_right() {
    assert_eq!(kinds(ALL), []);
    assert_eq!(kinds("1 open 2 b\n 1 4 b v4 2 v2\n 1 6 b v6 4 v4\n 1 at 6\n 1 token 6"), []);
    // It has not come to the others yet.
    assert_eq!(kinds("1 open 2 b\n 1 4 b v4 2 v2"), []);
    assert_eq!(kinds("1 open 2\n 1 3 a v3 1 v1\n 1 4 a v4 3 v3\n 1 open 3\n 1 4 a v4 3 v3"), []);
    assert_eq!(kinds("1 open 2\n 1 compacted 3"), []);
}

#[test]
fn what_is_missing_is_found() {
    assert_eq!(kinds(&without("3 a v3 1 v1")), [Kind::WatchLost]);
    assert_eq!(kinds(&without("4 b v4")), [Kind::WatchSplit]);
    assert_eq!(kinds(&without("6 b v6")), [Kind::WatchLost]);
    assert_eq!(kinds("1 open 2 b\n 1 6 b v6 4 v4"), [Kind::WatchLost]);
    assert_eq!(kinds("1 open 2 b\n 1 token 5"), [Kind::WatchLost]);
    // No other source knows of the revisions 7 to 9, and each has a change.
    assert_eq!(kinds("1 open 6\n 1 at 9"), [Kind::WatchLost]);
    assert_eq!(kinds("1 open 6 b\n 1 at 9"), []);
    assert_eq!(kinds("1 open 6\n 1 9 c new"), [Kind::WatchLost]);
}

#[test]
fn what_is_shown_wrongly_is_found() {
    let twice = ALL.replace("1 5 a -", "1 5 a -\n 1 5 a -");
    assert_eq!(kinds(&twice), [Kind::WatchDoubled]);
    assert_eq!(
        kinds("1 open 4\n 1 6 b v6 4 v4\n 1 5 a -"),
        [Kind::WatchLost, Kind::WatchReordered]
    );
    assert_eq!(kinds("1 open 4\n 1 4 b v4 2 v2"), [Kind::WatchEarly]);
    assert_eq!(kinds("1 open 2 b\n 1 3 a v3 1 v1"), [Kind::WatchWrong]);
    assert_eq!(kinds("1 open 2\n 1 3 a other 1 v1"), [Kind::WatchWrong]);
    assert_eq!(kinds("1 open 2\n 1 3 a v3 1 v1\n 1 4 c v4"), [Kind::WatchWrong]);
    assert_eq!(kinds("1 3 a v3"), [Kind::WatchWrong]);
}

#[test]
fn a_wrong_version_before_is_found() {
    assert_eq!(kinds("1 open 2\n 1 3 a v3 1 other"), [Kind::WatchPrevious]);
    assert_eq!(kinds("1 open 2\n 1 3 a v3 2 v2"), [Kind::WatchPrevious]);
    assert_eq!(kinds("1 open 5\n 1 6 b v6 2 v2"), [Kind::WatchPrevious]);
    assert_eq!(kinds(&ALL.replace("3 a v3 1 v1", "3 a v3")), [Kind::WatchPrevious]);
}

#[test]
fn a_wrong_token_is_found() {
    assert_eq!(kinds(&ALL.replace("1 token 6", "1 token 5")), [Kind::WatchToken]);
    assert_eq!(kinds(&ALL.replace("1 token 4", "1 token 3")), [Kind::WatchToken]);
    assert_eq!(kinds(&ALL.replace("1 token 2", "1 token 1")), [Kind::WatchToken]);
}

#[test]
fn only_what_is_below_the_floor_is_compacted() {
    assert_eq!(kinds("1 open 3\n 1 compacted 3"), [Kind::Compacted]);
    assert_eq!(kinds("1 open 2\n 1 at 2\n 1 compacted 4"), [Kind::Compacted]);
}

/// Checks a line of a history in which key a has the versions 1, 3, 4 and 7, and is deleted at 5.
/// Revision 6 is not known.
fn past(line: &str) -> Vec<Kind> {
    let text = r#"{"kind":"changes","shard":1,"revision":7,"keys":{"a":"v7"}}"#;
    let mut history = History::read(text.as_bytes()).unwrap();
    let mut more = History::read(line.as_bytes()).unwrap();
    history.past_reads.append(&mut more.past_reads);
    history.version_lists.append(&mut more.version_lists);
    for (revision, key, value) in
        [(1, "a", Some("v1")), (2, "b", Some("v2")), (3, "a", Some("v3")), (5, "a", None)]
    {
        let keys = [(key.to_owned(), value.map(str::to_owned))].into();
        history.changes.push(crate::RevisionChanges { shard: 1, revision, keys });
    }
    let keys = ["a", "b"].map(|key| (key.to_owned(), Some("v4".to_owned()))).into();
    history.changes.push(crate::RevisionChanges { shard: 1, revision: 4, keys });
    history.compactions.push(crate::Compaction { shard: 1, revision: 3 });
    check(&history).into_iter().map(|finding| finding.kind).collect()
}

#[test]
fn reads_of_the_past_show_what_there_was() {
    let read = |at: u64, answer: &str| {
        past(&format!(
            r#"{{"kind":"read_at","client":1,"shard":1,"key":"a","at":{at},"start_ns":100,"end_ns":101,"answer":{answer}}}"#
        ))
    };
    assert_eq!(read(3, r#"{"value":{"value":"v3","revision":3}}"#), []);
    assert_eq!(read(6, r#""absent""#), []);
    assert_eq!(read(2, r#"{"compacted":3}"#), []);
    assert_eq!(read(3, r#"{"value":{"value":"v1","revision":1}}"#), [Kind::PastMismatch]);
    assert_eq!(read(3, r#"{"value":{"value":"v4","revision":4}}"#), [Kind::PastMismatch]);
    assert_eq!(read(3, r#"{"value":{"value":"v2","revision":3}}"#), [Kind::PastMismatch]);
    assert_eq!(read(4, r#""absent""#), [Kind::PastMismatch]);
    assert_eq!(read(3, r#"{"compacted":3}"#), [Kind::Compacted]);
    assert_eq!(read(3, r#"{"compacted":4}"#), [Kind::Compacted]);
    // It was deleted in revision 5, and revision 6 is not known.
    assert_eq!(read(6, r#"{"value":{"value":"v4","revision":4}}"#), [Kind::PastMismatch]);
}

#[test]
fn lists_of_versions_are_whole() {
    let list = |floor: u64, versions: &str| {
        past(&format!(
            r#"{{"kind":"versions","client":1,"shard":1,"key":"a","start_ns":100,"end_ns":101,"floor":{floor},"versions":{versions}}}"#
        ))
    };
    assert_eq!(list(0, r#"[[7,"v7"],[5,null],[4,"v4"],[3,"v3"],[1,"v1"]]"#), []);
    assert_eq!(list(3, r#"[[7,"v7"],[5,null],[4,"v4"],[3,"v3"]]"#), []);
    assert_eq!(list(6, r#"[[7,"v7"]]"#), []);
    assert_eq!(list(3, r#"[[7,"v7"],[5,null],[4,"v4"]]"#), [Kind::PastMismatch]);
    assert_eq!(list(0, r#"[[7,"v7"],[4,"v4"],[3,"v3"],[1,"v1"]]"#), [Kind::PastMismatch]);
    assert_eq!(list(3, r#"[[7,"v7"],[5,"v5"],[4,"v4"],[3,"v3"]]"#), [Kind::PastMismatch]);
    assert_eq!(list(3, r#"[[5,null],[7,"v7"],[4,"v4"],[3,"v3"]]"#), [Kind::PastMismatch]);
}
