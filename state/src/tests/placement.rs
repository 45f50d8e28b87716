//! Random networks: placement comes to rest, spreads replicas and primaries, and never lowers the
//! redundancy that it must preserve.

use std::collections::{BTreeMap, BTreeSet};

use dkv_base::id::{GroupId, NetworkId, NodeId, Term};
use dkv_wire::network::Settings;
use proptest::prelude::*;

use super::super::directory::{
    Announcement, Directory, DirectoryCommand, DirectoryEntry, DirectoryResult,
};
use super::super::placement::{
    Balance, GroupMeasure, Measured, NodeMeasure, NodeReport, forecast, plan, transfer,
};
use super::{node, uuid};

/// A network: the actual one, and the planned one.
struct World {
    directory: Directory,
    measured: Measured,
    replication: usize,
}

impl World {
    /// Creates a network with one node, `a`, that holds everything.
    fn new(shards: u32, replication: u32) -> Self {
        let settings = Settings { shards, replication, ..Settings::default() };
        let mut world = Self {
            directory: Directory::new(),
            measured: Measured::default(),
            replication: replication as usize,
        };
        let founder = announcement('a');
        let network = NetworkId(uuid('N'));
        assert!(world.execute(DirectoryCommand::Create { network, settings, founder }));
        for shard in 1..=shards {
            assert!(world.execute(DirectoryCommand::ShardStarted(GroupId(shard))));
        }
        for group in 0..=shards {
            let measure = GroupMeasure {
                leader: node('a'),
                term: Term(1),
                voters: BTreeSet::from([node('a')]),
                learners: BTreeSet::new(),
                is_joint: false,
                is_changing: false,
                ready: BTreeSet::new(),
                bytes: 0,
            };
            world.measured.groups.insert(GroupId(group), measure);
        }
        world.see('a', 0);
        world
    }

    fn execute(&mut self, command: DirectoryCommand) -> bool {
        let entry = DirectoryEntry { time_ms: 1, command };
        self.directory.execute(&entry) == DirectoryResult::Done
    }

    fn join(&mut self, letter: char) {
        self.join_in(letter, None);
    }

    fn join_in(&mut self, letter: char, region: Option<&str>) {
        let region = region.map(|name| name.parse().expect("a region"));
        let announcement = Announcement { region, ..announcement(letter) };
        assert!(self.execute(DirectoryCommand::Announce(announcement)));
        self.see(letter, 0);
    }

    fn see(&mut self, letter: char, silent_ms: u64) {
        let report = Some(NodeReport {
            holds: BTreeSet::new(),
            free_bytes: u64::MAX,
            ..NodeReport::default()
        });
        let seen = NodeMeasure { live: silent_ms == 0, silent_ms, report };
        self.measured.nodes.insert(node(letter), seen);
    }

    /// Carries out the plan for a group.
    fn arrive(&mut self, group: GroupId) {
        let plan = &self.directory.groups()[&group];
        let Some(actual) = self.measured.groups.get_mut(&group) else { return };
        actual.voters.clone_from(&plan.voters);
        actual.learners.clone_from(&plan.learners);
        actual.ready.clone_from(&plan.voters);
        if !actual.voters.contains(&actual.leader) {
            actual.leader = *actual.voters.first().expect("a group has voters");
        }
    }

    fn live(&self, id: NodeId) -> bool {
        self.measured.nodes.get(&id).is_some_and(|seen| seen.live)
    }

    /// Executes one planned step after checking it against the actual network.
    fn step(&mut self, balance: Balance) -> Result<Option<DirectoryCommand>, TestCaseError> {
        let Some(command) = plan(&self.directory, &self.measured, balance) else { return Ok(None) };
        let before = self.directory.clone();
        prop_assert!(self.execute(command.clone()), "{:?}", command);
        match &command {
            DirectoryCommand::SetMembers { group, voters, learners } => {
                self.check_wish(&before, *group, voters, learners)?;
            }
            DirectoryCommand::Remove(id) => {
                prop_assert!(before.nodes()[id].retiring);
                prop_assert!(before.groups().values().all(|plan| !plan.has(*id)));
                prop_assert!(self.measured.groups.values().all(|actual| !actual.has(*id)));
            }
            other => prop_assert!(false, "{:?}", other),
        }
        Ok(Some(command))
    }

    fn check_wish(
        &self,
        before: &Directory,
        group: GroupId,
        voters: &BTreeSet<NodeId>,
        learners: &BTreeSet<NodeId>,
    ) -> Result<(), TestCaseError> {
        let old = &before.groups()[&group];
        let member = |id: &NodeId| &before.nodes()[id];
        prop_assert!(!voters.is_empty());
        let coming: Vec<_> = voters.difference(&old.voters).collect();
        let going: Vec<_> = old.voters.difference(voters).collect();
        prop_assert!(coming.len() <= 1 && going.len() <= 1, "one voter at a time");
        for id in &coming {
            let stays = !member(id).retiring && !member(id).draining && !member(id).left;
            prop_assert!(self.live(**id) && stays, "a good node takes a place");
        }
        if group == GroupId::CONTROL {
            let staying = before.nodes().values().filter(|member| !member.retiring).count();
            prop_assert!(voters.union(learners).count() >= staying, "everybody has the directory");
            let members = old.voters.union(&old.learners);
            for id in members.filter(|id| !voters.contains(id) && !learners.contains(id)) {
                let shards = before.groups().iter().filter(|(group, _)| group.is_shard());
                let mut counts = shards.map(|(group, plan)| {
                    plan.has(*id) || self.measured.groups.get(group).is_none_or(|it| it.has(*id))
                });
                prop_assert!(counts.all(|counts| !counts), "a shard counts on it");
            }
            return Ok(());
        }
        prop_assert!(learners.is_empty());
        let actual = &self.measured.groups[&group];
        if actual.voters != old.voters {
            // Before a plan is complete, only its lost voters are replaced.
            prop_assert!(going.iter().all(|id| !actual.voters.contains(id)));
            return Ok(());
        }
        if voters.len() < old.voters.len() {
            // Every node that could vote does.
            prop_assert!(going.iter().all(|id| member(id).retiring));
            for id in before.nodes().keys().filter(|id| self.live(**id)) {
                let it = member(id);
                prop_assert!(voters.contains(id) || it.retiring || it.left || it.draining);
            }
        }
        Ok(())
    }

    /// Takes steps, carrying out each one, until there are none left.
    fn settle(&mut self, balance: Balance) -> Result<Vec<Moved>, TestCaseError> {
        let mut moved = Vec::new();
        let groups: Vec<GroupId> = self.directory.groups().keys().copied().collect();
        groups.iter().for_each(|group| self.arrive(*group));
        for _ in 0..10_000 {
            let before = self.directory.clone();
            let Some(command) = self.step(balance)? else { return Ok(moved) };
            if let DirectoryCommand::SetMembers { group, voters, .. } = command {
                let old = &before.groups()[&group].voters;
                let first =
                    |nodes: &BTreeSet<NodeId>, others| nodes.difference(others).next().copied();
                if group.is_shard() {
                    moved.push(Moved { from: first(old, &voters), to: first(&voters, old) });
                }
                self.arrive(group);
            }
        }
        Err(TestCaseError::fail("it does not come to rest"))
    }

    /// Returns the number of replicas by node.
    fn counts(&self) -> BTreeMap<NodeId, usize> {
        let mut counts: BTreeMap<_, _> = self.directory.nodes().keys().map(|id| (*id, 0)).collect();
        let shards = self.directory.groups().iter().filter(|(group, _)| group.is_shard());
        for node in shards.flat_map(|(_, plan)| &plan.voters) {
            *counts.entry(*node).or_default() += 1;
        }
        counts
    }

    fn led(&self) -> BTreeMap<NodeId, usize> {
        let mut led: BTreeMap<_, _> = self.directory.nodes().keys().map(|id| (*id, 0)).collect();
        for (_, actual) in self.measured.groups.iter().filter(|(group, _)| group.is_shard()) {
            *led.entry(actual.leader).or_default() += 1;
        }
        led
    }
}

struct Moved {
    from: Option<NodeId>,
    to: Option<NodeId>,
}

fn announcement(letter: char) -> Announcement {
    let address = format!("10.0.0.{}:1", letter as u8).parse().expect("an address");
    Announcement { id: node(letter), name: letter.into(), address, region: None }
}

fn letters(count: u8) -> impl Iterator<Item = char> {
    (b'a'..b'a' + count).map(char::from)
}

/// Creates a network of this many nodes that is at rest.
fn network(nodes: u8, shards: u32, replication: u32) -> Result<World, TestCaseError> {
    let mut world = World::new(shards, replication);
    for letter in letters(nodes).skip(1) {
        world.join(letter);
    }
    world.settle(Balance::Gentle)?;
    Ok(world)
}

fn is_even(counts: &BTreeMap<NodeId, usize>) -> bool {
    let (least, most) = (counts.values().min(), counts.values().max());
    least.zip(most).is_none_or(|(least, most)| most - least <= 1)
}

#[derive(Clone, Debug)]
enum Event {
    Join(char),
    Leave(char),
    Retire(char),
    Drain(char, bool),
    See(char, u64),
    Plan(u8, Balance),
    Arrive(u32),
}

fn event() -> impl Strategy<Value = Event> {
    let who = || prop::sample::select(letters(8).collect::<Vec<_>>());
    let silent = prop::sample::select(vec![0, 0, 10, 6000, 400_000]);
    let balance = prop::sample::select(vec![Balance::Off, Balance::Gentle, Balance::Eager]);
    prop_oneof![
        3 => who().prop_map(Event::Join),
        1 => who().prop_map(Event::Leave),
        1 => who().prop_map(Event::Retire),
        1 => (who(), any::<bool>()).prop_map(|(who, on)| Event::Drain(who, on)),
        5 => (who(), silent).prop_map(|(who, silent_ms)| Event::See(who, silent_ms)),
        8 => (1..4_u8, balance).prop_map(|(steps, balance)| Event::Plan(steps, balance)),
        8 => (0..4_u32).prop_map(Event::Arrive),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(600))]

    #[test]
    fn comes_to_rest_whatever_happened(
        events in proptest::collection::vec(event(), 0..80),
        replication in 1..5_u32,
    ) {
        let mut world = World::new(3, replication);
        for event in events {
            match event {
                Event::Join(who) => {
                    world.execute(DirectoryCommand::Announce(announcement(who)));
                }
                Event::Leave(who) => {
                    world.execute(DirectoryCommand::Leave(node(who)));
                }
                Event::Retire(who) => {
                    world.execute(DirectoryCommand::Retire(node(who)));
                }
                Event::Drain(who, on) => {
                    world.execute(DirectoryCommand::Drain { node: node(who), on });
                }
                Event::See(who, silent_ms) => world.see(who, silent_ms),
                Event::Plan(steps, balance) => {
                    for _ in 0..steps {
                        world.step(balance)?;
                    }
                }
                Event::Arrive(group) => world.arrive(GroupId(group)),
            }
        }
        // In the end all nodes are well.
        let ids: Vec<_> = world.directory.nodes().keys().copied().collect();
        for id in ids {
            let name = char::from(id.0.as_bytes()[0]);
            world.execute(DirectoryCommand::Announce(announcement(name)));
            world.execute(DirectoryCommand::Drain { node: id, on: false });
            world.see(name, 0);
        }
        world.settle(Balance::Gentle)?;
        let nodes = world.directory.nodes();
        for (group, plan) in world.directory.groups() {
            let replication = world.replication;
            let target = if group.is_shard() { replication } else { replication.clamp(3, 5) };
            prop_assert_eq!(plan.voters.len(), nodes.len().min(target));
        }
        prop_assert!(nodes.values().all(|member| !member.retiring));
        prop_assert!(is_even(&world.counts()), "{:?}", world.counts());
    }

    #[test]
    fn a_node_that_joins_takes_its_share_and_nothing_else_moves(
        nodes in 1..9_u8,
        shards in prop::sample::select(vec![1, 3, 16, 64]),
        replication in 1..4_u32,
    ) {
        let mut world = network(nodes, shards, replication)?;
        prop_assert!(is_even(&world.counts()), "{:?}", world.counts());
        let newcomer = char::from(b'a' + nodes);
        world.join(newcomer);
        let foreseen = forecast(&world.directory, &world.measured, Balance::Gentle);
        let moved = world.settle(Balance::Gentle)?;
        prop_assert_eq!(foreseen.moves.len(), moved.len());
        // If there were too few nodes before, each shard gets the replica that it lacked on this
        // one.
        let voters = replication.min(nodes.into()) * shards;
        let lacked = u32::from(nodes) < replication;
        let ideal = if lacked { shards } else { voters / u32::from(nodes + 1) };
        let taken = moved.len() as u32;
        let is_fair = taken >= ideal.saturating_sub(1) && taken <= ideal + 1;
        prop_assert!(is_fair, "{} of {}", taken, ideal);
        prop_assert!(moved.iter().all(|it| it.to == Some(node(newcomer))));
        prop_assert!(is_even(&world.counts()), "{:?}", world.counts());
    }

    #[test]
    fn a_node_that_is_drained_is_emptied_and_nothing_else_moves(
        nodes in 2..9_u8,
        shards in prop::sample::select(vec![1, 3, 16, 64]),
        replication in 1..4_u32,
        drained in 0..9_u8,
    ) {
        let mut world = network(nodes, shards, replication)?;
        let drained = node(char::from(b'a' + drained % nodes));
        let held = world.counts()[&drained];
        let done = world.execute(DirectoryCommand::Drain { node: drained, on: true });
        prop_assert!(done);
        let moved = world.settle(Balance::Gentle)?;
        if u32::from(nodes) > replication {
            // The least loaded node may already have a replica of every shard that is left; then a
            // few more replicas move.
            let others = moved.iter().filter(|it| it.from != Some(drained)).count();
            prop_assert_eq!(moved.len() - others, held);
            prop_assert!(others <= 1 + held / 3, "{} besides {}", others, held);
            let mut counts = world.counts();
            prop_assert_eq!(counts.remove(&drained), Some(0));
            prop_assert!(is_even(&counts), "{:?}", counts);
        } else {
            prop_assert!(moved.is_empty(), "there is nowhere to go");
        }
    }

    #[test]
    fn primaries_are_spread(
        nodes in 1..9_u8,
        shards in prop::sample::select(vec![1, 3, 16, 64]),
        replication in 1..4_u32,
        leaders in proptest::collection::vec(any::<prop::sample::Index>(), 64),
    ) {
        let mut world = network(nodes, shards, replication)?;
        for (shard, leader) in (1..=shards).zip(leaders) {
            let actual = world.measured.groups.get_mut(&GroupId(shard)).expect("measured");
            let voters: Vec<_> = actual.voters.iter().copied().collect();
            actual.leader = *leader.get(&voters);
        }
        let mut transfers = 0;
        while let Some(next) = transfer(&world.directory, &world.measured) {
            let actual = world.measured.groups.get_mut(&next.group).expect("measured");
            prop_assert!(actual.leader == next.from && actual.voters.contains(&next.to));
            actual.leader = next.to;
            transfers += 1;
            prop_assert!(transfers <= 4 * shards, "it comes to rest");
        }
        prop_assert!(is_even(&world.led()), "{:?}", world.led());
    }

    #[test]
    fn bytes_are_evened_out(
        nodes in 2..6_u8,
        sizes in proptest::collection::vec(1..50_u64, 32),
    ) {
        let mut world = network(nodes, 32, 1)?;
        for (shard, megabytes) in (1..=32).zip(&sizes) {
            let actual = world.measured.groups.get_mut(&GroupId(shard)).expect("measured");
            actual.bytes = megabytes << 20;
        }
        world.settle(Balance::Gentle)?;
        let mut bytes: BTreeMap<NodeId, u64> = BTreeMap::new();
        for (group, plan) in world.directory.groups().iter().filter(|(group, _)| group.is_shard()) {
            for node in &plan.voters {
                *bytes.entry(*node).or_default() += world.measured.groups[group].bytes;
            }
        }
        // One replica more is worth the bytes of a mean shard less, so no node is far from the
        // mean.
        let mean = (sizes.iter().sum::<u64>() / u64::from(nodes)) << 20;
        let most = bytes.values().max().copied().unwrap_or_default();
        prop_assert!(most < mean + mean / 2 + (60 << 20), "{:?}", bytes);
    }

    #[test]
    fn replicas_and_primaries_are_spread_over_regions(
        sizes in proptest::collection::vec(1..4_u8, 2..4),
        shards in prop::sample::select(vec![3, 12]),
        replication in 1..4_u32,
    ) {
        let regions = ["eu", "us", "asia"];
        let mut world = World::new(shards, replication);
        let mut letters = letters(sizes.iter().sum());
        for (region, size) in regions.iter().zip(&sizes) {
            for letter in letters.by_ref().take((*size).into()) {
                world.join_in(letter, Some(region));
            }
        }
        world.settle(Balance::Gentle)?;
        let region = |id: &NodeId| world.directory.nodes()[id].region_name().to_owned();
        let count = |nodes: &BTreeSet<NodeId>| {
            let mut counts: BTreeMap<String, usize> = BTreeMap::new();
            for node in nodes {
                *counts.entry(region(node)).or_default() += 1;
            }
            counts.into_values().max().unwrap_or_default()
        };
        // The number of replicas in one region if every region had enough nodes; checked only if
        // they do.
        let ideal = (replication as usize).div_ceil(sizes.len());
        let roomy = sizes.iter().all(|size| usize::from(*size) >= ideal);
        for plan in world.directory.groups().values() {
            let control = plan.voters.len() != replication as usize;
            prop_assert!(control || !roomy || count(&plan.voters) <= ideal, "{:?}", plan.voters);
        }
        let mut transfers = 0;
        let mut measured = world.measured.clone();
        while let Some(next) = transfer(&world.directory, &measured) {
            measured.groups.get_mut(&next.group).expect("measured").leader = next.to;
            transfers += 1;
            prop_assert!(transfers <= 4 * shards, "it comes to rest");
        }
        let mut led: BTreeMap<String, usize> = BTreeMap::new();
        for (_, actual) in measured.groups.iter().filter(|(group, _)| group.is_shard()) {
            *led.entry(region(&actual.leader)).or_default() += 1;
        }
        // If each region has a replica of each shard, each region leads its share.
        if replication as usize >= sizes.len() && roomy {
            let (least, most) = (led.values().min(), led.values().max());
            prop_assert!(led.len() == sizes.len());
            prop_assert!(least.zip(most).is_some_and(|(least, most)| most - least <= 1), "{:?}", led);
        }
    }
}
