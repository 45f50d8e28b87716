use proptest::prelude::*;

use super::*;

/// A data directory, and what its process is told to be.
#[derive(Clone, Debug)]
struct Directory {
    run: Incarnation,
}

impl Directory {
    fn new(boot: u64, mark: u64) -> Self {
        Self { run: Incarnation::default().next(BootId(boot)).open(mark) }
    }

    fn restarted(&self, boot: u64, mark: u64) -> Self {
        Self { run: self.run.next(BootId(boot)).open(mark) }
    }
}

struct Witness(IncarnationTracker<u8>);

impl Witness {
    fn new() -> Self {
        Self(IncarnationTracker::default())
    }

    /// Hears a run without having asked.
    fn observe(&mut self, directory: &Directory) -> Verdict {
        self.0.observe(1, &directory.run, None).verdict
    }

    /// Asks a run that is alive.
    fn ask(&mut self, directory: &Directory) -> Verdict {
        let question = self.0.question();
        self.0.observe(1, &directory.run, Some(question)).verdict
    }
}

fn is_older(verdict: Verdict) -> bool {
    matches!(verdict, Verdict::Older { .. })
}

fn is_twice(verdict: Verdict) -> bool {
    matches!(verdict, Verdict::Twice { .. })
}

#[test]
fn a_restart_is_sound_and_so_are_many() {
    let mut witness = Witness::new();
    let mut directory = Directory::new(1, 10);
    for boot in 2..100 {
        assert_eq!(witness.ask(&directory), Verdict::Sound);
        // What it said before it was killed comes late, or not at all.
        let last = directory.clone();
        directory = directory.restarted(boot, 10 + boot);
        assert_eq!(witness.observe(&directory), Verdict::Sound);
        witness.observe(&last);
    }
    // The witness does not hear of these.
    for boot in 100..200 {
        directory = directory.restarted(boot, 200);
    }
    assert_eq!(witness.ask(&directory), Verdict::Sound);
}

#[test]
fn a_copy_from_before_a_start_is_told_apart() {
    let mut witness = Witness::new();
    let first = Directory::new(1, 10);
    witness.ask(&first);
    let second = first.restarted(2, 20);
    assert_eq!(witness.ask(&second), Verdict::Sound);
    witness.0.advance(1, BootId(2), 30);
    // A copy from the end of the first run.
    let copy = first.restarted(3, 20);
    assert!(is_older(witness.ask(&copy)));
    // Nor does it help to start it again and again, until its numbers are larger.
    let mut again = copy;
    for boot in 4..10 {
        again = again.restarted(boot, 100);
        assert!(is_older(witness.ask(&again)), "{boot}");
    }
    assert_eq!(witness.ask(&second.restarted(11, 30)), Verdict::Sound);
}

#[test]
fn a_copy_from_within_a_run_is_told_by_its_log() {
    let mut witness = Witness::new();
    let original = Directory::new(1, 10);
    witness.ask(&original);
    let copy = original.clone();
    witness.0.advance(1, BootId(1), 50);
    assert!(is_older(witness.ask(&copy.restarted(2, 49))));
    // It writes on while it is held back, or somebody starts it without a network.
    assert!(is_older(witness.ask(&copy.restarted(2, 49).restarted(3, 70))));
    assert_eq!(witness.ask(&original.restarted(4, 50)), Verdict::Sound);
}

#[test]
fn a_copy_that_wrote_where_nobody_heard_of_it_is_told_by_what_it_began_with() {
    let original = Directory::new(1, 10);
    let mut copy = original.clone();
    copy.run.mark = 27;
    let mut witness = Witness::new();
    witness.ask(&original);
    witness.0.advance(1, BootId(1), 57);
    // It is put back with 27, and has voted until it has more than was ever heard of.
    let mut alone = copy.restarted(2, 27);
    alone.run.mark = 72;
    assert!(is_older(witness.ask(&alone)));
    for boot in 3..10 {
        alone = alone.restarted(boot, 100);
        assert!(is_older(witness.ask(&alone)), "{boot}");
    }
    assert_eq!(witness.ask(&original.restarted(20, 57)), Verdict::Sound);
}

#[test]
fn a_copy_that_was_often_started_where_nobody_heard_of_it_is_told_apart() {
    let second = Directory::new(1, 80).restarted(2, 80);
    for starts in [3, 17, 100, PAST_MAX as u64 + 10] {
        let mut witness = Witness::new();
        witness.ask(&second);
        witness.0.advance(1, BootId(2), 1000);
        let mut copy = Directory::new(1, 80);
        for start in 0..starts {
            copy = copy.restarted(100 + start, 80 + 5 * start);
        }
        copy.run.mark = 2000;
        assert!(is_older(witness.ask(&copy)), "{starts}");
    }
}

#[test]
fn a_start_that_never_opened_its_log_left_what_it_found() {
    let mut witness = Witness::new();
    let first = Directory::new(1, 10);
    witness.ask(&first);
    witness.0.advance(1, BootId(1), 50);
    let run = first.run.next(BootId(2)).next(BootId(3));
    assert_eq!(witness.ask(&Directory { run: run.clone().open(50) }), Verdict::Sound);
    let mut witness = Witness::new();
    witness.ask(&first);
    witness.0.advance(1, BootId(1), 50);
    let later = Directory { run: run.open(49) }.restarted(4, 60);
    assert!(is_older(witness.ask(&later)));
}

#[test]
fn a_directory_that_lost_everything_but_its_identity_is_told_apart() {
    let mut witness = Witness::new();
    witness.ask(&Directory::new(1, 10));
    assert!(is_older(witness.ask(&Directory::new(2, 0))));
}

#[test]
fn a_run_that_wrote_nothing_leaves_nothing_to_forget() {
    let mut witness = Witness::new();
    let first = Directory::new(1, 10);
    witness.ask(&first);
    // The directory is put back as it was, again and again.
    for boot in 2..6 {
        assert_eq!(witness.ask(&first.restarted(boot, 10)), Verdict::Sound, "{boot}");
    }
    witness.0.advance(1, BootId(5), 11);
    assert!(is_older(witness.ask(&first.restarted(6, 10))));
}

#[test]
fn who_has_met_the_copy_first_takes_the_right_directory_back() {
    let mut witness = Witness::new();
    let first = Directory::new(1, 10);
    let copy = first.restarted(2, 10).restarted(3, 10);
    assert_eq!(witness.ask(&copy), Verdict::Sound);
    let right = first.restarted(4, 50);
    assert_eq!(witness.ask(&right), Verdict::Sound);
    assert!(is_older(witness.observe(&copy)));
    assert!(is_older(witness.observe(&copy.restarted(5, 99))));
    assert_eq!(witness.ask(&right.restarted(6, 50)), Verdict::Sound);
}

#[test]
fn who_has_met_only_the_dismissed_run_takes_the_other() {
    let (mut server, mut peer) = (Witness::new(), Witness::new());
    let original = Directory::new(1, 10);
    let clone = original.restarted(2, 10);
    server.ask(&original);
    server.ask(&clone);
    peer.ask(&clone);
    let ruling = server.0.rule(1, original.run.clone(), 1);
    assert!(peer.0.obey(1, &ruling));
    assert_eq!(peer.ask(&original), Verdict::Sound);
    assert!(!peer.ask(&clone).is_sound());
}

#[test]
fn two_that_are_alive_are_refused_until_somebody_says_which() {
    let mut witness = Witness::new();
    let original = Directory::new(1, 10);
    let clone = original.restarted(2, 10);
    assert_eq!(witness.ask(&original), Verdict::Sound);
    // So far it could be a restart.
    assert_eq!(witness.ask(&clone), Verdict::Sound);
    assert!(!is_twice(witness.observe(&original)));
    let verdicts = [witness.ask(&original), witness.ask(&clone), witness.ask(&original)];
    assert!(verdicts[1..].iter().copied().all(is_twice), "{verdicts:?}");
    // That one of them is started anew says nothing.
    assert!(is_twice(witness.ask(&original.restarted(3, 10))));

    witness.0.rule(1, original.run.clone(), 1);
    assert_eq!(witness.ask(&original), Verdict::Sound);
    assert!(matches!(witness.ask(&clone), Verdict::Dismissed { .. }));
    assert!(!witness.ask(&clone.restarted(4, 20)).is_sound());
    assert_eq!(witness.ask(&original.restarted(5, 20)), Verdict::Sound);
}

#[test]
fn who_lives_on_after_its_copy_was_heard_is_one_of_two_also_when_the_copy_is_gone() {
    let mut witness = Witness::new();
    let original = Directory::new(1, 10);
    witness.ask(&original);
    // It says one thing, and is killed.
    assert_eq!(witness.observe(&original.restarted(2, 10)), Verdict::Sound);
    assert!(is_twice(witness.ask(&original)));
}

#[test]
fn a_process_that_is_put_back_with_its_machine_is_told_by_its_log() {
    let mut witness = Witness::new();
    let before = Directory::new(1, 10);
    witness.ask(&before);
    let mut after = before.clone();
    after.run.mark = 50;
    witness.ask(&after);
    witness.0.advance(1, BootId(1), 60);
    // It was sent before, and comes late.
    assert_eq!(witness.observe(&after), Verdict::Sound);
    assert!(is_older(witness.ask(&before)));
    assert!(is_older(witness.observe(&before)), "it goes on being refused");
    // Nor does it help to vote until it has as much, or to start it anew.
    for mark in [60, 70] {
        after.run.mark = mark;
        assert!(is_older(witness.ask(&after)));
    }
    assert!(is_older(witness.ask(&after.restarted(2, 70))));

    witness.0.rule(1, before.run.clone(), 1);
    assert_eq!(witness.ask(&before), Verdict::Sound);
    assert_eq!(witness.ask(&before.restarted(3, 50)), Verdict::Sound);
}

#[test]
fn the_later_of_two_may_be_kept() {
    let mut witness = Witness::new();
    let original = Directory::new(1, 10);
    let clone = original.restarted(2, 10);
    for directory in [&original, &clone, &original, &clone] {
        witness.ask(directory);
    }
    witness.0.rule(1, clone.run.clone(), 1);
    assert_eq!(witness.ask(&clone), Verdict::Sound);
    assert!(matches!(witness.ask(&original), Verdict::Dismissed { .. }));
    assert!(is_older(witness.ask(&original.restarted(3, 99))));
    assert_eq!(witness.ask(&clone.restarted(4, 10)), Verdict::Sound);
}

#[test]
fn an_older_copy_may_be_kept_and_whoever_hears_of_it_obeys_once() {
    let (mut server, mut peer) = (Witness::new(), Witness::new());
    let first = Directory::new(1, 10);
    let second = first.restarted(2, 20);
    for witness in [&mut server, &mut peer] {
        witness.ask(&first);
        witness.ask(&second);
    }
    let copy = first.restarted(3, 10);
    assert!(is_older(server.ask(&copy)) && is_older(peer.ask(&copy)));
    let ruling = server.0.rule(1, copy.run.clone(), 1);
    assert!(peer.0.obey(1, &ruling) && !peer.0.obey(1, &ruling));
    for witness in [&mut server, &mut peer] {
        assert_eq!(witness.ask(&copy), Verdict::Sound);
        assert!(matches!(witness.ask(&second), Verdict::Dismissed { .. }));
        assert!(is_older(witness.ask(&second.restarted(4, 30))));
        assert_eq!(witness.ask(&copy.restarted(5, 11)), Verdict::Sound);
    }
}

#[test]
fn the_word_given_to_a_server_that_forgot_earlier_ones_counts() {
    let (mut server, mut peer) = (Witness::new(), Witness::new());
    let original = Directory::new(1, 10);
    server.ask(&original);
    peer.ask(&original);
    let backup = server.0.records().clone();
    for now_ms in [1000, 1000, 1001] {
        assert!(peer.0.obey(1, &server.0.rule(1, original.run.clone(), now_ms)));
    }
    // The server is put back, and there is a second clone.
    let mut server = Witness(IncarnationTracker::new(backup));
    let clone = original.restarted(2, 10);
    for witness in [&mut server, &mut peer] {
        for directory in [&original, &clone, &original] {
            witness.ask(directory);
        }
        assert!(is_twice(witness.ask(&original)));
    }
    assert!(peer.0.obey(1, &server.0.rule(1, original.run.clone(), 2000)));
    assert_eq!(peer.ask(&original), Verdict::Sound);
    assert!(!peer.ask(&clone).is_sound());
}

#[test]
fn what_is_said_late_is_no_answer() {
    let mut witness = Witness::new();
    let (first, question) = (Directory::new(1, 10), witness.0.question());
    let second = first.restarted(2, 10);
    witness.ask(&second);
    witness.ask(&second);
    // It answered before it was killed, and the answer was long on its way.
    assert!(!is_twice(witness.0.observe(1, &first.run, Some(question)).verdict));
    assert_eq!(witness.ask(&second), Verdict::Sound);
    // Nor does it prove anything to claim an answer to a question that nobody has asked.
    assert!(!is_twice(witness.0.observe(1, &first.run, Some(u64::MAX)).verdict));
    assert_eq!(witness.ask(&second), Verdict::Sound);
}

/// What happens to one node: its process is killed and started, it writes, it speaks; and what it
/// said comes late, also when it is dead.
#[derive(Clone, Debug)]
enum Step {
    Restart,
    Write(u64),
    Ask,
    Say,
    Deliver(prop::sample::Index),
}

proptest! {
    #[test]
    fn a_node_that_is_killed_and_started_is_sound_whatever_comes_late(
        steps in prop::collection::vec(
            prop_oneof![
                Just(Step::Restart),
                (1..50_u64).prop_map(Step::Write),
                Just(Step::Ask),
                Just(Step::Say),
                any::<prop::sample::Index>().prop_map(Step::Deliver),
            ],
            0..200,
        ),
    ) {
        let mut witness = Witness::new();
        let mut directory = Directory::new(1, 0);
        let mut late: Vec<(Incarnation, Option<u64>)> = Vec::new();
        let mut boots = 2..;
        for step in steps {
            match step {
                Step::Restart => {
                    let boot = boots.next().unwrap_or_default();
                    directory = directory.restarted(boot, directory.run.mark);
                }
                Step::Write(frames) => directory.run.mark += frames,
                Step::Ask => prop_assert_eq!(witness.ask(&directory), Verdict::Sound),
                Step::Say => {
                    let question = witness.0.question();
                    late.push((directory.run.clone(), Some(question)));
                }
                Step::Deliver(index) if !late.is_empty() => {
                    let (run, question) = late.remove(index.index(late.len()));
                    let heard = witness.0.observe(1, &run, question);
                    prop_assert!(!is_twice(heard.verdict));
                }
                Step::Deliver(_) => {}
            }
        }
        prop_assert_eq!(witness.ask(&directory), Verdict::Sound);
    }
}

#[test]
fn a_run_that_names_as_many_as_it_may_fits_into_a_frame() {
    let most = PastIncarnation { boot: BootId(u64::MAX), left: Some(u64::MAX) };
    let (start, boot, past) = (u64::MAX, BootId(u64::MAX), vec![most; PAST_MAX]);
    let run = Incarnation { start, boot, past, opened: u64::MAX, mark: u64::MAX };
    // The rest of the message, between nodes and to the server, is small.
    assert!(crate::codec::encode(&run).len() + 512 < crate::limits::JOIN_FRAME_BYTES_MAX);
}

#[test]
fn a_decision_is_also_against_processes_of_which_nobody_knew() {
    let mut server = Witness::new();
    let before = Directory::new(1, 10);
    assert_eq!(server.ask(&before), Verdict::Sound);
    let (original, unheard) = (before.restarted(2, 20), before.restarted(3, 30));
    assert_eq!(server.ask(&original), Verdict::Sound);
    server.0.rule(1, original.run.clone(), 1);
    // It did not reach the server then, and is alive beside the one that was kept.
    for _ in 0..3 {
        assert!(is_older(server.ask(&unheard)));
        assert_eq!(server.ask(&original), Verdict::Sound);
    }
    assert!(is_older(server.ask(&unheard.restarted(4, 40))));
    // What goes on from the one that was kept does, and may be cloned again.
    let next = original.restarted(5, 50);
    assert_eq!(server.ask(&next), Verdict::Sound);
    let clone = original.restarted(6, 50);
    server.ask(&clone);
    assert!(is_twice(server.ask(&next)));
    // Long afterwards none names it any more.
    server.0.rule(1, next.run.clone(), 2);
    let mut directory = next;
    for boot in 100..300 {
        directory = directory.restarted(boot, boot);
        assert_eq!(server.ask(&directory), Verdict::Sound, "{boot}");
    }
}
