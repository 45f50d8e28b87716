//! Files, damaged in every way, and files of newer servers.

use super::*;
use dkv_base::id::{NetworkId, NodeId};
use dkv_wire::network::Settings;

fn registry_text() -> Vec<u8> {
    let mut registry = Registry::new(NetworkId::random(), Settings::default(), 0);
    let address = "127.0.0.1:4401".parse().unwrap();
    registry.handle_register(NodeId::random(), None, address, None, 0).0.unwrap();
    encode(&registry).unwrap()
}

#[test]
fn every_truncation_and_every_flipped_bit_is_detected() {
    let text = registry_text();
    let path = Path::new("books.json");
    decode(path, &text).unwrap();
    // Cut before the closing brace: only the final line feed may be missing.
    for length in 0..text.len() - 1 {
        assert!(decode(path, &text[..length]).is_err(), "cut at {length}");
    }
    for bit in 0..(text.len() - 1) * 8 {
        let mut flipped = text.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        assert!(decode(path, &flipped).is_err(), "bit {bit}");
    }
}

#[test]
fn a_file_of_a_newer_server_is_refused() {
    let text = String::from_utf8(registry_text()).unwrap();
    let newer = text.replace("\"version\":1", "\"version\":2");
    let error = decode(Path::new("/d/books.json"), newer.as_bytes()).unwrap_err().to_string();
    assert!(error.starts_with("/d/books.json is of format 2, and this"), "{error}");
}
