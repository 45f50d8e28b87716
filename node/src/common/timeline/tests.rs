use std::time::Duration;

use dkv_base::id::{Serial, SessionId, Stamp};
use dkv_wire::codec::encode;
use dkv_wire::message::{Condition, Operation, Write};

use super::*;

const SHARD: GroupId = GroupId(3);

fn ms(count: u64) -> Duration {
    Duration::from_millis(count)
}

#[test]
fn every_moment_belongs_to_one_stage() {
    let start = Instant::now();
    let mut timeline = Timeline::new(Subject::Other, start, start + ms(1));
    timeline.enter(Stage::Batch, start + ms(3));
    timeline.enter(Stage::Sync, start + ms(10));
    // The majority had it before this disk did.
    timeline.enter(Stage::Majority, start + ms(900));
    timeline.enter(Stage::Apply, start + ms(400));
    timeline.enter(Stage::Reply, start + ms(902));
    timeline.enter(Stage::Other, start + ms(1000));
    assert_eq!(timeline.stages(), "room 1, batch 7, sync 890, apply 2, other 2, reply 98");
    assert_eq!(STAGES[timeline.longest()], "sync");
    let all: u32 = timeline.spent.iter().sum();
    assert_eq!(all, 1_000_000);
}

#[test]
fn the_stages_of_a_part_count_in_its_place() {
    let start = Instant::now();
    let mut whole = Timeline::new(Subject::Other, start, start);
    let mut part = Timeline::new(Subject::Other, start, start);
    part.enter(Stage::Majority, start + ms(5));
    part.enter(Stage::Reply, start + ms(75));
    whole.adopt(&part);
    whole.enter(Stage::Reply, start + ms(80));
    assert_eq!((whole.spent_us(Stage::Majority), whole.spent_us(Stage::Other)), (70_000, 10_000));
}

#[test]
fn a_stage_is_named_for_each_value() {
    assert_eq!(STAGES[Stage::Room as usize], "room");
    assert_eq!(STAGES[Stage::Shards as usize], "shards");
    assert_eq!(STAGES[Stage::Reply as usize], "reply");
    assert_eq!(Stage::Reply as usize + 1, STAGES.len());
}

#[test]
fn the_key_of_a_command_is_found_and_its_value_is_not() {
    let session = SessionId(uuid::Uuid::nil());
    let command = Command::Write(Write {
        session,
        serial: Serial(1),
        settled: Serial(1),
        after: Stamp(0),
        condition: Condition::Always,
        key: b"user/1",
        operation: Operation::Put(b"secret"),
    });
    let body = RequestBody::Propose { shard: SHARD, everywhere: false, command: encode(&command) };
    assert_eq!(Subject::of(&body).read(), Some(("write", SHARD, Bytes::from("user/1"))));
    let transaction = Transaction {
        then: vec![TransactionOperation::Append { key: b"log", bytes: b"secret" }],
        ..Transaction::default()
    };
    assert_eq!(first_key(&encode(&transaction)), "log");
    assert_eq!(first_key(b"\xff"), "");
    assert!(Subject::of(&RequestBody::Status).read().is_none());
}
