//! The commands of the golden scripts.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use dkv_base::id::{GroupId, HolderId, LeaseId, NetworkId, NodeId, Revision, Serial, Stamp, Term};
use dkv_wire::codec;
use dkv_wire::message::{
    Attach, Command, Condition, Expire, LeaseAction, LeaseCommand, Operation, Write, WriteAttached,
};
use dkv_wire::network::Settings;
use dkv_wire::region::Region;

use super::super::command::CommandResult;
use super::super::directory::{
    Announcement, Directory, DirectoryCommand, DirectoryEntry, DirectoryResult, Observed,
};
use super::super::placement::{self, Balance, GroupMeasure, Measured, NodeMeasure, NodeReport};
use super::super::reconciler::{self, Desired, Membership, Progress, Step};
use super::super::sessions::Bounds;
use super::super::shard::ShardState;
use super::super::shard::leases::{FoundExpiry, FoundLease, grant_number};
use super::{batch, golden, letter, node, open, session, uuid, write};

#[test]
fn sessions() {
    golden::check("sessions.txt", shard_script());
}

#[test]
fn holders() {
    golden::check("holders.txt", shard_script());
}

#[test]
fn keys() {
    golden::check("keys.txt", shard_script());
}

#[test]
fn leases() {
    golden::check("leases.txt", shard_script());
}

#[test]
fn directory() {
    golden::check("directory.txt", directory_script());
}

#[test]
fn placement() {
    golden::check("placement.txt", directory_script());
}

#[test]
fn reconciler() {
    golden::check("reconciler.txt", reconciler_script());
}

/// Returns the value after `name=`, if the words contain it.
fn option(words: &[&str], name: &str) -> Option<String> {
    let word = words.iter().find_map(|word| word.strip_prefix(name)?.strip_prefix('='));
    word.map(str::to_owned)
}

fn number(words: &[&str], name: &str, default: u64) -> u64 {
    option(words, name).map_or(default, |text| text.parse().expect("a number"))
}

fn set(words: &[&str], name: &str) -> BTreeSet<NodeId> {
    option(words, name).unwrap_or_default().chars().map(node).collect()
}

fn show(nodes: &BTreeSet<NodeId>) -> String {
    if nodes.is_empty() { "-".into() } else { nodes.iter().map(letter).collect() }
}

fn shard_script() -> impl FnMut(&str) -> String {
    let mut state = ShardState::new();
    move |line| {
        let words: Vec<_> = line.split_whitespace().collect();
        match words[0] {
            "bounds" => {
                state = ShardState::with_bounds(Bounds {
                    sessions_max: number(&words, "sessions", 3) as usize,
                    holder_max: number(&words, "holder", 1000) as usize,
                    window_max: number(&words, "window", 3) as usize,
                    results_max: number(&words, "results", 6) as usize,
                    idle_ms: number(&words, "idle", 100),
                    own_idle_ms: number(&words, "own-idle", 1_000_000),
                    life_ms: number(&words, "life", 1000),
                });
                String::new()
            }
            "at" => {
                let commands = line.splitn(3, ' ').nth(2).unwrap_or_default();
                let commands: Vec<_> = commands
                    .split(';')
                    .filter(|command| !command.trim().is_empty())
                    .map(|command| shard_command(&command.split_whitespace().collect::<Vec<_>>()))
                    .collect();
                let time_ms = words[1].parse().expect("a time");
                let results = state.apply(&batch(time_ms, &commands)).expect("a batch");
                results.iter().map(|result| show_result(result) + "\n").collect()
            }
            "get" => match state.row(words[1].as_bytes()) {
                Some(row) => {
                    format!("{} at {}", String::from_utf8_lossy(&row.value), row.origin.revision)
                }
                None => "nothing".into(),
            },
            "expiry" => match state.expiry(words[1].as_bytes()) {
                FoundExpiry::Absent => "absent".into(),
                FoundExpiry::Never => "never".into(),
                FoundExpiry::At { deadline_ms, ttl_ms } => format!("at {deadline_ms}, {ttl_ms} ms"),
                FoundExpiry::Lease(lease) => show_lease(&lease),
            },
            "leases" => {
                let leases = state.leases_after(LeaseId(0));
                leases.map(|lease| show_lease(&lease) + "\n").collect()
            }
            "show" => {
                let counts = state.counts();
                format!(
                    "revision {} clock {} keys {} bytes {} sessions {}",
                    state.revision(),
                    state.clock_ms(),
                    counts.keys,
                    counts.bytes,
                    counts.sessions
                )
            }
            other => panic!("no such command: {other}"),
        }
    }
}

fn shard_command(words: &[&str]) -> Vec<u8> {
    let letter = |word: &str| word.chars().next().expect("a letter");
    let condition = match option(words, "if").as_deref() {
        None => Condition::Always,
        Some("absent") => Condition::Absent,
        Some("present") => Condition::Present,
        Some(revision) => Condition::Revision(Revision(revision.parse().expect("a revision"))),
    };
    let settled = number(words, "settled", 0);
    let serial = || words[2].parse().expect("a serial");
    match words[0] {
        "open" if words.len() > 2 => {
            // open SESSION of HOLDER
            let holder = HolderId(uuid(letter(words[3])));
            codec::encode_vec(&Command::OpenSessionOf {
                session: session(letter(words[1])),
                holder,
            })
        }
        "open" => open(session(letter(words[1]))),
        "grant" | "revoke" => {
            // grant SESSION SERIAL LEASE TTL
            let lease = LeaseId(words[3].parse().expect("a lease"));
            let action = match words[0] {
                "grant" => LeaseAction::Grant { ttl_ms: words[4].parse().expect("a time") },
                _ => LeaseAction::Revoke,
            };
            let (session, settled) = (session(letter(words[1])), Serial(settled));
            let serial = Serial(serial());
            codec::encode_vec(&Command::Lease(LeaseCommand {
                session,
                serial,
                settled,
                lease,
                action,
            }))
        }
        // expire, or expire LEASE SESSION SERIAL of its grant
        "expire" if words.len() == 1 => codec::encode_vec(&Command::Expire(Expire::Keys)),
        "expire" => {
            let lease = LeaseId(words[1].parse().expect("a lease"));
            let serial = words[3].parse().expect("a serial");
            let grant = grant_number(session(letter(words[2])), Serial(serial));
            codec::encode_vec(&Command::Expire(Expire::Lease { lease, grant }))
        }
        "put" if option(words, "lease").is_some() || option(words, "ttl").is_some() => {
            let attach = match option(words, "ttl") {
                Some(ttl) => Attach::Ttl(ttl.parse().expect("a time")),
                None => Attach::Lease(LeaseId(number(words, "lease", 0))),
            };
            let write = Write {
                session: session(letter(words[1])),
                serial: Serial(serial()),
                settled: Serial(settled),
                after: Stamp(0),
                condition,
                key: words[3].as_bytes(),
                operation: Operation::Put(words[4].as_bytes()),
            };
            codec::encode_vec(&Command::WriteAttached(WriteAttached { write, attach }))
        }
        "put" => {
            let put = Operation::Put(words[4].as_bytes());
            let key = words[3].as_bytes();
            write(session(letter(words[1])), serial(), settled, condition, key, put)
        }
        "del" => {
            let key = words.get(3).map_or("", |word| *word).as_bytes();
            write(session(letter(words[1])), serial(), settled, condition, key, Operation::Delete)
        }
        "garbage" => vec![0xff; 7],
        other => panic!("no such command: {other}"),
    }
}

fn show_lease(lease: &FoundLease) -> String {
    let FoundLease { id, ttl_ms, ending, keys, .. } = lease;
    let ending = if *ending { ", ending" } else { "" };
    format!("lease {} of {ttl_ms} ms, keys {keys}{ending}", id.0)
}

fn show_result(result: &CommandResult) -> String {
    match result {
        CommandResult::Written { revision, existed } => {
            format!("written {revision}{}", if *existed { ", existed" } else { "" })
        }
        CommandResult::Conflict { current: Some(revision) } => format!("conflict, at {revision}"),
        CommandResult::Conflict { current: None } => "conflict, absent".into(),
        CommandResult::Transacted { revision, succeeded, .. } => {
            format!("transacted {revision}{}", if *succeeded { "" } else { ", otherwise" })
        }
        CommandResult::Unfit { operation, why } => format!("operation {operation}: {why}"),
        CommandResult::Granted { revision } => format!("granted at {revision}"),
        CommandResult::Revoked { revision, deleted, left } => {
            format!("revoked {revision}, deleted {deleted}, left {left}")
        }
        CommandResult::NoLease { lease } => format!("no lease {}", lease.0),
        CommandResult::LeaseExists { lease } => format!("lease {} exists", lease.0),
        CommandResult::TooManyLeases { own } => {
            format!("too many leases{}", if *own { ", own" } else { "" })
        }
        CommandResult::Expired { deleted, more } => {
            format!("expired {deleted}{}", if *more { ", more" } else { "" })
        }
        CommandResult::Compacted { before, .. } => format!("compacted from {before}"),
        CommandResult::SessionOpened => "opened".into(),
        CommandResult::SessionExpired => "expired".into(),
        CommandResult::Overloaded { retry_after_ms } => format!("overloaded, {retry_after_ms} ms"),
        CommandResult::TooEarly => "too early".into(),
        CommandResult::Invalid => "invalid".into(),
        CommandResult::Cut(cut) => format!("cut {} base {}", cut.revision, cut.base),
        CommandResult::Locked => "locked".into(),
        CommandResult::Over => "over".into(),
        CommandResult::Prepared { .. }
        | CommandResult::Decided { .. }
        | CommandResult::Resolved(_) => format!("{result:?}"),
    }
}

/// The measurements that a script has set. All others agree with the plan.
#[derive(Default)]
struct Seen {
    nodes: BTreeMap<NodeId, NodeMeasure>,
    groups: BTreeMap<GroupId, GroupMeasure>,
    bytes: BTreeMap<GroupId, u64>,
}

impl Seen {
    fn measured(&self, directory: &Directory) -> Measured {
        let mut measured = Measured { nodes: self.nodes.clone(), groups: BTreeMap::new() };
        for (group, plan) in directory.groups() {
            let Some(leader) = plan.voters.first() else { continue };
            let as_wished = GroupMeasure {
                leader: *leader,
                term: Term(1),
                voters: plan.voters.clone(),
                learners: plan.learners.clone(),
                is_joint: false,
                is_changing: false,
                ready: plan.voters.clone(),
                bytes: self.bytes.get(group).copied().unwrap_or_default(),
            };
            measured.groups.insert(*group, self.groups.get(group).cloned().unwrap_or(as_wished));
        }
        measured
    }
}

fn directory_script() -> impl FnMut(&str) -> String {
    let mut directory = Directory::new();
    let mut seen = Seen::default();
    move |line| {
        let words: Vec<_> = line.split_whitespace().collect();
        let target = || node(words[1].chars().next().expect("a letter"));
        let group = || GroupId(words[1].parse().expect("a group"));
        let announcement = || Announcement {
            id: target(),
            name: option(&words, "name").unwrap_or_else(|| words[1].to_owned()),
            address: format!("10.0.0.{}:{}", words[1].as_bytes()[0], number(&words, "port", 7000))
                .parse()
                .expect("an address"),
            region: option(&words, "region").map(|text| text.parse().expect("a region")),
        };
        let command = match words[0] {
            "new" => {
                directory = Directory::new();
                seen = Seen::default();
                return String::new();
            }
            "create" => DirectoryCommand::Create {
                network: NetworkId(uuid(
                    option(&words, "network").map_or('N', |text| text.chars().next().expect("one")),
                )),
                settings: Settings {
                    replication: number(&words, "replication", 3) as u32,
                    shards: number(&words, "shards", 1) as u32,
                    ..Settings::default()
                },
                founder: announcement(),
            },
            "announce" => DirectoryCommand::Announce(announcement()),
            "supersede" => DirectoryCommand::Supersede {
                old: node(
                    option(&words, "old").map_or('a', |text| text.chars().next().expect("one")),
                ),
                new: announcement(),
            },
            "leave" => DirectoryCommand::Leave(target()),
            "members" => DirectoryCommand::SetMembers {
                group: group(),
                voters: set(&words, "voters"),
                learners: set(&words, "learners"),
            },
            "started" => DirectoryCommand::ShardStarted(group()),
            "settle" => DirectoryCommand::Settle {
                group: group(),
                seen: Revision(number(&words, "seen", 0)),
            },
            "retire" => DirectoryCommand::Retire(target()),
            "expel" => DirectoryCommand::Expel(target()),
            "remove" => DirectoryCommand::Remove(target()),
            "deny" => DirectoryCommand::Deny(HolderId(target().0)),
            "drain" => DirectoryCommand::Drain { node: target(), on: !words.contains(&"off") },
            "see" => {
                for letter in words[1].chars() {
                    let silent_ms = number(&words, "silent", 0);
                    let holds =
                        option(&words, "holds").map(|group| group.parse().expect("a group"));
                    let free_bytes = number(&words, "free", u64::MAX);
                    let holds = holds.map(GroupId).into_iter().collect();
                    let keeps_writes = words.contains(&"keeps-writes");
                    let directory = Revision(number(&words, "knows", u64::MAX));
                    let report = NodeReport { holds, free_bytes, keeps_writes, directory };
                    let report = (!words.contains(&"mute")).then_some(report);
                    let measure = NodeMeasure { live: silent_ms == 0, silent_ms, report };
                    seen.nodes.insert(node(letter), measure);
                }
                return String::new();
            }
            "actual" => {
                // Holds until the command is repeated without arguments; the group then agrees with
                // its plan again.
                let voters = set(&words, "voters");
                let leader = set(&words, "leader").first().or(voters.first()).copied();
                let measure = leader.map(|leader| GroupMeasure {
                    leader,
                    term: Term(1),
                    learners: set(&words, "learners"),
                    is_joint: words.contains(&"joint"),
                    is_changing: words.contains(&"joint"),
                    ready: voters.clone(),
                    bytes: number(&words, "bytes", 0),
                    voters,
                });
                match measure {
                    Some(measure) => drop(seen.groups.insert(group(), measure)),
                    None => drop(seen.groups.remove(&group())),
                }
                return String::new();
            }
            "bytes" => {
                seen.bytes.insert(group(), number(&words, "of", 0));
                return String::new();
            }
            "plan" => {
                let balance = match words.get(1) {
                    Some(&"gently") => Balance::Gentle,
                    Some(&"eagerly") => Balance::Eager,
                    _ => Balance::Off,
                };
                let mut printed = String::new();
                // Each planned change is carried out at once, until there are none left.
                while let Some(command) =
                    placement::plan(&directory, &seen.measured(&directory), balance)
                {
                    writeln!(printed, "{}", show_command(&command)).expect("a string takes all");
                    let result = directory.execute(&DirectoryEntry { time_ms: 0, command });
                    assert_eq!(result, DirectoryResult::Done, "{printed}");
                }
                return printed;
            }
            "primaries" => {
                let mut printed = String::new();
                let mut measured = seen.measured(&directory);
                while let Some(next) = placement::transfer(&directory, &measured) {
                    let (group, from, to) = (next.group, letter(&next.from), letter(&next.to));
                    writeln!(printed, "group {group}: {from} to {to}").expect("a string takes all");
                    measured.groups.get_mut(&group).expect("measured").leader = next.to;
                }
                return printed;
            }
            "show" => return show_directory(&directory),
            "view" => return show_view(&directory),
            other => panic!("no such command: {other}"),
        };
        match directory.execute(&DirectoryEntry { time_ms: 5, command }) {
            DirectoryResult::Done => "done".into(),
            DirectoryResult::Rejected(reason) => format!("rejected: {reason}"),
        }
    }
}

fn show_command(command: &DirectoryCommand) -> String {
    match command {
        DirectoryCommand::SetMembers { group, voters, learners } => {
            format!("group {group}: voters {} learners {}", show(voters), show(learners))
        }
        DirectoryCommand::Remove(node) => format!("remove {}", letter(node)),
        DirectoryCommand::Settle { group, .. } => format!("group {group}: settled"),
        other => format!("{other:?}"),
    }
}

fn in_region(region: Option<&Region>) -> String {
    region.map_or(String::new(), |region| format!(" in {region}"))
}

fn show_directory(directory: &Directory) -> String {
    let mut printed = format!("revision {}\n", directory.revision());
    for (id, member) in directory.nodes() {
        let left = if member.left { " left" } else { "" };
        let retiring = if member.retiring { " retiring" } else { "" };
        let draining = if member.draining { " draining" } else { "" };
        let region = in_region(member.region.as_ref());
        writeln!(
            printed,
            "node {} {} {}{region} joined {}{left}{retiring}{draining}",
            letter(id),
            member.name,
            member.address,
            member.joined
        )
        .expect("a string takes all");
    }
    for (group, plan) in directory.groups() {
        let started = if plan.started { " started" } else { "" };
        let (voters, learners) = (show(&plan.voters), show(&plan.learners));
        let displaced: String = plan.displaced.keys().map(letter).collect();
        let displaced =
            if displaced.is_empty() { displaced } else { format!(" displaced {displaced}") };
        writeln!(printed, "group {group} voters {voters} learners {learners}{started}{displaced}")
            .expect("a string takes all");
    }
    for holder in directory.denied() {
        writeln!(printed, "denied {}", letter(&NodeId(holder.0))).expect("a string takes all");
    }
    printed
}

fn show_view(directory: &Directory) -> String {
    let Some(view) = directory.to_view(&Observed::default()) else { return "no network".into() };
    let mut printed = String::new();
    for node in &view.nodes {
        let region = in_region(node.region.as_ref());
        writeln!(printed, "node {} {} {}{region}", letter(&node.id), node.name, node.state)
            .expect("a string takes all");
    }
    for shard in &view.shards {
        writeln!(printed, "shard {} from {:#018x}", shard.group, shard.first_hash)
            .expect("a string takes all");
    }
    printed
}

fn reconciler_script() -> impl FnMut(&str) -> String {
    let mut desired = Desired::default();
    let mut actual = Membership::default();
    let mut progress = BTreeMap::new();
    let mut own = node('a');
    move |line| {
        let words: Vec<_> = line.split_whitespace().collect();
        match words[0] {
            "desired" => {
                desired.voters = set(&words, "voters");
                desired.learners = set(&words, "learners");
                String::new()
            }
            "actual" => {
                actual.voters = set(&words, "voters");
                actual.learners = set(&words, "learners");
                actual.is_joint = words.contains(&"joint");
                progress.clear();
                String::new()
            }
            "progress" => {
                for (name, live, caught_up) in
                    [("ready", true, true), ("behind", true, false), ("dead", false, false)]
                {
                    for id in set(&words, name) {
                        progress.insert(id, Progress { live, caught_up });
                    }
                }
                String::new()
            }
            "leader" => {
                own = node(words[1].chars().next().expect("a letter"));
                String::new()
            }
            // Takes one step after another, as if each succeeded at once.
            "run" => {
                let mut printed = String::new();
                for _ in 0..100 {
                    let Some(step) = reconciler::next_step(&desired, &actual, &progress, own)
                    else {
                        return printed + "nothing";
                    };
                    writeln!(printed, "{}", show_step(&step)).expect("a string takes all");
                    execute(&step, &mut actual, &mut own);
                }
                panic!("it does not end:\n{printed}");
            }
            other => panic!("no such command: {other}"),
        }
    }
}

fn show_step(step: &Step) -> String {
    match step {
        Step::FinishJoint => "finish joint".into(),
        Step::AddLearners(nodes) => format!("add learners {}", show(nodes)),
        Step::ChangeVoters(voters) => format!("voters {}", show(voters)),
        Step::Transfer(node) => format!("transfer to {}", letter(node)),
        Step::RemoveLearner(node) => format!("remove learner {}", letter(node)),
    }
}

/// Applies the effect of a successful step to the membership.
pub(super) fn execute(step: &Step, actual: &mut Membership, own: &mut NodeId) {
    match step {
        Step::FinishJoint => actual.is_joint = false,
        Step::AddLearners(nodes) => actual.learners.extend(nodes),
        Step::ChangeVoters(voters) => {
            let demoted = actual.voters.difference(voters).copied().collect::<Vec<_>>();
            actual.learners.retain(|node| !voters.contains(node));
            actual.learners.extend(demoted);
            actual.voters = voters.clone();
        }
        Step::Transfer(node) => *own = *node,
        Step::RemoveLearner(node) => {
            actual.learners.remove(node);
        }
    }
}
