//! Output of commands on a store that is a map.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::sync::Mutex;

use dkv_api::{
    Client, Error, GroupId, NetworkStatus, NodeId, Pair, ReplicaValue, Revision, Role, Term, Value,
    Written,
};
use dkv_console::Buffer;

use super::*;
use crate::grammar::Scan;
use crate::pipe;
use crate::steps::{self, parse_arguments};

/// Each key's revision and value.
type Keys = BTreeMap<Vec<u8>, (u64, Bytes)>;

/// A network that is a map. Keys that begin with `!` fail in the way that their name says.
#[derive(Default)]
pub(crate) struct Fake {
    keys: Mutex<(u64, Keys)>,
}

fn receipt(revision: u64) -> Receipt {
    Receipt {
        shard: GroupId(2),
        revision: Revision(revision),
        level: Level::Strong,
        node: NodeId::default(),
        term: Term(1),
        staleness_ms: Some(0),
        stamp: Default::default(),
        pending: None,
    }
}

fn scripted(key: &[u8]) -> Result<(), Error> {
    match key {
        b"!unavailable" => Err(Error::Unavailable("no majority of shard 2 answers".into())),
        b"!unknown" => Err(Error::Unknown("the connection was lost".into())),
        b"!denied" => Err(Error::Denied("a node may not write".into())),
        b"!large" => Err(Error::TooLarge { what: "value".into(), bytes: 9, limit: 8 }),
        _ => Ok(()),
    }
}

impl Fake {
    fn change(&self, key: &[u8], value: Option<Bytes>, on: Condition) -> Result<Written, Error> {
        scripted(key)?;
        let (revision, keys) = &mut *self.keys.lock().unwrap();
        let current = keys.get(key).map(|(revision, _)| *revision);
        let holds = match on {
            Condition::Always => true,
            Condition::Absent => current.is_none(),
            Condition::Present => current.is_some(),
            Condition::Revision(wanted) => current == Some(wanted.0),
        };
        if !holds {
            let current = current.map(Revision);
            return Err(Error::Conflict { current, receipt: receipt(*revision) });
        }
        if value.is_none() && current.is_none() {
            return Err(Error::NotFound { receipt: receipt(*revision) });
        }
        *revision += 1;
        match value {
            Some(value) => keys.insert(key.to_vec(), (*revision, value)),
            None => keys.remove(key),
        };
        Ok(Written { receipt: receipt(*revision), existed: current.is_some() })
    }
}

impl Store for Fake {
    fn level(&self) -> Level {
        Level::Strong
    }

    async fn read(&self, key: &[u8], _options: ReadOptions) -> Result<Value, Error> {
        scripted(key)?;
        let (revision, keys) = &*self.keys.lock().unwrap();
        match keys.get(key) {
            Some((at, value)) => {
                let (value, reach) = (value.clone(), Reach::default());
                Ok(Value { value, receipt: receipt(*at), reach })
            }
            None => Err(Error::NotFound { receipt: receipt(*revision) }),
        }
    }

    async fn write(&self, key: &[u8], value: Bytes, on: WriteOptions) -> Result<Written, Error> {
        self.change(key, Some(value), on.condition)
    }

    async fn delete(&self, key: &[u8], on: WriteOptions) -> Result<Written, Error> {
        self.change(key, None, on.condition)
    }

    fn node_names(&self, nodes: &[NodeId]) -> Vec<String> {
        nodes.iter().map(|node| node.short().to_string()).collect()
    }

    async fn scan(
        &self,
        scan: &Scan,
        mut each: impl FnMut(&Pair) -> io::Result<()>,
    ) -> io::Result<Result<(), Error>> {
        let (_, keys) = &*self.keys.lock().unwrap();
        let matching = keys
            .iter()
            .filter(|(key, _)| key.starts_with(&scan.prefix) && **key > scan.after)
            .take(scan.limit.unwrap_or(u64::MAX) as usize);
        for (key, (revision, value)) in matching {
            if let Err(error) = scripted(key) {
                return Ok(Err(error));
            }
            let value = (!scan.keys_only).then(|| value.clone());
            let key = Bytes::copy_from_slice(key);
            each(&Pair::new(key, Revision(*revision), value))?;
        }
        Ok(Ok(()))
    }

    async fn search(&self, _key: &[u8]) -> Result<Vec<ReplicaValue>, Error> {
        Ok(Vec::new())
    }

    async fn show_all(
        &self,
        _node: &str,
        mut each: impl FnMut(&Pair) -> io::Result<()>,
    ) -> io::Result<Result<(), Error>> {
        self.scan(&Scan::default(), &mut each).await
    }

    async fn client(&self, _role: Role) -> Result<Client, Problem> {
        Err(Problem::new(Failure::Unavailable, "there is no network here"))
    }

    async fn status(&self) -> NetworkStatus {
        NetworkStatus {
            servers: Vec::new(),
            server: Err(dkv_api::StatusError::Silent("no answer".into())),
            nodes: Vec::new(),
            view: None,
            placement: None,
        }
    }

    fn address(&self) -> &str {
        "127.0.0.1:4400"
    }
}

#[tokio::test]
async fn a_scan_prints_what_load_accepts() {
    let input = b"W,b,1\nput a \"x\\ny\"\nW,c,\"q\"\nW,d,\nscan --limit 3\nscan c --keys\n";
    let (succeeded, out, err) = piped(input).await;
    assert!(succeeded, "{err}");
    let out = String::from_utf8(out).unwrap();
    let listed: Vec<&str> = out.lines().skip(4).collect();
    assert_eq!(listed, ["a,\"x", "y\"", "b,1", "c,\"\"\"q\"\"\"", "c"]);
}

/// Runs an input like a pipe.
async fn piped(input: &[u8]) -> (bool, Vec<u8>, String) {
    let (failure, out, err) = piped_as(false, input).await;
    (failure.is_none(), out, err)
}

async fn piped_as(json: bool, input: &[u8]) -> (Option<Failure>, Vec<u8>, String) {
    let (out, err) = (Buffer::default(), Buffer::default());
    let mut console = Console::of(out.clone(), err.clone());
    console.json = json;
    let failure = pipe::run(input, &Fake::default(), &mut console).await.unwrap();
    (failure, out.bytes(), err.text())
}

#[tokio::test]
async fn commands_report_what_they_did() {
    let (succeeded, out, err) = piped(
        b"W,key,a,b\nR,key\nput key \"c\" if-revision 1\nget key eventual\nD,key\nT,0\n\n# done\n",
    )
    .await;
    assert_eq!(
        String::from_utf8(out).unwrap(),
        "written key at revision 1 (shard 2)\na,b\nreplaced key at revision 2 (shard 2)\nc\n\
         deleted key at revision 3 (shard 2)\nwaited 0 ms\n"
    );
    assert_eq!(err, "");
    assert!(succeeded);
}

#[tokio::test]
async fn failures_say_what_happened_and_what_to_do() {
    let (succeeded, out, err) = piped(
        b"R,foo\nD,foo\nput foo 1 if-present\nW,!unavailable,1\nR,!unavailable\nW,!unknown,1\n\
          D,!denied\nW,!large,1\nr,foo\nkill n1\nW,foo,1\nput foo 2 if-revision 9\ninsert foo 3\n",
    )
    .await;
    assert!(!succeeded);
    assert_eq!(String::from_utf8(out).unwrap(), "written foo at revision 1 (shard 2)\n");
    expect_test::expect![[r#"
        error: line 1: key not found: foo
        error: line 2: key not found: foo
        error: line 3: foo was not written: it does not exist
        error: line 4: !unavailable was not written: no majority of shard 2 answers; nothing was changed, try again
        error: line 5: cannot read !unavailable: no majority of shard 2 answers; try again, or read it at level eventual
        error: line 6: outcome unknown: !unknown may have been written, or may still be: the connection was lost; read the key to check, or repeat the command
        error: line 7: denied: a node may not write; use a token that allows this, with --token-file
        error: line 8: the value is too large: 9 bytes, but the limit is 8; nothing was changed
        error: line 9: malformed command "r,foo": commands are in upper case; write R,foo
        error: line 10: kill works only at the prompt of a local network; start one with dkv local
        error: line 12: foo was not written: it is at revision 1, not 9
        error: line 13: foo was not written: it already exists (revision 1)
    "#]]
    .assert_eq(&err);
}

#[tokio::test]
async fn a_pipe_passes_bytes_and_ends_at_exit_or_without_a_newline() {
    assert_eq!(
        piped(b"W,k,\xff\x00\r\nR,k").await.1,
        b"written k at revision 1 (shard 2)\n\xff\x00\n"
    );
    let (succeeded, out, _) = piped(b"exit\nR,missing\n").await;
    assert!(succeeded && out.is_empty());
    assert!(piped(b"").await.0);
}

#[tokio::test]
async fn a_closed_stdout_stops_everything_quietly() {
    struct Closed;
    impl Write for Closed {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::BrokenPipe.into())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let err = Buffer::default();
    let store = Fake::default();
    let mut console = Console::of(Closed, err.clone());
    let commands = parse_arguments(&[b"W,a,1".to_vec(), b"W,b,2".to_vec()]).unwrap();
    let error = steps::run_all(&commands, &store, &mut console).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
    assert_eq!(store.keys.lock().unwrap().0, 1);
    assert_eq!(err.text(), "");
}

#[tokio::test]
async fn arguments_continue_after_a_failure_and_report_it() {
    let out = Buffer::default();
    let mut console = Console::of(out.clone(), io::sink());
    let commands = parse_arguments(&[b"R,a".to_vec(), b"W,a,1".to_vec()]).unwrap();
    let failure = steps::run_all(&commands, &Fake::default(), &mut console).await.unwrap();
    assert_eq!(failure, Some(Failure::NotFound));
    assert_eq!(out.text(), "written a at revision 1 (shard 2)\n");
}

#[tokio::test]
async fn the_most_serious_problem_sets_the_status() {
    for (input, failure) in [
        (&b"R,a\nW,a,1\n"[..], Some(Failure::NotFound)),
        (b"R,a\nput a 1 if-present\n", Some(Failure::Conflict)),
        (b"W,!unavailable,1\nR,a\n", Some(Failure::Unavailable)),
        (b"W,!unknown,1\nW,!unavailable,1\nD,!denied\n", Some(Failure::Unknown)),
        (b"D,!denied\nR,a\n", Some(Failure::Denied)),
        (b"r,a\n", Some(Failure::Usage)),
        (b"status\n", Some(Failure::Unavailable)),
        (b"W,a,1\nR,a\nD,a\n", None),
    ] {
        assert_eq!(piped_as(false, input).await.0, failure, "{}", input.escape_ascii());
    }
}

#[tokio::test]
async fn programs_get_json_for_each_result_and_each_problem() {
    let input = b"put k \"\\xff\"\nget k\nR,none\nT,0\nD,k\nput a \"x,y\"\nscan\nr,k\n";
    let (failure, out, err) = piped_as(true, input).await;
    assert_eq!(failure, Some(Failure::Usage));
    let documents = |text: &str| -> Vec<serde_json::Value> {
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    };
    let out = documents(std::str::from_utf8(&out).unwrap());
    let commands: Vec<_> = out.iter().map(|it| it["command"].as_str().unwrap_or("-")).collect();
    assert_eq!(commands, ["put", "get", "wait", "delete", "put", "-"]);
    assert_eq!((&out[0]["revision"], &out[0]["existed"]), (&1.into(), &false.into()));
    assert_eq!(out[1]["value_base64"], "/w==");
    assert_eq!(out[1]["node"].as_str().unwrap().len(), 36, "ids are complete");
    assert_eq!((&out[5]["key"], &out[5]["value"]), (&"a".into(), &"x,y".into()));
    let err = documents(&err);
    assert_eq!((&err[0]["kind"], &err[0]["effect"]), (&"not-found".into(), &"none".into()));
    assert_eq!(err[0]["line"], 3);
    assert_eq!((&err[1]["kind"], &err[1]["line"]), (&"usage".into(), &8.into()));
}

#[tokio::test]
async fn a_write_that_cannot_be_reported_is_mentioned_in_the_error() {
    struct Full;
    impl Write for Full {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::StorageFull.into())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let store = Fake::default();
    let mut console = Console::of(Full, io::sink());
    let steps = parse_arguments(&[b"W,a,1".to_vec()]).unwrap();
    let error = steps::run_all(&steps, &store, &mut console).await.unwrap_err();
    let said = dkv_console::broken(&error).unwrap().message;
    assert!(said.starts_with("cannot write to standard output: "), "{said}");
    assert!(said.ends_with("; the change was made: written a at revision 1 (shard 2)"), "{said}");
    let steps = parse_arguments(&[b"R,a".to_vec()]).unwrap();
    let error = steps::run_all(&steps, &store, &mut console).await.unwrap_err();
    let broken = dkv_console::broken(&error).unwrap();
    assert!(!broken.message.contains("the change was made"));
    assert_eq!(broken.document()["effect"], "none");
    for command in ["W,b,1", "put b 2", "D,b"] {
        for json in [false, true] {
            console.json = json;
            let steps = parse_arguments(&[b"W,b,0".to_vec()]).unwrap();
            steps::run_all(&steps, &store, &mut Console::of(io::sink(), io::sink())).await.unwrap();
            let steps = parse_arguments(&[command.into()]).unwrap();
            let error = steps::run_all(&steps, &store, &mut console).await.unwrap_err();
            let told = dkv_console::broken(&error).unwrap().document();
            assert_eq!(told["effect"], "done", "{command}: {told}");
        }
    }
}

#[tokio::test]
async fn a_given_level_is_never_replaced() {
    let asked = |line: &str, given| {
        let steps = parse_arguments(&[line.into()]).unwrap();
        steps[0].check_level(given).map_err(|problem| problem.failure)
    };
    for (line, given, is_good) in [
        ("get c max-staleness 5", None, true),
        ("get c max-staleness 5", Some(Level::Strong), false),
        ("get c at-least 1", Some(Level::All), false),
        ("get c at-least 1", Some(Level::Session), true),
        ("get c eventual at-least 1", Some(Level::All), true),
        ("get c strong max-staleness 5", None, false),
        ("get c all at-least 5", Some(Level::Eventual), false),
        ("put c 1 if-present", Some(Level::Eventual), false),
        ("put c 1 strong if-present", Some(Level::Eventual), true),
        ("put c 1 eventual if-absent", None, false),
        ("insert c 1", Some(Level::Eventual), false),
        ("update c 1", Some(Level::Eventual), false),
        ("delete c if-present", Some(Level::Eventual), false),
        ("put c 1", Some(Level::Eventual), true),
    ] {
        let expected = if is_good { Ok(()) } else { Err(Failure::Usage) };
        assert_eq!(asked(line, given), expected, "{line} at {given:?}");
    }
    let (failure, out, _) = piped_as(false, b"put c 1 eventual if-absent\nget c\n").await;
    assert_eq!(failure, Some(Failure::Usage));
    assert!(out.is_empty());
}

#[tokio::test]
async fn subcommands_work_in_a_pipe() {
    let (failure, _, err) = piped_as(false, b"drain n1\nload -\ndrain\n").await;
    assert_eq!(failure, Some(Failure::Unavailable));
    let lines: Vec<&str> = err.lines().collect();
    assert_eq!(lines[0], "error: line 1: there is no network here");
    assert!(lines[1].contains("line 2: standard input provides the commands here"), "{err}");
    assert!(lines[2].contains("line 3: malformed command \"drain\": "), "{err}");
    assert_eq!(lines.len(), 3);
}
