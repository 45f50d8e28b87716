//! Preconditions of writes and reads.

use super::*;

fn headers(fields: &[(&'static str, &'static str)]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in fields {
        headers.append(*name, axum::http::HeaderValue::from_static(value));
    }
    headers
}

#[test]
fn conditions_of_writes_are_parsed() {
    let parse = |fields: &[_]| for_write(&headers(fields));
    let holds = |condition| Ok(WriteCondition::If(condition));
    assert_eq!(parse(&[]), holds(Condition::Always));
    assert_eq!(parse(&[("if-match", "*")]), holds(Condition::Present));
    assert_eq!(parse(&[("if-none-match", " * ")]), holds(Condition::Absent));
    assert_eq!(parse(&[("if-match", "\"7\"")]), holds(Condition::Revision(Revision(7))));
    for never in ["W/\"7\"", "\"seven\"", "\"07\"", "\"\"", "\"18446744073709551616\""] {
        assert_eq!(parse(&[("if-match", never)]), Ok(WriteCondition::Never), "{never}");
    }
    for wrong in ["7", "\"7", "\"7\" \"8\"", "\"7\", \"8\"", "", ",", "*, \"7\""] {
        assert!(parse(&[("if-match", wrong)]).is_err(), "{wrong}");
    }
    assert!(parse(&[("if-none-match", "\"7\"")]).is_err());
    assert_eq!(parse(&[("if-match", "*"), ("if-none-match", "*")]), Ok(WriteCondition::Never));
    assert!(parse(&[("if-match", "*"), ("if-match", "*")]).is_err());
}

#[test]
fn preconditions_of_reads_are_evaluated() {
    let judge = |fields: &[_], current: Option<u64>| {
        ReadPreconditions::parse(&headers(fields)).unwrap().evaluate(current.map(Revision))
    };
    use ReadOutcome::{Failed, NotModified, Serve};
    for (fields, current, expected) in [
        (&[][..], Some(7), Serve),
        (&[("if-none-match", "\"7\"")], Some(7), NotModified),
        (&[("if-none-match", "W/\"7\"")], Some(7), NotModified),
        (&[("if-none-match", "\"1\", \"7\"")], Some(7), NotModified),
        (&[("if-none-match", "\"1\""), ("if-none-match", "\"7\"")], Some(7), NotModified),
        (&[("if-none-match", "\"8\"")], Some(7), Serve),
        (&[("if-none-match", "*")], Some(7), NotModified),
        (&[("if-none-match", "*")], None, Serve),
        (&[("if-none-match", "\"0\"")], Some(0), Serve),
        (&[("if-match", "\"0\"")], Some(0), Failed),
        (&[("if-match", "*")], Some(0), Serve),
        (&[("if-match", "\"7\"")], Some(7), Serve),
        (&[("if-match", "W/\"7\"")], Some(7), Failed),
        (&[("if-match", "\"8\", \"9\"")], Some(7), Failed),
        (&[("if-match", "*")], None, Failed),
        (&[("if-match", "\"8\""), ("if-none-match", "\"7\"")], Some(7), Failed),
    ] {
        assert_eq!(judge(fields, current), expected, "{fields:?} {current:?}");
    }
}
