//! The log's only writer: it takes everything that is staged, does one write and one sync, then
//! calls the callbacks.
//!
//! [`Writer::step`] is the body of its loop. A thread runs it ([`Writer::run`]); a simulation calls
//! it by hand.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use super::core::{Frame, Plan};
use super::format::{FRAME_HEADER_BYTES, FrameHeader, checksum, frame_bytes, stored_length};
use super::shared::WalInner;
use super::{Done, WriteDelay};

/// Size in bytes beyond which a buffer that grew for one large frame is released.
const BUFFER_BYTES_KEPT: usize = 4 * 1024 * 1024;

/// Writes what callers have staged. There is one for each log.
pub struct Writer {
    shared: Arc<WalInner>,
    buffer: Vec<u8>,
}

/// Result of a step of the writer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WriterStep {
    /// Something was written, or callbacks were called; there may be more to do.
    Worked,
    /// Nothing is staged.
    Idle,
    /// Something is staged, but the segment manager has to prepare a segment first.
    NeedsSegment,
    /// The log is closed or dead: no step will do anything any more.
    Stopped,
}

impl Writer {
    pub(super) fn new(shared: Arc<WalInner>) -> Self {
        Self { shared, buffer: Vec::new() }
    }

    /// Writes and syncs everything that is staged, then calls the callbacks.
    pub fn step(&mut self) -> WriterStep {
        self.step_with(false)
    }

    /// Does the same as [`Self::step`]; if nothing is staged, seals the last frame. To be called
    /// when the log has been idle for [`WalOptions::idle_seal`](super::WalOptions::idle_seal).
    pub fn step_idle(&mut self) -> WriterStep {
        self.step_with(true)
    }

    fn step_with(&mut self, idle: bool) -> WriterStep {
        let plan = self.plan(idle);
        self.carry_out(plan)
    }

    /// Takes everything that is staged.
    fn plan(&self, idle: bool) -> Plan {
        let mut core = self.shared.lock();
        let plan = core.plan(idle);
        if matches!(plan, Plan::Write(_)) {
            core.timing.begin();
        }
        plan
    }

    fn carry_out(&mut self, plan: Plan) -> WriterStep {
        match plan {
            Plan::Nothing => WriterStep::Idle,
            Plan::NeedsSegment => {
                self.shared.wake_segment_manager();
                WriterStep::NeedsSegment
            }
            Plan::Call(dones) => {
                self.call(dones, None);
                WriterStep::Worked
            }
            Plan::Write(frame) => self.write(frame),
            Plan::Stop(dones, error) => {
                self.call(dones, Some(&error));
                self.shared.wake_segment_manager();
                self.shared.wake_appenders();
                WriterStep::Stopped
            }
        }
    }

    fn write(&mut self, mut frame: Frame) -> WriterStep {
        self.fill_buffer(&frame);
        // The stage is empty again: appenders may fill it while this frame is under way.
        self.shared.wake_appenders();
        let outcome = frame.file.write_at(&self.buffer, frame.offset);
        let outcome = outcome.and_then(|()| frame.file.sync_data());
        if self.buffer.capacity() > BUFFER_BYTES_KEPT {
            self.buffer = Vec::new();
        }
        let dones = std::mem::take(&mut frame.dones);
        let has_job = {
            let mut core = self.shared.lock();
            core.timing.end();
            if outcome.is_ok() {
                core.written(&frame);
            }
            core.segments.job().is_some()
        };
        match outcome {
            Ok(()) => {
                if has_job {
                    self.shared.wake_segment_manager();
                }
                self.call(dones, None);
            }
            Err(error) => {
                // It is unknown what reached the disk, and a later successful sync would not tell.
                self.shared.die(format!("cannot write a frame: {error}"));
                self.call(dones, Some(&error));
            }
        }
        WriterStep::Worked
    }

    /// Assembles the bytes of a frame: header, body, zeros up to the next sector.
    fn fill_buffer(&mut self, frame: &Frame) {
        self.buffer.clear();
        self.buffer.resize(FRAME_HEADER_BYTES, 0);
        for piece in &frame.pieces {
            self.buffer.extend_from_slice(piece);
        }
        let body = &self.buffer[FRAME_HEADER_BYTES..];
        let header = FrameHeader {
            salt: frame.segment.salt,
            sequence: frame.segment.sequence,
            number: frame.number,
            body_bytes: stored_length(body.len() as u64),
            body_crc: checksum(&[body]),
        };
        let whole = frame_bytes(body.len() as u64) as usize;
        self.buffer[..FRAME_HEADER_BYTES].copy_from_slice(&header.encode());
        self.buffer.resize(whole, 0);
    }

    /// Calls callbacks, in order. One that panics ends the log, because its caller's state is
    /// unknown; the others are still called.
    fn call(&self, dones: Vec<Done>, error: Option<&io::Error>) {
        for done in dones {
            let outcome = match error {
                None => Ok(()),
                Some(error) => Err(io::Error::new(error.kind(), error.to_string())),
            };
            if catch_unwind(AssertUnwindSafe(|| done(outcome))).is_err() {
                self.shared.die("a callback panicked".to_owned());
            }
        }
    }

    /// Steps until the log is closed or dead; sleeps while there is nothing to do.
    pub(super) fn run(mut self) {
        loop {
            match self.step() {
                WriterStep::Worked => {}
                WriterStep::Idle => {
                    if !self.shared.wait_for_work() {
                        self.step_idle();
                    }
                }
                WriterStep::NeedsSegment => self.shared.wait_for_segment(),
                WriterStep::Stopped => break,
            }
        }
    }

    /// Runs as [`Self::run`] does, but as a task: a write lands once the time that `pace` says has
    /// passed.
    pub(super) async fn run_as_task(mut self, mut pace: WriteDelay) {
        let mut idle = false;
        loop {
            let plan = self.plan(idle);
            idle = false;
            if matches!(plan, Plan::Write(_)) {
                // Records that are staged meanwhile belong to the next frame.
                self.shared.wake_appenders();
                tokio::time::sleep(pace()).await;
            }
            match self.carry_out(plan) {
                WriterStep::Worked => {}
                WriterStep::Idle => idle = !self.shared.work().await,
                WriterStep::NeedsSegment => self.shared.segment().await,
                WriterStep::Stopped => break,
            }
        }
    }
}
