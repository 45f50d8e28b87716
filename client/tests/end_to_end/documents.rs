//! Runs the examples of the documents against a real network, in the order of each document, and
//! compares their output.
//!
//! A comment `<!-- run -->` marks the block after it. In a `console` block, each line that begins
//! with `$ ` is a command, and the lines after it are its output, both streams together. An
//! ellipsis matches anything within a line and, alone on a line, any lines.
//! `<!-- run: varies A | B -->` lists texts that differ between runs. A `sh` block only has to
//! succeed. `<!-- run: ID from COMMAND -->` puts what a command prints in the place of the word
//! `ID`. `<!-- run: in terminals -->` starts each line of a `sh` block, which has to get ready and
//! goes on. `<!-- run: to COMMAND -->` gives a block as standard input to a command that has to
//! succeed. `; beside COMMAND` at the end keeps a server running meanwhile. A mark may take several
//! lines.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use dkv_api::Role;
use dkv_test_support::{output, skip, text};
use serde_json::json;

use crate::harness::Network;
use crate::harness::network::free_port;
use crate::harness::process::{command, program};

/// Marks the end of a command in the output of the shell.
const MARK: &str = "\u{1e}";

/// A marked block.
struct Block {
    /// The line at which it begins.
    line: usize,
    language: String,
    varies: Vec<String>,
    /// The command that reads it.
    to: Option<String>,
    in_terminals: bool,
    /// The command that runs meanwhile.
    beside: Option<String>,
    text: String,
}

/// Marked blocks of each document: one that loses its marks must not go unnoticed.
const MARKED: [(&str, usize); 6] = [
    ("README.md", 2),
    ("cli.md", 4),
    ("consistency.md", 2),
    ("etcd.md", 3),
    ("http.md", 4),
    ("operations.md", 10),
];

/// Starts a command in the background and waits until it says that it is ready.
const START: &str = "start() { to=started$((started += 1)); \"$@\" > $to 2>&1 & \
    for i in $(seq 400); do grep -q ^ready $to && return; sleep 0.1; done; cat $to; exit 1; }\n";

/// Returns the marked blocks of a document.
fn blocks(document: &str) -> Vec<Block> {
    let mut blocks = Vec::new();
    let mut lines = document.lines().enumerate();
    while let Some((number, line)) = lines.next() {
        let Some(mark) = line.strip_prefix("<!-- run") else { continue };
        let mut mark = mark.to_owned();
        while !mark.ends_with("-->") {
            let (_, more) = lines.next().expect("a mark has an end");
            mark.push_str(&format!(" {}", more.trim()));
        }
        let mark = mark.trim_end_matches("-->");
        let mark = mark.trim().strip_prefix(": ").unwrap_or_default();
        let (mark, beside) = match mark.split_once("; beside ") {
            Some((mark, beside)) => (mark, Some(beside.to_owned())),
            None => (mark, None),
        };
        let to = mark.strip_prefix("to ").map(str::to_owned);
        let in_terminals = mark == "in terminals";
        let varies = mark.strip_prefix("varies ").unwrap_or_default();
        let varies = varies.split(" | ").filter(|it| !it.is_empty()).map(str::to_owned).collect();
        let given = mark.strip_prefix("ID from ");
        let (_, fence) = lines.next().unwrap();
        let language = fence.strip_prefix("```").expect("a block follows its mark").to_owned();
        let inside = lines.by_ref().map(|(_, line)| line).take_while(|line| *line != "```");
        let mut text: String = inside.map(|line| format!("{line}\n")).collect();
        if let Some(command) = given {
            text = text.replace(" ID\n", &format!(" \"$({command})\"\n"));
        }
        let line = number + 1;
        blocks.push(Block { line, language, varies, to, in_terminals, beside, text });
    }
    blocks
}

/// Returns the commands of a block with their output.
fn commands(block: &Block) -> Vec<(String, String)> {
    let mut commands: Vec<(String, String)> = Vec::new();
    for line in block.text.lines() {
        match (line.strip_prefix("$ "), commands.last_mut()) {
            (Some(command), _) => commands.push((command.to_owned(), String::new())),
            (None, Some((command, expected))) if command.ends_with('\\') && expected.is_empty() => {
                command.push('\n');
                command.push_str(line);
            }
            (None, Some((_, expected))) => expected.push_str(&format!("{line}\n")),
            (None, None) => panic!("line {}: a console block begins with $", block.line),
        }
    }
    commands
}

/// Returns whether output matches the text of a document.
fn matches(expected: &str, printed: &str) -> bool {
    fn lines(expected: &[&str], printed: &[&str]) -> bool {
        match (expected, printed) {
            ([], printed) => printed.is_empty(),
            (["…", rest @ ..], _) => {
                (0..=printed.len()).any(|skip| lines(rest, &printed[skip..]))
            }
            ([first, rest @ ..], [line, others @ ..]) => within(first, line) && lines(rest, others),
            _ => false,
        }
    }
    fn within(expected: &str, line: &str) -> bool {
        match expected.split_once('…') {
            None => expected == line,
            Some((before, after)) => line.strip_prefix(before).is_some_and(|rest| {
                let ends = rest.char_indices().map(|(at, _)| at).chain([rest.len()]);
                ends.into_iter().any(|at| within(after, &rest[at..]))
            }),
        }
    }
    lines(
        &expected.lines().collect::<Vec<_>>(),
        &printed.lines().map(str::trim_end).collect::<Vec<_>>(),
    )
}

/// The environment in which the commands of one document run.
struct Desk<'a> {
    network: &'a Network,
    /// Texts of documents, and their replacements here.
    here: Vec<(String, String)>,
    work: PathBuf,
}

impl<'a> Desk<'a> {
    fn new(network: &'a Network) -> Self {
        let work = network.path("work");
        let programs = network.path("bin");
        std::fs::create_dir_all(&work).unwrap();
        std::fs::create_dir_all(&programs).unwrap();
        std::os::unix::fs::symlink(program(), programs.join("dkv")).unwrap();
        // The same as the programs of these names.
        for part in ["server", "node"] {
            let script = format!("#!/bin/sh\nexec dkv {part} \"$@\"\n");
            let path = programs.join(format!("dkv-{part}"));
            std::fs::write(&path, script).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        }
        // The file of the repository, but for the port.
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
        let config = std::fs::read_to_string(root.join("config.json")).unwrap();
        let config = config.replace("127.0.0.1:4400", &format!("127.0.0.1:{}", free_port()));
        std::fs::write(work.join("config.json"), config).unwrap();
        // curl must not print its progress.
        std::fs::write(network.path(".curlrc"), "silent\n").unwrap();
        let server = network.address.to_string();
        let http = format!("127.0.0.1:{}", free_port());
        let here = vec![
            ("127.0.0.1:4400".to_owned(), server.clone()),
            (" SERVER ".to_owned(), format!(" {server} ")),
            ("10.0.0.1:4400".to_owned(), server),
            ("127.0.0.1:8080".to_owned(), http),
            ("127.0.0.1:2379".to_owned(), format!("127.0.0.1:{}", free_port())),
            ("/mnt/backup".to_owned(), text(&network.path("backup")).to_owned()),
            ("client.token".to_owned(), text(&network.token_file(Role::Client)).to_owned()),
        ];
        Self { network, here, work }
    }

    fn here(&self, text: &str) -> String {
        self.here.iter().fold(text.to_owned(), |text, (theirs, ours)| text.replace(theirs, ours))
    }

    /// Runs a script and returns its output. Everything that it started ends with it.
    fn bash(&self, script: &str) -> (String, bool) {
        let home = self.network.home();
        let mut bash = Command::new("bash");
        let path = std::env::var("PATH").unwrap_or_default();
        // The environment of the harness, for `dkv` and its children.
        let environment = command(&[], &home);
        for (name, value) in environment.get_envs() {
            match value {
                Some(value) => bash.env(name, value),
                None => bash.env_remove(name),
            };
        }
        let ended = bash
            .args(["-c", script])
            .env("PATH", format!("{}:{path}", text(&self.network.path("bin"))))
            .env("CURL_HOME", self.network.path(""))
            .current_dir(&self.work)
            .stdin(Stdio::null())
            .output()
            .unwrap();
        (format!("{}{}", output(&ended.stdout), output(&ended.stderr)), ended.status.success())
    }

    /// Runs a block and returns the differences from the document.
    fn check(&self, block: &Block) -> Result<(), String> {
        let mut begin = format!("trap 'kill $(jobs -p) 2>/dev/null || true' EXIT\n{START}");
        if let Some(beside) = &block.beside {
            begin.push_str(&format!("start {}\n", self.here(beside)));
        }
        if block.language != "console" {
            let text = self.here(&block.text);
            let work = match &block.to {
                Some(to) => format!("{} << 'END'\n{text}END\n", self.here(to)),
                None if block.in_terminals => {
                    text.lines().map(|line| format!("start {line}\n")).collect()
                }
                None => text,
            };
            let (printed, succeeded) = self.bash(&format!("set -e\n{begin}{work}"));
            return if succeeded { Ok(()) } else { Err(printed) };
        }
        let commands = commands(block);
        let mut script = format!("exec 2>&1\n{begin}");
        for (number, (command, expected)) in commands.iter().enumerate() {
            let command = self.here(command);
            match command.strip_suffix('&') {
                // The command keeps running; wait for as much output as the document shows.
                Some(command) => script.push_str(&format!(
                    "{command} > job{number} &\nfor i in $(seq 400); do [ $(wc -l < job{number}) -ge {} \
                     ] && break; sleep 0.1; done; cat job{number}\n",
                    expected.lines().count()
                )),
                None => script.push_str(&format!("{command}\n")),
            }
            script.push_str(&format!("__status=$?; printf '{MARK}'; (exit $__status)\n"));
        }
        let (printed, _) = self.bash(&script);
        let mut printed = printed.split(MARK);
        for (command, expected) in &commands {
            let expected = block.varies.iter().fold(self.here(expected), |expected, varies| {
                expected.replace(varies.as_str(), "…")
            });
            let printed = printed.next().unwrap_or_default();
            if !matches(&expected, printed) {
                return Err(format!("$ {command}\n{printed}--- and the document says\n{expected}"));
            }
        }
        Ok(())
    }
}

fn documents() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let mut documents = vec![root.join("README.md")];
    let docs = std::fs::read_dir(root.join("docs")).unwrap();
    documents.extend(docs.map(|entry| entry.unwrap().path()));
    documents.retain(|path| path.extension().is_some_and(|extension| extension == "md"));
    documents.sort();
    documents
}

#[tokio::test(flavor = "multi_thread")]
async fn the_examples_of_the_documents_work() {
    let tools = ["bash", "curl", "gzip"].map(|tool| Command::new(tool).arg("--version").output());
    if tools.iter().any(Result::is_err) {
        skip("the_examples_of_the_documents_work", "bash, curl or gzip is missing");
        return;
    }
    let mut wrong = Vec::new();
    let mut run = Vec::new();
    for document in documents() {
        let blocks = blocks(&std::fs::read_to_string(&document).unwrap());
        if blocks.is_empty() {
            continue;
        }
        // One more than replicas, so that one can be emptied.
        let network = Network::with(json!({ "shards": 1 }), 4).await;
        let desk = Desk::new(&network);
        run.push((document.file_name().unwrap().to_str().unwrap().to_owned(), blocks.len()));
        for block in &blocks {
            if let Err(why) = desk.check(block) {
                wrong.push(format!("{}, line {}:\n{why}", document.display(), block.line));
            }
        }
    }
    run.sort();
    assert_eq!(run, MARKED.map(|(document, count)| (document.to_owned(), count)));
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn an_ellipsis_matches_anything() {
    assert!(matches("a … c\n", "a b c\n"));
    assert!(matches("a\n…\nz\n", "a\nb\nc\nz\n"));
    assert!(matches("…\nz\n", "z\n"));
    for (expected, printed) in [("a\n", "b\n"), ("a\n", "a\nb\n"), ("a …c\n", "a b\n"), ("a\n", "")]
    {
        assert!(!matches(expected, printed), "{expected:?} {printed:?}");
    }
}

/// Words that make a reader destroy something, or leave it behind, and those that say when.
const DESTROY: [&str; 9] = [
    "erase",
    "wipe",
    "rm -r",
    "empty its data",
    "empty directory",
    "delete its data",
    "delete the data",
    "remove the data dir",
    "reinstall",
];
const UNLESS: [&str; 3] = ["no lag", "nothing is missed", "keep "];
/// Documents that tell what was, not what to do.
const REPORTS: [&str; 2] = ["findings.md", "reliability.md"];
/// What takes the place of another server, or is new, has nothing that others lack.
const HARMLESS: [&str; 3] = [
    "a server of **another network",
    "there is nothing to lose yet",
    "something other than a local network; name an empty directory",
];

/// Until the others have caught up, the directory of a node may be the only copy of some writes.
#[test]
fn no_advice_takes_the_last_copy_of_a_write() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let mut advice = Vec::new();
    for entry in ["docs", "monitoring", "."].map(|place| root.join(place).read_dir().unwrap()) {
        let paths = entry.map(|entry| entry.unwrap().path());
        let is_text = |path: &PathBuf| {
            path.extension().is_some_and(|it| it == "md" || it == "yml")
                && !REPORTS.iter().any(|report| path.ends_with(report))
        };
        for path in paths.filter(is_text) {
            let page = std::fs::read_to_string(&path).unwrap().to_lowercase();
            let name = path.display().to_string();
            advice.extend(page.split("\n\n").map(|text| (name.clone(), text.to_owned())));
        }
    }
    // Messages: the sentences between quotes around such a word.
    let crates = root.read_dir().unwrap().map(|entry| entry.unwrap().path().join("src"));
    let mut directories: Vec<PathBuf> = crates.filter(|src| src.is_dir()).collect();
    assert!(directories.len() > 15, "{directories:?}");
    while let Some(directory) = directories.pop() {
        for entry in std::fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                directories.push(path);
            } else if path.extension().is_some_and(|it| it == "rs") && !path.ends_with("tests.rs") {
                let source = std::fs::read_to_string(&path).unwrap().to_lowercase();
                let name = path.display().to_string();
                let texts = source.replace("\\\"", "'");
                let texts = texts.split('"').skip(1).step_by(2);
                advice.extend(texts.map(|text| (name.clone(), text.to_owned())));
            }
        }
    }
    let mut found = 0;
    for (place, text) in advice {
        let text = text.split_whitespace().collect::<Vec<_>>().join(" ").replace("\\ ", "");
        let destroys = DESTROY.iter().any(|word| text.contains(word))
            || text.contains("another, empty")
            || (text.contains("empty data directory") && text.contains("start"));
        if destroys && !HARMLESS.iter().any(|words| text.contains(words)) {
            found += 1;
            assert!(UNLESS.iter().any(|word| text.contains(word)), "{place}: {text}");
        }
    }
    assert!(found >= 8, "only {found} places advise anything");
}
