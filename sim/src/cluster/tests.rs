//! Idle networks, networks whose members are far apart, and changes of members while some are away.

use dkv_api::Client;
use dkv_base::id::NodeId;
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};
use tokio::time::Instant;

use super::*;
use crate::disk::Speed;
use crate::network::Weather;
use crate::observer::{self, Observations, Order};

/// Ticks of a millisecond after which an idle network is at rest.
const SETTLE: u64 = 15_000;

/// Three nodes, and a client that writes on request.
struct Quiet {
    cluster: Cluster,
    write: UnboundedSender<()>,
    /// How long each write took.
    written: Arc<Mutex<Vec<Duration>>>,
}

impl Quiet {
    /// Creates a network at rest: the first node leads all groups, and the client is connected.
    fn at_rest() -> Self {
        let settings = Settings { shards: 1, ..Settings::default() };
        let trace = Trace::new(false, false);
        let mut cluster = Cluster::new(Random::new(7), settings, 2, trace).unwrap();
        cluster.start_server();
        (0..1000).for_each(|_| cluster.tick());
        for _ in 0..3 {
            cluster.add_node();
            (0..1000).for_each(|_| cluster.tick());
        }
        let (write, mut wanted) = unbounded_channel();
        let written = Arc::new(Mutex::new(Vec::new()));
        let (server, token) = (cluster.server_address(), cluster.token_file("client"));
        let (home, done) = (cluster.path("client"), Arc::clone(&written));
        cluster.clients[0].start(async move {
            let builder = Client::builder().server(server).token_file(token).home(home);
            let client = builder.connect().await.unwrap();
            while let Some(()) = wanted.recv().await {
                let (client, done, begun) = (client.clone(), Arc::clone(&done), Instant::now());
                tokio::spawn(async move {
                    client.write("k", "v").await.unwrap();
                    done.lock().unwrap().push(begun.elapsed());
                });
            }
        });
        let mut quiet = Self { cluster, write, written };
        quiet.takes_to_write();
        quiet.pass(SETTLE);
        quiet
    }

    fn pass(&mut self, ticks: u64) {
        (0..ticks).for_each(|_| self.cluster.tick());
    }

    /// Starts a write and returns the ticks that it takes.
    fn takes_to_write(&mut self) -> u64 {
        self.write.send(()).unwrap();
        self.all_written(1)[0]
    }

    /// Waits for so many writes, and returns the ticks that each took.
    fn all_written(&mut self, count: usize) -> Vec<u64> {
        let begun = self.cluster.now;
        while self.written.lock().unwrap().len() < count {
            self.pass(1);
            assert!(self.cluster.now < begun + 20_000, "it is never done");
        }
        let ticks = |took: Duration| took.as_millis() as u64;
        self.written.lock().unwrap().drain(..).map(ticks).collect()
    }

    /// Returns how many datagrams are sent in a second.
    fn datagrams(&mut self) -> u64 {
        let before = self.cluster.network.counts().sent;
        self.pass(10_000);
        (self.cluster.network.counts().sent - before) / 10
    }
}

#[test]
fn an_idle_network_sends_little_and_wakes_at_once() {
    let mut quiet = Quiet::at_rest();
    let datagrams = quiet.datagrams();
    assert!(datagrams < 100, "{datagrams} datagrams a second");
    let ticks = quiet.takes_to_write();
    assert!(ticks < 20, "the first write took {ticks} ms");
}

#[test]
fn the_death_of_an_idle_primary_is_noticed_before_the_next_request() {
    // The kernel reports a process that has died; a machine is noticed only by its silence.
    for (death, within) in [(Death::Process, 400), (Death::Power, 1500)] {
        let mut quiet = Quiet::at_rest();
        quiet.cluster.kill_node(0, death);
        quiet.pass(within);
        let ticks = quiet.takes_to_write();
        assert!(ticks < 150, "a write took {ticks} ms after {death:?}");
    }
}

#[test]
fn the_loss_of_a_machine_is_noticed_fast_after_a_request() {
    let mut quiet = Quiet::at_rest();
    quiet.takes_to_write();
    quiet.pass(300);
    quiet.cluster.kill_node(0, Death::Power);
    let ticks = quiet.takes_to_write();
    assert!(ticks < 700, "a write took {ticks} ms");
}

#[test]
fn writes_over_long_distances_do_not_wait_for_each_other() {
    let mut quiet = Quiet::at_rest();
    quiet.cluster.network.set_weather(Weather { delay_min: 200, delay_max: 200, ..Weather::CALM });
    // Time to measure the distances.
    quiet.pass(15_000);
    quiet.takes_to_write();
    let count = 40;
    for _ in 0..count {
        quiet.write.send(()).unwrap();
        quiet.pass(15);
    }
    let took = quiet.all_written(count);
    // To the primary, from there to a majority, and back. With only two batches in flight it would
    // be up to 200 ms more.
    assert!(took.iter().all(|ticks| (800..860).contains(ticks)), "{took:?}");
}

#[test]
fn packets_for_a_process_that_has_been_restarted_do_the_same_in_each_run() {
    let run = || {
        let mut quiet = Quiet::at_rest();
        let weather = Weather { delay_min: 5, delay_max: 20, ..Weather::CALM };
        quiet.cluster.network.set_weather(weather);
        for round in 0..160 {
            quiet.cluster.kill_node(1, Death::Process);
            quiet.cluster.start_node(1);
            // The others connect to it again, and are in the middle of that when it ends.
            quiet.pass(30 + 7 * round % 120);
        }
        quiet.cluster.trace.hash()
    };
    assert_eq!(run(), run());
}

/// A network at rest of four nodes, of which the first three hold the shard, and its administrator.
struct Administered {
    quiet: Quiet,
    observations: Observations,
}

impl Administered {
    fn at_rest() -> Self {
        log::look();
        let mut quiet = Quiet::at_rest();
        let (cluster, observations) = (&mut quiet.cluster, Observations::default());
        cluster.add_node();
        let administrator = observer::run(
            cluster.server_address(),
            cluster.token_file("admin"),
            cluster.path("administrator"),
            observations.clone(),
            cluster.trace.clone(),
        );
        cluster.clients[1].start(administrator);
        quiet.pass(SETTLE);
        Self { quiet, observations }
    }

    /// Waits until a node holds the shard, or does not, and returns its id.
    fn holds(&mut self, name: &str, wanted: bool) -> NodeId {
        let begun = self.quiet.cluster.now;
        loop {
            if let Some((id, holds)) = self.observations.holds(name)
                && holds == wanted
            {
                return id;
            }
            self.quiet.pass(10);
            assert!(self.quiet.cluster.now < begun + SETTLE, "{name} should hold it: {wanted}");
        }
    }
}

#[test]
fn a_voter_that_knows_no_current_member_votes_for_one() {
    let mut network = Administered::at_rest();
    // The third loses all that it learns of a change of voters, and the second begins anew and
    // knows nothing.
    network.quiet.cluster.nodes[2].disk.set_speed(Speed::Stalled(60_000));
    network.observations.order(Order::Drain("n2".into(), true));
    let second = network.holds("n2", false);
    network.quiet.pass(3000);
    network.observations.order(Order::Drain("n2".into(), false));
    network.observations.order(Order::Drain("n4".into(), true));
    log::steps();
    let begun = network.quiet.cluster.now;
    while !log::steps().iter().any(|step| step.adds(second)) {
        network.quiet.pass(1);
        assert!(network.quiet.cluster.now < begun + SETTLE, "{:?}", network.observations.picture());
    }
    let cluster = &mut network.quiet.cluster;
    cluster.kill_node(0, Death::Power);
    cluster.kill_node(2, Death::Power);
    cluster.nodes[2].disk.set_speed(Speed::Between(0, 1));
    cluster.start_node(2);
    // The fourth is no member that the third knows, nor is it wished for, and needs its vote.
    network.quiet.pass(10_000);
    let ticks = network.quiet.takes_to_write();
    assert!(ticks < 2000, "a write took {ticks} ms");
}

#[test]
fn a_leader_that_was_removed_while_cut_off_gives_up_its_replica() {
    let mut network = Administered::at_rest();
    let cluster = &network.quiet.cluster;
    let address = |index: usize| cluster.nodes[index].machine.address();
    for other in 1..cluster.nodes.len() {
        cluster.network.cut(address(0), address(other));
        cluster.network.cut(address(other), address(0));
    }
    network.observations.order(Order::Drain("n1".into(), true));
    network.holds("n4", true);
    network.quiet.pass(3000);
    network.holds("n1", true);
    network.quiet.cluster.network.mend();
    network.holds("n1", false);
}
