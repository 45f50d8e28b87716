//! Query strings, valid and invalid.

use super::*;

#[test]
fn queries_are_parsed_and_invalid_ones_refused() {
    let parse = |query| ReadQuery::parse(Some(query));
    assert_eq!(ReadQuery::parse(None), Ok(ReadQuery::default()));
    assert_eq!(parse(""), Ok(ReadQuery::default()));
    assert_eq!(parse("consistency=strong"), Ok(ReadQuery::default()));
    let list = ListQuery::parse(Some("prefix=a%2fb&after=%ff&limit=7&values=false")).unwrap();
    assert_eq!((&list.prefix[..], &list.after[..]), (&b"a/b"[..], &b"\xff"[..]));
    assert_eq!((list.limit, list.values, list.level), (7, false, Level::Strong));
    for wrong in ["limit=0", "limit=1001", "prefix=%f", "values=1", "encoding=hex", "other=1"] {
        assert!(ListQuery::parse(Some(wrong)).is_err(), "{wrong}");
    }
    assert!(ListQuery::parse(Some("consistency=all")).is_err());
    assert_eq!(parse("consistency=all").unwrap().level, Level::All);
    for (query, level) in [
        (None, Level::Strong),
        (Some("consistency=strong"), Level::Strong),
        (Some("consistency=eventual"), Level::Eventual),
        (Some("consistency=all"), Level::All),
    ] {
        assert_eq!(delete_level(query), Ok(level));
    }
    for wrong in ["consistency=session", "consistency", "at_least=1", "consistency=all&x=1"] {
        assert!(delete_level(Some(wrong)).is_err(), "{wrong}");
    }
    let long = format!("prefix={}", "k".repeat(4097));
    assert!(ListQuery::parse(Some(&long)).is_err());
    let all = parse("consistency=eventual&max_staleness=20&at_least=7").unwrap();
    assert_eq!((all.level, all.at_least), (Level::Eventual, Some(Revision(7))));
    assert_eq!(all.max_staleness, Some(Duration::from_millis(20)));
    for wrong in [
        "consistency",
        "consistency=STRONG",
        "max_staleness=-1",
        "max_staleness=+1",
        "at_least=",
        "at_least=18446744073709551616",
        "other=1",
        "consistency=strong&consistency=strong",
    ] {
        assert!(parse(wrong).is_err(), "{wrong}");
    }
}
