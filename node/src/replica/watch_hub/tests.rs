use proptest::prelude::*;
use proptest::sample::Index as Pick;

use super::*;

/// What happens to a shard and its watchers.
#[derive(Clone, Debug)]
enum Act {
    Write(Vec<u8>),
    /// The hub takes up to so many changes.
    Follow(usize),
    /// The hub has missed how it got to the present.
    Skip,
    Remind,
    Watch(KeyRange, Option<Pick>),
    /// A watcher goes on, with pages of so many changes.
    Read(Pick, usize),
    KeepAlive(Pick),
    Leave(Pick),
}

fn key() -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(prop::sample::select(b"ab".to_vec()), 1..4)
}

fn range() -> impl Strategy<Value = KeyRange> {
    let bytes = || prop::collection::vec(prop::sample::select(b"ab".to_vec()), 0..4);
    prop_oneof![
        key().prop_map(|key| KeyRange::Key(key.into())),
        bytes().prop_map(|prefix| KeyRange::Prefix(prefix.into())),
        (bytes(), bytes()).prop_map(|(from, to)| KeyRange::Range(from.into(), to.into())),
    ]
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        6 => key().prop_map(Act::Write),
        4 => (1..4_usize).prop_map(Act::Follow),
        1 => Just(Act::Skip),
        1 => Just(Act::Remind),
        2 => (range(), any::<Option<Pick>>()).prop_map(|(keys, from)| Act::Watch(keys, from)),
        6 => (any::<Pick>(), 1..4_usize).prop_map(|(who, most)| Act::Read(who, most)),
        1 => any::<Pick>().prop_map(Act::KeepAlive),
        1 => any::<Pick>().prop_map(Act::Leave),
    ]
}

/// The changes of a shard; that at index `i` has revision `i + 1`.
#[derive(Default)]
struct Shard(Vec<Arc<[u8]>>);

impl Shard {
    fn latest(&self) -> Revision {
        Revision(self.0.len() as u64)
    }

    fn after(&self, after: Revision) -> impl Iterator<Item = (Revision, &Arc<[u8]>)> {
        let revisions = (1..).map(Revision);
        revisions.zip(&self.0).skip(after.0 as usize)
    }

    fn matching(&self, keys: &KeyRange, after: Revision, through: Revision) -> Vec<Revision> {
        let matching = self.after(after).filter(|(_, key)| keys.contains(key));
        matching.map(|(revision, _)| revision).filter(|revision| *revision <= through).collect()
    }

    fn follow(&self, watchers: &Watchers, most: usize) {
        let changes = self.after(watchers.position()).take(most);
        let changes: Vec<_> = changes.map(|(revision, key)| (revision, Arc::clone(key))).collect();
        let through = changes.last().map_or(watchers.position(), |(revision, _)| *revision);
        watchers.advance(&changes, through);
    }
}

/// A watcher as its stream serves it, and what it has seen.
struct Watching {
    watcher: Watcher,
    began: Revision,
    after: Revision,
    /// Whether it sleeps until there is news.
    sleeps: bool,
    seen: Vec<Revision>,
}

impl Watching {
    /// Goes on by one step. Returns whether it did anything.
    fn step(&mut self, shard: &Shard, most: usize) -> bool {
        if self.sleeps {
            match self.watcher.take(self.after) {
                None => return false,
                Some(News::Quiet { through }) => {
                    assert!(through > self.after);
                    self.after = through;
                    return true;
                }
                Some(News::Changed { after }) => {
                    assert!(after >= self.after);
                    (self.after, self.sleeps) = (after, false);
                }
                Some(News::ChangedAt(revisions)) => {
                    // It reads these alone, and takes it that there is nothing between them.
                    self.after = *revisions.last().unwrap();
                    self.seen.extend(revisions);
                    return true;
                }
            }
        }
        let page = shard.after(self.after).take(most);
        let through = page.last().map_or(self.after, |(revision, _)| revision);
        self.seen.extend(shard.matching(&self.watcher.keys, self.after, through));
        self.after = through;
        self.sleeps = self.after >= shard.latest();
        true
    }

    /// Checks that it has seen each change once, as far as it says.
    fn check(&self, shard: &Shard) {
        assert_eq!(self.seen, shard.matching(&self.watcher.keys, self.began, self.after));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    /// Each watcher sees every change of its keys once and in order, however its reads and the hub
    /// interleave, and sleeps only if there are none.
    #[test]
    fn a_watcher_sees_each_change_of_its_keys_once(acts in prop::collection::vec(act(), 1..120)) {
        let (watchers, mut shard) = (Arc::new(Watchers::default()), Shard::default());
        let mut all: Vec<Watching> = Vec::new();
        for act in acts {
            match act {
                Act::Write(key) => shard.0.push(Arc::from(key)),
                Act::Follow(most) => {
                    shard.follow(&watchers, most);
                    watchers.ends();
                }
                Act::Skip => watchers.skip(shard.latest()),
                Act::Remind => watchers.remind(),
                Act::Watch(keys, from) => {
                    let latest = shard.latest();
                    let (watcher, _) = watchers.register(keys, latest);
                    let began = from.map_or(latest, |from| {
                        Revision(from.index(shard.0.len() + 1) as u64)
                    });
                    let (after, seen) = (began, Vec::new());
                    all.push(Watching { watcher, began, after, sleeps: false, seen });
                }
                Act::Read(who, most) if !all.is_empty() => {
                    who.get_mut(&mut all).step(&shard, most);
                }
                Act::KeepAlive(who) if !all.is_empty() => {
                    let watching = who.get_mut(&mut all);
                    if watching.sleeps {
                        watching.after = watching.watcher.quiet_through(watching.after);
                    }
                }
                Act::Leave(who) if !all.is_empty() => {
                    all.swap_remove(who.index(all.len()));
                }
                Act::Read(..) | Act::KeepAlive(_) | Act::Leave(_) => {}
            }
            for watching in &all {
                watching.check(&shard);
            }
        }
        // Once the hub has caught up, so do they.
        shard.follow(&watchers, usize::MAX);
        for watching in &mut all {
            while watching.step(&shard, 2) {}
            let (keys, began) = (&watching.watcher.keys, watching.began);
            assert_eq!(watching.seen, shard.matching(keys, began, shard.latest()));
        }
        drop(all);
        let index = watchers.index();
        assert!(index.all.is_empty() && index.keys.is_empty() && index.prefixes.is_empty());
        assert!(index.prefix_lengths.is_empty() && index.ranges.is_empty());
    }
}

#[tokio::test]
async fn a_watcher_is_woken_for_its_own_keys_only() {
    let watchers = Arc::new(Watchers::default());
    let watch = |keys: KeyRange| watchers.register(keys, Revision(0)).0;
    let (a, b) = (watch(KeyRange::Key("a".into())), watch(KeyRange::Key("b".into())));
    let change = |revision, key: &[u8]| (Revision(revision), Arc::from(key));
    watchers.advance(&[change(1, b"a"), change(2, b"c"), change(3, b"a")], Revision(3));
    assert_eq!(a.news(Revision(0)).await, News::ChangedAt(vec![Revision(1), Revision(3)]));
    assert_eq!(b.take(Revision(0)), None);
    assert_eq!(b.quiet_through(Revision(0)), Revision(3));
    watchers.remind();
    assert_eq!(b.news(Revision(0)).await, News::Quiet { through: Revision(3) });
    // It need not look at what came before.
    watchers.advance(&[change(4, b"c"), change(9, b"b")], Revision(9));
    assert_eq!(b.news(Revision(3)).await, News::ChangedAt(vec![Revision(9)]));
    // One that is far behind looks for itself.
    let many: Vec<_> = (10..100).map(|revision| change(revision, b"b")).collect();
    watchers.advance(&many, Revision(99));
    assert_eq!(b.news(Revision(9)).await, News::Changed { after: Revision(9) });
    assert_eq!(b.take(Revision(99)), None);
}

#[tokio::test]
async fn the_task_is_needed_while_somebody_watches() {
    let watchers = Arc::new(Watchers::default());
    let (first, starts) = watchers.register(KeyRange::Prefix(Bytes::new()), Revision(7));
    assert!(starts && watchers.position() == Revision(7));
    let (second, starts) = watchers.register(KeyRange::Prefix(Bytes::new()), Revision(9));
    assert!(!starts && watchers.position() == Revision(7));
    drop(first);
    assert!(!watchers.ends());
    drop(second);
    watchers.left.notified().await;
    assert!(watchers.ends());
    let (_third, starts) = watchers.register(KeyRange::Prefix(Bytes::new()), Revision(11));
    assert!(starts && watchers.position() == Revision(11));
}

#[test]
fn the_watchers_of_a_hot_key_come_once() {
    let watchers = Arc::new(Watchers::default());
    let watch = |keys: KeyRange| watchers.register(keys, Revision(0)).0;
    let hot = || KeyRange::Key("hot".into());
    let (first, _second) = (watch(hot()), watch(hot()));
    let all = watch(KeyRange::Prefix(Bytes::new()));
    let key = |number: u64| if number.is_multiple_of(2) { &b"hot"[..] } else { b"cold" };
    let change = |number| (Revision(number), Arc::from(key(number)));
    let changes: Vec<_> = (1..=1024).map(change).collect();
    let index = watchers.index();
    let told: Vec<_> = index
        .told_of(&changes)
        .into_iter()
        .map(|(seats, revisions)| (seats.len(), revisions[0].0, revisions.len()))
        .collect();
    assert_eq!(told, [(1, 1, REVISIONS_MAX + 1), (2, 2, REVISIONS_MAX + 1)]);
    drop(index);
    watchers.advance(&changes[..100], Revision(100));
    let even: Vec<_> = (1..=50).map(|number| Revision(2 * number)).collect();
    assert_eq!(first.take(Revision(0)), Some(News::ChangedAt(even)));
    assert_eq!(all.take(Revision(0)), Some(News::Changed { after: Revision(0) }));
}
