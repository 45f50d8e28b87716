//! Golden scripts: events, and under each event the effects that the router wants.
//!
//! A script is a text file. A line without indentation is an event; the indented lines after it are
//! its effects, which the runner writes: `UPDATE_EXPECT=1 cargo test`. A change of behaviour shows
//! as a diff that a reviewer has to understand.
//!
//! Nodes are n1, n2, …; requests have the names of their waiters: a, b, c. `at 50` lets time pass
//! to 50 ms, with ticks. Other events happen at the time last reached. `up n1 2 30` establishes the
//! second connection to n1, whose handshake took 30 ms.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use dkv_base::id::{LeaseId, NetworkId, Number, Revision, Stamp, Term};
use dkv_wire::codec::decode;
use dkv_wire::message::{
    Command, Condition, LeaseAction, LeaseCommand, Level, Operation, Page, ReadBounds, ReadMode,
    Receipt, Refusal, Reply, RequestBody, Span, Stored, Transact, TransactOver, Unfit, Versions,
};
use dkv_wire::network::{NodeInfo, NodeState, Settings, ShardInfo};
use dkv_wire::region::Region;
use uuid::Uuid;

use super::request::{CLOCK_QUERY, request_of};
use super::*;

struct Script {
    router: Router<String>,
    now: Duration,
    ids: BTreeMap<String, u64>,
}

fn node(name: &str) -> NodeId {
    NodeId(Uuid::from_u128(name.strip_prefix('n').unwrap().parse().unwrap()))
}

fn name(node: NodeId) -> String {
    format!("n{}", node.0.as_u128())
}

fn address(node: NodeId) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, 1], node.0.as_u128() as u16))
}

/// The region of the client.
fn home() -> Region {
    "home".parse().unwrap()
}

/// `view TERM PRIMARY NODES`: a view with one shard, where the same node leads everything. A node
/// may be followed by its region, as in `n1@home`. Removed nodes may follow: `without=NODES`.
fn view(words: &[&str]) -> NetworkView {
    let (words, gone) = match words {
        [words @ .., gone] if words.len() == 3 => (words, gone.strip_prefix("without=").unwrap()),
        words => (words, ""),
    };
    let [term, primary, nodes] = words else { panic!("view TERM PRIMARY NODES") };
    let primary = (*primary != "nobody").then(|| node(primary));
    // One that has no vote in the shard ends with a question mark.
    let without_vote = nodes.split(',').filter_map(|text| text.strip_suffix('?'));
    let without_vote: Vec<NodeId> = without_vote.map(node).collect();
    let nodes = nodes.split(',').map(|text| text.trim_end_matches('?')).map(|text| {
        let (who, region) = text.split_once('@').unzip();
        (node(who.unwrap_or(text)), region.map(|region| region.parse().unwrap()))
    });
    let nodes: Vec<(NodeId, Option<Region>)> = nodes.collect();
    let voters = |(id, _): &(NodeId, Option<Region>)| !without_vote.contains(id);
    let ids: Vec<NodeId> = nodes.iter().filter(|it| voters(it)).map(|(id, _)| *id).collect();
    let info = |(id, region): (NodeId, Option<Region>)| NodeInfo {
        id,
        name: name(id),
        address: address(id),
        region,
        state: NodeState::Live,
    };
    NetworkView {
        network: NetworkId(Uuid::from_u128(1)),
        term: Term(term.parse().unwrap()),
        coordinator: primary,
        nodes: nodes.into_iter().map(info).collect(),
        revision: Default::default(),
        keyspaces: Vec::new(),
        shards: vec![ShardInfo {
            group: GroupId(1),
            keyspace: Default::default(),
            first_hash: 0,
            primary,
            voters: ids,
            learners: Vec::new(),
        }],
        settings: Settings::default(),
        denied: gone.split(',').filter(|who| !who.is_empty()).map(|who| node(who).into()).collect(),
        servers: Vec::new(),
    }
}

fn receipt(from: NodeId) -> Receipt {
    Receipt {
        shard: GroupId(1),
        revision: Revision(7),
        level: Level::Strong,
        node: from,
        term: Term(1),
        staleness_ms: None,
        stamp: Default::default(),
        pending: None,
    }
}

fn result(from: NodeId, words: &[&str]) -> Result<Answer, Refusal> {
    let why = || "a reason".to_owned();
    match words {
        ["done"] => Ok(Answer::Done),
        ["written"] => Ok(Answer::Written { receipt: receipt(from), existed: false }),
        ["transacted"] => Ok(Answer::Transacted {
            receipt: receipt(from),
            succeeded: true,
            changed: true,
            results: None,
            path: 0,
        }),
        ["compaction"] => Ok(Answer::Compacted { receipt: receipt(from), before: Revision(1) }),
        ["granted"] => Ok(Answer::Granted(receipt(from))),
        ["revoked"] => Ok(Answer::Revoked { receipt: receipt(from), deleted: 2, left: 0 }),
        ["kept"] => Ok(Answer::KeptAlive { receipt: receipt(from), ttl_ms: 9000 }),
        ["nolease"] => Err(Refusal::NoLease { lease: LeaseId(5) }),
        ["exists"] => Err(Refusal::LeaseExists { lease: LeaseId(5) }),
        ["unfit"] => Err(Refusal::Unfit { operation: 1, why: Unfit::NotANumber }),
        ["value"] => {
            let stored = Stored { value: Bytes::from_static(b"v"), revision: Revision(7) };
            Ok(Answer::Value(receipt(from), Some(stored)))
        }
        ["absent", revision] => {
            let revision = Revision(revision.parse().unwrap());
            Ok(Answer::Value(Receipt { revision, ..receipt(from) }, None))
        }
        ["view", rest @ ..] => Ok(Answer::View(Box::new(view(rest)))),
        ["notprimary", "nobody"] => Err(Refusal::NotPrimary { primary: None }),
        ["notprimary", primary] => Err(Refusal::NotPrimary { primary: Some(node(primary)) }),
        ["conflict"] => Err(Refusal::Conflict { receipt: receipt(from), current: None }),
        ["behind"] => Err(Refusal::Behind { revision: Revision(3), staleness_ms: Some(400) }),
        ["kept", number] => {
            let pending = Some(Number(number.parse().unwrap()));
            let receipt = Receipt { pending, revision: Revision(0), ..receipt(from) };
            Ok(Answer::Written { receipt, existed: false })
        }
        ["time", ms] => {
            let now = Stamp::at(Duration::from_millis(ms.parse().unwrap()));
            Err(Refusal::Clock { now })
        }
        ["version"] => Ok(Answer::VersionAt(receipt(from), None)),
        ["versions"] => {
            let versions = Versions { versions: Vec::new(), more: false, floor: Revision(2) };
            Ok(Answer::Versions(receipt(from), versions))
        }
        ["page", revision] => {
            let revision = Revision(revision.parse().unwrap());
            let page = Page { pairs: Vec::new(), more: false };
            Ok(Answer::Page(Receipt { revision, ..receipt(from) }, page))
        }
        ["compacted"] => Err(Refusal::Compacted { floor: Revision(9) }),
        ["notyet", asked] => {
            let (asked, latest) = (Revision(asked.parse().unwrap()), Revision(7));
            Err(Refusal::NotYet { asked, latest })
        }
        ["expired"] => Err(Refusal::SessionExpired),
        ["invalid"] => Err(Refusal::Invalid(why())),
        ["denied"] => Err(Refusal::Denied(why())),
        ["overloaded", ms] => Err(Refusal::Overloaded { retry_after_ms: ms.parse().unwrap() }),
        ["unavailable"] => Err(Refusal::Unavailable(why())),
        ["unknown"] => Err(Refusal::Unknown(why())),
        other => panic!("no such reply: {other:?}"),
    }
}

impl Script {
    /// Passes an event to the router; returns what the router says at once.
    fn event(&mut self, words: &[&str]) -> &'static str {
        let (router, now) = (&mut self.router, self.now);
        let long = Duration::from_secs(2);
        match words {
            ["at", ms] => {
                // Time passes in ticks, as with the real driver.
                let until = Duration::from_millis(ms.parse().unwrap());
                while self.now < until {
                    self.now = (self.now + Duration::from_millis(5)).min(until);
                    self.router.tick(self.now);
                }
            }
            ["view", rest @ ..] => router.handle_view(now, view(rest)),
            ["met", nodes] => {
                router.add_registered_nodes(nodes.split(',').map(|n| (node(n), address(node(n)))));
            }
            ["noview"] => router.handle_no_view("nobody has started it".into()),
            ["learn", nodes] => {
                router.add_known_nodes(nodes.split(',').map(|n| (node(n), address(node(n)))));
            }
            ["read", who, level] => {
                let (level, nearest) = match *level {
                    "strong" => (Level::Strong, false),
                    "nearest" => (Level::Strong, true),
                    "session" => (Level::Session, false),
                    "all" => (Level::All, false),
                    _ => (Level::Eventual, false),
                };
                let (key, bounds) = (Bytes::from_static(b"k"), ReadBounds::default());
                let kind = RequestKind::Read { key, level, bounds, nearest };
                let id = router.submit(now, kind, long, Some((*who).to_owned()));
                self.ids.insert((*who).to_owned(), id);
            }
            ["write", who, rest @ ..] => {
                let timeout = rest.first().map_or(2000, |ms| ms.parse().unwrap());
                let (condition, write_id) = (Condition::Always, None);
                let (key, value) = (Bytes::from_static(b"k"), Some(Bytes::from_static(b"v")));
                let after = Default::default();
                let kind = RequestKind::Write {
                    condition,
                    everywhere: false,
                    key,
                    value,
                    attach: None,
                    write_id,
                    after,
                };
                let timeout = Duration::from_millis(timeout);
                let id = router.submit(now, kind, timeout, Some((*who).to_owned()));
                self.ids.insert((*who).to_owned(), id);
            }
            ["transact", who] => {
                let kind = RequestKind::Transact {
                    keys: vec![Bytes::from_static(b"k")],
                    ranges: false,
                    shards: Vec::new(),
                    body: Bytes::from_static(b"body"),
                    write_id: None,
                    after: Default::default(),
                };
                let id = router.submit(now, kind, long, Some((*who).to_owned()));
                self.ids.insert((*who).to_owned(), id);
            }
            ["lease", who, action] => {
                let (shard, lease, write_id) = (GroupId(1), LeaseId(5), None);
                let action = match *action {
                    "keep" => None,
                    "revoke" => Some(LeaseAction::Revoke),
                    ttl_ms => Some(LeaseAction::Grant { ttl_ms: ttl_ms.parse().unwrap() }),
                };
                let kind = match action {
                    Some(action) => RequestKind::Lease { shard, lease, action, write_id },
                    None => {
                        let body = RequestBody::KeepAlive { shard, lease };
                        RequestKind::Ask { shard, body }
                    }
                };
                router.submit(now, kind, long, Some((*who).to_owned()));
            }
            ["deposit", who] => {
                let (key, value) = (Bytes::from_static(b"k"), Some(Bytes::from_static(b"v")));
                let kind = RequestKind::Deposit { key, value, stamp: Default::default() };
                let id = router.submit(now, kind, long, Some((*who).to_owned()));
                self.ids.insert((*who).to_owned(), id);
            }
            ["readat" | "scanat" | "history" | "compact" | "locate", who, rest @ ..] => {
                let (key, shard) = (Bytes::from_static(b"k"), GroupId(1));
                let number = || rest.first().map_or(0, |number| number.parse().unwrap());
                let kind = match words[0] {
                    "readat" => RequestKind::ReadAt { key, at: Revision(number()).into() },
                    "scanat" => {
                        let span = Span {
                            prefix: Bytes::new(),
                            after: Bytes::new(),
                            keys_max: 5,
                            bytes_max: 100,
                            values: true,
                        };
                        RequestKind::ScanAt { shard, span, at: Revision(number()).into() }
                    }
                    "history" => {
                        let (before, versions_max) = (Revision(number()), 5);
                        RequestKind::History { key, before, versions_max }
                    }
                    "compact" => RequestKind::Compact { shard, floor: Revision(number()) },
                    _ => {
                        let avoid = rest.iter().map(|name| node(name)).collect();
                        RequestKind::Locate { shard, latest: false, avoid }
                    }
                };
                router.submit(now, kind, long, Some((*who).to_owned()));
            }
            ["cancel", who] => router.cancel(now, self.ids[*who]),
            ["up", who, generation, rest @ ..] => {
                let round_trip = rest.first().map_or(0, |ms| ms.parse().unwrap());
                let round_trip = Duration::from_millis(round_trip);
                if !router.connected(now, node(who), generation.parse().unwrap(), round_trip) {
                    return "    not wanted\n";
                }
            }
            ["failed", who, generation] => {
                router.connect_failed(now, node(who), generation.parse().unwrap(), "no answer");
            }
            ["lost", who, generation] => {
                router.connection_lost(now, node(who), generation.parse().unwrap(), "gone", false);
            }
            ["denied", who, generation] => {
                router.connection_lost(
                    now,
                    node(who),
                    generation.parse().unwrap(),
                    "removed",
                    true,
                );
            }
            ["reply", from, generation, id, rest @ ..] => {
                // A reply to the last attempt; `a?` is a reply to an eventual write's question for
                // the time.
                let (id, asked) = id.strip_suffix('?').map_or((*id, false), |id| (id, true));
                let id = self.ids.get(id).copied().unwrap_or_else(|| id.parse().unwrap());
                let id = match router.requests.get(&id) {
                    Some(pending) if !asked => pending.kind.attempt(id),
                    _ => id | if asked { CLOCK_QUERY } else { 0 },
                };
                let reply = Reply { id, result: result(node(from), rest) };
                router.handle_reply(now, node(from), generation.parse().unwrap(), reply);
            }
            ["close"] => router.close(now),
            other => panic!("no such event: {other:?}"),
        }
        ""
    }

    fn effects(&mut self, text: &mut String) {
        while let Some(effect) = self.router.poll_effect() {
            let line = match effect {
                Effect::Connect { node, generation, .. } => {
                    format!("connect {} (connection {generation})", name(node))
                }
                Effect::Disconnect { node } => format!("disconnect {}", name(node)),
                Effect::Send(outgoing) => self.sent(outgoing),
                Effect::Finish { waiter, outcome } => match outcome {
                    Ok(Answer::Written { .. }) => format!("{waiter}: written"),
                    Ok(Answer::Transacted { .. }) => format!("{waiter}: transacted"),
                    Ok(Answer::Granted(_)) => format!("{waiter}: granted"),
                    Ok(Answer::Revoked { .. }) => format!("{waiter}: revoked"),
                    Ok(Answer::KeptAlive { ttl_ms, .. }) => format!("{waiter}: {ttl_ms} ms"),
                    Ok(Answer::Value(..)) => format!("{waiter}: value"),
                    Ok(Answer::VersionAt(..)) => format!("{waiter}: version"),
                    Ok(Answer::Versions(..)) => format!("{waiter}: versions"),
                    Ok(Answer::Page(receipt, _)) => {
                        format!("{waiter}: page of {} at {}", name(receipt.node), receipt.revision)
                    }
                    Ok(other) => format!("{waiter}: {other:?}"),
                    Err(Error::Unknown(why)) => format!("{waiter}: UNKNOWN {why}"),
                    Err(Error::Unavailable(why)) => format!("{waiter}: UNAVAILABLE {why}"),
                    Err(other) => format!("{waiter}: {other}"),
                },
                Effect::SetDelays { links, .. } => format!("delay {} nodes", links.len()),
                Effect::AskServer => "ask the server".to_owned(),
                Effect::SaveNodes(nodes) => format!("save {} nodes", nodes.len()),
                Effect::LearnServers(servers) => format!("learn {} servers", servers.len()),
            };
            writeln!(text, "    {line}").unwrap();
        }
    }

    fn sent(&self, outgoing: OutgoingRequest) -> String {
        let OutgoingRequest { node, generation, payload, .. } = outgoing;
        let id = request_of(outgoing.id);
        let who = self.ids.iter().find(|(_, known)| **known == id).map(|(who, _)| who.clone());
        let what = match payload.body().0 {
            RequestBody::View => "view?".to_owned(),
            RequestBody::Read { mode, .. } => match mode {
                ReadMode::Eventual(ReadBounds { at_least, deposits, .. }) => {
                    let of = deposits.iter().map(|(node, last)| format!(" {} {last}", name(*node)));
                    format!("read Eventual at least {at_least}{}", of.collect::<String>())
                }
                mode => format!("read {mode:?}"),
            },
            RequestBody::Propose { command, .. } => match decode(&command).unwrap() {
                Command::OpenSession(session) | Command::OpenSessionOf { session, .. } => {
                    format!("open session {}", session.0.as_u128())
                }
                Command::Write(write) => {
                    assert!(matches!(write.operation, Operation::Put(_)));
                    format!(
                        "write ({}, {}) settled {}{}",
                        write.session.0.as_u128(),
                        write.serial,
                        write.settled,
                        if write.after == Stamp(0) { "" } else { " after an eventual one" }
                    )
                }
                Command::Transact(Transact { session, serial, settled, .. }) => {
                    format!("transact ({}, {serial}) settled {settled}", session.0.as_u128())
                }
                Command::TransactOver(over) => {
                    let TransactOver { session, serial, settled, shards, .. } = over;
                    let session = session.0.as_u128();
                    format!("transact ({session}, {serial}) settled {settled} over {shards:?}")
                }
                Command::Lease(LeaseCommand { session, serial, settled, lease, action }) => {
                    let action = match action {
                        LeaseAction::Grant { ttl_ms } => format!("grant for {ttl_ms} ms"),
                        LeaseAction::GrantTo { .. } => "a client names no owner".to_owned(),
                        LeaseAction::Revoke => "revoke".to_owned(),
                    };
                    let session = session.0.as_u128();
                    format!("{action} lease {} ({session}, {serial}) settled {settled}", lease.0)
                }
                _ => unreachable!("no script sends it"),
            },
            RequestBody::Deposit { stamp, again, .. } => {
                let again = if again { " again" } else { "" };
                format!("deposit at {} us{again}", stamp.since_1970().as_micros())
            }
            RequestBody::ReadAt { at, .. } => format!("read at {}", at.revision),
            RequestBody::ScanAt { at, .. } => format!("scan at {}", at.revision),
            RequestBody::History { before, .. } => format!("history before {before}"),
            RequestBody::KeepAlive { lease, .. } => format!("keep lease {} alive", lease.0),
            RequestBody::Compact { floor, .. } => format!("compact to {floor}"),
            RequestBody::Scan { mode, .. } => format!("scan {mode:?}"),
            other => format!("{other:?}"),
        };
        let who = who.map_or(format!("request {id}"), |who| format!("request {id} for {who}"));
        format!("send to {} ({generation}) {who}: {what}", name(node))
    }
}

fn run(script: &str) -> String {
    let first = SessionId(Uuid::from_u128(100));
    let mut state = Script {
        router: Router::new(first, Some(home())),
        now: Duration::ZERO,
        ids: BTreeMap::new(),
    };
    let mut text = String::new();
    for line in script.lines().filter(|line| !line.starts_with(' ')) {
        writeln!(text, "{line}").unwrap();
        let words: Vec<&str> = line.split_whitespace().collect();
        if words.is_empty() || line.starts_with('#') {
            continue;
        }
        // The name is registered first, because effects of the same event refer to it.
        let requests = [
            "read", "write", "transact", "deposit", "readat", "scanat", "history", "compact",
            "locate", "lease",
        ];
        if let [request, who, ..] = words[..]
            && requests.contains(&request)
        {
            state.ids.insert(who.to_owned(), state.router.next_id);
        }
        text.push_str(state.event(&words));
        state.effects(&mut text);
        state.router.check();
    }
    text
}

#[test]
fn golden_scripts() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/router/scripts");
    let update = std::env::var_os("UPDATE_EXPECT").is_some();
    let mut scripts = 0;
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        let script = std::fs::read_to_string(&path).unwrap();
        let text = run(&script);
        scripts += 1;
        if update {
            std::fs::write(&path, text).unwrap();
        } else if text != script {
            let differs = text.lines().zip(script.lines()).position(|(new, old)| new != old);
            let at = differs.unwrap_or(text.lines().count().min(script.lines().count()));
            panic!(
                "{}:{}: expected {:?}, and now it is {:?} (UPDATE_EXPECT=1 writes it anew)",
                path.display(),
                at + 1,
                script.lines().nth(at),
                text.lines().nth(at),
            );
        }
    }
    assert!(scripts > 5);
}

impl<W> Router<W> {
    /// Checks that everything counted in two places agrees.
    fn check(&self) {
        for (node, peer) in &self.peers {
            let held =
                self.requests.values().filter(|pending| pending.attempts.contains(node)).count();
            assert_eq!(peer.outstanding, held, "{}", name(*node));
        }
        for (id, group) in &self.groups {
            let waiting = self
                .requests
                .values()
                .filter(|pending| pending.group == Some(*id) && pending.waits_for_primary());
            assert_eq!(group.waiting, waiting.count(), "{id:?}");
        }
        let parked = self
            .requests
            .iter()
            .filter(|(_, pending)| matches!(pending.stage, Stage::Parked { .. }));
        assert!(parked.map(|(id, _)| id).eq(self.parked.iter()));
        assert_eq!(self.deadlines.len(), self.requests.len());
        for (until, id) in &self.pauses {
            assert_eq!(self.requests[id].stage, Stage::Parked { not_before: *until });
        }
    }
}

mod random;
mod keyspaces;
mod outcomes;

#[test]
fn a_view_of_a_node_that_has_no_part_in_the_network_does_not_count() {
    let now = Duration::ZERO;
    let mut router: Router<u32> = Router::new(SessionId(Uuid::from_u128(9)), None);
    router.handle_view(now, view(&["1", "n1", "n1,n2,n9?"]));
    let forged = view(&["2", "n9", "n1,n2,n9"]);
    router.handle_node_view(now, node("n9"), forged.clone());
    assert_eq!(router.view().unwrap().term, Term(1), "it sends clients to itself");
    // The same from a node that votes in a shard counts.
    router.handle_node_view(now, node("n2"), forged);
    assert_eq!(router.view().unwrap().term, Term(2));
}

#[test]
fn a_view_that_names_an_expelled_node_counts_without_it() {
    let now = Duration::ZERO;
    // Also as the first one that a client sees.
    for earlier in [None, Some(view(&["1", "n1", "n1,n2,n3"]))] {
        let mut router: Router<u32> = Router::new(SessionId(Uuid::from_u128(9)), None);
        if let Some(earlier) = earlier {
            router.handle_view(now, earlier);
        }
        router.handle_view(now, view(&["2", "n1", "n1,n2,n3", "without=n3"]));
        let seen = router.view().unwrap();
        assert_eq!(seen.term, Term(2));
        assert!(seen.node(node("n2")).is_some() && seen.node(node("n3")).is_none());
        assert_eq!(seen.shards[0].voters, [node("n1"), node("n2")]);
        // It is not believed either.
        router.handle_node_view(now, node("n3"), view(&["3", "n3", "n1,n2,n3"]));
        assert_eq!(router.view().unwrap().term, Term(2));
    }
}
