//! Golden scripts: the answers of the registry as readable text.
//!
//! A file in `testscripts/` is a list of blocks: commands, a line `---`, and their output, up to an
//! empty line. `UPDATE_EXPECT=1` rewrites the output; review the difference. Nodes, holders and
//! tokens have names of one letter.
//!
//! ```text
//! at MS                                        sets the clock
//! restart                                      encodes and decodes, as a killed server does
//! register NODE ADDRESS [name=NAME] [region=REGION]
//! report NODE TERM [NODE:NAME:PORT:STATE[:REGION] …] [denied=LETTERS] [of=NODE] [view-term=TERM]
//!        [foreign] [voters=LETTERS] [index=INDEX]
//!                                              its voters are the nodes in it unless named
//! claim NODE VOTERS INDEX                      what a registering node claims about the voters
//! trust NODE                                   the operator vouches for a node
//! check NODE ADDRESS START BOOT MARK [past=BOOT,…] [answers=NUMBER] [ends]
//! keep NODE ADDRESS|START
//! marks                                        saves new log marks
//! status
//! token TOKEN ROLE [life=S] [uses=N]
//! join TOKEN HOLDER [secret=TOKEN]
//! revoke TOKEN
//! tokens
//! ```

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::Path;

use dkv_base::id::{HolderId, NetworkId, NodeId, Term};
use dkv_wire::incarnation::{BootId, Incarnation, PastIncarnation};
use dkv_wire::message::{
    Confirmation, ControlGroup, CoordinatorReport, Question, RunChoice, Stand,
};
use dkv_wire::network::{NetworkView, NodeInfo, NodeState, Settings};
use dkv_wire::region::Region;
use dkv_wire::token::SecretHash;
use uuid::Uuid;

use crate::registry::{Effects, Registry};
use crate::registry_file;

#[test]
fn bootstrap() {
    check("bootstrap");
}

#[test]
fn regions() {
    check("regions");
}

#[test]
fn names() {
    check("names");
}

#[test]
fn reports() {
    check("reports");
}

#[test]
fn removal() {
    check("removal");
}

#[test]
fn control() {
    check("control");
}

#[test]
fn silence() {
    check("silence");
}

#[test]
fn one_surviving_voter_is_one_voice() {
    check("takeover");
}

#[test]
fn runs() {
    check("runs");
}

#[test]
fn learners() {
    check("learners");
}

#[test]
fn departed() {
    check("departed");
}

#[test]
fn objection() {
    check("objection");
}

#[test]
fn veto() {
    check("veto");
}

#[test]
fn tokens() {
    check("tokens");
}

fn check(name: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("src/registry/testscripts")
        .join(format!("{name}.txt"));
    let expected = std::fs::read_to_string(&path).unwrap();
    let mut script = Script::new();
    let mut actual = String::new();
    let mut lines = expected.lines();
    while let Some(line) = lines.next() {
        if line == "---" {
            lines.by_ref().find(|line| line.is_empty());
            writeln!(actual, "---\n{}", script.printed).unwrap();
            script.printed.clear();
            continue;
        }
        writeln!(actual, "{line}").unwrap();
        if !line.is_empty() && !line.starts_with('#') {
            script.run(line);
        }
    }
    assert!(script.printed.is_empty(), "{name}: commands without a `---` after them");
    let actual = format!("{}\n", actual.trim_end());
    if std::env::var_os("UPDATE_EXPECT").is_some() {
        std::fs::write(&path, actual).unwrap();
    } else {
        let differs = expected.lines().zip(actual.lines()).find(|(a, b)| a != b);
        assert!(expected == actual, "{name}: {differs:?}; all of it:\n{actual}");
    }
}

struct Script {
    registry: Registry,
    now_ms: u64,
    printed: String,
}

impl Script {
    fn new() -> Self {
        let network = NetworkId(Uuid::from_u128(1));
        Self {
            registry: Registry::new(network, Settings::default(), 0),
            now_ms: 0,
            printed: String::new(),
        }
    }

    fn run(&mut self, line: &str) {
        let words: Vec<&str> = line.split_whitespace().collect();
        let option =
            |name: &str| words.iter().find_map(|word| word.strip_prefix(name)?.strip_prefix('='));
        match words[0] {
            "at" => self.now_ms = words[1].parse().unwrap(),
            "restart" => {
                let text = registry_file::encode(&self.registry).unwrap();
                self.registry = registry_file::decode(Path::new("books.json"), &text).unwrap();
                self.registry.resume(Settings::default(), self.now_ms);
            }
            "register" => {
                let region = option("region").map(|region| region.parse().unwrap());
                self.register(words[1], words[2], option("name"), region);
            }
            "report" => self.report(&words, &option),
            "claim" => {
                let voters = ids(words[2]).into_iter().collect();
                let (term, index) = (Term(9), words[3].parse().unwrap());
                let control = ControlGroup { term, leader: None, index, voters };
                let node = NodeId(letter(words[1]));
                let effects = self.registry.handle_control_claim(node, &control, self.now_ms);
                self.print(Ok::<_, String>("noted".to_owned()), effects);
            }
            "trust" => self.registry.trust(NodeId(letter(words[1]))),
            "check" => self.check_run(&words, &option),
            "keep" => {
                let choice = match words[2].parse() {
                    Ok(start) => RunChoice::Start(start),
                    Err(_) => RunChoice::Address(words[2].parse().unwrap()),
                };
                let node = NodeId(letter(words[1]));
                let (answer, effects) = self.registry.handle_keep_run(node, choice, self.now_ms);
                self.print(answer.map(|()| "kept".to_owned()), effects);
            }
            "marks" => {
                let effects = self.registry.flush_marks(self.now_ms);
                self.print(Ok::<_, &str>("marks".to_owned()), effects);
            }
            "status" => self.status(),
            "token" => {
                let (answer, effects) = self.registry.handle_create_token(
                    letter(words[1]),
                    SecretHash::of(&secret(words[1])),
                    words[2].parse().unwrap(),
                    option("life").map(|life_s| life_s.parse().unwrap()),
                    option("uses").map(|uses| uses.parse().unwrap()),
                    None,
                    option("user").map(|user| user.parse().unwrap()),
                    self.now_ms,
                );
                self.print(answer.map(|()| "created".to_owned()), effects);
            }
            "join" => {
                let secret = secret(option("secret").unwrap_or(words[1]));
                let holder = HolderId(letter(words[2]));
                let (answer, effects) =
                    self.registry.handle_join(letter(words[1]), &secret, holder, self.now_ms);
                self.print(answer.map(|role| format!("admitted as {role}")), effects);
            }
            "revoke" => {
                let (answer, effects) = self.registry.handle_revoke_token(letter(words[1]));
                self.print(answer.map(|()| "revoked".to_owned()), effects);
            }
            "tokens" => {
                for token in self.registry.tokens() {
                    let admitted: String =
                        token.admitted.iter().map(|holder| letter_of(holder.0)).collect();
                    let (id, role, used) = (letter_of(token.id), token.role, token.used);
                    let (uses, end) = (token.uses, token.expires_ms);
                    writeln!(
                        self.printed,
                        "{id} {role} used {used} of {uses:?}, ends {end:?}, admitted [{admitted}]"
                    )
                    .unwrap();
                }
            }
            other => panic!("no such command: {other}"),
        }
    }

    fn register(&mut self, node: &str, address: &str, name: Option<&str>, region: Option<Region>) {
        let (answer, effects) = self.registry.handle_register(
            NodeId(letter(node)),
            name,
            address.parse().unwrap(),
            region,
            self.now_ms,
        );
        let answer = answer.map(|admission| {
            let peers: Vec<String> = admission
                .peers
                .iter()
                .map(|(id, address)| format!("{}:{}", letter_of(id.0), address.port()))
                .collect();
            let bootstrap = if admission.bootstrap { ", bootstrap" } else { "" };
            let view = if admission.view.is_some() { ", with a view" } else { "" };
            format!("{}{bootstrap}{view}, peers {}", admission.name, peers.join(" "))
        });
        self.print(answer, effects);
    }

    fn report<'a>(&mut self, words: &[&'a str], option: &dyn Fn(&str) -> Option<&'a str>) {
        let node = NodeId(letter(words[1]));
        let term = words[2].parse().unwrap();
        let nodes = words[3..].iter().filter(|word| word.contains(':')).map(|word| {
            let parts: Vec<&str> = word.split(':').collect();
            NodeInfo {
                id: NodeId(letter(parts[0])),
                name: parts[1].to_owned(),
                address: format!("127.0.0.1:{}", parts[2]).parse().unwrap(),
                region: parts.get(4).map(|region| region.parse().unwrap()),
                state: state(parts[3]),
            }
        });
        let denied = option("denied").unwrap_or_default().chars();
        let foreign = words.contains(&"foreign");
        let view = NetworkView {
            network: if foreign { NetworkId::random() } else { self.registry.network() },
            term: Term(option("view-term").map_or(term, |term| term.parse().unwrap())),
            coordinator: Some(option("of").map_or(node, |node| NodeId(letter(node)))),
            nodes: nodes.collect(),
            revision: Default::default(),
            keyspaces: Vec::new(),
            shards: Vec::new(),
            settings: Settings::default(),
            denied: denied.map(|id| HolderId(letter(&id.to_string()))).collect(),
            servers: Vec::new(),
        };
        let named = option("voters").map(ids);
        let listed = || view.nodes.iter().map(|info| info.id).chain([node]).collect();
        let voters: BTreeSet<NodeId> = named.unwrap_or_else(listed);
        let voters = voters.into_iter().collect();
        let index = option("index").map_or(1, |index| index.parse().unwrap());
        let control = ControlGroup { term: Term(term), leader: Some(node), index, voters };
        let report = CoordinatorReport { term: Term(term), view, control };
        let (answer, effects) = self.registry.handle_report(node, &report, self.now_ms);
        let answer = answer.map(|confirmation| match confirmation {
            Confirmation::Confirmed => "confirmed".to_owned(),
            Confirmation::Outdated { confirmed } => {
                format!("outdated, term {confirmed} was confirmed")
            }
        });
        self.print(answer, effects);
    }

    fn check_run<'a>(&mut self, words: &[&'a str], option: &dyn Fn(&str) -> Option<&'a str>) {
        let number = |text: &str| text.parse::<u64>().unwrap();
        let past = option("past").into_iter().flat_map(|past| past.split(','));
        // Unless said otherwise, a former run left the whole log.
        let former = |text: &str| {
            let (boot, left) = text.split_once(':').unwrap_or((text, words[5]));
            PastIncarnation { boot: BootId(number(boot)), left: Some(number(left)) }
        };
        let stand = Stand {
            run: Incarnation {
                start: number(words[3]),
                boot: BootId(number(words[4])),
                past: past.map(former).collect(),
                opened: option("opened").map_or(0, number),
                mark: number(words[5]),
            },
            address: words[2].parse().unwrap(),
            ends: words.contains(&"ends"),
            answers: option("answers").map(|asked| Question { server: 1, number: number(asked) }),
        };
        let node = NodeId(letter(words[1]));
        let (answer, effects) = self.registry.handle_run_check(node, &stand, 1, self.now_ms);
        let answer = answer.map(|standing| {
            let again = if standing.ask_again { ", again" } else { "" };
            let wait = if standing.wait { ", wait" } else { "" };
            let rulings = standing.rulings.len();
            let rulings = if rulings > 0 { format!(", {rulings} ruled") } else { String::new() };
            let verdict = standing.verdict;
            format!("{verdict:?}, question {}{again}{wait}{rulings}", standing.question.number)
        });
        self.print(answer, effects);
    }

    fn status(&mut self) {
        let status = self.registry.status("1.2.3", 0, self.now_ms);
        let id = |id: Option<NodeId>| id.map_or('-', |id| letter_of(id.0));
        let term = status.coordinator.map_or(0, |(_, term)| term.0);
        let denied: String = self.registry.denied().map(|holder| letter_of(holder.0)).collect();
        writeln!(
            self.printed,
            "bootstrap {}, coordinator {} in term {term} since {:?}, report {:?} ms old, denied [{denied}]",
            id(status.bootstrap),
            id(status.coordinator.map(|(node, _)| node)),
            status.confirmed_at_ms,
            status.report_age_ms,
        )
        .unwrap();
        for node in status.nodes {
            writeln!(
                self.printed,
                "  {} {} port {}{} {}{}, heard at {}",
                letter_of(node.id.0),
                node.name,
                node.address.port(),
                node.region.map_or(String::new(), |region| format!(" in {region}")),
                node.state,
                if node.coordinator { ", coordinator" } else { "" },
                node.last_report_ms,
            )
            .unwrap();
        }
        for run in status.runs {
            writeln!(
                self.printed,
                "  {} at port {}, start {}: {:?}",
                run.name,
                run.address.port(),
                run.start,
                run.verdict
            )
            .unwrap();
        }
    }

    fn print<E: std::fmt::Display>(&mut self, answer: Result<String, E>, effects: Effects) {
        let answer = answer.unwrap_or_else(|refusal| format!("refused: {refusal}"));
        let save = if effects.save { " +save" } else { "" };
        let deny = if effects.deny { " +deny" } else { "" };
        writeln!(self.printed, "{answer}{save}{deny}").unwrap();
    }
}

/// Returns the id that a letter stands for.
fn letter(name: &str) -> Uuid {
    Uuid::from_u128(u128::from(name.as_bytes()[0]))
}

/// Returns the nodes that the letters stand for.
fn ids(letters: &str) -> BTreeSet<NodeId> {
    letters.chars().map(|name| NodeId(letter(&name.to_string()))).collect()
}

fn letter_of(id: Uuid) -> char {
    char::from(id.as_bytes()[15])
}

fn secret(token: &str) -> [u8; 32] {
    [token.as_bytes()[0]; 32]
}

fn state(name: &str) -> NodeState {
    serde_json::from_value(name.into()).unwrap()
}
