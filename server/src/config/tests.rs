//! Configuration files, valid and invalid, and the errors they cause.

use super::*;

fn parse(text: &str) -> Result<Config, String> {
    Config::parse(Path::new("/etc/dkv/config.json"), text).map_err(|error| error.to_string())
}

#[test]
fn an_empty_object_is_a_valid_configuration() {
    let config = parse("{}").unwrap();
    assert_eq!(config.settings, Settings::default());
    assert_eq!(config.listen, "127.0.0.1:4400".parse().unwrap());
    assert_eq!(config.data_dir, Path::new("/etc/dkv/data/server"));
}

#[test]
fn the_file_in_the_repository_matches_the_defaults() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../config.json");
    let config = Config::load(&path).unwrap();
    assert_eq!(config.settings, Settings::default());
    assert_eq!(config.listen, Config::default().listen);
}

#[test]
fn an_absolute_data_directory_is_kept() {
    assert_eq!(parse(r#"{"data_dir": "/srv/dkv"}"#).unwrap().data_dir, Path::new("/srv/dkv"));
}

#[test]
fn an_audit_log_has_a_file_beside_the_configuration_and_bounds() {
    assert_eq!(parse("{\"audit_keep\": 3}").unwrap().audit, None);
    let audit = parse(r#"{"audit": "audit.jsonl", "audit_size_mib": 2}"#).unwrap().audit.unwrap();
    assert_eq!(audit.path, Path::new("/etc/dkv/audit.jsonl"));
    assert_eq!((audit.bytes_max, audit.keep, audit.writes), (2 << 20, KEEP_DEFAULT, false));
    for (text, expected) in [
        ("{\n\"audit\": \"\"}", "line 2: audit: must name a file"),
        ("{\n\"audit_size_mib\": 0}", "line 2: audit_size_mib: must be from 1 to 1048576"),
        ("{\n\"audit_keep\": 1001}", "line 2: audit_keep: must be from 1 to 1000"),
    ] {
        let error = parse(text).unwrap_err();
        assert!(error.contains(expected), "{error}");
    }
}

#[test]
fn errors_name_file_line_and_field() {
    for (text, expected) in [
        (
            "{\n \"shards\": \"four\"\n}",
            "line 2: shards: invalid type: string \"four\", expected u32",
        ),
        ("{\n \"shards\": 4,\n \"replication\": -3}", "line 3: replication: invalid value"),
        ("{\n\n\"listen\": \"localhost\"}", "line 3: listen: must be an IP address and a port"),
        (
            "{\n\n\"listen\": \"localhost:4400\"}",
            "line 3: listen: must be an IP address and a port",
        ),
        ("{\n \"shard\": 4}", "line 2: unknown field `shard`, expected one of"),
        ("{\"\u{7f}\": 4}", "line 1: unknown field `\\u{7f}`, expected one of"),
        ("{\n \"shards\": 4,\n}", "line 3: trailing comma"),
        ("{\n \"shards\": 4\n \"replication\": 3}", "line 3: expected `,` or `}`"),
        ("{", "line 1: EOF while parsing an object"),
        ("{\n \"listen\": \":4400\"}", "line 2: listen: must be an IP address and a port"),
        ("{\n \"listen\": \"a \\\"b\\\": c\"}", "line 2: listen: must be an IP address and a port"),
        ("{\n \"data_dir\": 3,\n \"listen\": \"\"}", "line 2: data_dir: invalid type: integer `3`"),
        ("{\n \"data_dir\": \"\"}", "line 2: data_dir: must name a directory"),
        (
            "{\n \"delays_between\": [\"us east\"],\n \"delays_ms\": [[0]]}",
            "line 2: delays_between: \"us east\" cannot be a region or a node's name: ",
        ),
        ("{\n \"delays_vary\": true}", "line 2: delays_vary: must be false without delays_between"),
        ("{\n \"replication\": 12}", "line 2: replication: must be from 1 to 9"),
        (
            "{\n \"delays_ms\": [[0, -1], [1, 0]]}",
            "line 2: delays_ms: invalid value: integer `-1`, expected u32",
        ),
        (
            "{\n \"delays_between\": [\"eu\", \"us\"],\n \"delays_ms\": [[0, 9], [8]]}",
            "line 3: delays_ms: must have 2 numbers in the row of us, one for each of",
        ),
        ("{\n \"delays_between\": [\"eu\", \"eu\"]}", "line 2: delays_between: names eu twice"),
        ("{\n\n \"heartbeat_ms\": 100}", "line 1: election_min_ms: must be at least three"),
    ] {
        let said = parse(text).unwrap_err();
        let expected = format!("/etc/dkv/config.json, {expected}");
        assert!(said.starts_with(&expected), "{said:?} is not {expected:?}");
    }
}

#[test]
fn content_that_is_not_an_object_is_described() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("c.json");
    let utf16 = |text: &str| text.encode_utf16().flat_map(u16::to_le_bytes).collect::<Vec<_>>();
    let with_mark = [&[0xff, 0xfe][..], &utf16("{}")].concat();
    for (content, expected) in [
        (&b""[..], "the file is empty"),
        (b" \n", "the file is empty"),
        (b"[]", "the file holds an array"),
        (b"null", "the file holds null, true or false"),
        (b"\"3\"", "the file holds a string"),
        (b"-3", "the file holds a number"),
        (b"listen: 3", "the file does not begin with {"),
        (b"\xef\xbb\xbf{}", "the file begins with a byte order mark"),
        (&with_mark, "the file is UTF-16"),
        (&utf16("\"{}"), "the file holds a string"),
        (b"{\"data_dir\": \"\xff\"}", "the file is not UTF-8"),
    ] {
        std::fs::write(&path, content).unwrap();
        let said = Config::load(&path).unwrap_err().to_string();
        let expected = format!("{}: not a JSON object: {expected}", path.display());
        assert!(said.starts_with(&expected), "{said:?} is not {expected:?}");
    }
    // Two objects are not one.
    assert!(parse("{}{}").unwrap_err().contains("trailing characters"));
}
