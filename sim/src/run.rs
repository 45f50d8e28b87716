//! One run: a network comes to be, faults befall it under load, it heals, and is judged.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::sync::Once;

use dkv_base::id::GroupId;
use dkv_base::mutants::Mutant;
use dkv_check::{Options as CheckOptions, check};
use dkv_wire::network::Delays;
use dkv_wire::network::Settings;

use crate::cluster::{Cluster, Death};
use crate::faults::{Course, Fault, Faults};
use crate::log;
use crate::network::Counts;
use crate::observer::{self, Observations};
use crate::old_copies;
use crate::random::Random;
use crate::trace::Trace;
use crate::workload::{self, ClientMachine, Load, Phase, Shared};

/// Ticks in which a fresh network must serve.
const BEGIN_MAX: u64 = 20_000;
/// Ticks in which shards have all their voters.
const WHOLE_WITHIN: u64 = 8_000;
/// Time after which a node that is down is replaced, where that is to happen during a run.
const REPLACED_SOON_MS: u64 = 4000;
/// Of so many seeds one has nodes in regions that are far apart.
const FAR_APART_EVERY: u64 = 5;
/// Machines of clients.
const CLIENTS: u8 = 3;
/// Ticks for which the founder is alone, where an early copy of its directory is to be kept.
const ALONE_FOR: u64 = 3000;

/// How to run.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Ticks in which faults begin.
    pub faults_for: u64,
    /// Ticks after the last fault in which everything must work again.
    pub heal_within: u64,
    /// Whether the trace goes to standard error too.
    pub echo: bool,
    /// Whether the one thing that goes wrong is a disk that has lied about its syncs for a while,
    /// and then loses its power.
    pub lying_disk: bool,
    /// Whether the one thing that goes wrong is that the founder is started on an early copy of its
    /// directory while all others are down.
    pub old_copy: bool,
    /// The course of events that each run has; nothing if the seed is to say.
    pub course: Option<Course>,
    /// Whether each datagram has a line in it.
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

/// What a run came to.
#[derive(Debug)]
pub struct Outcome {
    /// What is wrong; nothing if every promise was kept.
    pub wrong: Vec<String>,
    /// Everything that happened, in order.
    pub trace: Vec<String>,
    /// A hash of that, datagrams included.
    pub trace_hash: u64,
    /// Simulated milliseconds.
    pub simulated_ms: u64,
    /// Operations of clients, those with an unknown outcome, and those that failed.
    pub operations: (usize, usize, usize),
    /// Ticks from the last fault until everything worked again.
    pub healed_after_ms: u64,
    /// Nodes that ended for good, since they lacked what they had acknowledged.
    pub condemned: usize,
    /// Faults by kind.
    pub faults: BTreeMap<Fault, u64>,
    /// What became of datagrams.
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
    let (mut settings, load, nodes) = network(&mut random);
    if seed.is_multiple_of(FAR_APART_EVERY) {
        settings.delays = far_apart(&mut random);
    }
    if options.lying_disk {
        // The node that was told apart never comes back as itself, and is to be replaced soon.
        settings.replace_after_ms = REPLACED_SOON_MS;
    }
    trace.line(format!("seed {seed}: {nodes} nodes, {settings:?}, {load:?}"));
    let (groups, replication) = (settings.shards, settings.replication);
    let mut cluster = Cluster::new(random.fork(), settings, CLIENTS, trace.clone())?;
    let (shared, observations) = (Shared::new(load, trace.clone()), Observations::default());
    observations.expect(groups, replication);
    cluster.start_server();
    let mut early = None;
    for _ in 0..nodes {
        // One after the other, some of them at almost the same moment.
        pass(&mut cluster, &shared, random.below(300) + 1);
        cluster.add_node();
        if options.old_copy && early.is_none() {
            pass(&mut cluster, &shared, ALONE_FOR);
            early = Some(old_copies::keep(&cluster, 0, "early")?);
        }
    }
    start_clients(&mut cluster, &shared, &observations, &mut random);
    let mut wrong = Vec::new();
    if let Some(why) = until(&mut cluster, &shared, BEGIN_MAX, || {
        if shared.recorder().is_empty() { Some("no client was served".to_owned()) } else { None }
    }) {
        wrong.push(format!("the network did not begin: {why}"));
    }

    let drawn = Course::draw(&mut random);
    let course = options.course.or(drawn);
    let from = cluster.now + random.below(1000);
    let end = cluster.now + options.faults_for;
    let mut faults = Faults::new(random.fork(), from, end.saturating_sub(from), course);
    if options.lying_disk && wrong.is_empty() {
        // Two voters do without neither: whoever loses one of them for good loses the shard. That
        // all have three may have happened unseen.
        let whole = || (!observations.bears_a_loss()).then(String::new);
        let _ = until(&mut cluster, &shared, WHOLE_WITHIN, whole);
        lie(&mut cluster, &shared, &observations, &mut random);
    }
    if let Some(early) = early.filter(|_| wrong.is_empty()) {
        go_back(&mut cluster, &shared, &mut random, early)?;
    }
    while !options.lying_disk
        && !options.old_copy
        && cluster.now < end
        && wrong.is_empty()
        && observations.wrong().is_empty()
    {
        faults.tick(&mut cluster, &observations, &shared);
        if [Fault::Halt, Fault::Drift].iter().any(|fault| faults.counts().contains_key(fault)) {
            shared.clocks_were_wrong();
        }
        pass(&mut cluster, &shared, 1);
    }
    faults.heal(&mut cluster, &observations, &shared);
    let healed = cluster.now;
    let heal_within = options.heal_within;
    note_removed(&cluster, &shared);
    shared.set_phase(Phase::Probe);
    if wrong.is_empty() {
        let mut last = None;
        let whole =
            until_with(&mut cluster, &shared, heal_within, &mut faults, &observations, |names| {
                let (probed, callers) = shared.probed();
                if probed < callers || callers == 0 {
                    return Some(format!(
                        "{probed} of {callers} callers could read and write everything"
                    ));
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
    shared.set_phase(Phase::Rest);
    wrong.extend(observations.wrong());
    wrong.extend(shared.too_old());
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
    note_removed(&cluster, &shared);
    let history = shared.history();
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
        healed_after_ms,
        condemned,
        faults: faults.counts().clone(),
        datagrams: cluster.network.counts(),
        states: observations.states_seen(),
    })
}

/// What nodes had taken and not delivered goes with them when they are removed; but not with those
/// of which it was said that they may be switched off.
fn note_removed(cluster: &Cluster, shared: &Shared) {
    let removed = cluster.nodes.iter().filter(|node| node.leaving && !node.promised);
    shared.nodes_were_removed(removed.map(|node| node.name.clone()));
}

/// Has a node come back with the disk that it had a while ago, as if none of its syncs since then
/// had happened. Who leads all the time must notice.
fn lie(cluster: &mut Cluster, shared: &Shared, observations: &Observations, random: &mut Random) {
    pass(cluster, shared, random.between(1000, 4000));
    let groups = (0..=3).filter_map(|group| observations.leader(GroupId(group)));
    let leaders: Vec<String> = groups.collect();
    let follows = |index: &usize| !leaders.contains(&cluster.nodes[*index].name);
    let followers: Vec<usize> = (0..cluster.nodes.len()).filter(follows).collect();
    let Some(&victim) = random.pick(&followers) else { return };
    cluster.trace.line(format!("the disk of {} begins to lie", cluster.nodes[victim].name));
    let before = cluster.nodes[victim].disk.copy();
    pass(cluster, shared, random.between(500, 4000));
    cluster.kill_node(victim, Death::Power);
    cluster.nodes[victim].disk = before;
    pass(cluster, shared, random.between(50, 1000));
    cluster.start_node(victim);
    // It has a while to prove that it is the only one.
    pass(cluster, shared, 10_000);
    if cluster.nodes[victim].condemned {
        // Its machine, with an empty directory.
        cluster.add_node();
    }
}

/// Has the founder started on a copy of its directory from before the others joined, and all others
/// down.
fn go_back(
    cluster: &mut Cluster,
    shared: &Shared,
    random: &mut Random,
    early: old_copies::Kept,
) -> std::io::Result<()> {
    pass(cluster, shared, random.between(3000, 8000));
    old_copies::kill_all(cluster);
    let right = old_copies::keep(cluster, 0, "right")?;
    old_copies::put_back(cluster, 0, early)?;
    let server_is_late = random.per_mille(300);
    if server_is_late {
        cluster.kill_server();
    }
    cluster.start_node(0);
    if server_is_late {
        pass(cluster, shared, random.between(100, 5000));
        cluster.start_server();
    }
    pass(cluster, shared, 15_000);
    cluster.kill_node(0, Death::Process);
    old_copies::put_back(cluster, 0, right)?;
    for index in 0..cluster.nodes.len() {
        cluster.start_node(index);
    }
    Ok(())
}

/// What kind of network a seed has, and how it is used.
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

/// Two or three regions, some way from each other; nodes take turns in them.
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
    shared: &Shared,
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
        let clients = workload::run(machine, shared.clone());
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
        cluster.clients[number].start(async move {
            tokio::spawn(administrator);
            clients.await;
        });
    }
}

fn pass(cluster: &mut Cluster, shared: &Shared, ticks: u64) {
    for _ in 0..ticks {
        shared.set_now(cluster.now + 1);
        cluster.tick();
    }
}

/// Lets ticks pass until nothing is missing any more, and returns what still is after so many.
fn until(
    cluster: &mut Cluster,
    shared: &Shared,
    ticks: u64,
    mut missing: impl FnMut() -> Option<String>,
) -> Option<String> {
    let end = cluster.now + ticks;
    loop {
        let why = missing()?;
        if cluster.now >= end {
            return Some(why);
        }
        pass(cluster, shared, 20);
    }
}

/// As [`until`], while processes that end are started again.
fn until_with(
    cluster: &mut Cluster,
    shared: &Shared,
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
        faults.restart(cluster, observations, shared);
        pass(cluster, shared, 20);
    }
}

thread_local! {
    static PANICKED: Cell<bool> = const { Cell::new(false) };
}

/// A task that panics is one that is gone, and nobody else notices.
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
