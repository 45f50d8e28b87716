//! Bytes from anyone who can reach a port: nothing in them may bring the process down.

use rand::rngs::StdRng;
use rand::{Rng, RngExt, SeedableRng};

use super::*;
use crate::codec::decode_prefix;

const INPUTS: usize = 20_000;
const INPUT_BYTES_MAX: usize = 64 * 1024;

/// Decodes as everything. A panic is the failure; and what is taken for a message must be one,
/// which survives being sent on.
fn decode_as_all(bytes: &[u8]) -> usize {
    let mut taken = 0;
    macro_rules! attempt {
        ($type:ty, $samples:expr) => {
            if let Ok((message, rest)) = decode_prefix::<$type>(bytes) {
                taken += 1;
                let again = encode(&message);
                assert!(again.len() <= bytes.len() - rest.len(), "{message:?}");
                assert_eq!(decode::<$type>(&again), Ok(message));
                assert_eq!(decode::<$type>(bytes).is_ok(), rest.is_empty());
            }
        };
    }
    for_each_message!(attempt);
    taken
}

fn all_samples() -> Vec<Vec<u8>> {
    let mut all = Vec::new();
    macro_rules! collect {
        ($type:ty, $samples:expr) => {
            all.extend($samples.iter().map(|sample| encode(sample).to_vec()));
        };
    }
    for_each_message!(collect);
    all
}

#[test]
fn random_bytes_are_refused() {
    let mut random = StdRng::seed_from_u64(25);
    let mut bytes = vec![0; INPUT_BYTES_MAX];
    let mut taken = 0;
    for input in 0..INPUTS {
        // Most are short: what is refused is refused early. A few are as long as they may be.
        let most = if input % 100 == 0 { INPUT_BYTES_MAX } else { 256 };
        let bytes = &mut bytes[..random.random_range(0..=most)];
        random.fill_bytes(bytes);
        // Tags and lengths are small numbers: with more of these, more gets past the first byte.
        for byte in bytes.iter_mut().take(64) {
            if random.random_bool(0.5) {
                *byte %= 8;
            }
        }
        taken += decode_as_all(bytes);
    }
    assert!(taken > 100, "nearly nothing got past the first byte: {taken}");
}

#[test]
fn damaged_messages_are_refused_or_other_messages() {
    let samples = all_samples();
    let mut random = StdRng::seed_from_u64(26);
    for input in 0..INPUTS {
        let mut bytes = samples[input % samples.len()].clone();
        for _ in 0..random.random_range(1..4) {
            let at = random.random_range(0..=bytes.len());
            match random.random_range(0..4) {
                0 => bytes.truncate(at),
                1 => bytes.insert(at, random.random()),
                // A length or a number as large as it may be, and larger.
                2 => drop(bytes.splice(at..at, [0xff; 9])),
                _ => {
                    if let Some(byte) = bytes.get_mut(at) {
                        *byte ^= 1 << random.random_range(0..8);
                    }
                }
            }
        }
        decode_as_all(&bytes);
    }
}
