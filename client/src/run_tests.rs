//! What commands print, on a store that is a map.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::sync::Mutex;

use dkv_api::{GroupId, Held, NetworkStatus, NodeId, Revision, Term, Value, Written};

use super::*;
use crate::grammar::{Scan, parse_arguments, parse_line};
use crate::pipe;
use crate::screen::Shared;

/// Each key's revision and value.
type Keys = BTreeMap<Vec<u8>, (u64, Bytes)>;

/// A network that is a map. Keys that begin with `!` fail in the way of their name.
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
        mut say: impl FnMut(&Pair) -> io::Result<()>,
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
            say(&Pair { key, revision: Revision(*revision), value })?;
        }
        Ok(Ok(()))
    }

    async fn search(&self, _key: &[u8]) -> Result<Vec<Held>, Error> {
        Ok(Vec::new())
    }

    async fn show_all(
        &self,
        _node: &str,
        mut say: impl FnMut(&Pair) -> io::Result<()>,
    ) -> io::Result<Result<(), Error>> {
        self.scan(&Scan::default(), &mut say).await
    }

    async fn status(&self) -> NetworkStatus {
        NetworkStatus {
            server: Err("no answer".into()),
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
async fn a_scan_prints_what_load_takes() {
    let input = b"W,b,1\nput a \"x\\ny\"\nW,c,\"q\"\nW,d,\nscan --limit 3\nscan c --keys\n";
    let (succeeded, out, err) = piped(input).await;
    assert!(succeeded, "{err}");
    let out = String::from_utf8(out).unwrap();
    let listed: Vec<&str> = out.lines().skip(4).collect();
    assert_eq!(listed, ["a,\"x", "y\"", "b,1", "c,\"\"\"q\"\"\"", "c"]);
}

/// Runs an input as from a pipe.
async fn piped(input: &[u8]) -> (bool, Vec<u8>, String) {
    let (out, err) = (Shared::default(), Shared::default());
    let mut screen = Screen::of(out.clone(), err.clone());
    let succeeded = pipe::run(input, &Fake::default(), &mut screen).await.unwrap();
    (succeeded, out.bytes(), err.text())
}

#[tokio::test]
async fn commands_say_what_they_did() {
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
async fn failures_say_what_is_the_case_and_what_to_do() {
    let (succeeded, out, err) = piped(
        b"R,foo\nD,foo\nput foo 1 if-present\nW,!unavailable,1\nR,!unavailable\nW,!unknown,1\n\
          D,!denied\nW,!large,1\nr,foo\nkill n1\nW,foo,1\nput foo 2 if-revision 9\n",
    )
    .await;
    assert!(!succeeded);
    assert_eq!(String::from_utf8(out).unwrap(), "written foo at revision 1 (shard 2)\n");
    expect_test::expect![[r#"
        error: key not found: foo
        error: key not found: foo
        error: foo was not written: it does not exist, and was to be present; read it and decide anew
        error: !unavailable was not written: no majority of shard 2 answers; nothing was changed, so try again
        error: !unavailable could not be read now: no majority of shard 2 answers; try again, or read it eventual
        error: it is not known whether !unknown was written: the connection was lost; it may have had effect, or may yet: read the key to see, or repeat the command
        error: denied: a node may not write; give a token that allows it with --token-file
        error: the value has 9 bytes, and 8 is the limit; nothing was changed
        error: line 9: malformed command "r,foo": commands are upper case; write R,foo
        error: kill works only at the prompt of a local network; start one with dkv local
        error: foo was not written: it is at revision 1, and was to be at 9; read it and decide anew
    "#]]
    .assert_eq(&err);
}

#[tokio::test]
async fn a_pipe_passes_bytes_ends_without_a_newline_and_stops_at_exit() {
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
    let err = Shared::default();
    let store = Fake::default();
    let mut screen = Screen::of(Closed, err.clone());
    let commands = parse_arguments(&[b"W,a,1".to_vec(), b"W,b,2".to_vec()]).unwrap();
    let error = all(&commands, &store, &mut screen).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
    assert_eq!(store.keys.lock().unwrap().0, 1);
    assert_eq!(err.text(), "");
}

#[tokio::test]
async fn arguments_go_on_after_a_failure_and_remember_it() {
    let out = Shared::default();
    let mut screen = Screen::of(out.clone(), io::sink());
    let commands = parse_arguments(&[b"R,a".to_vec(), b"W,a,1".to_vec()]).unwrap();
    assert!(!all(&commands, &Fake::default(), &mut screen).await.unwrap());
    assert_eq!(out.text(), "written a at revision 1 (shard 2)\n");
}

#[test]
fn the_help_names_every_word_and_every_form_parses() {
    let text = help(true);
    assert!(WORDS.iter().all(|word| text.contains(word.form)));
    assert!(!help(false).contains("kill"));
    let examples = text.split_once("examples:\n").unwrap().1;
    assert!(examples.lines().all(|line| parse_line(line.as_bytes()).unwrap().is_some()));
}
