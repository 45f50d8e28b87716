//! Sessions as part of an entry of the log: which write is executed, and what its outcome was.

use dkv_base::id::{HolderId, Serial, SessionId, Stamp};
use dkv_base::mutants::{Mutant, planted};
use dkv_wire::message::{Attach, Write};

use super::ShardState;
use crate::command::CommandResult;
use crate::session::Outcome;
use crate::sessions::Admission;

impl ShardState {
    pub(super) fn open_session(&mut self, session: SessionId, holder: HolderId) -> CommandResult {
        let result = self.sessions.open(session, holder, self.clock_ms, &mut self.digest);
        self.follow_ended_sessions();
        result
    }

    pub(super) fn admit(
        &mut self,
        session: SessionId,
        serial: Serial,
        settled: Serial,
    ) -> Admission {
        let clock_ms = self.clock_ms;
        let admission = self.sessions.admit(session, serial, settled, clock_ms, &mut self.digest);
        self.follow_ended_sessions();
        self.attempts.release(session, self.sessions.settled(session), &mut self.digest);
        admission
    }

    /// Forgets the transactions of sessions that have ended.
    pub(super) fn follow_ended_sessions(&mut self) {
        for session in self.sessions.take_ended() {
            self.attempts.release(session, None, &mut self.digest);
        }
    }

    pub(super) fn record(
        &mut self,
        session: SessionId,
        serial: Serial,
        outcome: Outcome,
    ) -> CommandResult {
        self.sessions.record(session, serial, outcome, &mut self.digest);
        outcome.into()
    }

    pub(super) fn write_once(
        &mut self,
        write: &Write<'_>,
        attach: Option<Attach>,
        now: Stamp,
    ) -> CommandResult {
        if planted(Mutant::SkipSessions) {
            return self.write(write, attach, now).into();
        }
        match self.admit(write.session, write.serial, write.settled) {
            Admission::Answer(answer) => answer,
            Admission::Execute if self.is_locked(write.key) => CommandResult::Locked,
            Admission::Execute => {
                let outcome = self.write(write, attach, now);
                self.record(write.session, write.serial, outcome)
            }
        }
    }
}
