use super::*;

const MIB: u64 = 1024 * 1024;

#[test]
fn a_segment_is_a_sixteenth_of_the_log_within_bounds() {
    for (log, segment) in [
        (0, MIB),
        (16 * MIB, MIB),
        (32 * MIB, 2 * MIB),
        (32 * MIB + 123_456, 2 * MIB),
        (33 * MIB, 2 * MIB + MIB / 16),
        (256 * MIB, 16 * MIB),
        (1024 * MIB, 16 * MIB),
        (u64::MAX, 16 * MIB),
    ] {
        assert_eq!(segment_bytes(log), segment, "{log}");
    }
}

/// A name becomes a directory below `data` only if it cannot lead anywhere else.
#[test]
fn not_every_name_is_a_name_of_a_directory() {
    for name in ["a", "node-1", "rack_2.host-3", "A9"] {
        assert!(is_file_name(name), "{name}");
    }
    for name in ["", ".", "..", ".hidden", "../a", "a/b", "/a", "a\\b", "a b", "ä", "a\0"] {
        assert!(!is_file_name(name), "{name:?}");
    }
}

#[test]
fn a_server_on_this_machine_is_reached_from_this_machine() {
    let server = ([127, 0, 0, 1], 4400).into();
    assert!(local_ip_towards(server).unwrap().is_loopback());
}
