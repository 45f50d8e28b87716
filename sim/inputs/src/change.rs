//! Mutations of inputs, such as a disk, a network or an attacker may cause.

use crate::random::Random;

/// Numbers at the edges of integer types, where parsers tend to fail.
const EDGES: [u64; 12] = [
    0,
    1,
    0x7f,
    0x80,
    0xff,
    0x7fff,
    0xffff,
    0x7fff_ffff,
    0xffff_fffe,
    0xffff_ffff,
    0x7fff_ffff_ffff_ffff,
    u64::MAX,
];
/// Longest input, in bytes.
const BYTES_MAX: usize = 256 * 1024;

/// One of `seeds`, mutated in a few places; now and then random bytes.
pub(crate) fn changed(seeds: &[Vec<u8>], random: &mut Random) -> Vec<u8> {
    if seeds.is_empty() || random.below(32) == 0 {
        let length = random.below(300);
        return (0..length).map(|_| random.byte()).collect();
    }
    let mut input = seeds[random.below(seeds.len())].clone();
    for _ in 0..1 + random.below(4) {
        let other = &seeds[random.below(seeds.len())];
        change(&mut input, other, random);
    }
    input.truncate(BYTES_MAX);
    input
}

fn change(input: &mut Vec<u8>, other: &[u8], random: &mut Random) {
    if input.is_empty() {
        input.push(random.byte());
        return;
    }
    let at = random.below(input.len());
    match random.below(9) {
        0 => input[at] ^= 1 << random.below(8),
        1 => input[at] = random.byte(),
        2 => input.truncate(at),
        3 => drop(input.drain(at..(at + 1 + random.below(16)).min(input.len()))),
        4 => input.insert(at, random.byte()),
        5 => {
            let edge = EDGES[random.below(EDGES.len())].to_le_bytes();
            let width = 1 << random.below(4);
            let end = (at + width).min(input.len());
            input[at..end].copy_from_slice(&edge[..end - at]);
        }
        6 => {
            // Repeats a piece of the input.
            let end = (at + 1 + random.below(64)).min(input.len());
            let piece = input[at..end].to_vec();
            let place = random.below(input.len());
            input.splice(place..place, piece);
        }
        7 => {
            // Joins the beginning of one input and the end of another.
            let from = random.below(other.len() + 1);
            input.truncate(at);
            input.extend_from_slice(&other[from..]);
        }
        _ => {
            let end = (at + 1 + random.below(32)).min(input.len());
            for byte in &mut input[at..end] {
                *byte = random.byte();
            }
        }
    }
}
