//! Files into a map and back.

use std::io::Write;

use super::records::parse;
use dkv_api::Level;

use super::*;
use crate::cli::{Connect, Format};
use crate::run::tests::Fake;
use crate::screen::Shared;

fn record(format: Format, text: &str) -> Result<(String, String), String> {
    let record = parse(format, 7, text.as_bytes())?.unwrap();
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    Ok((text(record.key.as_bytes()), text(&record.value)))
}

#[test]
fn each_format_has_its_records() {
    let is = |key: &str, value: &str| Ok((key.to_owned(), value.to_owned()));
    assert_eq!(record(Format::Lines, "a word, and more"), is("a word, and more", "7"));
    assert_eq!(record(Format::Tsv, "a,b\tc\td"), is("a,b", "c\td"));
    assert_eq!(record(Format::Csv, "a,b,c"), is("a", "b,c"));
    assert_eq!(record(Format::Csv, "\"a,\"\"b\",\"c,d\""), is("a,\"b", "c,d"));
    assert_eq!(record(Format::Csv, "a,\"b\",c"), is("a", "\"b\",c"));
    assert_eq!(record(Format::Csv, "a,"), is("a", ""));
    assert!(parse(Format::Lines, 1, b"").unwrap().is_none());
    for (format, text, problem) in [
        (Format::Tsv, "a,b", "no tab after the key"),
        (Format::Csv, "a", "no comma after the key"),
        (Format::Csv, "\"a,b", "is not closed"),
        (Format::Csv, "a,\"b", "is not closed"),
        (Format::Csv, "\"a\"b,c", "follows a closing quote"),
        (Format::Csv, ",b", "the key is empty"),
    ] {
        assert!(record(format, text).unwrap_err().contains(problem), "{text}");
    }
}

/// Runs a task on a file of that content; success, stdout and stderr.
async fn over(task: Task, name: &str, content: &[u8], store: &Fake) -> (bool, String, String) {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join(name);
    std::fs::File::create(&file).unwrap().write_all(content).unwrap();
    let transfer = Transfer {
        file,
        format: None,
        in_flight: 16,
        retry: Duration::from_millis(50),
        connect: Connect::default(),
    };
    let (out, err) = (Shared::default(), Shared::default());
    let mut screen = Screen::of(out.clone(), err.clone());
    let succeeded = run(task, &transfer, store, &mut screen).await.unwrap();
    (succeeded, out.text(), err.text())
}

#[tokio::test]
async fn what_is_loaded_verifies() {
    let store = Fake::default();
    let content: String = (0..5000).map(|index| format!("word{}\n", index % 4000)).collect();
    let (good, out, err) = over(Task::Load, "words", content.as_bytes(), &store).await;
    assert!(good && err.is_empty(), "{err}");
    assert!(out.starts_with("loaded 4 000 records in "), "{out}");
    assert!(out.ends_with(", 1 000 superseded by a later line of the same key\n"), "{out}");
    let (good, out, _) = over(Task::Verify, "words", content.as_bytes(), &store).await;
    assert!(good && out.contains(": all equal"), "{out}");
    // The last line of a key is the one that counts.
    assert_eq!(store.read(b"word1", Level::Strong.into()).await.unwrap().value, "4002");
}

#[tokio::test]
async fn differences_are_told_with_their_line() {
    let store = Fake::default();
    assert!(over(Task::Load, "a.tsv", b"a\t1\nb\t2\nc\t3\n", &store).await.0);
    let (good, out, err) = over(Task::Verify, "a.tsv", b"a\t1\nb\t9\nx\t3\n", &store).await;
    assert!(!good);
    assert!(out.starts_with("compared with the file in "), "{out}");
    assert!(out.ends_with(": 1 equal, 1 missing, 1 different\n"), "{out}");
    assert!(err.contains("line 2: b is \"2\" in the network and \"9\" in the file"), "{err}");
    assert!(err.contains("line 3: the key is missing"), "{err}");
}

#[tokio::test]
async fn a_malformed_file_is_refused_before_anything_is_stored() {
    let store = Fake::default();
    let (good, out, err) = over(Task::Load, "a.tsv", b"a\t1\nb 2\n", &store).await;
    assert!(!good && out.is_empty());
    assert!(err.contains("line 2: there is no tab after the key"), "{err}");
    assert!(store.read(b"a", Level::Strong.into()).await.is_err());
    let (good, _, err) = over(Task::Load, "empty", b"\n\n", &store).await;
    assert!(!good && err.contains("holds no records"));
}

#[tokio::test]
async fn records_that_keep_failing_are_told_and_the_rest_is_loaded() {
    let store = Fake::default();
    let content = b"a\n!unavailable\n!unknown\n!denied\nb";
    let (good, out, err) = over(Task::Load, "words", content, &store).await;
    assert!(!good);
    assert!(out.starts_with("loaded 2 records") && out.contains(", 3 failed"), "{out}");
    assert!(out.contains("retries") && out.contains("after an unknown outcome"), "{out}");
    for line in
        ["line 2: !unavailable was not written", "line 3: it is not known", "line 4: denied"]
    {
        assert!(err.contains(line), "{err}");
    }
}
