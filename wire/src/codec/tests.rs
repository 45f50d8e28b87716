use serde::{Deserialize, Serialize};

use super::*;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Sample {
    number: u64,
    text: String,
    list: Vec<Option<u16>>,
}

fn sample() -> Sample {
    Sample { number: u64::MAX, text: "täxt".into(), list: vec![None, Some(0), Some(300)] }
}

#[test]
fn the_three_ways_to_encode_agree() {
    let bytes = encode(&sample());
    assert_eq!(encode_vec(&sample()), bytes);
    assert_eq!(encode_into(&sample(), b"before".to_vec()), [b"before", &*bytes].concat());
}

#[test]
fn a_value_comes_back() {
    assert_eq!(decode::<Sample>(&encode(&sample())), Ok(sample()));
    assert_eq!(decode::<()>(&[]), Ok(()));
}

#[test]
fn bytes_after_a_value_make_it_invalid() {
    let mut bytes = encode_vec(&sample());
    for more in 1..4 {
        bytes.push(0);
        assert_eq!(decode::<Sample>(&bytes), Err(DecodeError::Trailing(more)));
    }
    assert_eq!(decode_prefix::<Sample>(&bytes), Ok((sample(), &[0, 0, 0][..])));
}

#[test]
fn a_value_that_is_cut_anywhere_is_malformed() {
    let bytes = encode(&sample());
    for length in 0..bytes.len() {
        let cut = &bytes[..length];
        assert!(matches!(decode::<Sample>(cut), Err(DecodeError::Malformed(_))), "{length}");
        assert!(matches!(decode_prefix::<Sample>(cut), Err(DecodeError::Malformed(_))), "{length}");
    }
}

#[test]
fn what_postcard_could_be_lenient_about_is_refused() {
    assert!(decode::<bool>(&[2]).is_err());
    assert!(decode::<Option<u8>>(&[2, 0]).is_err());
    assert!(decode::<String>(&[1, 0xff]).is_err(), "not UTF-8");
    assert!(decode::<u16>(&[0xff, 0xff, 0x04]).is_err(), "over its range");
    assert!(decode::<u64>(&[0x80; 32]).is_err(), "a number without an end");
    // A list of more than there is: as long as the machine can count.
    assert!(decode::<Bytes>(&encode(&u64::MAX)).is_err());
    assert!(decode::<Vec<u64>>(&encode(&u64::MAX)).is_err());
}
