//! One run: a network begins, suffers faults under load, heals, and is judged.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::sync::Once;

use dkv_base::id::GroupId;
use dkv_base::mutants::Mutant;
use dkv_check::{Options as CheckOptions, check};
use dkv_wire::network::Delays;
use dkv_wire::network::Settings;

use crate::backups;
use crate::cluster::{Cluster, Death};
use crate::compaction::Compaction;
use crate::faults::{Course, Fault, Faults};
use crate::log;
use crate::network::Counts;
use crate::observer::{self, Observations};
use crate::random::Random;
use crate::trace::Trace;
use crate::workload::keyspaces::{self, Administrator};
use crate::workload::{self, ClientMachine, Load, Phase, Workload};

/// Ticks in which a fresh network must serve.
const BEGIN_MAX: u64 = 20_000;
/// Ticks in which shards must have all their voters.
const WHOLE_WITHIN: u64 = 8_000;
/// Time after which a node that is down is replaced, in runs in which that should happen.
const REPLACED_SOON_MS: u64 = 4000;
/// Every so many seeds the nodes are in regions that are far apart.
const FAR_APART_EVERY: u64 = 5;
/// Number of machines for clients.
const CLIENTS: u8 = 3;
/// Ticks for which the founder is alone, in runs that need an early backup of its directory or a
/// long log of it.
const ALONE_FOR: u64 = 3000;

/// How to run.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Ticks in which faults begin.
    pub faults_for: u64,
    /// Ticks after the last fault in which everything must work again.
    pub heal_within: u64,
    /// Whether the trace is printed to standard error too.
    pub echo: bool,
    /// Whether the only fault is a disk that ignores its syncs for a while and then loses its
    /// power.
    pub lying_disk: bool,
    /// Whether the only fault is that the founder starts on an early backup of its directory while
    /// all other nodes are down.
    pub old_copy: bool,
    /// The course of events of each run; `None` lets the seed decide.
    pub course: Option<Course>,
    /// Whether the trace has a line for each datagram.
    pub every_datagram: bool,
    /// The bug that is planted, with the feature `mutants`.
    pub mutant: Option<Mutant>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            faults_for: 15_000,
            heal_within: 60_000,
            echo: false,
            lying_disk: false,
            old_copy: false,
            course: None,
            every_datagram: false,
            mutant: None,
        }
    }
}

/// The result of a run.
#[derive(Debug)]
pub struct Outcome {
    /// The broken promises; empty if there is none.
    pub wrong: Vec<String>,
    /// The trace.
    pub trace: Vec<String>,
    /// A hash of the trace, including datagrams.
    pub trace_hash: u64,
    /// Simulated milliseconds.
    pub simulated_ms: u64,
    /// Operations of clients, those with an unknown outcome, and those that failed.
    pub operations: (usize, usize, usize),
    /// Transactions, and those with an unknown outcome.
    pub transactions: (usize, usize),
    /// Snapshots that were taken and read.
    pub snapshots: u64,
    /// Events of watches.
    pub watch_events: usize,
    /// Reads at revisions, and lists of versions.
    pub past_reads: usize,
    /// Calls that concern leases, unless a clock was wrong.
    pub lease_events: usize,
    /// Ticks from the last fault until everything worked again.
    pub healed_after_ms: u64,
    /// Nodes that ended for good because they lacked entries that they had acknowledged.
    pub condemned: usize,
    /// Old copies of directories that were refused or held back, and clones that were noticed.
    pub copies_told_apart: (u64, u64),
    /// Faults by kind.
    pub faults: BTreeMap<Fault, u64>,
    /// The fates of datagrams.
    pub datagrams: Counts,
    /// States of replicas that were compared.
    pub states: usize,
}

/// Runs a seed.
///
/// # Errors
/// If the run could not be made at all.
pub fn run(seed: u64, options: Options) -> std::io::Result<Outcome> {
    #[cfg(feature = "mutants")]
    dkv_base::mutants::plant(options.mutant);
    let mut random = Random::new(seed);
    let trace = Trace::new(options.echo, options.every_datagram);
    PANICKED.set(false);
    watch_for_panics();
    log::look();
    log::panic_nowhere();
    let (mut settings, mut load, nodes) = network(&mut random);
    if options.course == Some(Course::Drivers) {
        // A transaction needs two shards to have a driver.
        settings.shards = settings.shards.max(2);
        load.shards = settings.shards;
    }
    if seed.is_multiple_of(FAR_APART_EVERY) {
        settings.delays = far_apart(&mut random);
    }
    if options.lying_disk {
        // The detected node never comes back as itself, and must be replaced soon.
        settings.replace_after_ms = REPLACED_SOON_MS;
    }
    trace.line(format!("seed {seed}: {nodes} nodes, {settings:?}, {load:?}"));
    let (groups, replication) = (settings.shards, settings.replication);
    let mut cluster = Cluster::new(random.fork(), settings, CLIENTS, trace.clone())?;
    let (workload, observations) = (Workload::new(load, trace.clone()), Observations::default());
    observations.expect(groups, replication);
    cluster.start_server();
    let drawn = Course::draw(&mut random);
    let course = options.course.or(drawn);
    let mut early = None;
    for node in 0..nodes {
        if node == 1 && course == Some(Course::Refilled) {
            // The founder's log must be long before it has another member.
            start_clients(&mut cluster, &workload, &observations, &mut random);
            pass(&mut cluster, &workload, ALONE_FOR);
        }
        // They start one after the other, some at almost the same moment.
        pass(&mut cluster, &workload, random.below(300) + 1);
        cluster.add_node();
        if options.old_copy && early.is_none() {
            pass(&mut cluster, &workload, ALONE_FOR);
            early = Some(backups::take(&cluster, 0, "early")?);
        }
    }
    if course != Some(Course::Refilled) {
        start_clients(&mut cluster, &workload, &observations, &mut random);
    }
    let mut wrong = Vec::new();
    if let Some(why) = until(&mut cluster, &workload, BEGIN_MAX, || {
        if workload.recorder().is_empty() { Some("no client was served".to_owned()) } else { None }
    }) {
        wrong.push(format!("the network did not begin: {why}"));
    }

    let from = cluster.now + random.below(1000);
    let end = cluster.now + options.faults_for;
    let mut faults = Faults::new(random.fork(), from, end.saturating_sub(from), course);
    let mut compaction = Compaction::new(random.fork(), from);
    if options.lying_disk && wrong.is_empty() {
        // A shard with two voters does not survive the loss of one. The administrator may miss the
        // moment in which all shards have three.
        let whole = || (!observations.bears_a_loss()).then(String::new);
        let _ = until(&mut cluster, &workload, WHOLE_WITHIN, whole);
        lie(&mut cluster, &workload, &observations, &mut random);
    }
    if let Some(early) = early.filter(|_| wrong.is_empty()) {
        go_back(&mut cluster, &workload, &mut random, early)?;
    }
    while !options.lying_disk
        && !options.old_copy
        && cluster.now < end
        && wrong.is_empty()
        && observations.wrong().is_empty()
        && faults.wrong().next().is_none()
    {
        faults.tick(&mut cluster, &observations, &workload);
        compaction.tick(cluster.now, &observations, &workload);
        if [Fault::Halt, Fault::Drift].iter().any(|fault| faults.counts().contains_key(fault)) {
            workload.clocks_were_wrong();
        }
        pass(&mut cluster, &workload, 1);
    }
    faults.heal(&mut cluster, &observations, &workload);
    let healed = cluster.now;
    let heal_within = options.heal_within;
    note_removed(&cluster, &workload);
    workload.set_phase(Phase::Probe);
    if wrong.is_empty() {
        let mut last = None;
        let whole =
            until_with(&mut cluster, &workload, heal_within, &mut faults, &observations, |names| {
                let (probed, callers) = workload.probed();
                if probed < callers || callers == 0 {
                    return Some(format!(
                        "{probed} of {callers} callers could read and write everything"
                    ));
                }
                if observations.awaits_newcomers() {
                    return Some("a client that began late has no view".to_owned());
                }
                last = observations.not_whole(names, groups, replication);
                last.clone()
            });
        if let Some(why) = whole {
            wrong.push(format!("not healed {heal_within} ms after the last fault: {why}"));
            observations.picture().into_iter().for_each(|line| trace.line(line));
        }
    }
    let healed_after_ms = cluster.now - healed;
    workload.set_phase(Phase::Rest);
    wrong.extend(observations.wrong());
    wrong.extend(faults.wrong());
    wrong.extend(workload.too_old());
    wrong.extend(workload.wrong());
    let condemned = cluster.nodes.iter().filter(|node| node.condemned).count();
    if condemned > usize::from(options.lying_disk) {
        wrong.push(format!("{condemned} nodes have lost what they had acknowledged"));
    }
    wrong.extend(cluster.overlooked().map(|name| {
        format!("a task of {name} had panicked, and the node went on as if nothing had happened")
    }));
    if PANICKED.get() {
        wrong.push("something panicked".to_owned());
    }
    note_removed(&cluster, &workload);
    let history = workload.history();
    wrong.extend(workload.late_leases(&history).iter().map(ToString::to_string));
    let report = check(&history, CheckOptions::default());
    if !report.holds() {
        wrong.push(report.to_string());
    }
    Ok(Outcome {
        wrong,
        trace_hash: trace.hash(),
        trace: trace.lines(),
        simulated_ms: cluster.now,
        operations: (report.operations, report.unknown, report.failed),
        transactions: (report.transactions, report.transactions_unknown),
        snapshots: workload.snapshots(),
        watch_events: report.watch_events,
        past_reads: report.past_reads,
        lease_events: report.lease_events,
        healed_after_ms,
        condemned,
        copies_told_apart: faults.copies_told_apart(),
        faults: faults.counts().clone(),
        datagrams: cluster.network.counts(),
        states: observations.states_seen(),
    })
}

/// Notes removed nodes: the eventual writes that they had not delivered are lost with them, unless
/// the network had said that they may be switched off.
fn note_removed(cluster: &Cluster, workload: &Workload) {
    let removed = cluster.nodes.iter().filter(|node| node.leaving && !node.promised);
    workload.nodes_were_removed(removed.map(|node| node.name.clone()));
}

/// Brings a node back with the disk that it had a while ago, as if no sync had happened since. The
/// leader, which runs all the time, must notice.
fn lie(
    cluster: &mut Cluster,
    workload: &Workload,
    observations: &Observations,
    random: &mut Random,
) {
    pass(cluster, workload, random.between(1000, 4000));
    let groups = (0..=3).filter_map(|group| observations.leader(GroupId(group)));
    let leaders: Vec<String> = groups.collect();
    let follows = |index: &usize| !leaders.contains(&cluster.nodes[*index].name);
    let followers: Vec<usize> = (0..cluster.nodes.len()).filter(follows).collect();
    let Some(&victim) = random.pick(&followers) else { return };
    cluster.trace.line(format!("the disk of {} begins to lie", cluster.nodes[victim].name));
    let before = cluster.nodes[victim].disk.copy();
    pass(cluster, workload, random.between(500, 4000));
    cluster.kill_node(victim, Death::Power);
    cluster.nodes[victim].disk = before;
    pass(cluster, workload, random.between(50, 1000));
    cluster.start_node(victim);
    // The network has a while to detect it.
    pass(cluster, workload, 10_000);
    if cluster.nodes[victim].condemned {
        // The same machine joins with an empty directory.
        cluster.add_node();
    }
}

/// Starts the founder alone, on a backup of its directory from before the others joined.
fn go_back(
    cluster: &mut Cluster,
    workload: &Workload,
    random: &mut Random,
    early: backups::Backup,
) -> std::io::Result<()> {
    pass(cluster, workload, random.between(3000, 8000));
    backups::kill_all(cluster);
    let right = backups::take(cluster, 0, "right")?;
    backups::restore(cluster, 0, early)?;
    let server_is_late = random.per_mille(300);
    if server_is_late {
        cluster.kill_server();
    }
    cluster.start_node(0);
    if server_is_late {
        pass(cluster, workload, random.between(100, 5000));
        cluster.start_server();
    }
    pass(cluster, workload, 15_000);
    cluster.kill_node(0, Death::Process);
    backups::restore(cluster, 0, right)?;
    for index in 0..cluster.nodes.len() {
        cluster.start_node(index);
    }
    Ok(())
}

/// Draws the kind of network that a seed has, and its load.
fn network(random: &mut Random) -> (Settings, Load, u64) {
    let nodes = *random.pick(&[3, 3, 3, 4, 5, 5, 7]).unwrap_or(&3);
    let replication = if nodes >= 5 && random.per_mille(300) { 5 } else { 3 };
    let shards = *random.pick(&[1, 1, 2, 3, 5]).unwrap_or(&1);
    let replace_after_ms = *random.pick(&[REPLACED_SOON_MS, 300_000]).unwrap_or(&300_000);
    let settings = Settings {
        replication,
        shards,
        replace_after_ms,
        log_bytes_max: 16 * 1024 * 1024,
        ..Settings::default()
    };
    let load = Load {
        callers: random.between(1, 3),
        pause_ms: *random.pick(&[20, 60, 150]).unwrap_or(&60),
        keys: random.between(2, 8),
        large: *random.pick(&[(0, 100), (50, 10_000), (300, 200_000)]).unwrap_or(&(0, 100)),
        shards,
    };
    (settings, load, nodes)
}

/// Draws two or three regions and their distances; nodes are assigned to them in turn.
fn far_apart(random: &mut Random) -> Delays {
    let count = random.between(2, 3) as usize;
    let between = (1..=count).map(|number| format!("r{number}")).collect();
    let row = |from: usize, random: &mut Random| {
        let way = |to: usize| if from == to { 0 } else { random.between(1, 60) as u32 };
        (0..count).map(way).collect()
    };
    let average_ms = (0..count).map(|from| row(from, random)).collect();
    Delays { between, average_ms, vary: random.per_mille(500) }
}

fn start_clients(
    cluster: &mut Cluster,
    workload: &Workload,
    observations: &Observations,
    random: &mut Random,
) {
    for number in 0..cluster.clients.len() {
        let machine = ClientMachine {
            number: number as u64 + 1,
            server: cluster.server_address(),
            token_file: cluster.token_file("client"),
            home: cluster.path(&format!("client-{number}")),
            random: random.fork(),
        };
        let clients = workload::run(machine, workload.clone());
        if number > 0 {
            cluster.clients[number].start(clients);
            continue;
        }
        let administrator = observer::run(
            cluster.server_address(),
            cluster.token_file("admin"),
            cluster.path("administrator"),
            observations.clone(),
            cluster.trace.clone(),
        );
        let keyspaces = Administrator {
            server: cluster.server_address(),
            token_file: cluster.token_file("admin"),
            home: cluster.path("keyspaces"),
            random: random.fork(),
        };
        let keyspaces = keyspaces::run(keyspaces, workload.clone());
        cluster.clients[number].start(async move {
            tokio::spawn(administrator);
            tokio::spawn(keyspaces);
            clients.await;
        });
    }
}

fn pass(cluster: &mut Cluster, workload: &Workload, ticks: u64) {
    for _ in 0..ticks {
        workload.set_now(cluster.now + 1);
        cluster.tick();
    }
}

/// Advances until `missing` returns nothing, and returns what is still missing after so many ticks.
fn until(
    cluster: &mut Cluster,
    workload: &Workload,
    ticks: u64,
    mut missing: impl FnMut() -> Option<String>,
) -> Option<String> {
    let end = cluster.now + ticks;
    loop {
        let why = missing()?;
        if cluster.now >= end {
            return Some(why);
        }
        pass(cluster, workload, 20);
    }
}

/// Does the same as [`until`], and restarts processes that end.
fn until_with(
    cluster: &mut Cluster,
    workload: &Workload,
    ticks: u64,
    faults: &mut Faults,
    observations: &Observations,
    mut missing: impl FnMut(&[String]) -> Option<String>,
) -> Option<String> {
    let end = cluster.now + ticks;
    loop {
        let wanted = cluster.nodes.iter().filter(|node| !node.leaving);
        let names: Vec<String> = wanted.map(|node| node.name.clone()).collect();
        let why = missing(&names)?;
        if cluster.now >= end || !observations.wrong().is_empty() {
            return Some(why);
        }
        faults.restart(cluster, observations, workload);
        pass(cluster, workload, 20);
    }
}

thread_local! {
    static PANICKED: Cell<bool> = const { Cell::new(false) };
}

/// Notes every panic of this thread, since a task that panics ends unseen.
fn watch_for_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let usual = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            if log::is_panicking() {
                return;
            }
            PANICKED.set(true);
            usual(panic);
        }));
    });
}
