//! The shard's state compared with a naive model: linear lists that never forget on their own.

use std::collections::HashMap;

use dkv_base::id::{Revision, SessionId};
use dkv_wire::message::{Condition, Operation};
use proptest::prelude::*;

use super::super::command::CommandResult;
use super::super::sessions::Bounds;
use super::super::shard::ShardState;
use super::{batch, open, session, write};

const BOUNDS: Bounds = Bounds {
    sessions_max: 3,
    holder_max: 3,
    window_max: 4,
    results_max: 8,
    idle_ms: 50,
    own_idle_ms: 50,
    life_ms: 200,
};

#[derive(Clone, Debug)]
enum Action {
    Open {
        session: char,
    },
    Write {
        session: char,
        serial: u64,
        settled: u64,
        condition: Condition,
        key: u8,
        put: Option<u8>,
    },
}

fn action() -> impl Strategy<Value = Action> {
    // A session that has ended does not come back, so there are more than can be open.
    let session = prop::sample::select(('a'..='l').collect::<Vec<_>>());
    let condition = prop_oneof![
        4 => Just(Condition::Always),
        1 => Just(Condition::Absent),
        1 => Just(Condition::Present),
        1 => (0..30_u64).prop_map(|revision| Condition::Revision(Revision(revision))),
    ];
    // Few serials, in any order, so that most writes are retries of another write.
    let write = (session.clone(), 1..12_u64, 0..6_u64, condition, 0..4_u8, any::<Option<u8>>());
    prop_oneof![
        1 => session.prop_map(|session| Action::Open { session }),
        6 => write.prop_map(|(session, serial, behind, condition, key, put)| {
            let settled = serial.saturating_sub(behind);
            Action::Write { session, serial, settled, condition, key, put }
        }),
    ]
}

impl Action {
    fn encode(&self) -> Vec<u8> {
        match self {
            Self::Open { session: letter } => open(session(*letter)),
            Self::Write { session: letter, serial, settled, condition, key, put } => {
                let value = put.map(|value| [value]);
                let operation =
                    value.as_ref().map_or(Operation::Delete, |value| Operation::Put(value));
                write(session(*letter), *serial, *settled, *condition, &[*key], operation)
            }
        }
    }
}

#[derive(Default)]
struct Twin {
    keys: HashMap<u8, (u64, u8)>,
    sessions: Vec<TwinSession>,
    ended: Vec<SessionId>,
    revision: u64,
    clock_ms: u64,
}

struct TwinSession {
    id: SessionId,
    used_ms: u64,
    settled: u64,
    /// All serials that were ever executed, with their results.
    executed: Vec<(u64, CommandResult)>,
}

impl TwinSession {
    fn remembered(&self) -> usize {
        self.executed.iter().filter(|(serial, _)| *serial >= self.settled).count()
    }
}

impl Twin {
    fn begin(&mut self, time_ms: u64) {
        self.clock_ms = self.clock_ms.max(time_ms);
        let now_ms = self.clock_ms;
        let is_over = |session: &TwinSession| now_ms - session.used_ms > BOUNDS.life_ms;
        self.ended.extend(self.sessions.iter().filter(|one| is_over(one)).map(|one| one.id));
        self.sessions.retain(|session| !is_over(session));
    }

    fn make_room(&mut self) -> bool {
        self.sessions.sort_by_key(|session| (session.used_ms, session.id));
        let idle = self.clock_ms - self.sessions[0].used_ms >= BOUNDS.idle_ms;
        if idle {
            self.ended.push(self.sessions.remove(0).id);
        }
        idle
    }

    fn execute(&mut self, action: &Action) -> CommandResult {
        match action {
            Action::Open { session: letter } => {
                let id = session(*letter);
                let now_ms = self.clock_ms;
                if let Some(session) = self.sessions.iter_mut().find(|session| session.id == id) {
                    session.used_ms = now_ms;
                    return CommandResult::SessionOpened;
                }
                if self.ended.contains(&id) {
                    return CommandResult::SessionExpired;
                }
                if self.sessions.len() == BOUNDS.sessions_max && !self.make_room() {
                    return CommandResult::Overloaded { retry_after_ms: 1000 };
                }
                self.sessions.push(TwinSession {
                    id,
                    used_ms: now_ms,
                    settled: 0,
                    executed: vec![],
                });
                CommandResult::SessionOpened
            }
            Action::Write { session: letter, serial, settled, condition, key, put } => {
                let id = session(*letter);
                let now_ms = self.clock_ms;
                let Some(found) = self.sessions.iter_mut().find(|session| session.id == id) else {
                    return CommandResult::SessionExpired;
                };
                found.used_ms = now_ms;
                found.settled = found.settled.max(*settled);
                if *serial < found.settled {
                    return CommandResult::SessionExpired;
                }
                if let Some((_, result)) = found.executed.iter().find(|(other, _)| other == serial)
                {
                    return *result;
                }
                if found.remembered() == BOUNDS.window_max {
                    return CommandResult::Overloaded { retry_after_ms: 10 };
                }
                let remembered: usize = self.sessions.iter().map(TwinSession::remembered).sum();
                if remembered == BOUNDS.results_max && !self.make_room() {
                    return CommandResult::Overloaded { retry_after_ms: 1000 };
                }
                let result = self.write(*condition, *key, *put);
                let found = self.sessions.iter_mut().find(|session| session.id == id);
                found.expect("it was just used").executed.push((*serial, result));
                result
            }
        }
    }

    fn write(&mut self, condition: Condition, key: u8, put: Option<u8>) -> CommandResult {
        let current = self.keys.get(&key).map(|(revision, _)| Revision(*revision));
        let holds = match condition {
            Condition::Always => true,
            Condition::Absent => current.is_none(),
            Condition::Present => current.is_some(),
            Condition::Revision(revision) => current == Some(revision),
        };
        if !holds {
            return CommandResult::Conflict { current };
        }
        if put.is_some() || current.is_some() {
            self.revision += 1;
        }
        match put {
            Some(value) => self.keys.insert(key, (self.revision, value)),
            None => self.keys.remove(&key),
        };
        CommandResult::Written { revision: Revision(self.revision), existed: current.is_some() }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn agrees_with_its_twin(
        batches in proptest::collection::vec(
            (0..60_u64, 0..3_u64, proptest::collection::vec(action(), 0..8)), 1..25)
    ) {
        let mut state = ShardState::with_bounds(BOUNDS);
        let mut twin = Twin::default();
        let mut time_ms = 1000_u64;
        for (forward_ms, back, actions) in &batches {
            // Now and then a primary has a clock that is behind.
            time_ms = if *back == 0 { time_ms - 40 } else { time_ms + forward_ms };
            let commands: Vec<_> = actions.iter().map(Action::encode).collect();
            let results = state.apply(&batch(time_ms, &commands))?;
            twin.begin(time_ms);
            let expected: Vec<_> = actions.iter().map(|action| twin.execute(action)).collect();
            prop_assert_eq!(results, expected);
            prop_assert_eq!(state.revision(), Revision(twin.revision));
            prop_assert_eq!(state.clock_ms(), twin.clock_ms);
            prop_assert_eq!(state.counts().sessions, twin.sessions.len() as u64);
            for key in 0..4_u8 {
                let row = state.row(&[key]).map(|row| (row.origin.revision.0, row.value[0]));
                prop_assert_eq!(row, twin.keys.get(&key).copied());
            }
        }
    }
}
