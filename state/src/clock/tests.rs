use dkv_base::id::{Serial, SessionId, Stamp, Term};
use dkv_wire::message::{Command, Condition, Operation, Write};
use proptest::prelude::*;
use uuid::Uuid;

use super::*;
use crate::limits::SESSION_LIFE_MS;
use crate::{BatchBuilder, CommandResult, ShardState};

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

#[test]
fn it_goes_on_from_the_state_by_what_was_measured() {
    // The process has been running for five seconds when it loads a state.
    let clock = LogClock::new(1000, ms(5000));
    assert_eq!(clock.now_ms(ms(5000)), 1000);
    assert_eq!(clock.now_ms(ms(5250)), 1250);
    assert_eq!(clock.now_ms(ms(5250) + SESSION_LIFE), 1250 + SESSION_LIFE_MS);
    // A monotonic clock does not go back; if it did, the log's clock would still not.
    assert_eq!(clock.now_ms(ms(0)), 1000);
    assert_eq!(LogClock::new(u64::MAX - 1, ms(0)).now_ms(ms(7)), u64::MAX);
}

#[test]
fn stamps_that_come_late_do_not_slow_it() {
    let mut clock = LogClock::new(0, ms(0));
    clock.observe(TERM, 0, ms(0));
    clock.observe(TERM, 100, ms(40));
    assert_eq!(clock.now_ms(ms(40)), 100);
    // This entry took longer to arrive.
    clock.observe(TERM, 110, ms(90));
    assert_eq!(clock.now_ms(ms(90)), 150);
    // This entry took less time to arrive.
    clock.observe(TERM, 200, ms(120));
    assert_eq!(clock.now_ms(ms(130)), 210);
}

/// A primary that has started again lags by the time for which it was down.
#[test]
fn the_next_primary_does_not_count_what_this_one_has_left_out() {
    let mut follower = LogClock::new(0, ms(0));
    follower.observe(Term(1), 1000, ms(1000));
    // The new primary does not know that 600 ms have passed.
    let primary = LogClock::new(1000, ms(1600));
    assert_eq!(follower.now_ms(ms(1700)), 1700);
    follower.observe(Term(2), primary.now_ms(ms(1700)), ms(1710));
    let deadline = primary.now_ms(ms(1700)) + 500;
    assert!(follower.now_ms(ms(1700 + 499)) < deadline, "its key would end early");
    assert_eq!(follower.now_ms(ms(1710 + 500)), deadline);
    // What comes late from an earlier term sets nothing back.
    follower.observe(Term(1), 1001, ms(1720));
    assert_eq!(follower.now_ms(ms(1720)), 1110);
}

const SESSION_LIFE: Duration = Duration::from_millis(SESSION_LIFE_MS);

const TERM: Term = Term(7);

/// A shard, its primary's clock, and a client with one session.
struct Shard {
    state: ShardState,
    clock: LogClock,
    now: Duration,
    serial: u64,
}

impl Shard {
    fn new() -> Self {
        let now = ms(77_000);
        Self { state: ShardState::new(), clock: LogClock::new(0, now), now, serial: 0 }
    }

    fn passes(&mut self, time: Duration) {
        self.now += time;
    }

    fn apply(&mut self, stamp_ms: u64, command: &Command<'_>) -> CommandResult {
        let mut batch = BatchBuilder::new(stamp_ms, Stamp(1));
        batch.push(&dkv_wire::codec::encode_vec(command));
        let results = self.state.apply(&batch.finish()).unwrap();
        self.clock.observe(TERM, self.state.clock_ms(), self.now);
        results.into_iter().next().unwrap()
    }

    fn open(&mut self, session: SessionId) {
        let stamp = self.clock.now_ms(self.now);
        let opened = self.apply(stamp, &Command::OpenSession(session));
        assert_eq!(opened, CommandResult::SessionOpened);
    }

    fn write(&mut self, session: SessionId) -> CommandResult {
        self.serial += 1;
        let write = Write {
            session,
            serial: Serial(self.serial),
            settled: Serial(self.serial),
            after: Stamp(0),
            condition: Condition::Always,
            key: b"key",
            operation: Operation::Put(b"value"),
        };
        let stamp = self.clock.now_ms(self.now);
        self.apply(stamp, &Command::Write(write))
    }
}

fn session(number: u128) -> SessionId {
    SessionId(Uuid::from_u128(number))
}

/// A stamp written by a broken primary, or by one of an older release, stays in the log for good.
#[test]
fn a_stamp_that_was_far_ahead_keeps_no_session_from_ending() {
    let mut shard = Shard::new();
    let year_ms = 365 * 24 * 3_600_000;
    shard.apply(year_ms, &Command::OpenSession(session(1)));
    shard.passes(ms(10));
    shard.open(session(2));
    assert_eq!(shard.state.clock_ms(), year_ms + 10);
    shard.passes(SESSION_LIFE / 2);
    assert!(matches!(shard.write(session(2)), CommandResult::Written { .. }));
    shard.passes(SESSION_LIFE / 2 + ms(20));
    // The session was idle for just over an hour, in the middle of the year that the clock was
    // ahead.
    assert_eq!(shard.write(session(1)), CommandResult::SessionExpired);
    assert!(matches!(shard.write(session(2)), CommandResult::Written { .. }));
    shard.passes(SESSION_LIFE + ms(1));
    assert_eq!(shard.write(session(2)), CommandResult::SessionExpired);
}

#[test]
fn a_new_primary_goes_on_where_the_old_one_was() {
    let mut shard = Shard::new();
    shard.open(session(1));
    shard.passes(SESSION_LIFE / 2);
    shard.open(session(2));
    // The new primary applied the same entries, a little later, by a clock with another origin.
    let mut other = LogClock::new(0, ms(3));
    other.observe(TERM, shard.state.clock_ms(), ms(500));
    shard.clock = other;
    shard.now = ms(500) + SESSION_LIFE / 2 + ms(1);
    assert_eq!(shard.write(session(1)), CommandResult::SessionExpired);
    assert!(matches!(shard.write(session(2)), CommandResult::Written { .. }));
}

proptest! {
    /// The others are never ahead of the one that leads.
    #[test]
    fn nobody_is_ahead_of_the_primary(
        steps in prop::collection::vec((0..4_usize, 0..500_u64, 0..300_u64), 1..60),
    ) {
        let mut clocks = [LogClock::new(0, ms(0)); 3];
        let (mut now, mut term, mut leader) = (0, 1, 0);
        for (next, pause, delay) in steps {
            now += pause;
            if let Some(clock) = clocks.get_mut(next) {
                // One of them starts again, and knows what is in the log; or it is elected.
                match pause % 2 {
                    0 if next != leader => *clock = LogClock::new(clock.known_ms, ms(now)),
                    _ => (leader, term) = (next, term + 1),
                }
            }
            let stamp = clocks[leader].now_ms(ms(now));
            now += delay;
            clocks.iter_mut().for_each(|clock| clock.observe(Term(term), stamp, ms(now)));
            let first = clocks[leader].now_ms(ms(now));
            prop_assert!(clocks.iter().all(|clock| clock.now_ms(ms(now)) <= first));
        }
    }

    /// The estimate lies between the replica's own reading and the log, whatever the delays: it
    /// never goes back, and is never behind the last stamp or ahead of the primary.
    #[test]
    fn a_follower_is_between_the_last_stamp_and_the_primary(
        steps in prop::collection::vec((0..5000_u64, 0..3000_u64), 1..60),
    ) {
        let primary = LogClock::new(10_000, ms(0));
        let mut follower = LogClock::new(10_000, ms(0));
        follower.observe(TERM, 10_000, ms(0));
        let (mut made, mut seen, mut before) = (0, 0, 0);
        for (pause, delay) in steps {
            made += pause;
            let stamp = primary.now_ms(ms(made));
            // Entries are applied in order.
            seen = seen.max(made + delay);
            follower.observe(TERM, stamp, ms(seen));
            let now = follower.now_ms(ms(seen));
            prop_assert!(now >= stamp && now >= before);
            prop_assert!(now <= primary.now_ms(ms(seen)));
            before = now;
        }
    }
}
