//! Both notations of the grammar, and round trips of commands.

use std::time::Duration;

use dkv_base::id::{LeaseId, Revision};
use proptest::prelude::*;

use super::*;

fn line(text: &str) -> Command {
    parse_line(text.as_bytes()).unwrap().unwrap()
}

fn wrong(text: &str) -> String {
    parse_line(text.as_bytes()).unwrap_err().to_string()
}

fn at(level: Level) -> ReadParameters {
    ReadParameters { level: Some(level), ..ReadParameters::default() }
}

fn key(text: &str) -> Key {
    Key::new(text).unwrap()
}

fn write(name: &str, value: &str) -> Command {
    Command::Write {
        key: key(name),
        value: ValueSource::Inline(value.into()),
        level: None,
        condition: Condition::Always,
        attach: None,
    }
}

#[test]
fn the_comma_form_takes_everything_after_its_last_comma() {
    assert_eq!(line("R,key"), Command::Read { key: key("key"), how: ReadParameters::default() });
    assert_eq!(
        line("R,a key "),
        Command::Read { key: key("a key "), how: ReadParameters::default() }
    );
    assert_eq!(line("W,key,value"), write("key", "value"));
    assert_eq!(line("W,key,a,b,,c"), write("key", "a,b,,c"));
    assert_eq!(line("W,-1,-2"), write("-1", "-2"));
    assert_eq!(line("W,key,"), write("key", ""));
    assert_eq!(line("W,key, \"x\" \\"), write("key", " \"x\" \\"));
    assert_eq!(line("W,a b,c d"), write("a b", "c d"));
    assert_eq!(line("  W,k,v"), write("k", "v"));
    assert_eq!(
        line("D,key"),
        Command::Delete { key: key("key"), level: None, condition: Condition::Always }
    );
    assert_eq!(line("T,250"), Command::Wait { ms: 250 });
}

#[test]
fn the_comma_form_takes_any_bytes() {
    let command = parse_line(b"W,\xff\xfe,\x00\xff,\n").unwrap().unwrap();
    let expected = Command::Write {
        key: Key::new(*b"\xff\xfe").unwrap(),
        value: b"\x00\xff,\n".to_vec().into(),
        level: None,
        condition: Condition::Always,
        attach: None,
    };
    assert_eq!(command, expected);
}

#[test]
fn a_malformed_comma_form_says_what_to_write() {
    assert_eq!(
        wrong("r,key"),
        "malformed command \"r,key\": commands are in upper case; write R,key"
    );
    assert_eq!(
        wrong("w,key,a"),
        "malformed command \"w,key,a\": commands are in upper case; write W,key,a"
    );
    assert_eq!(
        wrong("W,key"),
        "malformed command \"W,key\": the value is missing; write W,<key>,<value>"
    );
    assert_eq!(wrong("R,"), "malformed command \"R,\": the key is empty; write R,<key>");
    assert_eq!(wrong("R"), "malformed command \"R\": the key is missing; write R,<key>");
    assert_eq!(
        wrong("W,,v"),
        "malformed command \"W,,v\": the key is empty; write W,<key>,<value>"
    );
    assert_eq!(
        wrong("D,a,b"),
        "malformed command \"D,a,b\": a key in this form cannot contain a comma; write D,<key>, or in words \
         delete \"a,b\""
    );
    assert_eq!(
        wrong("X,a"),
        "malformed command \"X,a\": there is no command X; write one of R,<key> W,<key>,<value> \
         D,<key> H,<key> T,<ms>"
    );
    assert!(wrong("T,soon").contains("\"soon\" is not a number of milliseconds"));
    assert!(wrong("T,-1").contains("is not a number of milliseconds"));
    assert!(wrong("T,86400001").contains("from 0 to 86400000"));
    assert!(
        wrong(&format!("R,{}", "k".repeat(4097))).contains("4097 bytes, but the limit is 4096")
    );
    assert!(parse_line(format!("R,{}", "k".repeat(4096)).as_bytes()).is_ok());
}

#[test]
fn an_error_is_one_short_line_without_control_characters() {
    for text in ["r,a\nb\x1b[2J", "nonsense\x07", &format!("r,{}", "x".repeat(9000))] {
        let error = wrong(text);
        assert!(!error.chars().any(char::is_control), "{error:?}");
        assert!(error.chars().count() < 250, "{error}");
    }
}

#[test]
fn words_take_quotes_and_conditions() {
    assert_eq!(line("get key"), Command::Read { key: key("key"), how: ReadParameters::default() });
    assert_eq!(
        line("get a,b eventual"),
        Command::Read { key: key("a,b"), how: at(Level::Eventual) }
    );
    for (word, level) in [
        ("strong", Level::Strong),
        ("quorum", Level::Strong),
        ("session", Level::Session),
        ("one", Level::Eventual),
        ("1", Level::Eventual),
        ("all", Level::All),
        ("9", Level::All),
    ] {
        assert_eq!(line(&format!("get k {word}")), Command::Read { key: key("k"), how: at(level) });
    }
    let bounded = ReadParameters {
        level: Some(Level::Session),
        max_staleness_ms: Some(500),
        at_least: Some(Revision(12)),
        revision: None,
    };
    assert_eq!(
        line("get k session at-least 12 max-staleness 500"),
        Command::Read { key: key("k"), how: bounded }
    );
    for text in ["get k at-least", "get k at-least x", "get k at-least 1 at-least 2", "get k 5 5"] {
        assert!(wrong(text).contains("get KEY"), "{text}");
    }
    for number in ["1e3", "18446744073709551616", "-1", "5s"] {
        let said = wrong(&format!("get k max-staleness {number}"));
        assert!(said.contains(&format!("\"{number}\" is not a number of milliseconds")), "{said}");
        assert!(wrong(&format!("get k at-least {number}")).contains("is not a revision"));
    }
    assert!(wrong("get k eventual strong").contains("\"strong\" is not allowed here"));
    assert_eq!(line("insert k v"), line("put k v if-absent"));
    assert_eq!(line("update k v 9"), line("put k v all if-present"));
    assert!(wrong("insert k v if-present").contains("insert KEY VALUE"));
    assert_eq!(line("put \"a key\" 'some value'"), write("a key", "some value"));
    assert_eq!(line("put k \"\""), write("k", ""));
    assert_eq!(line(r"put a\ b c"), write("a b", "c"));
    let on = |condition| Command::Write {
        key: key("k"),
        value: b"v".to_vec().into(),
        level: None,
        condition,
        attach: None,
    };
    assert_eq!(line("put k v if-absent"), on(Condition::Absent));
    assert_eq!(line("put k v if-present"), on(Condition::Present));
    assert_eq!(line("put k v if-revision 12"), on(Condition::Revision(Revision(12))));
    let attached = |attach| match write("k", "v") {
        Command::Write { key, value, level, condition, .. } => {
            Command::Write { key, value, level, condition, attach: Some(attach) }
        }
        other => other,
    };
    let ttl = Attach::Ttl(Duration::from_secs(30));
    assert_eq!(line("put k v --ttl 30s"), attached(ttl));
    assert_eq!(line("put k v --lease 1f"), attached(Attach::Lease(LeaseId(31))));
    assert_eq!(line("insert k v all --ttl 1m").to_string(), "put k v all if-absent --ttl 60000ms");
    assert!(wrong("put k v --ttl 30x").contains("--ttl 30x: "), "{}", wrong("put k v --ttl 30x"));
    assert!(wrong("put k v --ttl").contains("an option has no value; write put KEY VALUE"));
    assert!(wrong("put k v --lease x").contains("a lease id is a hexadecimal number"));
    assert!(wrong("put k v --ttl 1s --lease 1").contains("one time to live or one lease"));
    // An operand in the place of a value is one, whatever it looks like.
    assert_eq!(line("put k if-absent"), write("k", "if-absent"));
    assert_eq!(
        line("delete k if-revision 3"),
        Command::Delete { key: key("k"), level: None, condition: Condition::Revision(Revision(3)) }
    );
    let scan = |prefix: &str, limit| Scan { prefix: prefix.into(), limit, ..Scan::default() };
    assert_eq!(line("scan"), Command::Scan(scan("", None)));
    assert_eq!(line("scan 'a b' --limit 3"), Command::Scan(scan("a b", Some(3))));
    assert_eq!(line("scan -- --keys"), Command::Scan(scan("--keys", None)));
    assert!(wrong("scan a b").contains("write scan [PREFIX]"));
    assert!(wrong("scan --limit").contains("write scan [PREFIX]"));
    assert_eq!(line("wait 5"), Command::Wait { ms: 5 });
    assert_eq!(line("status"), Command::Status { json: false });
    assert_eq!(line("status --json"), Command::Status { json: true });
    assert_eq!(line("nodes"), Command::Nodes);
    assert_eq!(line("help me"), Command::Help);
    assert_eq!(line("quit"), Command::Exit);
    assert_eq!(line("exit"), Command::Exit);
}

#[test]
fn history_and_watches_have_options() {
    let history = |before, limit, json| {
        let before: Option<u64> = before;
        Command::History(History { key: key("k"), before: before.map(Revision), limit, json })
    };
    assert_eq!(line("H,k"), history(None, None, false));
    assert_eq!(line("history k"), history(None, None, false));
    assert_eq!(line("history k --limit 3 --json --before 17"), history(Some(17), Some(3), true));
    let then = ReadParameters { revision: Some(Revision(17)), ..ReadParameters::default() };
    assert_eq!(line("get k --revision 17"), Command::Read { key: key("k"), how: then });
    let then = Scan { prefix: b"a".to_vec(), revision: Some(Revision(17)), ..Scan::default() };
    assert_eq!(line("scan a --revision 17"), Command::Scan(then));
    let now = Scan { prefix: b"a".to_vec(), snapshot: true, ..Scan::default() };
    assert_eq!(line("scan a --snapshot"), Command::Scan(now));
    assert!(wrong("scan --snapshot --revision 3").contains("--revision N|--snapshot"));
    let all = Watch::default();
    assert_eq!(line("watch"), Command::Watch(all.clone()));
    let users = Watch { keys: b"user/".to_vec(), ..all };
    assert_eq!(line("watch user/"), Command::Watch(users.clone()));
    let from = "1:500,2:33".parse().ok();
    assert_eq!(
        line("watch user/ --key --from 1:500,2:33 --previous --json"),
        Command::Watch(Watch { exact: true, from, previous: true, json: true, ..users })
    );
    for (text, why) in [
        ("get k --revision x", "\"x\" is not a revision; write get KEY"),
        ("history", "KEY is missing; write history KEY"),
        ("history k --limit -1", "\"-1\" is not a number of versions"),
        ("history k l", "unexpected argument \"l\""),
        ("watch --key", "the key is empty"),
        ("watch a --from", "write watch [PREFIX]"),
        ("watch a --from 1:5,1:6", "\"1:5,1:6\" is not a position of a watch"),
        ("watch a --from now", "\"now\" is not a position of a watch"),
        ("watch a b", "unexpected argument \"b\""),
    ] {
        let said = wrong(text);
        assert!(said.contains(why), "{text}: {said}");
    }
}

#[test]
fn a_value_in_the_word_form_may_be_named() {
    let value = |text: &str| match line(text) {
        Command::Write { value, .. } => value,
        other => panic!("{other:?}"),
    };
    let given = |text: &str| ValueSource::Inline(text.into());
    assert_eq!(value("put k -"), ValueSource::Stdin);
    assert_eq!(value("put k @-"), ValueSource::Stdin);
    assert_eq!(value("insert k @a/b"), ValueSource::File("a/b".into()));
    assert_eq!(value("update k '@a b'"), ValueSource::File("a b".into()));
    assert_eq!(value("put k @@name"), given("@name"));
    assert_eq!(value("put k @@"), given("@"));
    assert_eq!(value("put k @=-"), given("-"));
    assert_eq!(value("put k @="), given(""));
    assert_eq!(value("put k a@b"), given("a@b"));
    assert!(wrong("put k @").contains("a file name must follow @"));
    // The comma form takes everything literally.
    assert_eq!(value("W,k,@file"), given("@file"));
    assert_eq!(value("W,k,-"), given("-"));
}

#[test]
fn words_act_on_the_processes_of_a_local_network() {
    let named = |name: &str| ProcessTarget::Named(name.into());
    assert_eq!(
        line("kill coordinator"),
        Command::Process(ProcessAction::Kill, ProcessTarget::Coordinator)
    );
    assert_eq!(line("kill n2"), Command::Process(ProcessAction::Kill, named("n2")));
    assert_eq!(line("start server"), Command::Process(ProcessAction::Start, named("server")));
    assert_eq!(line("pause n1"), Command::Process(ProcessAction::Pause, named("n1")));
    assert_eq!(line("resume n1"), Command::Process(ProcessAction::Resume, named("n1")));
    assert_eq!(line("stop n1"), Command::Process(ProcessAction::Stop, named("n1")));
    assert!(wrong("start coordinator").ends_with("write start NAME"));
    assert!(wrong("kill").ends_with("coordinator|NAME is missing; write kill coordinator|NAME"));
}

#[test]
fn malformed_words_say_what_to_write() {
    assert!(wrong("get").ends_with(
        "KEY is missing; write get KEY [LEVEL] [max-staleness MS] [at-least REVISION] \
             [--revision N]"
    ));
    assert!(wrong("get a b").ends_with(
        "unexpected argument \"b\"; write get KEY [LEVEL] [max-staleness MS] [at-least REVISION] \
         [--revision N]"
    ));
    assert!(wrong("set a b").contains("did you mean put KEY VALUE"));
    assert!(wrong("GET a").contains("did you mean get KEY"));
    assert!(wrong("satus").contains("did you mean status"));
    assert!(wrong("fetch a").contains("there is no command fetch; write one of R,<key>"));
    assert!(wrong("put a \"b").contains("a quote \" is not closed"));
    assert!(wrong("put a b\\").contains("nothing follows the last backslash"));
    assert!(wrong("put a \"\\xZZ\"").contains("two hexadecimal digits"));
    assert!(wrong("put k v if-revision x").contains("if-revision N"));
    assert!(wrong("delete k if-absent").contains("if-present"));
    assert!(wrong("get \"\"").contains("the key is empty"));
    assert!(wrong("exit now").ends_with("write exit"));
}

#[test]
fn empty_lines_and_comments_are_ignored() {
    for text in ["", "   ", "\t", "# W,a,b", "  # x"] {
        assert_eq!(parse_line(text.as_bytes()), Ok(None));
    }
}

#[test]
fn escaped_text_cannot_control_a_terminal() {
    assert_eq!(quote::escaped(b"a\x1b[1mb\n\xff"), "a\\x1b[1mb\\n\\xff");
    assert_eq!(quote::escaped("naïve ✓".as_bytes()), "naïve ✓");
    assert_eq!(quote::escaped("a\u{202e}b".as_bytes()), "a\\xe2\\x80\\xaeb");
}

fn any_condition() -> impl Strategy<Value = Condition> {
    prop_oneof![
        Just(Condition::Always),
        Just(Condition::Absent),
        Just(Condition::Present),
        any::<u64>().prop_map(|number| Condition::Revision(Revision(number))),
    ]
}

fn any_key() -> impl Strategy<Value = Key> {
    prop_oneof![
        proptest::collection::vec(any::<u8>(), 1..40),
        ".{1,10}".prop_map(String::into_bytes),
    ]
    .prop_map(|bytes| Key::new(bytes).unwrap())
}

fn any_scan() -> impl Strategy<Value = Scan> {
    let bytes = || {
        prop_oneof![
            proptest::collection::vec(any::<u8>(), 0..9),
            Just(b"--keys".to_vec()),
            Just(b"--".to_vec()),
        ]
    };
    let numbers = (any::<Option<u64>>(), any::<Option<u64>>());
    (bytes(), bytes(), numbers, any::<bool>()).prop_map(
        |(prefix, after, (limit, revision), keys_only)| {
            let revision = revision.map(Revision);
            Scan { prefix, after, limit, keys_only, revision, snapshot: false }
        },
    )
}

fn any_history() -> impl Strategy<Value = History> {
    let numbers = (any::<Option<u64>>(), any::<Option<u64>>());
    (any_key(), numbers, any::<bool>()).prop_map(|(key, (before, limit), json)| {
        let before = before.map(Revision);
        History { key, before, limit, json }
    })
}

fn any_watch() -> impl Strategy<Value = Watch> {
    let token = prop_oneof![
        any::<u64>().prop_map(|revision| WatchToken::from(Revision(revision))),
        proptest::collection::btree_map(1..1000_u32, any::<u64>(), 1..4).prop_map(|revisions| {
            let of = |(shard, revision)| (dkv_api::GroupId(shard), Revision(revision));
            revisions.into_iter().map(of).collect()
        }),
    ];
    let flags = (any::<bool>(), any::<bool>(), any::<bool>());
    (any_key(), proptest::option::of(token), flags).prop_map(
        |(key, from, (exact, previous, json))| {
            let keys = key.as_bytes().to_vec();
            Watch { keys, exact, from, previous, json }
        },
    )
}

fn any_command() -> impl Strategy<Value = Command> {
    let level = || {
        proptest::option::of(proptest::sample::select(vec![
            Level::Strong,
            Level::Session,
            Level::Eventual,
            Level::All,
        ]))
    };
    let number = any::<Option<u64>>;
    let how = (level(), number(), number(), number());
    let how = how.prop_map(|(level, max_staleness_ms, at_least, revision)| ReadParameters {
        level,
        max_staleness_ms,
        at_least: at_least.map(Revision),
        revision: revision.map(Revision),
    });
    let bytes = proptest::collection::vec(any::<u8>(), 0..60);
    let value = prop_oneof![
        bytes.prop_map(ValueSource::Inline),
        proptest::sample::select(vec!["-", "@", "@@", "@=", "@file", "=", "@-"])
            .prop_map(|text| ValueSource::Inline(text.into())),
        Just(ValueSource::Stdin),
        Just(ValueSource::File("a dir/file".into())),
    ];
    let attach = prop_oneof![
        Just(None),
        (1..=u64::from(u32::MAX)).prop_map(|ms| Some(Attach::Ttl(Duration::from_millis(ms)))),
        (1..=i64::MAX as u64).prop_map(|id| Some(Attach::Lease(LeaseId(id)))),
    ];
    let delete_condition =
        any_condition().prop_filter("no delete of nothing", |it| *it != Condition::Absent);
    prop_oneof![
        (any_key(), how).prop_map(|(key, how)| Command::Read { key, how }),
        (any_key(), value, level(), any_condition(), attach).prop_map(
            |(key, value, level, condition, attach)| {
                Command::Write { key, value, level, condition, attach }
            }
        ),
        (any_key(), level(), delete_condition)
            .prop_map(|(key, level, condition)| Command::Delete { key, level, condition }),
        (0..=WAIT_MS_MAX).prop_map(|ms| Command::Wait { ms }),
        any_scan().prop_map(Command::Scan),
        any_history().prop_map(Command::History),
        any_watch().prop_map(Command::Watch),
    ]
}

proptest! {
    #[test]
    fn a_command_parses_back_from_its_words(command in any_command()) {
        let text = command.to_string();
        prop_assert_eq!(parse_line(text.as_bytes()), Ok(Some(command)));
        prop_assert!(!text.contains('\n'));
    }

    #[test]
    fn a_write_parses_back_from_its_comma_form(
        key in proptest::collection::vec(any::<u8>().prop_filter("no comma", |byte| *byte != b','), 1..40),
        value in proptest::collection::vec(any::<u8>(), 0..60),
    ) {
        let text = [b"W,", key.as_slice(), b",", value.as_slice()].concat();
        let expected =
            Command::Write {
                key: Key::new(key).unwrap(),
                value: value.into(),
                level: None,
                condition: Condition::Always,
                attach: None,
            };
        prop_assert_eq!(parse_line(&text), Ok(Some(expected)));
    }

    #[test]
    fn any_text_parses_or_fails_cleanly(text in proptest::collection::vec(any::<u8>(), 0..200)) {
        if let Err(error) = parse_line(&text) {
            prop_assert!(!error.to_string().chars().any(char::is_control));
        }
    }

    #[test]
    fn a_word_splits_back_from_its_quotes(
        words in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..20), 0..6),
    ) {
        let text = words.iter().map(|word| quote::quoted(word)).collect::<Vec<_>>().join(" ");
        prop_assert_eq!(quote::split(text.as_bytes()), Ok(words));
    }
}
