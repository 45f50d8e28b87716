//! Loading files into a map, and verifying them.

use std::io::Write;

use dkv_api::Level;
use dkv_console::Buffer;

use super::records::parse;
use super::*;
use crate::cli::{Connect, Format};
use crate::run::tests::Fake;

fn record(format: Format, text: &str) -> Result<(String, String), String> {
    let record = parse(format, 7, text.as_bytes()).map_err(|error| error.to_string())?.unwrap();
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    Ok((text(record.key.as_bytes()), text(&record.value)))
}

#[test]
fn each_format_parses_records() {
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
        (Format::Csv, "a,\"b\"c", "follows a closing quote"),
        (Format::Csv, ",b", "the key is empty"),
    ] {
        assert!(record(format, text).unwrap_err().contains(problem), "{text}");
    }
}

/// Runs a task on a file with this content. Returns success, stdout and stderr.
async fn over(task: Task, name: &str, content: &[u8], store: &Fake) -> (bool, String, String) {
    over_as(task, name, content, store, None, false).await
}

async fn over_as(
    task: Task,
    name: &str,
    content: &[u8],
    store: &Fake,
    format: Option<Format>,
    binary: bool,
) -> (bool, String, String) {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join(name);
    std::fs::File::create(&file).unwrap().write_all(content).unwrap();
    let transfer = TransferArgs {
        file,
        format,
        binary,
        shown: None,
        opened: None,
        in_flight: 16,
        retry: Duration::from_millis(50),
        connect: Connect::default(),
    };
    let (out, err) = (Buffer::default(), Buffer::default());
    let mut console = Console::of(out.clone(), err.clone());
    let succeeded = match source(task, &transfer, &mut console).await {
        Ok(source) => run(task, &source, &transfer, store, &mut console).await,
        Err(stop) => Err(stop),
    };
    (succeeded.is_ok(), out.text(), err.text())
}

#[tokio::test]
async fn a_loaded_file_verifies() {
    let store = Fake::default();
    let content: String = (0..5000).map(|index| format!("word{}\n", index % 4000)).collect();
    let (good, out, err) = over(Task::Load, "words", content.as_bytes(), &store).await;
    assert!(good && err.lines().count() == 1, "{err}");
    assert!(err.contains("words as lines: each line is a key"), "{err}");
    assert!(out.starts_with("loaded 4 000 records in "), "{out}");
    assert!(out.ends_with(", 1 000 skipped: a later line has the same key\n"), "{out}");
    let (good, out, _) = over(Task::Verify, "words", content.as_bytes(), &store).await;
    assert!(good && out.contains(": all equal"), "{out}");
    // The last line of a key counts.
    assert_eq!(store.read(b"word1", Level::Strong.into()).await.unwrap().value, "4002");
}

#[tokio::test]
async fn differences_are_reported_with_their_line() {
    let store = Fake::default();
    assert!(over(Task::Load, "a.tsv", b"a\t1\nb\t2\nc\t3\n", &store).await.0);
    let (good, out, err) = over(Task::Verify, "a.tsv", b"a\t1\nb\t9\nx\t3\n", &store).await;
    assert!(!good);
    assert!(out.starts_with("compared with the file in "), "{out}");
    assert!(out.ends_with(": 1 equal, 1 missing, 1 different\n"), "{out}");
    assert!(err.contains("line 2: b is \"2\" in the network but \"9\" in the file"), "{err}");
    assert!(err.contains("line 3: x is missing from the network"), "{err}");
}

#[tokio::test]
async fn a_malformed_file_is_refused_before_anything_is_stored() {
    let store = Fake::default();
    let (good, out, err) = over(Task::Load, "a.tsv", b"a\t1\nb 2\n", &store).await;
    assert!(!good && out.is_empty());
    assert!(err.contains("line 2: there is no tab after the key"), "{err}");
    assert!(store.read(b"a", Level::Strong.into()).await.is_err());
    let (good, _, err) = over(Task::Load, "empty", b"\n\n", &store).await;
    assert!(!good && err.contains("contains no records"));
}

#[tokio::test]
async fn records_that_keep_failing_are_reported_and_the_rest_is_loaded() {
    let store = Fake::default();
    let content = b"a\n!unavailable\n!unknown\n!denied\nb";
    let (good, out, err) = over(Task::Load, "words", content, &store).await;
    assert!(!good);
    assert!(out.starts_with("loaded 2 records") && out.contains(", 3 failed"), "{out}");
    assert!(out.contains("retries") && out.contains("after an unknown outcome"), "{out}");
    for line in
        ["line 2: !unavailable was not written", "line 3: outcome unknown", "line 4: denied"]
    {
        assert!(err.contains(line), "{err}");
    }
}

#[test]
fn a_json_line_has_text_or_base64() {
    let is = |key: &str, value: &str| Ok((key.to_owned(), value.to_owned()));
    let line = r#"{"key":"a,b","value_base64":"Yw==","revision":7}"#;
    assert_eq!(record(Format::Json, line), is("a,b", "c"));
    for (line, problem) in [
        ("a,b", "not a JSON object"),
        (r#"{"key":"a"}"#, "value or value_base64 is missing"),
        (r#"{"value":"a"}"#, "key or key_base64 is missing"),
        (r#"{"key":"a","value_base64":"?"}"#, "is not base64"),
        (r#"{"key":"a","value":1}"#, "value must be a string, but it is a number"),
        (r#"{"key":["a"],"value":"1"}"#, "key must be a string, but it is an array"),
        (r#"[{"key":"a","value":"1"}]"#, "one object per line, as jq -c '.[]' does"),
        ("{", "on one line; convert it with jq -c ."),
    ] {
        assert!(record(Format::Json, line).unwrap_err().contains(problem), "{line}");
    }
}

#[tokio::test]
async fn input_that_is_not_text_is_refused_with_advice() {
    let store = Fake::default();
    let cases: [(&str, &[u8], &str); 17] = [
        ("names.csv.gz", b"\x1f\x8b\x08", "is compressed (gzip); write zcat "),
        ("names.csv.gz", b"\x1f\x8b\x08", "| dkv TASK - --format csv"),
        ("names.csv", b"\x1f\x8b\x08", "| dkv TASK - --format csv"),
        ("names.JSON", b"\x28\xb5\x2f\xfd", "| dkv TASK - --format json"),
        ("names.tsv", b"\xff\xfe\0\0a\0\0\0", "is UTF-32; write iconv -f UTF-32 -t UTF-8 "),
        ("names", b"\0\0\xfe\xff\0\0\0a", "is UTF-32; write iconv -f UTF-32 -t UTF-8 "),
        ("names.csv", b"a\0,\x001\0\n\0", "is UTF-16; write iconv -f UTF-16LE -t UTF-8 "),
        ("names.csv", b"\0a\0,\x001\0\n", "is UTF-16; write iconv -f UTF-16BE -t UTF-8 "),
        ("names", b"%PDF-1.4\n\x01\x02\n", "line 2: it contains the control byte 0x01"),
        (
            "names.csv",
            b"a,1\rb,2\rc,3",
            "line 1: it contains a carriage return without a line feed",
        ),
        (
            "names.tsv",
            b"a\t1\rb\t2\r\n",
            "line 1: it contains a carriage return without a line feed",
        ),
        ("names.zst", b"\x28\xb5\x2f\xfd", "is compressed (zstd); write zstdcat "),
        ("names.xz", b"\xfd7zXZ\0", "is compressed (xz); write xzcat "),
        ("names.bz2", b"BZh91AY&SY", "is compressed (bzip2); write bzcat "),
        ("names", b"\xff\xfea\0,\0", "is UTF-16; write iconv -f UTF-16 -t UTF-8 "),
        ("names.csv", b"a,1\nb,\0\n", "line 2: it contains a NUL byte"),
        ("names.zip", b"PK\x03\x04", "is a zip archive; write unzip -p "),
    ];
    for (name, content, says) in cases {
        for task in [Task::Load, Task::Verify] {
            let (good, out, err) = over(task, name, content, &store).await;
            assert!(!good && out.is_empty(), "{name}");
            let word = if task == Task::Load { "load" } else { "verify" };
            assert!(err.contains(&says.replace("TASK", word)), "{name}: {err}");
        }
    }
    let taken = over_as(Task::Load, "names.csv", b"b,\0\n", &store, None, true).await;
    assert!(taken.0, "{}", taken.2);
    assert_eq!(store.read(b"b", Level::Strong.into()).await.unwrap().value, "\0");
    // Quoted control bytes are accepted, as `scan` prints them.
    let quoted = b"a,x\n\"c\0\",\"\0\n\0\"\n";
    let listed = over(Task::Load, "names.csv", quoted, &store).await;
    assert!(listed.0, "{}", listed.2);
    assert_eq!(store.read(b"c\0", Level::Strong.into()).await.unwrap().value, "\0\n\0");
    let bare = over(Task::Load, "names.csv", b"\"c\0\",\0\n", &store).await;
    assert!(!bare.0, "{}", bare.1);
}

#[tokio::test]
async fn the_extension_sets_the_format_and_a_byte_order_mark_is_skipped() {
    let store = Fake::default();
    let (good, _, err) = over(Task::Load, "A.CSV", b"\xef\xbb\xbfkey,value\n", &store).await;
    assert!(good, "{err}");
    assert!(err.contains("A.CSV as csv: key, comma, value"), "{err}");
    assert!(err.contains("skipping the byte order mark in "), "{err}");
    assert_eq!(store.read(b"key", Level::Strong.into()).await.unwrap().value, "value");
    let verified = over(Task::Verify, "A.CSV", b"\xef\xbb\xbfkey,value\n", &store).await;
    assert!(verified.0, "{}", verified.2);
    let tabs = over_as(Task::Load, "x.csv", b"a\tb\n", &store, Some(Format::Tsv), false).await;
    assert!(tabs.0 && tabs.2.is_empty(), "a given format needs no guess: {}", tabs.2);
    let json = over(Task::Load, "x.JSONL", b"{\"key\":\"j\",\"value\":\"v\"}\n", &store).await;
    assert!(json.0, "{}", json.2);
}

#[tokio::test]
async fn a_pipe_is_read_once_and_can_still_be_verified() {
    let directory = tempfile::tempdir().unwrap();
    let fifo = directory.path().join("fifo");
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let writer = fifo.clone();
    let writer = std::thread::spawn(move || std::fs::write(writer, "a\t1\nb\t2\na\t3\n"));
    let transfer = TransferArgs {
        file: fifo,
        format: Some(Format::Tsv),
        binary: false,
        in_flight: 16,
        retry: Duration::from_millis(50),
        shown: None,
        opened: None,
        connect: Connect::default(),
    };
    let out = Buffer::default();
    let mut console = Console::of(out.clone(), io::sink());
    let store = Fake::default();
    let source = source(Task::Load, &transfer, &mut console).await.unwrap();
    run(Task::Load, &source, &transfer, &store, &mut console).await.unwrap();
    run(Task::Verify, &source, &transfer, &store, &mut console).await.unwrap();
    writer.join().unwrap().unwrap();
    assert!(out.text().contains("1 skipped: a later line"), "{}", out.text());
    assert!(out.text().contains(": all equal"), "{}", out.text());
    assert_eq!(store.read(b"a", Level::Strong.into()).await.unwrap().value, "3");
}

#[test]
fn advice_for_standard_input_repeats_the_given_format() {
    use super::source::advice;
    let stdin = std::path::Path::new("-");
    let said = |format| advice(Task::Verify, stdin, true, format, "compressed (gzip)", "zcat");
    assert_eq!(
        said(Some(Format::Csv)),
        "convert it first, as in zcat FILE | dkv verify - --format csv"
    );
    assert_eq!(said(None), "convert it first, as in zcat FILE | dkv verify -");
}

#[tokio::test]
async fn a_missing_or_different_record_names_its_key_in_json() {
    let store = Fake::default();
    assert!(over(Task::Load, "a.tsv", b"a\t1\n", &store).await.0);
    let mut tally = Tally::default();
    let key = || Key::new("a key").unwrap();
    for result in
        [RecordResult::Missing(key()), RecordResult::Different(key(), "it is another".into())]
    {
        let told = count(&mut tally, 7, result, &mut None).unwrap().document();
        assert_eq!((&told["key"], &told["line"]), (&"a key".into(), &7.into()), "{told}");
    }
}
