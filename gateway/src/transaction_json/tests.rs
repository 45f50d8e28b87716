use dkv_api::{
    Attach, Compare, KeyRange, LeaseId, Relation, Revision, Test, Transaction, TransactionOperation,
};
use serde_json::json;

use super::*;

#[test]
fn every_form_is_parsed() {
    let text = json!({
        "if": [
            { "key": "a", "exists": false },
            { "key": "a", "value": "x" },
            { "key_base64": "/w==", "value_base64": "/w==", "relation": ">" },
            { "key": "a", "revision": 7, "relation": "!=" },
            { "key": "a", "created_revision": 7.0, "relation": "<" },
            { "prefix": "p/", "version": u64::MAX },
            { "from": "a", "to": "b", "exists": true },
        ],
        "then": [
            { "op": "put", "key": "a", "value": "" },
            { "op": "put", "key": "t", "value": "v", "ttl_ms": 500 },
            { "op": "put", "key": "l1", "value": "v", "lease": "1F" },
            { "op": "increment", "key": "n" },
            { "op": "increment", "key": "n2", "by": -9.0 },
            { "op": "append", "key": "l", "value_base64": "YQ==" },
            { "op": "delete", "key": "d" },
            { "op": "delete-all", "prefix": "" },
        ],
        "else": [
            { "op": "get", "key": "a" },
            { "op": "list", "from": "a" },
            { "op": "list", "key": "a", "limit": 3 },
        ],
        "encoding": "base64",
    });
    let key = |key: &'static str| KeyRange::Key(key.into());
    let transaction = Transaction::new()
        .when(Compare::absent("a"))
        .when(Compare::value("a", Relation::Equal, "x"))
        .when(Compare::value([255], Relation::Greater, vec![255]))
        .when(Compare::revision("a", Relation::NotEqual, Revision(7)))
        .when(Compare::created("a", Relation::Less, Revision(7)))
        .when(Compare::of(KeyRange::Prefix("p/".into()), Test::Version(Relation::Equal, u64::MAX)))
        .when(Compare::of(KeyRange::Range("a".into(), "b".into()), Test::Exists(true)))
        .then(TransactionOperation::put("a", ""))
        .then(TransactionOperation::put_attached(
            "t",
            "v",
            Attach::Ttl(std::time::Duration::from_millis(500)),
        ))
        .then(TransactionOperation::put_attached("l1", "v", Attach::Lease(LeaseId(31))))
        .then(TransactionOperation::increment("n", 1))
        .then(TransactionOperation::increment("n2", -9))
        .then(TransactionOperation::append("l", "a"))
        .then(TransactionOperation::delete("d"))
        .then(TransactionOperation::DeleteAll(KeyRange::Prefix("".into())))
        .otherwise(TransactionOperation::get("a"))
        .otherwise(TransactionOperation::List {
            keys: KeyRange::Range("a".into(), "".into()),
            keys_max: 100,
        })
        .otherwise(TransactionOperation::List { keys: key("a"), keys_max: 3 });
    let parsed = parse(text.to_string().as_bytes()).unwrap();
    assert_eq!(
        parsed,
        ParsedTransaction { transaction, has_else: true, encoding: Encoding::Base64 }
    );
    let short = parse(br#"{"then":[{"op":"get","key":"k"}]}"#).unwrap();
    assert_eq!((short.has_else, short.encoding), (false, Encoding::Text));
}

#[test]
fn what_is_wrong_is_named() {
    let many = format!(r#"{{"then":[{}{{}}]}}"#, r#"{"op":"get","key":"k"},"#.repeat(128));
    let members: String = (0..20).map(|number| format!(r#""m{number}":1,"#)).collect();
    let members = format!(r#"{{"then":[{{{members}"op":"get"}}]}}"#);
    let nested = format!(r#"{{"then":[{{"op":{}"#, "[".repeat(1000));
    for (text, says) in [
        ("", "EOF while parsing"),
        ("7", "required form"),
        (r#"{"than":[]}"#, "unknown field `than`"),
        (r#"{"then":null}"#, "required form"),
        (r#"{"then":[{"op":"get","key":"k"}],"else":null}"#, "required form"),
        ("{}", "the transaction has no operation"),
        (r#"{"if":[{"key":"k","exists":true}]}"#, "the transaction has no operation"),
        (r#"{"then":[{"key":"k"}]}"#, "operation of then 1: op is missing"),
        (r#"{"then":[{"op":"set","key":"k"}]}"#, "op must be get, put, delete, "),
        (r#"{"then":[{"op":"get"}]}"#, "the key is missing"),
        (r#"{"then":[{"op":"get","key":"a","value":"b"}]}"#, "a get has no member value here"),
        (r#"{"then":[{"op":"get","key":"a","key":"b"}]}"#, "key occurs twice"),
        (r#"{"then":[{"op":"get","key":"a","key_base64":"YQ=="}]}"#, "not both"),
        (r#"{"then":[{"op":"get","key_base64":"%"}]}"#, "key_base64 is not base64"),
        (r#"{"then":[{"op":"get","key":7}]}"#, "key must be a string"),
        (r#"{"then":[{"op":"put","key":"a"}]}"#, "the value is missing"),
        (r#"{"then":[{"op":"put","key":"a","value":"","lease":"x"}]}"#, "a lease id is a hexa"),
        (r#"{"then":[{"op":"put","key":"a","value":"","lease":"1","ttl_ms":1}]}"#, "not both"),
        (r#"{"then":[{"op":"append","key":"a","value":"","ttl_ms":1}]}"#, "no member ttl_ms here"),
        (r#"{"then":[{"op":"increment","key":"a","by":1.5}]}"#, "by must be a whole number"),
        (r#"{"then":[{"op":"increment","key":"a","by":1e30}]}"#, "by must be a whole number"),
        (r#"{"then":[{"op":"increment","key":"a","by":9223372036854775808}]}"#, "by must be"),
        (r#"{"then":[{"op":"increment","key":"a","by":-9223372036854775809}]}"#, "by must be"),
        (r#"{"then":[{"op":"list","prefix":"a","limit":0}]}"#, "limit must be from 1 to 1000"),
        (r#"{"then":[{"op":"list","prefix":"a","from":"b"}]}"#, "give one of key, prefix, and"),
        (r#"{"then":[{"op":"list","to":"b"}]}"#, "give one of key, prefix, and"),
        (r#"{"then":[{"op":"get","key":"a"}],"else":[{"op":"x"}]}"#, "operation of else 1: "),
        (r#"{"if":[{"key":"k"}]}"#, "condition 1: a condition has one of exists, "),
        (r#"{"if":[{"key":"k","exists":true,"version":1}]}"#, "a condition has one of exists, "),
        (r#"{"if":[{"key":"k","exists":true,"relation":"="}]}"#, "exists takes no relation"),
        (r#"{"if":[{"key":"k","exists":1}]}"#, "exists must be true or false"),
        (r#"{"if":[{"key":"k","version":-1}]}"#, "version must be a whole number"),
        (r#"{"if":[{"key":"k","version":1,"relation":">="}]}"#, "relation must be =, !=, < or >"),
        (r#"{"if":[{"version":1}]}"#, "the key is missing"),
        (r#"{"then":[{"op":{}}]}"#, "expected a string, a number or a boolean"),
        (&nested, "expected a string, a number or a boolean"),
        (&members, "more members than any may have"),
        (&many, "a transaction has at most 128 operations, not 129"),
    ] {
        let said = parse(text.as_bytes()).unwrap_err().to_string();
        assert!(said.contains(says), "{text}: {said}");
        assert!(!said.contains('\n'), "{said}");
    }
}
