//! Files that people write or disks damage: the configuration, the server's registry file,
//! histories.

use std::path::Path;

use dkv_api::Uuid;
use dkv_base::id::{NetworkId, NodeId};
use dkv_check::History;
use dkv_server::registry::Registry;
use dkv_server::{Config, registry_file};
use xxhash_rust::xxh3::xxh3_64;

use crate::parts::Parts;

pub(super) fn read(input: &[u8]) {
    let mut parts = Parts::new(input);
    let kind = parts.byte();
    let content = parts.rest();
    match kind % 3 {
        0 => configuration(content),
        1 => server_books(content),
        _ => {
            if let Ok(history) = History::read(content) {
                let mut again = Vec::new();
                history.write(&mut again).expect("memory");
                assert!(History::read(&again[..]).is_ok());
            }
        }
    }
}

fn configuration(content: &[u8]) {
    let text = String::from_utf8_lossy(content);
    match Config::parse(Path::new("config.json"), &text) {
        Ok(config) => config.settings.check().expect("settings that were checked"),
        Err(error) => super::assert_presentable(&error.to_string()),
    }
}

fn server_books(content: &[u8]) {
    let path = Path::new("books.json");
    let text = String::from_utf8_lossy(content);
    let sum = xxh3_64(text.trim().as_bytes());
    let sealed = format!(
        r#"{{"kind":"dkv server books","version":1,"checksum":"{sum:016x}","books":{text}}}"#
    );
    for file in [text.as_bytes(), sealed.as_bytes()] {
        match registry_file::decode(path, file) {
            Ok(registry) => {
                let again = registry_file::encode(&registry).expect("books");
                assert!(registry_file::decode(path, &again).is_ok());
            }
            Err(error) => super::assert_presentable(&error.to_string()),
        }
    }
}

pub(super) fn seeds() -> Vec<Vec<u8>> {
    let configuration = include_bytes!("../../../../config.json");
    let history = include_bytes!("../../../../check/tests/histories/good.jsonl");
    let mut seeds = vec![[&[0], &configuration[..]].concat(), [&[2], &history[..]].concat()];
    seeds.push(b"\0{}".to_vec());
    seeds.push(b"\0{\"listen\": \"[::1]:0\", \"shards\": 4, \"heartbeat_ms\": 20}".to_vec());
    seeds.push([&[1], &books_text()[..]].concat());
    seeds
}

/// The content of a registry file, without its envelope.
fn books_text() -> Vec<u8> {
    let mut registry = Registry::new(NetworkId(Uuid::from_u128(1)), Default::default(), 0);
    for number in 1..4_u16 {
        let address = ([127, 0, 0, 1], 4400 + number).into();
        let node = NodeId(Uuid::from_u128(number.into()));
        let _ = registry.handle_register(node, None, address, None, number.into());
    }
    let text = String::from_utf8(registry_file::encode(&registry).expect("books")).expect("text");
    let from = text.find("\"books\":").expect("books") + "\"books\":".len();
    text[from..].trim_end().strip_suffix('}').expect("an envelope").as_bytes().to_vec()
}
