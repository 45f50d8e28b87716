//! Random networks: placement comes to rest, and never lowers what it must keep.

use dkv_wire::id::{NetworkId, NodeId};
use dkv_wire::network::Settings;
use proptest::prelude::*;

use super::super::directory::{
    Announcement, Directory, DirectoryCommand, DirectoryEntry, DirectoryResult,
};
use super::super::placement::{Liveness, Sighting, plan};
use super::{node, uuid};

const LETTERS: [char; 8] = ['a', 'b', 'c', 'd', 'e', 'f', 'g', 'h'];

#[derive(Clone, Debug)]
enum Event {
    Join(usize),
    Leave(usize),
    Retire(usize),
    See { who: usize, silent_ms: u64, member: bool },
    Plan(u8),
}

fn event() -> impl Strategy<Value = Event> {
    let who = 0..LETTERS.len();
    let silent = prop::sample::select(vec![0, 0, 10, 400_000]);
    prop_oneof![
        3 => who.clone().prop_map(Event::Join),
        1 => who.clone().prop_map(Event::Leave),
        1 => who.clone().prop_map(Event::Retire),
        5 => (who, silent, any::<bool>())
            .prop_map(|(who, silent_ms, member)| Event::See { who, silent_ms, member }),
        8 => (1..4_u8).prop_map(Event::Plan),
    ]
}

fn execute(directory: &mut Directory, command: DirectoryCommand) -> DirectoryResult {
    directory.execute(&DirectoryEntry { time_ms: 1, command })
}

fn announcement(letter: char) -> Announcement {
    let address = format!("10.0.0.{}:1", letter as u8).parse().expect("an address");
    Announcement { id: node(letter), name: letter.into(), address, region: None }
}

/// Executes one planned step after checking it against the network as it is.
fn step(
    directory: &mut Directory,
    liveness: &Liveness,
    replication: u32,
) -> Result<bool, TestCaseError> {
    let Some(command) = plan(directory, liveness, replication) else { return Ok(false) };
    let before = directory.clone();
    prop_assert_eq!(execute(directory, command.clone()), DirectoryResult::Done, "{:?}", command);
    let retiring = |id: &NodeId| before.nodes()[id].retiring;
    let live = |id: &NodeId| liveness.get(id).is_some_and(|sighting| sighting.live);
    match command {
        DirectoryCommand::SetMembers { group, voters, learners } => {
            let old = &before.groups()[&group];
            prop_assert!(!voters.is_empty());
            let coming: Vec<_> = voters.difference(&old.voters).collect();
            let going: Vec<_> = old.voters.difference(&voters).collect();
            prop_assert!(coming.len() <= 1 && going.len() <= 1, "one voter at a time");
            for id in coming {
                prop_assert!(live(id) && !retiring(id) && !before.nodes()[id].left);
            }
            for id in &going {
                let silent = liveness.get(id).is_some_and(|seen| seen.silent_ms > 300_000);
                let too_many = old.voters.len() > replication as usize;
                prop_assert!(retiring(id) || silent || too_many, "a good voter stays");
            }
            if voters.len() < old.voters.len() && old.voters.len() <= replication as usize {
                // Nobody who could vote is left out.
                prop_assert!(going.iter().all(|id| retiring(id)));
                for id in before.nodes().keys().filter(|id| !retiring(id) && live(id)) {
                    prop_assert!(voters.contains(id) || before.nodes()[id].left);
                }
            }
            let all = voters.union(&learners).count();
            let staying = before.nodes().values().filter(|member| !member.retiring).count();
            prop_assert!(all >= staying, "every node holds every group");
        }
        DirectoryCommand::Remove(id) => {
            prop_assert!(retiring(&id) && !liveness[&id].member);
            prop_assert!(before.groups().values().all(|plan| !plan.has(id)));
        }
        other => prop_assert!(false, "{:?}", other),
    }
    Ok(true)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn comes_to_rest(
        events in proptest::collection::vec(event(), 0..60),
        replication in 1..5_u32,
    ) {
        let mut directory = Directory::new();
        let settings = Settings { shards: 1, replication, ..Settings::default() };
        let create = DirectoryCommand::Create {
            network: NetworkId(uuid('N')), settings, founder: announcement('a'),
        };
        prop_assert_eq!(execute(&mut directory, create), DirectoryResult::Done);
        let started = DirectoryCommand::ShardStarted(dkv_wire::id::GroupId(1));
        prop_assert_eq!(execute(&mut directory, started), DirectoryResult::Done);
        let mut liveness = Liveness::new();
        for event in events {
            match event {
                Event::Join(who) => {
                    let announce = DirectoryCommand::Announce(announcement(LETTERS[who]));
                    execute(&mut directory, announce);
                }
                Event::Leave(who) => {
                    execute(&mut directory, DirectoryCommand::Leave(node(LETTERS[who])));
                }
                Event::Retire(who) => {
                    execute(&mut directory, DirectoryCommand::Retire(node(LETTERS[who])));
                }
                Event::See { who, silent_ms, member } => {
                    let sighting = Sighting { live: silent_ms == 0, silent_ms, member };
                    liveness.insert(node(LETTERS[who]), sighting);
                }
                Event::Plan(steps) => {
                    for _ in 0..steps {
                        step(&mut directory, &liveness, replication)?;
                    }
                }
            }
        }
        // In the end all are well, and no group counts on anyone it should not.
        let ids: Vec<_> = directory.nodes().keys().copied().collect();
        for id in ids {
            let name = char::from(id.0.as_bytes()[0]);
            execute(&mut directory, DirectoryCommand::Announce(announcement(name)));
            liveness.insert(id, Sighting { live: true, silent_ms: 0, member: false });
        }
        let mut steps = 0;
        while step(&mut directory, &liveness, replication)? {
            steps += 1;
            prop_assert!(steps < 200, "it comes to rest");
        }
        let voters = directory.nodes().len().min(replication as usize);
        for plan in directory.groups().values() {
            prop_assert_eq!(plan.voters.len(), voters);
            prop_assert_eq!(plan.voters.len() + plan.learners.len(), directory.nodes().len());
        }
        prop_assert!(directory.nodes().values().all(|member| !member.retiring));
    }
}
