//! Watches as plain data: every change comes once and in order, wherever the streams are cut.

use dkv_base::id::{LeaseId, NodeId};
use dkv_wire::message::{Change, Refusal, WatchFrame};
use proptest::prelude::*;
use uuid::Uuid;

use super::event_queue::Shown;
use super::position::{Located, Received};
use super::*;

const SHARDS: usize = 2;
const NODES: usize = 3;

fn change(revision: u64, key: &str) -> Change {
    let revision = Revision(revision);
    let value = (!revision.0.is_multiple_of(5)).then(|| Bytes::from(revision.to_string()));
    let version = u64::from(value.is_some());
    let stamp = Stamp(revision.0);
    let (created, lease) = (revision, LeaseId::default());
    let expiry = None;
    let version = Version { revision, created, version, stamp, value, lease, expiry };
    Change { key: Bytes::copy_from_slice(key.as_bytes()), version, previous: None }
}

fn node(number: usize) -> NodeId {
    NodeId(Uuid::from_u128(number as u128 + 1))
}

/// What happens next.
#[derive(Clone, Debug)]
enum Event {
    /// The shard's log grows by a revision with changes of that many keys, watched or not.
    Write { shard: usize, changes: usize, watched: bool },
    /// A replica applies that many further revisions.
    Apply { shard: usize, node: usize, revisions: usize },
    /// The watched replica sends a frame of that many revisions.
    Frame { shard: usize, revisions: usize },
    /// It sends what it has sent before, and a little more.
    Repeat { shard: usize, revisions: usize },
    /// It sends changes out of order.
    Disorder { shard: usize },
    /// Its stream ends, and the watch goes on at another replica.
    Cut { shard: usize, node: usize },
    /// It ends the watch in good order.
    Ended { shard: usize, node: usize },
    /// The consumer takes that many events.
    Take { events: usize },
    /// The consumer goes away, and another one goes on from its token.
    Restart,
}

fn event() -> impl Strategy<Value = Event> {
    let (shard, node) = (0..SHARDS, 0..NODES);
    prop_oneof![
        4 => (shard.clone(), 1..4_usize, any::<bool>())
            .prop_map(|(shard, changes, watched)| Event::Write { shard, changes, watched }),
        4 => (shard.clone(), node.clone(), 1..6_usize)
            .prop_map(|(shard, node, revisions)| Event::Apply { shard, node, revisions }),
        6 => (shard.clone(), 0..4_usize)
            .prop_map(|(shard, revisions)| Event::Frame { shard, revisions }),
        1 => (shard.clone(), 0..4_usize)
            .prop_map(|(shard, revisions)| Event::Repeat { shard, revisions }),
        1 => shard.clone().prop_map(|shard| Event::Disorder { shard }),
        2 => (shard.clone(), node.clone()).prop_map(|(shard, node)| Event::Cut { shard, node }),
        1 => (shard, node).prop_map(|(shard, node)| Event::Ended { shard, node }),
        4 => (0..8_usize).prop_map(|events| Event::Take { events }),
        1 => Just(Event::Restart),
    ]
}

/// A watch over shards whose replicas apply the log at different times.
struct World {
    /// The changes of each revision, from the first.
    logs: Vec<Vec<Vec<Change>>>,
    applied: [[usize; NODES]; SHARDS],
    positions: Vec<ShardPosition>,
    /// The replica that each shard's stream leads to.
    watched: [Option<usize>; SHARDS],
    shown: std::collections::VecDeque<Shown<()>>,
    queue: EventQueue<()>,
    /// What the consumers have taken.
    taken: Vec<KeyChange>,
    /// How much of that the token covers.
    covered: usize,
}

fn position(shard: usize, token: &WatchToken) -> ShardPosition {
    let shard = GroupId(shard as u32 + 1);
    let keys = KeyRange::Prefix("w".into());
    ShardPosition::new(shard, keys, false, token.revision(shard))
}

impl World {
    fn new() -> Self {
        let token: WatchToken = "1:0,2:0".parse().unwrap();
        Self {
            logs: vec![Vec::new(); SHARDS],
            applied: [[0; NODES]; SHARDS],
            positions: (0..SHARDS).map(|shard| position(shard, &token)).collect(),
            watched: [None; SHARDS],
            shown: Default::default(),
            queue: EventQueue::new(token),
            taken: Vec::new(),
            covered: 0,
        }
    }

    /// Opens a stream to a replica, unless it is behind.
    fn open(&mut self, shard: usize, node: usize) {
        let latest = Revision(self.applied[shard][node] as u64);
        let position = &self.positions[shard];
        assert!(position.handle_latest(Revision(self.logs[shard].len() as u64)).is_ok());
        let is_behind = position.through().is_some_and(|through| latest < through);
        assert_eq!(position.located(latest) == Located::Behind, is_behind);
        self.watched[shard] = (!is_behind).then_some(node);
    }

    /// Returns a frame with all revisions after one through another.
    fn frame(&self, shard: usize, after: usize, through: usize) -> WatchFrame {
        let revisions = &self.logs[shard][after..through];
        let changes = revisions.iter().flatten().filter(|change| change.key.starts_with(b"w"));
        WatchFrame::Changes {
            changes: changes.cloned().collect(),
            through: Revision(through as u64),
        }
    }

    fn receive(&mut self, shard: usize, frame: WatchFrame) {
        match self.positions[shard].handle_frame(frame) {
            Received::Changes(changes, through) => {
                let shard = GroupId(shard as u32 + 1);
                self.shown.push_back(Shown { shard, changes, through, permit: () });
            }
            Received::Nothing => {}
            Received::Elsewhere(_) | Received::Later(..) => {
                let node = self.watched[shard].take().map(node);
                self.positions[shard].failed(node);
            }
            Received::End(error) => panic!("{error}"),
        }
    }

    fn take(&mut self) -> bool {
        let event = loop {
            match self.queue.pop() {
                Some(event) => break event,
                None => match self.shown.pop_front() {
                    Some(shown) => self.queue.push(shown),
                    None => return false,
                },
            }
        };
        if let WatchEvent::Change(change) = event {
            self.taken.push(*change);
        }
        // The token covers a change once it names its revision.
        while let Some(change) = self.taken.get(self.covered)
            && self.queue.token().revision(change.shard) >= Some(change.revision)
        {
            self.covered += 1;
        }
        true
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::Write { shard, changes, watched } => {
                let revision = self.logs[shard].len() as u64 + 1;
                let prefix = if watched { "w" } else { "other" };
                let key = |number| format!("{prefix}{number}");
                let all = (0..changes).map(|number| change(revision, &key(number)));
                self.logs[shard].push(all.collect());
            }
            Event::Apply { shard, node, revisions } => {
                let applied = &mut self.applied[shard][node];
                *applied = (*applied + revisions).min(self.logs[shard].len());
            }
            Event::Frame { shard, revisions } => {
                let Some(node) = self.watched[shard] else { return };
                let after = self.positions[shard].request(None).after.unwrap().0 as usize;
                let through = (after + revisions).min(self.applied[shard][node]).max(after);
                self.receive(shard, self.frame(shard, after, through));
            }
            Event::Repeat { shard, revisions } => {
                let Some(node) = self.watched[shard] else { return };
                let after = self.positions[shard].request(None).after.unwrap().0 as usize;
                let through = (after + revisions).min(self.applied[shard][node]).max(after);
                self.receive(shard, self.frame(shard, after.saturating_sub(3), through));
            }
            Event::Disorder { shard } => {
                if self.watched[shard].is_none() {
                    return;
                }
                let changes = vec![change(900, "w1"), change(899, "w1")];
                self.receive(shard, WatchFrame::Changes { changes, through: Revision(900) });
                assert_eq!(self.watched[shard], None);
            }
            Event::Cut { shard, node: next } => {
                self.positions[shard].failed(self.watched[shard].map(node));
                self.open(shard, next);
            }
            Event::Ended { shard, node } => {
                if self.watched[shard].is_some() {
                    let ended = WatchFrame::Ended(Refusal::Unavailable("it moved".into()));
                    self.receive(shard, ended);
                    self.open(shard, node);
                }
            }
            Event::Take { events } => {
                for _ in 0..events {
                    self.take();
                }
            }
            Event::Restart => {
                // What the token does not cover comes again.
                let token: WatchToken = self.queue.token().to_string().parse().unwrap();
                let is_covered = |change: &KeyChange| {
                    token.revision(change.shard).is_some_and(|through| change.revision <= through)
                };
                self.taken.retain(is_covered);
                self.covered = self.taken.len();
                self.positions = (0..SHARDS).map(|shard| position(shard, &token)).collect();
                self.watched = [None; SHARDS];
                self.shown.clear();
                self.queue = EventQueue::new(token);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(600))]

    #[test]
    fn a_watch_misses_and_repeats_nothing(events in prop::collection::vec(event(), 0..120)) {
        let mut world = World::new();
        for event in events {
            world.handle(event);
        }
        // In the end everything is applied, sent and taken.
        for shard in 0..SHARDS {
            let all = world.logs[shard].len();
            world.applied[shard] = [all; NODES];
            world.open(shard, 0);
            let after = world.positions[shard].request(None).after.unwrap().0 as usize;
            world.receive(shard, world.frame(shard, after, all));
        }
        while world.take() {}
        prop_assert_eq!(world.covered, world.taken.len());
        for shard in 0..SHARDS {
            let id = GroupId(shard as u32 + 1);
            let of_shard = |change: &&KeyChange| change.shard == id;
            let taken: Vec<(Revision, Bytes, Option<Bytes>)> = world
                .taken
                .iter()
                .filter(of_shard)
                .map(|change| (change.revision, change.key.clone(), change.value.clone()))
                .collect();
            let expected: Vec<(Revision, Bytes, Option<Bytes>)> = world.logs[shard]
                .iter()
                .flatten()
                .filter(|change| change.key.starts_with(b"w"))
                .map(|change| {
                    let version = &change.version;
                    (version.revision, change.key.clone(), version.value.clone())
                })
                .collect();
            prop_assert_eq!(taken, expected);
        }
        for (shard, through) in world.queue.token().iter() {
            prop_assert_eq!(through.0 as usize, world.logs[shard.0 as usize - 1].len());
        }
    }

    #[test]
    fn tokens_survive_as_text(
        revisions in prop::collection::btree_map(1..2000_u32, any::<u64>(), 1..20),
    ) {
        let position = |(shard, revision)| (GroupId(shard), Revision(revision));
        let token: WatchToken = revisions.into_iter().map(position).collect();
        prop_assert_eq!(token.to_string().parse(), Ok(token));
    }
}

#[test]
fn a_watch_of_a_user_without_a_share_left_waits_as_it_is_told_and_not_for_ever() {
    let mut position = position(0, &"1:7".parse().unwrap());
    let mut pause = |retry_after_ms| {
        let limit = dkv_wire::message::LimitKind::Bytes;
        let ended = WatchFrame::Ended(Refusal::Limited { limit, retry_after_ms });
        match position.handle_frame(ended) {
            Received::Later(pause, why) if why.contains("bytes") => pause,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(pause(2500), Duration::from_millis(2500));
    assert_eq!(pause(u32::MAX), Duration::from_secs(60));
    assert_eq!((position.through(), position.avoid()), (Some(Revision(7)), vec![]));
}

#[test]
fn only_the_form_of_a_token_is_one() {
    for wrong in [
        "",
        " ",
        "1:",
        ":1",
        "a",
        "1:a",
        "-1",
        "+1",
        "1:+1",
        "01",
        "1:01",
        "01:1",
        "1:500,",
        ",1:500",
        "1:500, 2:33",
        "1:500,1:33",
        "2:33,1:500",
        "0:1",
        "2147483649:1",
        "1:500;2:33",
        "1:500\n",
        "18446744073709551616",
        "4294967297:1",
        "1:1:1",
        "0x10",
        "٣",
    ] {
        assert!(wrong.parse::<WatchToken>().is_err(), "{wrong:?}");
    }
    let plain: WatchToken = "0".parse().unwrap();
    assert_eq!((plain.plain(), plain.to_string()), (Some(Revision(0)), "0".to_owned()));
    let long = "x".repeat(10_000).parse::<WatchToken>().unwrap_err();
    assert!(long.to_string().len() < 200, "{long}");
}

#[test]
fn a_position_names_each_watched_shard() {
    let shards = [GroupId(1), GroupId(2)];
    let infos = shards.map(|group| ShardInfo {
        group,
        keyspace: Default::default(),
        first_hash: 0,
        primary: None,
        voters: Vec::new(),
        learners: Vec::new(),
    });
    let positions = |shards: &[GroupId], text: &str| {
        positions(&infos, shards, Some(&text.parse().unwrap())).map_err(|error| error.to_string())
    };
    let (one, two) = ((GroupId(1), Some(Revision(5))), (GroupId(2), Some(Revision(6))));
    assert_eq!(positions(&shards, "1:5,2:6"), Ok(vec![one, two]));
    assert_eq!(positions(&shards[..1], "1:5,2:6"), Ok(vec![one]));
    assert_eq!(positions(&shards[..1], "5"), Ok(vec![one]));
    let plain = positions(&shards, "5").unwrap_err();
    assert!(plain.contains("the keyspace has 2 shards"), "{plain}");
    let missing = positions(&shards, "1:5").unwrap_err();
    assert!(missing.contains("does not name shard 2"), "{missing}");
    let strange = positions(&shards, "1:5,2:6,9:1").unwrap_err();
    assert!(strange.contains("there is no shard 9; the shards are 1 to 2"), "{strange}");
}

#[test]
fn a_watch_ends_only_for_good_reasons() {
    let ended =
        |refusal| position(0, &"1:5".parse().unwrap()).handle_frame(WatchFrame::Ended(refusal));
    let floor = Revision(9);
    assert_eq!(ended(Refusal::Compacted { floor }), Received::End(Error::Compacted { floor }));
    assert!(matches!(ended(Refusal::Denied("no".into())), Received::End(Error::Denied(_))));
    for refusal in [
        Refusal::NotPrimary { primary: None },
        Refusal::Overloaded { retry_after_ms: 5 },
        Refusal::NotYet { asked: Revision(5), latest: Revision(4) },
        Refusal::Behind { revision: Revision(1), staleness_ms: None },
    ] {
        assert!(matches!(ended(refusal), Received::Elsewhere(_)));
    }
    // A position that the shard has not reached is of another network, or of another time.
    let position = position(0, &"1:5".parse().unwrap());
    let (asked, latest) = (Revision(5), Revision(4));
    assert_eq!(position.handle_latest(latest), Err(Error::NotYet { asked, latest }));
}

#[test]
fn failed_replicas_are_avoided_until_one_works() {
    let mut position = position(0, &"1:5".parse().unwrap());
    assert_eq!(position.failed(Some(node(0))), Duration::ZERO);
    assert!(position.failed(Some(node(1))) > Duration::ZERO);
    assert_eq!(position.avoid(), [node(0), node(1)]);
    for _ in 0..20 {
        assert!(position.failed(Some(node(1))) <= Duration::from_secs(2));
    }
    position.failed(None);
    assert_eq!(position.avoid(), []);
    position.failed(Some(node(2)));
    let frame = WatchFrame::Changes { changes: Vec::new(), through: Revision(5) };
    assert_eq!(position.handle_frame(frame), Received::Nothing);
    assert_eq!((position.avoid(), position.failed(None)), (Vec::new(), Duration::ZERO));
}

#[test]
fn later_frames_do_not_move_the_beginning_of_a_watch() {
    let mut begun = None;
    assert!(position::begin_at(&mut begun, Some(Revision(5))));
    assert!(!position::begin_at(&mut begun, Some(Revision(6))));
    assert_eq!(begun, Some(Revision(5)));
}
