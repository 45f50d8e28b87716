//! Every message there and back, as it was in the first version, and from bytes that are none.

/// Calls a macro with the type and the samples of everything that is a frame, or in the log.
macro_rules! for_each_message {
    ($call:ident) => {
        $call!(Opening, samples::openings());
        $call!(Request, samples::requests());
        $call!(Reply, samples::replies());
        $call!(Command<'_>, samples::commands());
        $call!(ServerRequest, samples::server_requests());
        $call!(ServerAnswer, samples::server_answers());
        $call!(Joining, samples::joinings());
        $call!(Result<JoinAnswer, JoinRefusal>, samples::join_results());
    };
}

mod hostile;
mod samples;

use std::collections::BTreeSet;
use std::fmt::{Debug, Write as _};

use expect_test::expect_file;

use super::*;
use crate::codec::{DecodeError, decode, encode};

#[test]
fn every_message_comes_back() {
    macro_rules! check {
        ($type:ty, $samples:expr) => {
            for sample in $samples {
                let bytes = encode(&sample);
                assert_eq!(decode::<$type>(&bytes), Ok(sample.clone()));
                for length in 0..bytes.len() {
                    let cut = decode::<$type>(&bytes[..length]);
                    assert!(matches!(cut, Err(DecodeError::Malformed(_))), "{sample:?} {length}");
                }
                let longer = [&bytes[..], &[0]].concat();
                assert_eq!(decode::<$type>(&longer), Err(DecodeError::Trailing(1)), "{sample:?}");
            }
        };
    }
    for_each_message!(check);
}

/// An old client and a new node must mean the same bytes: a change of this file is a change of the
/// protocol. Later variants go to the end of their enum, later fields into a later message.
#[test]
fn messages_are_the_bytes_that_they_were() {
    let mut text = String::new();
    macro_rules! print {
        ($type:ty, $samples:expr) => {
            writeln!(text, "{}", stringify!($type)).unwrap();
            for sample in $samples {
                let bytes = data_encoding::HEXLOWER.encode(&encode(&sample));
                let name = format!("{sample:?}");
                let name = name.split_inclusive(['(', '{']).take(3).collect::<String>();
                writeln!(text, "  {:.60}\n    {bytes}", name.replace('\n', " ")).unwrap();
            }
        };
    }
    for_each_message!(print);
    expect_file!["tests/messages.txt"].assert_eq(&text);
}

/// Each variant has a sample, from the first to the last.
fn check_variants<T: Serialize + for<'a> Deserialize<'a> + Debug>(samples: Vec<T>) {
    check_tags(samples.iter().map(|sample| encode(sample)[0]).collect(), |bytes| {
        decode::<T>(bytes).map(|value| format!("{value:?}"))
    });
}

fn check_tags(tags: BTreeSet<u8>, decode: impl Fn(&[u8]) -> Result<String, DecodeError>) {
    let count = tags.len() as u8;
    assert!(tags.into_iter().eq(0..count));
    // What follows the last variant is no variant; an unsampled one would be cut short, or good.
    let unknown = Err(DecodeError::Malformed(postcard::Error::SerdeDeCustom));
    assert_eq!(decode(&[count]), unknown, "a variant has no sample");
}

#[test]
fn every_variant_has_a_sample() {
    check_variants(samples::openings());
    check_variants(samples::levels());
    check_variants(samples::request_bodies());
    check_variants(samples::conditions());
    check_variants(samples::node_states());
    check_variants(samples::group_roles());
    check_variants(samples::answers());
    check_variants(samples::refusals());
    check_variants(samples::roles());
    check_variants(samples::server_requests());
    check_variants(samples::confirmations());
    check_variants(samples::verdicts());
    check_variants(samples::server_refusals());
    check_variants(samples::server_answers());
    check_variants(samples::joinings());
    check_variants(samples::join_refusals());
    check_tags(samples::commands().iter().map(|sample| encode(sample)[0]).collect(), |bytes| {
        decode::<Command<'_>>(bytes).map(|value| format!("{value:?}"))
    });
    check_tags(samples::operations().iter().map(|sample| encode(sample)[0]).collect(), |bytes| {
        decode::<Operation<'_>>(bytes).map(|value| format!("{value:?}"))
    });
}

#[test]
fn a_join_request_does_not_print_its_secret() {
    let secret = [0x5e; 32];
    let request = JoinRequest { token: uuid::Uuid::nil(), secret, public_key: "key".into() };
    let printed = format!("{request:?} {request:#?}");
    assert!(!printed.contains("94"), "{printed}");
}
