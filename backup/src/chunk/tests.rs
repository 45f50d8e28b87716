//! Chunks come back, and nothing else is one.

use dkv_wire::network::KeyspaceSettings;
use proptest::prelude::*;

use super::*;
use crate::record::{Attachment, Place, Put, Records};

pub(crate) fn header(number: u64, before: Hash, content: Content) -> Header {
    Header {
        backup: "20260301T123456Z-07b2b".into(),
        network: Uuid::from_u128(7),
        keyspace: "orders".into(),
        number,
        before,
        content,
        records: 0,
        data_bytes: 0,
        body_bytes: 0,
    }
}

fn put(key: &[u8], value: &[u8], attachment: Option<Attachment>) -> Put {
    let (key, value) = (Bytes::copy_from_slice(key), Bytes::copy_from_slice(value));
    Put { key, value, attachment }
}

fn records() -> Vec<Record> {
    let place = Place { shard: 2, revision: 7, stamp: 1 << 60 };
    let expiry = Attachment::Expiry { deadline_ms: 1 << 40 };
    vec![
        Record::Key(put(b"a", b"1", None)),
        Record::Key(put(b"b\xff", &[0; 300], Some(Attachment::Lease(9)))),
        Record::Put(place, put(b"c", b"", Some(expiry))),
        Record::Delete(place, Bytes::from_static(b"d")),
        Record::Lease { id: 9, ttl_ms: 30_000 },
    ]
}

fn sealed() -> Bytes {
    let content = Content::Pages { of: "7040:1=500".into(), last: true };
    seal(header(1, [0; 32], content), &records()).unwrap().1
}

#[test]
fn a_chunk_comes_back() {
    let sealed = sealed();
    let (header, body, hash) = open(&sealed).unwrap();
    assert_eq!(hash[..], sealed[sealed.len() - 32..]);
    assert_eq!((header.number, header.records), (1, 5));
    let back: Result<Vec<Record>, _> = Records::new(body).collect();
    assert_eq!(back.unwrap(), records());
}

#[test]
fn every_bit_that_changes_is_found() {
    let document =
        crate::plan::ChainSummary { keyspace: "orders".into(), first: 1, hashes: vec![[7; 32]] };
    let (document, _) = seal_document(&document);
    for whole in [sealed(), document] {
        for at in 0..whole.len() * 8 {
            let mut changed = whole.to_vec();
            changed[at / 8] ^= 1 << (at % 8);
            let changed = Bytes::from(changed);
            assert!(open(&changed).is_err(), "bit {at}");
            assert!(open_document::<crate::plan::ChainSummary>(&changed).is_err(), "bit {at}");
        }
        for length in 0..whole.len() {
            assert!(open(&whole.slice(..length)).is_err(), "{length} bytes");
        }
        let longer = Bytes::from([&whole[..], b"\0"].concat());
        assert!(open(&longer).is_err());
    }
}

#[test]
fn lengths_are_checked_before_they_are_believed() {
    let settings = KeyspaceSettings::default();
    let content = Content::Base { settings, from: String::new(), continues: false };
    let mut header = header(1, [0; 32], content);
    header.body_bytes = u64::MAX;
    let (sealed, _) = seal_parts(&codec::encode_vec(&header), &[]);
    assert!(matches!(open(&sealed), Err(ChunkError::Malformed(_))));
    header.body_bytes = BODY_BYTES_MAX;
    let (sealed, _) = seal_parts(&codec::encode_vec(&header), b"no frame");
    assert!(open(&sealed).unwrap_err().to_string().contains("does not decompress"));
    // Less than it says.
    let body = zstd::bulk::compress(b"abc", LEVEL).unwrap();
    let (sealed, _) = seal_parts(&codec::encode_vec(&header), &body);
    assert!(open(&sealed).unwrap_err().to_string().contains("another length"));
}

proptest! {
    #[test]
    fn any_bytes_are_refused_or_a_chunk(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        // A hash that fits makes the rest reachable.
        let mut sealed = [&MAGIC[..], &bytes].concat();
        sealed.extend(hash_of(&sealed));
        if let Ok((_, body, _)) = open(&sealed.into()) {
            Records::new(body).for_each(drop);
        }
    }

    #[test]
    fn records_come_back(
        key in prop::collection::vec(any::<u8>(), 1..50),
        value in prop::collection::vec(any::<u8>(), 0..200),
        lease in any::<u64>(),
    ) {
        let all = vec![
            Record::Key(put(&key, &value, Some(Attachment::Lease(lease)))),
            Record::Key(put(&value, &key, None)),
        ];
        let content = Content::Pages { of: "1:1=1".into(), last: false };
        let (_, sealed, _) = seal(header(3, [9; 32], content), &all).unwrap();
        let (_, body, _) = open(&sealed).unwrap();
        let back: Result<Vec<Record>, _> = Records::new(body).collect();
        prop_assert_eq!(back.unwrap(), all);
    }

    #[test]
    fn the_hash_of_keys_tells_them_apart(
        pairs in prop::collection::btree_map(prop::collection::vec(any::<u8>(), 1..4),
            prop::collection::vec(any::<u8>(), 0..4), 1..10),
        lease in 1_u64..3,
    ) {
        let hash = |changed: Option<usize>| {
            let mut hash = KeysHash::new();
            for (index, (key, value)) in pairs.iter().enumerate() {
                hash.add(key, value, if changed == Some(index) { lease } else { 0 });
            }
            hash.finish()
        };
        prop_assert_eq!(hash(None), hash(None));
        prop_assert_ne!(hash(None).2, hash(Some(0)).2);
    }
}
