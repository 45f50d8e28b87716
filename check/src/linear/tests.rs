use proptest::prelude::*;

use super::*;
use crate::history::{Condition, Current};

/// Revisions that the twin tries.
const REVISIONS: u64 = 12;

/// A key and the latest revision, as they are and not as they are known.
type Concrete = (Option<(u32, u64)>, u64);

/// All that may be after a step; by trying everything.
fn all_after((key, last): Concrete, step: Step) -> Vec<Concrete> {
    let holds = |condition| match condition {
        Condition::Always => true,
        Condition::Absent => key.is_none(),
        Condition::Present => key.is_some(),
        Condition::Revision(wanted) => key.is_some_and(|(_, revision)| revision == wanted),
    };
    let stored =
        |value: Option<u32>, revision: u64| (value.map(|value| (value, revision)), revision);
    let new_revisions = |told: Option<u64>| -> Vec<u64> {
        (last + 1..=REVISIONS).filter(|it| told.is_none_or(|told| told == *it)).collect()
    };
    let missing = |told: Option<u64>| -> Vec<Concrete> {
        let seen = told.unwrap_or(last);
        if key.is_none() && seen >= last { vec![(None, seen)] } else { Vec::new() }
    };
    match step {
        Step::Found(value, told) => {
            let fits = key.is_some_and(|(now, revision)| {
                now == value && told.is_none_or(|told| told == revision)
            });
            if fits { vec![(key, last)] } else { Vec::new() }
        }
        Step::Missing(told) => missing(told),
        Step::MissingOn(condition, told) if holds(condition) => missing(told),
        Step::MissingOn(..) => Vec::new(),
        Step::Wrote { condition, existed, .. }
            if !holds(condition) || existed.is_some_and(|it| it != key.is_some()) =>
        {
            Vec::new()
        }
        Step::Wrote { value, revision, .. } => {
            new_revisions(revision).into_iter().map(|it| stored(value, it)).collect()
        }
        Step::Conflicted(condition, _) if holds(condition) => Vec::new(),
        Step::Conflicted(_, told) => {
            let now = key.map_or(Current::Absent, |(_, revision)| Current::Revision(revision));
            if told.is_none_or(|told| told == now) { vec![(key, last)] } else { Vec::new() }
        }
        Step::Open { condition, .. } if !holds(condition) => Vec::new(),
        Step::Open { value: None, .. } if key.is_none() => Vec::new(),
        Step::Open { value, .. } => {
            new_revisions(None).into_iter().map(|it| stored(value, it)).collect()
        }
    }
}

/// Whether some order explains the operations, by trying all of them.
fn brute(left: &[Call], now: Concrete) -> bool {
    if left.iter().all(|call| call.end_ns.is_none()) {
        return true;
    }
    let until = left.iter().filter_map(|call| call.end_ns).min().unwrap();
    (0..left.len()).filter(|place| left[*place].start_ns <= until).any(|place| {
        let mut rest = left.to_vec();
        let call = rest.remove(place);
        all_after(now, call.step).into_iter().any(|next| brute(&rest, next))
    })
}

fn brute_from_anything(calls: &[Call]) -> bool {
    let keys = (0..4).flat_map(|value| (0..=REVISIONS).map(move |at| (Some((value, at)), at)));
    keys.chain([(None, 0)]).any(|start| brute(calls, start))
}

/// What somebody asks and what may become of it.
#[derive(Clone, Copy, Debug)]
struct Plan {
    verb: u8,
    value: u32,
    condition: Condition,
    /// How long before the moment at which it happens it begins, and how long after it ends.
    around: (u64, u64),
    fate: u8,
    tells_revision: bool,
    lie: u64,
}

fn plan() -> impl Strategy<Value = Plan> {
    let condition = prop_oneof![
        3 => Just(Condition::Always),
        1 => Just(Condition::Absent),
        1 => Just(Condition::Present),
        1 => (1_u64..6).prop_map(Condition::Revision),
    ];
    (
        0_u8..5,
        0_u32..3,
        condition,
        (0_u64..25, 0_u64..25),
        0_u8..12,
        prop::bool::weighted(0.7),
        0_u64..7,
    )
        .prop_map(|(verb, value, condition, around, fate, tells_revision, lie)| Plan {
            verb,
            value,
            condition,
            around,
            fate,
            tells_revision,
            lie,
        })
}

/// Runs plans one after the other on a key, ten nanoseconds apart, and notes what their clients
/// see; some of them see a lie.
fn play(plans: &[Plan]) -> Vec<Call> {
    let mut now: Concrete = (None, 0);
    let mut calls = Vec::new();
    for (turn, plan) in plans.iter().enumerate() {
        let moment = 100 + 10 * turn as u64;
        let told = |revision| plan.tells_revision.then_some(revision);
        let value = (plan.verb >= 3).then_some(plan.value);
        let condition = plan.condition;
        let open = Step::Open { value, condition };
        let step = if plan.verb < 2 {
            now.0.map_or(Step::Missing(told(now.1)), |(value, at)| Step::Found(value, told(at)))
        } else if plan.fate == 0 {
            // Never happens, and nobody knows.
            calls.push(Call { start_ns: moment - plan.around.0, end_ns: None, step: open });
            continue;
        } else {
            let existed = Some(now.0.is_some()).filter(|_| plan.tells_revision || value.is_none());
            let after = all_after(now, open);
            match after.first() {
                Some(next) => {
                    now = *next;
                    Step::Wrote { value, condition, revision: told(now.1), existed }
                }
                None if value.is_none()
                    && all_after(now, Step::MissingOn(condition, None)).len() == 1 =>
                {
                    Step::MissingOn(condition, told(now.1))
                }
                None if now.1 >= REVISIONS => continue,
                None => {
                    let current =
                        now.0.map_or(Current::Absent, |(_, revision)| Current::Revision(revision));
                    // That a revision is not some number is the one thing that is forgotten.
                    let tells = plan.tells_revision || matches!(condition, Condition::Revision(_));
                    Step::Conflicted(condition, Some(current).filter(|_| tells))
                }
            }
        };
        let step = match (plan.fate, step) {
            (1, Step::Found(value, _)) => Step::Found((value + 1) % 3, told(plan.lie)),
            (2, Step::Found(..)) => Step::Missing(told(now.1)),
            (1, Step::Missing(_)) => Step::Found(plan.value, told(plan.lie)),
            (1, Step::Wrote { value, condition, existed, .. }) => {
                Step::Wrote { value, condition, existed, revision: told(plan.lie) }
            }
            (1, Step::Conflicted(condition, _)) => {
                Step::Conflicted(condition, Some(Current::Revision(plan.lie)))
            }
            (_, step) => step,
        };
        let start_ns = moment - plan.around.0;
        let lost = plan.verb >= 2 && plan.fate >= 10;
        let end_ns = Some(moment + plan.around.1).filter(|_| !lost);
        calls.push(Call { start_ns, end_ns, step: if lost { open } else { step } });
    }
    calls
}

/// The verdict of a search that found an explanation, or none.
fn verdict(is_explained: bool) -> Verdict {
    if is_explained { Verdict::Explained } else { Verdict::Unexplained }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4000, ..ProptestConfig::default() })]

    #[test]
    fn agrees_with_trying_everything(plans in prop::collection::vec(plan(), 1..7)) {
        let calls = play(&plans);
        let expected = verdict(brute(&calls, (None, 0)));
        prop_assert_eq!(search(&calls, Register::ABSENT), expected, "{:?}", calls);
    }

    #[test]
    fn agrees_from_any_beginning(plans in prop::collection::vec(plan(), 1..5)) {
        let calls = play(&plans);
        let expected = verdict(brute_from_anything(&calls));
        prop_assert_eq!(search(&calls, Register::ANY), expected, "{:?}", calls);
    }

    #[test]
    fn a_contradiction_contradicts_itself(plans in prop::collection::vec(plan(), 1..9)) {
        let calls = play(&plans);
        let core = contradiction(&calls, Register::ABSENT);
        let fails = search(&calls, Register::ABSENT) == Verdict::Unexplained;
        prop_assert_eq!(fails, !core.is_empty());
        for left_out in &core {
            // Without any single one of them the rest makes sense, if the others are open.
            let weak = |place: usize| {
                if core.contains(&place) && place != *left_out {
                    Some(calls[place])
                } else {
                    match calls[place].step {
                        Step::Wrote { value, condition, .. } | Step::Open { value, condition } => {
                            let step = Step::Open { value, condition };
                            Some(Call { end_ns: None, step, ..calls[place] })
                        }
                        _ => None,
                    }
                }
            };
            let rest: Vec<Call> = (0..calls.len()).filter_map(weak).collect();
            prop_assert_eq!(search(&rest, Register::ANY), Verdict::Explained, "{:?} of {:?}", core, calls);
        }
    }
}

fn wrote(value: u32, revision: u64) -> Step {
    Step::Wrote {
        value: Some(value),
        condition: Condition::Always,
        revision: Some(revision),
        existed: None,
    }
}

fn open(value: u32) -> Step {
    Step::Open { value: Some(value), condition: Condition::Always }
}

fn call(start_ns: u64, end_ns: u64, step: Step) -> Call {
    Call { start_ns, end_ns: Some(end_ns), step }
}

#[test]
fn an_open_write_may_come_late_and_only_once() {
    let late = Call { start_ns: 0, end_ns: None, step: open(7) };
    let read = |start_ns, value| call(start_ns, start_ns + 1, Step::Found(value, None));
    let calls = [late, call(1, 2, wrote(1, 1)), read(3, 1), read(5, 7), read(7, 7)];
    assert_eq!(search(&calls, Register::ABSENT), Verdict::Explained);
    let twice = [calls.as_slice(), &[call(9, 10, wrote(2, 5)), read(11, 2), read(13, 7)]].concat();
    assert_eq!(search(&twice, Register::ABSENT), Verdict::Unexplained);
}

#[test]
fn hundreds_of_open_writes_cost_little() {
    // An outage in which nobody learns anything, and a read afterwards that makes no sense.
    let mut calls = vec![call(0, 1, wrote(1000, 1))];
    calls.extend((0..300).map(|number| Call {
        start_ns: 10 + u64::from(number),
        end_ns: None,
        step: open(number),
    }));
    calls.extend((0..300).map(|number| {
        call(1000 + 10 * number, 1005 + 10 * number, Step::Found(number as u32, None))
    }));
    assert_eq!(search(&calls, Register::ABSENT), Verdict::Explained);
    calls.push(call(9000, 9001, Step::Found(1000, Some(1))));
    assert_eq!(search(&calls, Register::ABSENT), Verdict::Unexplained);
    let core = contradiction(&calls, Register::ABSENT);
    assert!(core.len() <= 3, "{core:?}");
}

#[test]
fn a_long_history_with_many_at_once_is_quick() {
    let mut calls = Vec::new();
    for number in 0..20_000_u64 {
        let write = wrote(number as u32, number + 1);
        calls.push(call(100 * number, 100 * number + 1000, write));
        let seen = Step::Found(number as u32, Some(number + 1));
        calls.push(call(100 * number + 5, 100 * number + 900, seen));
    }
    assert_eq!(search(&calls, Register::ABSENT), Verdict::Explained);
    calls.push(call(3_000_000, 3_000_001, Step::Found(0, Some(1))));
    assert_eq!(search(&calls, Register::ABSENT), Verdict::Unexplained);
}
