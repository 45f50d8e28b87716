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
mod policies;
mod replicas;
mod scan;
mod scripts;
mod reconciler;
mod transactions;
mod twins;

use bytes::Bytes;
use dkv_base::id::{NodeId, Revision, Serial, SessionId, Stamp};
use dkv_wire::codec;
use dkv_wire::message::{Command, Condition, Cut, Keys, Operation, RangeOptions, Span, Write};
use uuid::Uuid;

use super::{
    BatchBuilder, Completed, EngineError, FoundRange, FoundResult, Installer, Listed, ListingAt,
    Meta, NotKept, RangingAt, ResultsAt, ShardState,
};

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

/// Returns the first keys of a span as they were at a cut, as many as fit a page.
fn list_at(shard: &ShardState, span: &Span, at: impl Into<Cut>) -> Result<Listed, NotKept> {
    let (at, mut listing) = (at.into(), ListingAt::new(span));
    while !shard.list_more_at(span, at, &mut listing)? {}
    Ok(listing.listed)
}

/// Returns the first keys of a range after one, as they were at a revision. Goes on after each key
/// and version.
fn range_at(
    shard: &ShardState,
    keys: Keys<'_>,
    after: &[u8],
    options: RangeOptions,
    at: Revision,
    bytes_max: usize,
) -> Result<FoundRange, NotKept> {
    let mut ranging = RangingAt::new(keys, after, options, bytes_max);
    while !shard.range_steps(at, &mut ranging, &mut 1, |_| false)? {}
    Ok(ranging.found)
}

/// Returns the results of a transaction that was executed, and the number of steps that it took to
/// read them.
fn results(
    shard: &ShardState,
    body: &[u8],
    revision: Revision,
    way: (bool, u64),
    changed: bool,
) -> Result<(Vec<FoundResult>, usize), NotKept> {
    let (mut results, mut steps) = (ResultsAt::new(body, revision, way, changed), 1);
    while !shard.results_more(&mut results)? {
        steps += 1;
    }
    Ok((results.found, steps))
}
