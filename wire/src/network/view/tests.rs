use proptest::prelude::*;

use super::*;
use crate::limits;

fn shards(starts: impl IntoIterator<Item = u64>) -> Vec<ShardInfo> {
    let shard = |(index, first_hash): (usize, u64)| ShardInfo {
        group: GroupId(index as u32 + 1),
        keyspace: KeyspaceId(7),
        first_hash,
        primary: None,
        voters: Vec::new(),
        learners: Vec::new(),
    };
    starts.into_iter().enumerate().map(shard).collect()
}

/// The last shard that does not begin after the hash, found by looking at all of them.
fn naive_shard_of(shards: &[ShardInfo], hash: u64) -> Option<&ShardInfo> {
    shards.iter().rev().find(|shard| shard.first_hash <= hash)
}

proptest! {
    #[test]
    fn the_shard_of_a_hash_is_what_a_plain_search_finds(
        starts in proptest::collection::btree_set(any::<u64>(), 0..20),
        near in any::<prop::sample::Index>(),
        anywhere in any::<u64>(),
    ) {
        let starts = starts.into_iter().filter(|start| *start > 0);
        let shards = shards(std::iter::once(0).chain(starts));
        let start = shards[near.index(shards.len())].first_hash;
        for hash in [0, start, start.wrapping_add(1), start.wrapping_sub(1), anywhere, u64::MAX] {
            let (found, expected) =
                (shard_of(&shards, KeyspaceId(7), hash), naive_shard_of(&shards, hash));
            prop_assert_eq!(found, expected, "{:x}", hash);
        }
    }

    #[test]
    fn a_key_is_placed_by_its_hash(key: Vec<u8>, count in 1..50_u32) {
        let shards = shards(shard_starts(count));
        let expected = naive_shard_of(&shards, xxhash_rust::xxh3::xxh3_64(&key)).cloned();
        prop_assert_eq!(view(shards).shard_of(KeyspaceId(7), &key).cloned(), expected);
    }
}

fn view(shards: Vec<ShardInfo>) -> NetworkView {
    NetworkView {
        network: NetworkId::random(),
        term: Term(1),
        coordinator: None,
        nodes: Vec::new(),
        revision: Revision(1),
        keyspaces: Vec::new(),
        shards,
        settings: Settings::default(),
        denied: Vec::new(),
        servers: Vec::new(),
    }
}

#[test]
fn a_view_without_shards_places_nothing() {
    assert_eq!(view(Vec::new()).shard_of(KeyspaceId(7), b"key"), None);
}

#[test]
fn a_key_is_looked_up_in_its_keyspace_only() {
    let of = |keyspace: u32, first_group: u32, count: u32| {
        (first_group..).zip(shard_starts(count)).map(move |(group, first_hash)| ShardInfo {
            group: GroupId(group),
            keyspace: KeyspaceId(keyspace),
            first_hash,
            primary: None,
            voters: Vec::new(),
            learners: Vec::new(),
        })
    };
    let view = view(of(0, 1, 2).chain(of(3, 10, 1)).chain(of(4, 20, 4)).collect());
    let groups = |keyspace| -> Vec<u32> {
        view.shards_of(KeyspaceId(keyspace)).iter().map(|shard| shard.group.0).collect()
    };
    for (keyspace, expected) in [(0, 1..3), (3, 10..11), (4, 20..24)] {
        assert_eq!(groups(keyspace), expected.clone().collect::<Vec<_>>());
        for number in 0..100 {
            let key = format!("key-{number}");
            let shard = view.shard_of(KeyspaceId(keyspace), key.as_bytes()).unwrap();
            assert!(expected.contains(&shard.group.0), "{keyspace}: {key}");
        }
    }
    for none in [1, 2, 5, u32::MAX] {
        assert_eq!(view.shard_of(KeyspaceId(none), b"key"), None);
        assert_eq!(groups(none), []);
    }
}

#[test]
fn shards_begin_at_zero_ascend_and_are_of_equal_size() {
    for count in (1..=65).chain([100, 255, 256, 257, 1000, limits::SHARDS_MAX]) {
        let starts: Vec<u64> = shard_starts(count).collect();
        assert_eq!(starts.len(), count as usize);
        assert_eq!(starts[0], 0);
        // Together they cover 2^64 hashes; no two differ in size by more than one.
        let ends = starts[1..].iter().map(|start| u128::from(*start)).chain([1 << 64]);
        let sizes: Vec<u128> =
            starts.iter().zip(ends).map(|(start, end)| end - u128::from(*start)).collect();
        assert_eq!(sizes.iter().sum::<u128>(), 1 << 64, "{count}");
        let (small, large) = (sizes.iter().min().unwrap(), sizes.iter().max().unwrap());
        assert!(large - small <= 1, "{count}: {small} to {large}");
    }
    assert_eq!(shard_starts(0).count(), 0);
    assert_eq!(shard_starts(4).collect::<Vec<_>>(), [0, 1 << 62, 1 << 63, 3 << 62]);
}

/// The hash places every key of every network, so it can never change. The values are those of
/// xxHash's own sanity check, one for each way that the algorithm takes by length.
#[test]
fn the_hash_is_xxh3_as_its_authors_have_it() {
    let mut generator = 2_654_435_761_u64;
    let byte = |_| {
        let byte = (generator >> 56) as u8;
        generator = generator.wrapping_mul(11_400_714_785_074_694_797);
        byte
    };
    let content: Vec<u8> = (0..limits::KEY_BYTES_MAX).map(byte).collect();
    for (length, hash) in [
        (0, 0x2d06_8005_38d3_94c2),
        (1, 0xc44b_dff4_074e_ecdb),
        (6, 0x27b5_6a84_cd2d_7325),
        (12, 0xa713_daf0_dfbb_77e7),
        (24, 0xa3fe_70bf_9d35_10eb),
        (48, 0x397d_a259_ecba_1f11),
        (80, 0xbcde_fbbb_2c47_c90a),
        (195, 0xcd94_217e_e362_ec3a),
        (403, 0xcdeb_804d_65c6_dea4),
        (512, 0x617e_4959_9013_cb6b),
        (2048, 0xdd59_e2c3_a5f0_38e0),
    ] {
        assert_eq!(key_hash(&content[..length]), hash, "{length} bytes");
    }
}

/// Makes a key of a number.
type Naming = fn(u64) -> Vec<u8>;

/// How far counts are from being all equal: Pearson's chi-square.
fn chi_square(counts: &[u64]) -> f64 {
    let mean = counts.iter().sum::<u64>() as f64 / counts.len() as f64;
    counts.iter().map(|count| (*count as f64 - mean).powi(2) / mean).sum()
}

#[test]
fn keys_of_all_kinds_are_spread_evenly_over_shards() {
    const SHARDS: usize = 16;
    const KEYS: u64 = 100_000;
    // With 16 counts that are all equally likely this is exceeded once in ten thousand times.
    const CRITICAL: f64 = 44.26;
    let shards: Vec<ShardInfo> = (1..)
        .zip(shard_starts(SHARDS as u32))
        .map(|(group, first_hash)| ShardInfo {
            group: GroupId(group),
            keyspace: KeyspaceId(7),
            first_hash,
            primary: None,
            voters: Vec::new(),
            learners: Vec::new(),
        })
        .collect();
    let kinds: [(&str, Naming); 5] = [
        ("names with numbers", |number| format!("user:{number}").into_bytes()),
        ("numbers, big end first", |number| number.to_be_bytes().to_vec()),
        ("numbers, little end first", |number| number.to_le_bytes().to_vec()),
        ("long names that end alike", |number| format!("{number}/{}", "x".repeat(100)).into()),
        ("multiples of the number of shards", |number| (16 * number).to_string().into()),
    ];
    for (kind, key) in kinds {
        let mut counts = [0; SHARDS];
        for number in 0..KEYS {
            let shard = shard_of(&shards, KeyspaceId(7), key_hash(&key(number))).unwrap();
            counts[shard.group.0 as usize - 1] += 1;
        }
        assert!(chi_square(&counts) < CRITICAL, "{kind}: {counts:?}");
    }
    // A spread that is off by three parts in a hundred is found.
    let mean = KEYS / SHARDS as u64;
    let skewed: Vec<u64> =
        (0..SHARDS).map(|number| mean * if number % 2 == 0 { 103 } else { 97 } / 100).collect();
    assert!(chi_square(&skewed) > CRITICAL);
}

fn three() -> Delays {
    Delays {
        between: vec!["us-east".into(), "us-west".into(), "n7".into()],
        average_ms: vec![vec![0, 200, 600], vec![250, 1, 400], vec![0, 0, 0]],
        vary: false,
    }
}

fn region(name: &str) -> Region {
    name.parse().unwrap()
}

fn node(name: &str, place: Option<&str>, port: u16) -> NodeInfo {
    NodeInfo {
        id: NodeId::random(),
        name: name.into(),
        address: ([127, 0, 0, 1], port).into(),
        region: place.map(region),
        state: NodeState::Live,
    }
}

#[test]
fn each_direction_has_its_own_delay() {
    let nodes = [
        node("a", Some("us-east"), 1),
        node("b", Some("us-west"), 2),
        // It has a place of its own, wherever its region is.
        node("n7", Some("us-east"), 3),
        node("c", Some("eu"), 4),
        node("d", None, 5),
    ];
    let delays = three();
    let links = |own| -> Vec<(u16, u128, u128)> {
        let links = delays.link_delays(own, &nodes);
        let links = links.into_iter();
        links.map(|(to, delay)| (to.port(), delay.to.as_millis(), delay.from.as_millis())).collect()
    };
    let east = delays.place(Some("somebody"), Some(&region("us-east")));
    assert_eq!(links(east), [(2, 200, 250), (3, 600, 0)]);
    let west = delays.place(None, Some(&region("us-west")));
    assert_eq!(links(west), [(1, 250, 200), (2, 1, 1), (3, 400, 0)]);
    assert_eq!(links(delays.place(Some("d"), None)), []);
}
