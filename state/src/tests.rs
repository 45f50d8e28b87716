//! Tests of the state: golden scripts, comparisons with naive models, and disk images after a
//! crash.

mod bounds;
mod cuts;
mod commit;
mod deposits;
mod engine;
mod golden;
mod history;
mod growth;
mod hostile;
mod keyspaces;
mod leases;
mod model;
mod multi_version;
mod placement;
mod replicas;
mod scan;
mod scripts;
mod reconciler;
mod transactions;
mod twins;

use bytes::Bytes;
use dkv_base::id::{NodeId, Serial, SessionId, Stamp};
use dkv_wire::codec;
use dkv_wire::message::{Command, Condition, Operation, Write};
use uuid::Uuid;

use super::{BatchBuilder, Completed, EngineError, Installer, Meta};

/// Returns the id whose bytes are all this letter, so that a script can name it and read it back.
fn uuid(letter: char) -> Uuid {
    Uuid::from_bytes([letter as u8; 16])
}

fn node(letter: char) -> NodeId {
    NodeId(uuid(letter))
}

fn session(letter: char) -> SessionId {
    SessionId(uuid(letter))
}

fn letter(node: &NodeId) -> char {
    char::from(node.0.as_bytes()[0])
}

fn open(session: SessionId) -> Vec<u8> {
    codec::encode_vec(&Command::OpenSession(session))
}

fn write<'a>(
    session: SessionId,
    serial: u64,
    settled: u64,
    condition: Condition,
    key: &'a [u8],
    operation: Operation<'a>,
) -> Vec<u8> {
    let (serial, settled) = (Serial(serial), Serial(settled));
    let after = Stamp(0);
    let write = Write { session, serial, settled, after, condition, key, operation };
    codec::encode_vec(&Command::Write(write))
}

fn batch(time_ms: u64, commands: &[Vec<u8>]) -> Bytes {
    batch_at(time_ms, Stamp(1), commands)
}

fn batch_at(time_ms: u64, stamp: Stamp, commands: &[Vec<u8>]) -> Bytes {
    let mut batch = BatchBuilder::new(time_ms, stamp);
    for command in commands {
        batch.push(command);
    }
    batch.finish()
}

/// Completes an installation and switches to it.
fn install(installer: Installer, meta: &Meta) -> Result<(), EngineError> {
    installer.complete(meta).and_then(Completed::switch)
}
