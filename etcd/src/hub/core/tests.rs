//! Tests of the core against a stupid model: a list of all changes there ever were. Each watcher is
//! shown exactly those of its keys after its position, in order and once, whatever joins, leaves,
//! lags and restarts.

use std::ops::RangeInclusive;
use std::sync::Arc;

use bytes::Bytes;
use dkv_api::{GroupId, KeyChange, KeyRange, LeaseId, Revision, Stamp};
use proptest::prelude::*;

use super::{Bounds, Core, Interest, News, SharedChange, WatcherId};

/// Few of everything, so that rings and queues are often full.
const BOUNDS: Bounds =
    Bounds { ring_bytes: 6 * 300, queued: 4, taken_bytes: 2 * 300, looked_at: 5 };

fn change_at(revision: u64, (key, is_put): (u8, bool)) -> Arc<SharedChange> {
    Arc::new(SharedChange::new(KeyChange {
        shard: GroupId(1),
        key: Bytes::from(vec![b'a' + key]),
        value: is_put.then(|| Bytes::from_static(b"v")),
        revision: Revision(revision),
        created: Revision(revision),
        version: 1,
        stamp: Stamp::default(),
        lease: LeaseId(0),
        expiry: None,
        previous: None,
    }))
}

/// What happens. Watchers are numbers, modulo those that there are.
#[derive(Clone, Debug)]
enum Step {
    /// A revision with these changes.
    Write(Vec<(u8, bool)>),
    /// The hub reads so many revisions.
    Push(u64),
    /// The hub ends, and another one begins so many revisions before the last.
    Restart(u64),
    /// A watcher of these keys begins so many revisions after the last one; negative: before.
    Begin(KeyRange, i64, (bool, bool)),
    End(usize),
    /// A watcher that was woken takes what there is, or reads so many revisions if it is alone.
    Read(usize, u64),
    /// A watcher waits for the last revision.
    Await(usize),
    /// A watcher tells how far it is.
    Tell(usize),
}

fn steps() -> impl Strategy<Value = Step> {
    let key = || (0_u8..4).prop_map(|key| Bytes::from(vec![b'a' + key]));
    let keys = prop_oneof![
        key().prop_map(KeyRange::Key),
        key().prop_map(|from| KeyRange::Range(from, Bytes::new())),
        (0_u8..3, 1_u8..3).prop_map(|(from, more)| {
            let at = |key| Bytes::from(vec![b'a' + key]);
            KeyRange::Range(at(from), at(from + more))
        }),
    ];
    let changes = proptest::collection::vec((0_u8..4, proptest::bool::weighted(0.7)), 0..4);
    let kinds = prop_oneof![Just((true, true)), Just((true, false)), Just((false, true))];
    prop_oneof![
        6 => changes.prop_map(Step::Write),
        6 => (1_u64..4).prop_map(Step::Push),
        1 => (0_u64..3).prop_map(Step::Restart),
        3 => (keys, -6_i64..3, kinds).prop_map(|(keys, at, kinds)| Step::Begin(keys, at, kinds)),
        1 => any::<usize>().prop_map(Step::End),
        8 => (any::<usize>(), 1_u64..4).prop_map(|(watcher, read)| Step::Read(watcher, read)),
        2 => any::<usize>().prop_map(Step::Await),
        2 => any::<usize>().prop_map(Step::Tell),
    ]
}

struct World {
    /// The changes of each revision, from the first one on.
    history: Vec<Vec<Arc<SharedChange>>>,
    core: Core,
    watchers: Vec<Watcher>,
    /// How often the hub has begun anew.
    hubs: usize,
}

struct Watcher {
    interest: Interest,
    began: Revision,
    /// Its number at a hub, while it has one.
    joined: Option<(usize, WatcherId)>,
    is_awake: bool,
    awaited: Revision,
    shown: Revision,
    seen: Vec<Arc<SharedChange>>,
}

impl World {
    fn last(&self) -> u64 {
        self.history.len() as u64
    }

    fn revisions(&self, revisions: RangeInclusive<u64>) -> Vec<Vec<Arc<SharedChange>>> {
        revisions.filter_map(|at| self.history.get(at as usize - 1).cloned()).collect()
    }

    fn wake(&mut self, woken: Vec<WatcherId>) {
        for watcher in &mut self.watchers {
            if let Some((hub, id)) = watcher.joined
                && hub == self.hubs
                && woken.contains(&id)
            {
                watcher.is_awake = true;
            }
        }
    }

    fn step(&mut self, step: Step) {
        let count = self.watchers.len().max(1);
        match step {
            Step::Write(changes) => {
                let revision = self.last() + 1;
                let changes = changes.into_iter().map(|change| change_at(revision, change));
                self.history.push(changes.collect());
            }
            Step::Push(revisions) => {
                let mut woken = Vec::new();
                let through = (self.core.through.0 + revisions).min(self.last());
                for changes in self.revisions(self.core.through.0 + 1..=through) {
                    self.core.push(changes, &mut woken);
                }
                self.core.advance(Revision(through), &mut woken);
                self.wake(woken);
            }
            Step::Restart(before) => {
                let mut woken = Vec::new();
                self.core.end(&mut woken);
                self.wake(woken);
                // Those that learn of it later find the same: they have to catch up.
                for at in 0..self.watchers.len() {
                    if self.watchers[at].joined.is_some() {
                        assert!(self.watchers[at].is_awake, "everybody is woken at the end");
                        self.read(at, 1);
                        assert!(self.watchers[at].joined.is_none());
                    }
                }
                self.core = Core::new(Revision(self.last().saturating_sub(before)), BOUNDS);
                self.hubs += 1;
            }
            Step::Begin(keys, at, (puts, deletes)) => {
                let first = Revision(self.last().saturating_add_signed(at + 1));
                let began = Revision(first.0.saturating_sub(1).min(self.last()));
                let mut watcher = Watcher {
                    interest: Interest { keys, first, puts, deletes, previous: false },
                    began,
                    joined: None,
                    is_awake: true,
                    awaited: Revision(0),
                    shown: began,
                    seen: Vec::new(),
                };
                watcher.join(&mut self.core, self.hubs);
                self.watchers.push(watcher);
            }
            Step::End(at) if at % count < self.watchers.len() => {
                let watcher = self.watchers.swap_remove(at % count);
                if let Some((_, id)) = watcher.joined {
                    self.core.leave(id);
                }
            }
            Step::Read(at, read) if at % count < self.watchers.len() => self.read(at % count, read),
            Step::Await(at) if at % count < self.watchers.len() => {
                let last = Revision(self.last());
                let watcher = &mut self.watchers[at % count];
                watcher.awaited = last;
                watcher.is_awake = true;
            }
            Step::Tell(at) if at % count < self.watchers.len() => {
                let watcher = &mut self.watchers[at % count];
                if let Some((_, id)) = watcher.joined
                    && let Some(shown) = self.core.shown(id)
                {
                    watcher.shown = shown;
                }
            }
            Step::End(_) | Step::Read(..) | Step::Await(_) | Step::Tell(_) => {}
        }
    }

    fn read(&mut self, at: usize, read: u64) {
        let alone = self.watchers[at].shown.0;
        let page = self.revisions(alone + 1..=(alone + read).min(self.last()));
        let watcher = &mut self.watchers[at];
        let Some((_, id)) = watcher.joined else {
            watcher.shown.0 += page.len() as u64;
            let Interest { keys, .. } = watcher.interest.clone();
            let interest = watcher.interest.clone();
            let changes = page.into_iter().flatten();
            let changes = changes.filter(|it| keys.contains(&it.key) && interest.wants(it));
            watcher.seen.extend(changes);
            watcher.join(&mut self.core, self.hubs);
            return;
        };
        if !watcher.is_awake {
            return;
        }
        match self.core.take(id, watcher.awaited) {
            News::Changes(changes, shown) => {
                assert!(!changes.is_empty());
                watcher.seen.extend(changes);
                assert!(shown >= watcher.shown);
                watcher.shown = shown;
            }
            News::Progress(shown) => {
                assert!(shown >= watcher.awaited && shown > watcher.shown);
                watcher.shown = shown;
            }
            News::Nothing => watcher.is_awake = false,
            News::Lost(shown) => {
                assert!(shown >= watcher.shown);
                watcher.shown = shown;
                self.core.leave(id);
                watcher.joined = None;
            }
        }
    }

    /// Checks that each watcher has seen exactly what it was told to have.
    fn check(&self) {
        for watcher in &self.watchers {
            let due = self.revisions(watcher.began.0 + 1..=watcher.shown.0).into_iter().flatten();
            let due = due.filter(|change| {
                watcher.interest.keys.contains(&change.key) && watcher.interest.wants(change)
            });
            let due: Vec<_> = due.collect();
            assert_eq!(watcher.seen.len(), due.len(), "through {:?}", watcher.shown);
            assert!(watcher.seen.iter().zip(&due).all(|(seen, due)| Arc::ptr_eq(seen, due)));
            if watcher.joined.is_some() && !watcher.is_awake {
                let next = watcher.began.max(watcher.shown).0 + 1;
                let mut missed = self.revisions(next..=self.core.through.0).into_iter().flatten();
                assert!(missed.all(|change| {
                    !watcher.interest.keys.contains(&change.key) || !watcher.interest.wants(&change)
                }));
                let awaited = watcher.awaited;
                assert!(watcher.shown >= awaited || awaited > self.core.through);
            }
        }
        assert!(self.core.ring.len() <= 6 + 3, "the ring is bounded");
    }

    /// Lets everybody read to the end, by their wake-ups alone.
    fn finish(&mut self) {
        self.step(Step::Push(u64::MAX / 2));
        let last = Revision(self.last());
        for at in 0..self.watchers.len() {
            for _ in 0..1000 {
                self.read(at, 3);
            }
            let watcher = &self.watchers[at];
            let due = self.history.iter().flatten().filter(|change| {
                change.revision > watcher.began
                    && watcher.interest.keys.contains(&change.key)
                    && watcher.interest.wants(change)
            });
            assert_eq!(watcher.seen.len(), due.count(), "nothing is forgotten");
            self.step(Step::Await(at));
            self.read(at, 3);
            assert!(self.watchers[at].shown >= last, "everybody learns how far it is");
        }
    }
}

impl Watcher {
    fn join(&mut self, core: &mut Core, hub: usize) {
        if let Some(id) = core.join(self.interest.clone(), self.shown) {
            self.joined = Some((hub, id));
            self.is_awake = true;
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]
    #[test]
    fn each_watcher_is_shown_its_changes_in_order_and_once(
        steps in proptest::collection::vec(steps(), 1..120)
    ) {
        let core = Core::new(Revision(0), BOUNDS);
        let mut world = World { history: Vec::new(), core, watchers: Vec::new(), hubs: 0 };
        for step in steps {
            world.step(step);
            world.check();
        }
        world.finish();
        world.check();
        for watcher in std::mem::take(&mut world.watchers) {
            if let Some((_, id)) = watcher.joined {
                world.core.leave(id);
            }
        }
        let Core { watchers, behind, waiting, lost, .. } = &world.core;
        prop_assert!(watchers.is_empty() && behind.is_empty() && waiting.is_empty());
        prop_assert_eq!(*lost, 0);
    }
}

fn all() -> Interest {
    let keys = KeyRange::Range(Bytes::from_static(b"a"), Bytes::new());
    Interest { keys, first: Revision(0), puts: true, deletes: true, previous: false }
}

#[test]
fn a_watcher_that_does_not_read_is_lost_and_holds_up_nobody() {
    let mut core = Core::new(Revision(10), BOUNDS);
    assert!(core.join(all(), Revision(9)).is_none(), "the hub does not have revision 10");
    let slow = core.join(all(), Revision(10)).unwrap();
    let quick = core.join(all(), Revision(12)).unwrap();
    for revision in 11..=20 {
        let mut woken = Vec::new();
        core.push(vec![change_at(revision, (0, true))], &mut woken);
        assert_eq!(woken.contains(&quick), revision > 12);
        if revision > 12 {
            let News::Changes(changes, shown) = core.take(quick, Revision(0)) else { panic!() };
            assert_eq!((changes.len(), shown), (1, Revision(revision)));
        }
    }
    assert!(matches!(core.take(slow, Revision(0)), News::Lost(Revision(10))));
}

#[test]
fn who_wants_versions_before_that_the_hub_lacks_gets_them_alone() {
    let mut core = Core::new(Revision(0), BOUNDS);
    let wanting = core.join(Interest { previous: true, ..all() }, Revision(0)).unwrap();
    let other = core.join(all(), Revision(0)).unwrap();
    core.push(vec![change_at(1, (0, true))], &mut Vec::new());
    assert!(matches!(core.take(wanting, Revision(0)), News::Changes(_, Revision(1))));
    // A deletion has a version before.
    core.push(vec![change_at(2, (0, false))], &mut Vec::new());
    assert!(matches!(core.take(wanting, Revision(0)), News::Lost(Revision(1))));
    assert!(matches!(core.take(other, Revision(0)), News::Changes(_, Revision(2))));
    let interest = Interest { previous: true, ..all() };
    assert!(core.join(interest.clone(), Revision(1)).is_none());
    assert!(core.join(interest, Revision(2)).is_some());
}

#[test]
fn who_joins_has_room_for_what_comes_next() {
    let mut core = Core::new(Revision(0), BOUNDS);
    for revision in 1..=6 {
        core.push(vec![change_at(revision, (0, true))], &mut Vec::new());
    }
    assert!(core.join(all(), Revision(3)).is_none(), "three of at most four wait");
    let id = core.join(all(), Revision(4)).unwrap();
    core.push(vec![change_at(7, (0, true))], &mut Vec::new());
    assert!(matches!(core.take(id, Revision(0)), News::Changes(..)));
    // Nor does a look at what it missed take long, whatever it is.
    let keys = KeyRange::Key(Bytes::from_static(b"z"));
    let far = Interest { keys, ..all() };
    assert!(core.join(far.clone(), Revision(1)).is_none());
    assert!(core.join(far, Revision(2)).is_some());
}

#[test]
fn a_long_revision_stays_whole() {
    let mut core = Core::new(Revision(0), BOUNDS);
    let id = core.join(all(), Revision(0)).unwrap();
    core.push((0..50).map(|_| change_at(1, (0, true))).collect(), &mut Vec::new());
    let News::Changes(changes, Revision(1)) = core.take(id, Revision(0)) else { panic!() };
    assert_eq!(changes.len(), 50);
    // It is beyond the bounds of the ring, and is there until the next one comes.
    core.push(vec![change_at(2, (0, true))], &mut Vec::new());
    assert!(core.join(all(), Revision(0)).is_none());
    assert!(core.join(all(), Revision(1)).is_some());
}

#[test]
fn a_quiet_watcher_that_is_lost_goes_on_where_its_changes_begin() {
    let mut core = Core::new(Revision(0), BOUNDS);
    let keys = KeyRange::Key(Bytes::from_static(b"b"));
    let id = core.join(Interest { keys, ..all() }, Revision(0)).unwrap();
    let mut push = |revision, key| core.push(vec![change_at(revision, (key, true))], &mut vec![]);
    // The history before its first change may be compacted by now.
    (1..100).for_each(|revision| push(revision, 0));
    (100..110).for_each(|revision| push(revision, 1));
    assert!(matches!(core.take(id, Revision(0)), News::Lost(Revision(99))));
    let id = core.join(all(), Revision(109)).unwrap();
    core.advance(Revision(200), &mut vec![]);
    core.end(&mut vec![]);
    assert!(matches!(core.take(id, Revision(0)), News::Lost(Revision(200))));
    assert!(core.join(all(), Revision(200)).is_none(), "it has ended");
}
