//! The outbox against a list that forgets nothing, over a log that may crash at any step.

use proptest::prelude::*;
use uuid::Uuid;

use super::*;

const ME: NodeId = NodeId(Uuid::from_u128(7));

#[derive(Clone, Debug)]
enum Step {
    Deposit {
        key: u8,
        stamp: u64,
        value: Option<u8>,
    },
    /// The given number of the oldest writes on their way to the log arrive there.
    Sync(usize),
    /// Everything that is not durable is lost; all else is read back.
    Crash,
    /// The primary acknowledges up to the given number of writes.
    Send(usize),
    /// The replica here catches up with the primary.
    Settle,
    /// The log is to be shortened; whether it takes the records, and whether the purge gets there
    /// too.
    Rewrite {
        bytes_max: usize,
        taken: bool,
        purged: bool,
    },
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0..3_u8, 1..50_u64, any::<Option<u8>>())
            .prop_map(|(key, stamp, value)| Step::Deposit { key, stamp, value }),
        4 => (0..4_usize).prop_map(Step::Sync),
        1 => Just(Step::Crash),
        2 => (0..4_usize).prop_map(Step::Send),
        2 => Just(Step::Settle),
        1 => (1..2000_usize, any::<bool>(), any::<bool>()).prop_map(|(bytes_max, taken, purged)| {
            Step::Rewrite { bytes_max, taken, purged }
        }),
    ]
}

/// A log as the outbox uses it.
#[derive(Default)]
struct Log {
    durable: Vec<(u64, Bytes)>,
    under_way: VecDeque<(u64, Bytes)>,
    next: u64,
    purged: u64,
    mark: Option<Bytes>,
}

impl Log {
    fn append(&mut self, index: u64, record: Bytes) {
        assert_eq!(index, self.next, "indexes follow each other");
        self.next += 1;
        self.under_way.push_back((index, record));
    }

    fn purge(&mut self, (upto, mark): (u64, Bytes)) {
        assert!(upto < self.next, "only what is there is purged");
        self.durable.retain(|(index, _)| *index > upto);
        self.purged = self.purged.max(upto);
        self.mark = Some(mark);
    }
}

/// One write, for the twin.
#[derive(Clone, Debug, PartialEq)]
struct Deposit {
    number: u64,
    stamp: u64,
    key: u8,
    value: Option<u8>,
    durable: bool,
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn nothing_durable_is_lost_and_nothing_is_sent_out_of_order(
        steps in proptest::collection::vec(step(), 1..80),
    ) {
        let mut log = Log { next: 1, ..Log::default() };
        let mut ledger = Ledger::load(ME, 1, Vec::new(), None, Duration::ZERO).unwrap();
        // Every write ever accepted; the last that the primary took; the last that is settled.
        let mut twin: Vec<Deposit> = Vec::new();
        let (mut taken, mut settled) = (0_u64, 0_u64);
        for step in steps {
            match step {
                Step::Deposit { key, stamp, value } => {
                    let bytes = value.map(|value| Bytes::from(vec![value]));
                    let key_bytes = Bytes::from(vec![key]);
                    let append = ledger.stage(Stamp(stamp), &key_bytes, bytes.as_ref());
                    let number = append.number.0;
                    prop_assert_eq!(number, twin.last().map_or(0, |last| last.number) + 1);
                    log.append(append.index, append.command);
                    twin.push(Deposit { number, stamp, key, value, durable: false });
                }
                Step::Sync(count) => {
                    for _ in 0..count.min(log.under_way.len()) {
                        log.durable.extend(log.under_way.pop_front());
                        ledger.durable();
                        let next = twin.iter_mut().find(|deposit| !deposit.durable);
                        next.unwrap().durable = true;
                    }
                }
                Step::Crash => {
                    log.under_way.clear();
                    twin.retain(|deposit| deposit.durable);
                    let last = log.durable.last().map_or(0, |(index, _)| *index);
                    log.next = last.max(log.purged) + 1;
                    let records = log.durable.clone();
                    let mark = log.mark.as_deref();
                    ledger = Ledger::load(ME, log.next, records, mark, Duration::ZERO).unwrap();
                    // The progress of the replica here is known after a restart too.
                    if let Some(purge) = ledger.settle(Number(settled)) {
                        log.purge(purge);
                    }
                }
                Step::Send(count) => {
                    for (number, _) in ledger.window(count, usize::MAX) {
                        // The shard takes the next number, and recognises those that it has.
                        prop_assert!(number.0 <= taken + 1, "{} after {}", number.0, taken);
                        taken = taken.max(number.0);
                        ledger.sent(number);
                    }
                }
                Step::Settle => {
                    settled = taken;
                    if let Some(purge) = ledger.settle(Number(settled)) {
                        log.purge(purge);
                    }
                }
                Step::Rewrite { bytes_max, taken: log_takes, purged } => {
                    let moved = ledger.rewrite(bytes_max);
                    if !log_takes {
                        ledger.stay(moved);
                    } else if !moved.is_empty() {
                        for record in moved {
                            log.append(record.to, record.command);
                            log.durable.extend(log.under_way.pop_front());
                        }
                        if purged {
                            log.purge(ledger.purgeable());
                        }
                    }
                }
            }
            let here: Vec<&Deposit> =
                twin.iter().filter(|it| it.durable && it.number > settled).collect();
            prop_assert_eq!(ledger.len(), here.len());
            let span = Span {
                prefix: Bytes::new(),
                after: Bytes::from_static(&[0]),
                keys_max: 9,
                bytes_max: 9,
                values: true,
            };
            let listed = ledger.list(&span);
            prop_assert!(listed.is_sorted_by(|one, other| one.key < other.key));
            for key in 0..3_u8 {
                let latest = here
                    .iter()
                    .filter(|it| it.key == key)
                    .max_by_key(|it| (it.stamp, it.number))
                    .map(|it| (it.stamp, it.value));
                let found = ledger.find(&[key]);
                let found = found.map(|it| (it.stamp.0, it.value.as_ref().map(|value| value[0])));
                prop_assert_eq!(found, latest);
                let listed = listed.iter().find(|it| *it.key == [key]);
                let listed = listed.map(|it| (it.stamp.0, it.value.as_ref().map(|value| value[0])));
                prop_assert_eq!(listed, latest.filter(|_| key > 0));
            }
            let states = [settled.saturating_sub(1), settled, taken];
            for (number, state) in (1..=twin.len() as u64)
                .flat_map(|number| states.map(|it| (number, it)))
            {
                let is_here = |number| here.iter().any(|it| it.number == number);
                let expected = (state + 1..=number).all(is_here);
                prop_assert_eq!(ledger.shows(Number(number), Number(state)), expected);
            }
            let staged: Vec<&Deposit> = twin.iter().filter(|it| !it.durable).collect();
            prop_assert_eq!(ledger.staged.len(), staged.len());
        }
    }
}

#[test]
fn a_retry_is_found_and_a_stranger_is_not_read() {
    let mut ledger = Ledger::load(ME, 1, Vec::new(), None, Duration::ZERO).unwrap();
    let (key, value) = (Bytes::from_static(b"k"), Bytes::from_static(b"v"));
    let append = ledger.stage(Stamp(5), &key, Some(&value));
    let again = |ledger: &Ledger, stamp| ledger.again(b"k", Stamp(stamp), Some(&value));
    assert_eq!(again(&ledger, 5), None, "it is not durable yet");
    ledger.durable();
    assert_eq!(again(&ledger, 5), Some(Number(1)));
    assert_eq!((again(&ledger, 4), again(&ledger, 6)), (None, None));
    assert_eq!(ledger.again(b"k", Stamp(5), None), None, "a delete with the same stamp is another");
    ledger.stage(Stamp(5), &key, None);
    ledger.durable();
    assert_eq!(ledger.again(b"k", Stamp(5), None), Some(Number(2)));
    assert_eq!(again(&ledger, 5), Some(Number(1)));
    assert_eq!(ledger.find(b"k").unwrap().value, None);

    let other = NodeId(Uuid::from_u128(8));
    let read = |me, record| Ledger::load(me, 2, vec![(1, record)], None, Duration::ZERO).map(drop);
    assert_eq!(read(ME, append.command.clone()), Ok(()));
    assert_eq!(read(other, append.command), Err(Malformed));
    assert_eq!(read(ME, Bytes::from_static(b"rubbish")), Err(Malformed));
}

#[test]
fn an_outbox_that_has_lost_its_end_gives_no_number_twice() {
    let (key, second) = (Bytes::from_static(b"k"), Duration::from_secs(1));
    let mut ledger = Ledger::load(ME, 1, Vec::new(), None, 100 * second).unwrap();
    let appended: Vec<Append> = (1..=3).map(|at| ledger.stage(Stamp(at), &key, None)).collect();
    (0..3).for_each(|_| ledger.durable());
    assert!(appended.windows(2).all(|pair| pair[1].number.0 == pair[0].number.0 + 1));
    // Two of them are lost although they were durable, and may have been delivered.
    let left = vec![(1, appended[0].command.clone())];
    let mut ledger = Ledger::load(ME, 2, left, None, 101 * second).unwrap();
    let next = ledger.stage(Stamp(9), &key, None);
    assert!(next.number > appended[2].number, "{:?}", next.number);
    ledger.durable();
    // The write names its predecessor itself, and is sent after it.
    let read = |record: &Bytes| decode(ME, 1, record).unwrap();
    assert_eq!(read(&next.command).after, appended[0].number);
    let window: Vec<Number> =
        ledger.window(9, usize::MAX).into_iter().map(|(number, _)| number).collect();
    assert_eq!(window, [appended[0].number, next.number]);
    // A write that is here shows, whatever lies between the numbers.
    assert!(ledger.shows(next.number, Number(0)));
    assert_eq!(ledger.settle(appended[0].number).map(drop), Some(()));
    assert!(!ledger.shows(next.number, Number(0)) && ledger.shows(next.number, appended[0].number));
    // A clock that was set back changes nothing.
    let kept = vec![(2, next.command.clone())];
    let mut ledger = Ledger::load(ME, 3, kept, None, Duration::ZERO).unwrap();
    assert_eq!(ledger.stage(Stamp(10), &key, None).number.0, next.number.0 + 1);
    assert!(
        1 << 53
            > Ledger::load(ME, 1, Vec::new(), None, Duration::from_secs(1 << 32))
                .unwrap()
                .next_least
    );
}

#[test]
fn a_shard_that_has_lost_what_had_settled_gets_what_is_left() {
    let key = Bytes::from_static(b"k");
    let mut ledger = Ledger::load(ME, 1, Vec::new(), None, Duration::ZERO).unwrap();
    for at in 1..=5 {
        ledger.stage(Stamp(at), &key, Some(&Bytes::from(vec![at as u8; at as usize])));
        ledger.durable();
    }
    ledger.sent(Number(3));
    ledger.settle(Number(3));
    let bytes = ledger.bytes();
    let window = |ledger: &Ledger| {
        let sent = ledger.window(9, usize::MAX).into_iter();
        sent.map(|(number, command)| (number, decode(ME, 1, &command).unwrap().after)).collect()
    };
    let sent: Vec<_> = window(&ledger);
    assert_eq!(sent, [(Number(4), Number(3)), (Number(5), Number(4))]);
    assert!(!ledger.skip_lost(Number(5)), "there is an older one");
    assert!(!ledger.skip_lost(Number(3)), "that one is gone");
    assert!(ledger.skip_lost(Number(4)));
    let sent: Vec<_> = window(&ledger);
    assert_eq!(sent, [(Number(4), Number(0)), (Number(5), Number(4))]);
    assert!(ledger.bytes() <= bytes && bytes - ledger.bytes() < 8, "{}", ledger.bytes());
    assert_eq!(ledger.find(b"k").unwrap().value.as_deref(), Some(&[5; 5][..]));
    assert!(ledger.shows(Number(5), Number(0)));
    ledger.settle(Number(5));
    assert_eq!((ledger.bytes(), ledger.is_empty()), (0, true));
}
