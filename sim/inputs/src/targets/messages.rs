//! All messages between processes, except those of Raft.

use data_encoding::HEXLOWER;
use dkv_wire::codec::{decode, encode};
use dkv_wire::message::{
    Command, JoinAnswer, JoinRefusal, Joining, Opening, Reply, Request, ServerAnswer,
    ServerRequest, Transaction, WatchFrame, WatchRequest,
};

use crate::parts::Parts;

/// A message of each variant, with its type on the line before.
const SAMPLES: &str = include_str!("../../../../wire/src/message/tests/messages.txt");

const TYPES: [&str; 11] = [
    "Opening",
    "Request",
    "Reply",
    "Command",
    "ServerRequest",
    "ServerAnswer",
    "Joining",
    "Transaction",
    "WatchRequest",
    "WatchFrame",
    "Result",
];

/// Asserts that a valid message means the same after it is encoded and decoded again.
macro_rules! comes_back {
    ($type:ty, $bytes:expr) => {
        if let Ok(value) = decode::<$type>($bytes) {
            let again = encode(&value);
            // A number may have several encodings; ours is the shortest.
            assert!(again.len() <= $bytes.len(), "{value:?}");
            assert_eq!(decode::<$type>(&again).as_ref(), Ok(&value));
        }
    };
}

pub(super) fn read(input: &[u8]) {
    let mut parts = Parts::new(input);
    let kind = parts.byte();
    let bytes = parts.rest();
    match TYPES[usize::from(kind) % TYPES.len()] {
        "Opening" => comes_back!(Opening, bytes),
        "Request" => comes_back!(Request, bytes),
        "Reply" => comes_back!(Reply, bytes),
        "Command" => comes_back!(Command<'_>, bytes),
        "ServerRequest" => comes_back!(ServerRequest, bytes),
        "ServerAnswer" => comes_back!(ServerAnswer, bytes),
        "Joining" => comes_back!(Joining, bytes),
        "Transaction" => comes_back!(Transaction<'_>, bytes),
        "WatchRequest" => comes_back!(WatchRequest, bytes),
        "WatchFrame" => comes_back!(WatchFrame, bytes),
        _ => comes_back!(Result<JoinAnswer, JoinRefusal>, bytes),
    }
    // A shard validates a command before it accepts it.
    let _ = dkv_state::validate(bytes, 1024);
}

pub(super) fn seeds() -> Vec<Vec<u8>> {
    let mut kind = 0;
    let mut seeds = Vec::new();
    for line in SAMPLES.lines() {
        if let Some(digits) = line.strip_prefix("    ") {
            let bytes = HEXLOWER.decode(digits.as_bytes()).expect("digits");
            seeds.push([&[kind], &bytes[..]].concat());
        } else if !line.starts_with(' ') {
            let found = TYPES.iter().position(|name| line.starts_with(name));
            // "Request" is the beginning of no other name, nor is any of them.
            kind = found.expect("a known type") as u8;
        }
    }
    seeds
}
