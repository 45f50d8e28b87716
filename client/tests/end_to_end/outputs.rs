//! The `dkv` command for scripts: exit statuses, JSON, the default address, values and records from
//! pipes, and output that cannot be written.

use std::fs::File;
use std::io::Write;
use std::process::{Output, Stdio};

use dkv_test_support::{output, text};
use serde_json::Value;

use crate::harness::Network;
use crate::harness::process::command;

/// Runs `dkv` with an input and the given streams.
fn run(
    network: &Network,
    arguments: &[&str],
    input: &[u8],
    out: Stdio,
    more: &[(&str, &str)],
) -> Output {
    let mut command = command(arguments, &network.home());
    command.envs(more.iter().copied());
    let mut child =
        command.stdin(Stdio::piped()).stdout(out).stderr(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_owned();
    // The write fails if the command does not read its input.
    let writer = std::thread::spawn(move || drop(stdin.write_all(&input)));
    let ended = child.wait_with_output().unwrap();
    writer.join().unwrap();
    ended
}

/// Returns standard output, standard error and the exit status.
fn told(network: &Network, arguments: &[&str], input: &[u8]) -> (Vec<u8>, String, i32) {
    let ended = run(network, arguments, input, Stdio::piped(), &[]);
    (ended.stdout, output(&ended.stderr).to_owned(), ended.status.code().unwrap())
}

fn documents(bytes: &[u8]) -> Vec<Value> {
    output(bytes).lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn without_an_address_the_server_of_this_user_is_used() {
    let network = Network::start(2).await;
    // Words, the short form, lines of a prompt and administration, all without an address.
    let (out, err, status) = told(&network, &["W,color,blue", "R,color"], b"");
    assert!(status == 0 && output(&out).ends_with("blue\n"), "{err}");
    assert_eq!(told(&network, &["get", "color"], b"").0, b"blue\n");
    assert_eq!(told(&network, &[], b"get color\nR,color\n").0, b"blue\nblue\n");
    let (out, err, status) = told(&network, &["drain", "n1", "--no-wait"], b"");
    assert!(status == 0 && output(&out).contains("node n1 is draining"), "{err}");
    let (out, err, status) = told(&network, &[], b"drain n1 --undo\ntoken list\n");
    assert!(status == 0 && output(&out).contains("never expires"), "{err}");
    // The variable has priority, and an empty one counts as not set.
    let named = |server: &str| {
        let server = [("DKV_SERVER", server), ("DKV_REGION", ""), ("DKV_TOKEN_FILE", "")];
        run(&network, &["get", "color"], b"", Stdio::piped(), &server)
    };
    assert!(named("").status.success(), "{}", output(&named("").stderr));
    assert!(named(&network.address.to_string()).status.success());
    assert_eq!(
        named("127.0.0.1:1").status.code(),
        Some(5),
        "{}",
        output(&named("127.0.0.1:1").stderr)
    );
    // Without any server, the error says what to do.
    let stranger = network.path("stranger");
    let ended = network.dkv_as(&["get", "color"], &stranger).await;
    assert_eq!(ended.status.code(), Some(2));
    assert!(output(&ended.stderr).contains("set DKV_SERVER"), "{}", output(&ended.stderr));
}

#[tokio::test(flavor = "multi_thread")]
async fn each_kind_of_failure_has_its_own_status() {
    let mut network = Network::start(3).await;
    let status = |network: &Network, arguments: &[&str]| told(network, arguments, b"").2;
    assert_eq!(status(&network, &["W,k,1", "R,k"]), 0);
    assert_eq!(status(&network, &["get", "none"]), 3);
    assert_eq!(status(&network, &["delete", "none"]), 3);
    assert_eq!(status(&network, &["drain", "nobody"]), 3);
    assert_eq!(status(&network, &["insert", "k", "2"]), 4);
    assert_eq!(status(&network, &["put", "k", "2", "if-revision", "99"]), 4);
    assert_eq!(status(&network, &["get", "none", "then"]), 2);
    assert_eq!(status(&network, &["put", "k", "@missing"]), 1);
    assert_eq!(status(&network, &["R,none", "insert k 2"]), 4, "the most serious decides");
    assert_eq!(status(&network, &["status"]), 0);
    for index in [0, 1] {
        network.kill_node(index);
    }
    assert_eq!(status(&network, &["status"]), 5);
    assert_eq!(status(&network, &["--timeout", "1s", "get", "k"]), 5);
    let (_, err, status) =
        told(&network, &["--timeout", "1s", "--output", "json", "get", "k"], b"");
    let error = &documents(err.as_bytes())[0];
    assert_eq!(
        (status, &error["kind"], &error["effect"]),
        (5, &"unavailable".into(), &"none".into())
    );
    let (_, err, status) =
        told(&network, &["--timeout", "1s", "--output", "json", "W,k,2", "R,none"], b"");
    let errors = documents(err.as_bytes());
    assert!([5, 6].contains(&status), "{errors:?}");
    assert_eq!(errors.len(), 2);
    assert!(network.nodes[2].running().lives());
}

#[tokio::test(flavor = "multi_thread")]
async fn output_that_cannot_be_written_is_reported() {
    let network = Network::start(1).await;
    let full = || Stdio::from(File::options().write(true).open("/dev/full").unwrap());
    for arguments in [
        &["--help"][..],
        &["help", "get"],
        &["get", "--help"],
        &["--version"],
        &["completions", "bash"],
        &["status"],
        &["status", "--json"],
        &["scan"],
        &["W,k,1", "R,k"],
    ] {
        let ended = run(&network, arguments, b"", full(), &[]);
        let said = output(&ended.stderr);
        assert_eq!(ended.status.code(), Some(if arguments == ["scan"] { 0 } else { 1 }), "{said}");
        let told =
            arguments == ["scan"] || said.contains("cannot write to standard output: No space");
        assert!(told, "{arguments:?}: {said}");
        let wrote = arguments[0] == "W,k,1";
        assert_eq!(said.contains("written k at revision 1 (shard"), wrote, "{said}");
        assert_eq!(said.contains("the change was made"), wrote, "{said}");
    }
    // A reader that stops early causes no error message.
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    for arguments in [&["completions", "bash"][..], &["R,k"]] {
        let ended = run(&network, arguments, b"", writer.try_clone().unwrap().into(), &[]);
        assert_eq!((ended.status.code(), output(&ended.stderr)), (Some(141), ""));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn values_and_records_come_from_pipes_and_files() {
    let network = Network::start(1).await;
    let value: Vec<u8> = (0..300_000).map(|byte| (byte % 256) as u8).collect();
    let (_, err, status) = told(&network, &["put", "large", "-"], &value);
    assert_eq!(status, 0, "{err}");
    let (read, _, _) = told(&network, &["get", "large"], b"");
    assert!(read[..read.len() - 1] == value[..], "{} bytes", read.len());
    let file = network.path("value");
    std::fs::write(&file, b"\xff\x00").unwrap();
    let named = format!("@{}", text(&file));
    assert_eq!(told(&network, &["put", "binary", &named], b"").2, 0);
    let (out, _, _) = told(&network, &["get", "binary", "--output", "json"], b"");
    assert_eq!(documents(&out)[0]["value_base64"], "/wA=");
    assert_eq!(told(&network, &["put", "text", "@@text"], b"").2, 0);
    assert_eq!(told(&network, &["get", "text"], b"").0, b"@text\n");
    let (_, err, status) = told(&network, &["put a -", "put b -"], b"1");
    assert!(status == 2 && err.contains("only once"), "{err}");
    let too_large = vec![0; 16 * 1024 * 1024 + 1];
    let (_, err, status) = told(&network, &["put", "huge", "-"], &too_large);
    assert!(status == 1 && err.contains("too large"), "{err}");

    // `load` accepts what `scan` prints, in each format and for all bytes.
    for (form, format) in [("text", "csv"), ("json", "json")] {
        let (listed, _, _) = told(&network, &["scan", "--output", form], b"");
        for task in ["load", "verify"] {
            let arguments = [task, "-", "--format", format];
            let (out, err, status) = told(&network, &arguments, &listed);
            assert!(status == 0 && err.is_empty(), "{form} {task}: {err}");
            assert!(output(&out).contains(" 3 records in "), "{}", output(&out));
        }
        let (again, _, _) = told(&network, &["scan", "--output", form], b"");
        assert_eq!(again.len(), listed.len());
    }
    let (_, err, status) = told(&network, &["load", "/dev/stdin"], b"\x1f\x8b\x08\x00");
    assert!(status == 1 && err.contains("standard input is compressed (gzip)"), "{err}");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_command_prints_json() {
    let network = Network::start(3).await;
    let arguments = [
        "--output",
        "json",
        "W,k,v",
        "R,k",
        "scan",
        "search k",
        "show-all n1",
        "T,1",
        "nodes",
        "D,k",
        "token create --life 1h",
        "token list",
        "rebalance --dry-run",
        "rebalance",
        "drain n3 --no-wait",
        "drain n3 --undo",
    ];
    let (out, err, status) = told(&network, &arguments, b"");
    assert!(status == 0 && err.is_empty(), "{err}");
    let commands: Vec<String> = documents(&out)
        .iter()
        .map(|it| it["command"].as_str().unwrap_or("pair").to_owned())
        .collect();
    assert_eq!(
        commands,
        [
            "put",
            "get",
            "pair",
            "search",
            "pair",
            "wait",
            "nodes",
            "delete",
            "token create",
            "token list",
            "rebalance",
            "rebalance",
            "drain",
            "drain",
        ]
    );
    let made = &documents(&out)[8];
    assert!(made["id"].as_str().unwrap().len() == 36 && made["life_ms"] == 3_600_000, "{made}");
    let id = made["id"].as_str().unwrap();
    let (out, err, status) = told(&network, &["token", "revoke", id, "--output", "json"], b"");
    assert!(status == 0 && documents(&out)[0]["id"] == id, "{err}");
    let (out, _, _) = told(&network, &["status", "--output", "json"], b"");
    let (same, _, _) = told(&network, &["status", "--json"], b"");
    let report = |bytes: &[u8]| serde_json::from_slice::<Value>(bytes).unwrap()["network"].clone();
    assert_eq!(report(&out), report(&same));
    let (out, err, status) = told(&network, &["get", "--output=json"], b"");
    assert!(out.is_empty() && status == 2);
    assert_eq!(documents(err.as_bytes())[0]["kind"], "usage");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_is_reported_if_its_result_cannot_be_written() {
    let network = Network::start(3).await;
    let full = || Stdio::from(File::options().write(true).open("/dev/full").unwrap());
    let records = network.path("records.csv");
    std::fs::write(&records, "a,1\n").unwrap();
    let told = |arguments: &[&str]| {
        let arguments = [arguments, &["--output", "json"]].concat();
        let ended = run(&network, &arguments, b"", full(), &[]);
        assert_eq!(ended.status.code(), Some(1), "{arguments:?}");
        documents(&ended.stderr).remove(0)
    };
    let ids = || {
        let (out, _, _) = self::told(&network, &["token", "list", "--output", "json"], b"");
        documents(&out)[0]["tokens"].as_array().unwrap().len()
    };
    let before = ids();
    for (arguments, says) in [
        (&["put", "k", "1"][..], "written k"),
        (&["put", "k", "1", "eventual"], "write of k kept by"),
        (&["delete", "k"], "deleted k"),
        (&["load", text(&records)], "loaded 1 record"),
        (&["rebalance"], "rebalancing"),
        (&["drain", "n3", "--no-wait"], "node n3 is draining"),
        (&["drain", "n3", "--undo"], "node n3 is back in use"),
        (
            &["revoke", "00000000-0000-0000-0000-000000000001"],
            "00000000-0000-0000-0000-000000000001",
        ),
    ] {
        let told = told(arguments);
        assert_eq!(told["effect"], "done", "{arguments:?}: {told}");
        assert!(told["error"].as_str().unwrap().contains(says), "{arguments:?}: {told}");
    }
    assert_eq!(told(&["get", "a"])["effect"], "none");
    // The text of a token that was not printed is lost.
    for arguments in [&["token", "create", "--never-expires"][..], &["token", "create", "--http"]] {
        let told = told(arguments);
        assert!(told["error"].as_str().unwrap().contains("was revoked"), "{told}");
        assert_eq!((&told["effect"], told["id"].is_string()), (&"none".into(), true), "{told}");
    }
    assert_eq!(ids(), before);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_closed_descriptor_is_not_an_empty_file() {
    let network = Network::start(1).await;
    let shell = |redirected: &str, arguments: &[&str]| {
        let dkv = command(&[], &network.home());
        let mut shell = std::process::Command::new("sh");
        shell.args(["-c", &format!("exec \"$0\" \"$@\" {redirected}")]);
        shell.arg(dkv.get_program()).args(arguments);
        shell.envs(dkv.get_envs().filter_map(|(name, value)| Some((name, value?))));
        let ended = shell.output().unwrap();
        (ended.status.code(), output(&ended.stderr).to_owned())
    };
    let (status, said) = shell("<&-", &["put", "f", "-"]);
    assert!(status == Some(1) && said.contains("standard input is closed"), "{status:?}: {said}");
    let (status, said) = shell("<&-", &["load", "-", "--format", "csv"]);
    assert!(status == Some(1) && said.contains("standard input is closed"), "{status:?}: {said}");
    assert_eq!(told(&network, &["get", "f"], b"").2, 3, "nothing was stored");
    assert_eq!(shell("</dev/null", &["put", "f", "-"]), (Some(0), String::new()));
    for arguments in [&["get", "f"][..], &["scan"], &["token", "create"], &["--help"]] {
        let (status, said) = shell(">&-", arguments);
        let told = said.contains("standard output is closed");
        assert!(status == Some(1) && told, "{arguments:?}: {status:?}: {said}");
        assert_eq!(shell(">/dev/null", arguments).0, Some(0), "{arguments:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failure_of_a_pipe_names_its_line() {
    let network = Network::start(1).await;
    let (_, err, status) = told(&network, &[], b"# first\nget nope\n");
    assert!(status == 3 && err.starts_with("error: line 2: key not found: nope"), "{err}");
    let (_, err, _) = told(&network, &["--output", "json"], b"\n\nget nope\n");
    assert_eq!(documents(err.as_bytes())[0]["line"], 3);
}

/// Returns what a shell completes after these words.
fn completed(network: &Network, words: &[&str]) -> Vec<String> {
    let script = run(network, &["completions", "bash"], b"", Stdio::piped(), &[]).stdout;
    let words: Vec<String> = words.iter().map(|word| format!("'{word}'")).collect();
    let last = words.len() - 1;
    let (now, before) = (&words[last], &words[last.saturating_sub(1)]);
    let asked = format!(
        "{}\ncompopt() {{ :; }}\nCOMP_WORDS=({}) COMP_CWORD={last}\n_dkv dkv {now} {before}\nprintf '%s\\n' \
         \"${{COMPREPLY[@]}}\"\n",
        output(&script),
        words.join(" ")
    );
    // It is longer than an argument may be.
    let mut bash = std::process::Command::new("bash");
    bash.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut bash = bash.spawn().unwrap();
    bash.stdin.take().unwrap().write_all(asked.as_bytes()).unwrap();
    let bash = bash.wait_with_output().unwrap();
    assert!(bash.stderr.is_empty(), "{}", output(&bash.stderr));
    output(&bash.stdout).lines().filter(|line| !line.is_empty()).map(str::to_owned).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shell_completes_commands_options_levels_and_roles() {
    let network = Network::server_only(serde_json::json!({})).await;
    let script = run(&network, &["completions", "bash"], b"", Stdio::piped(), &[]).stdout;
    assert!(!output(&script).contains("bashdefault"), "files are offered everywhere");
    assert_eq!(completed(&network, &["dkv", "dra"]), ["drain"]);
    assert_eq!(completed(&network, &["dkv", "127.0.0.1:4400", "dra"]), ["drain"]);
    assert_eq!(completed(&network, &["dkv", "drain", "n1", "--u"]), ["--undo"]);
    assert_eq!(completed(&network, &["dkv", "get", "k", "ev"]), ["eventual"]);
    assert_eq!(completed(&network, &["dkv", "help", "to"]), ["token"]);
    assert_eq!(completed(&network, &["dkv", "put", "k", "v", "if-a"]), ["if-absent"]);
    assert_eq!(
        completed(&network, &["dkv", "token", "create", "--role", ""]),
        ["node", "client", "reader", "admin", "server"]
    );
    assert_eq!(
        completed(&network, &["dkv", "--level", ""]),
        ["strong", "session", "eventual", "all"]
    );
}
