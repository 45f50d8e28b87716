//! Tests of the table of errors.

use std::collections::BTreeSet;

use dkv_api::{Error, Revision};

use super::{Code, EtcdError};

#[test]
fn every_text_is_there_once_and_begins_as_etcds_do() {
    let texts: BTreeSet<&str> = EtcdError::ALL.iter().map(EtcdError::message).collect();
    assert_eq!(texts.len(), EtcdError::ALL.len());
    assert!(texts.iter().all(|text| text.starts_with("etcdserver: ")), "{texts:?}");
}

#[test]
fn numbers_of_codes_are_those_of_grpc() {
    for (number, code) in Code::ALL.into_iter().enumerate() {
        assert_eq!(code as usize, number);
    }
    assert_eq!(EtcdError::COMPACTED.code(), Code::OutOfRange);
    assert_eq!(EtcdError::LEASE_EXIST.code(), Code::FailedPrecondition);
}

#[test]
fn a_write_that_may_have_happened_is_a_timeout() {
    assert_eq!(EtcdError::from(Error::Unknown("cut".into())), EtcdError::TIMEOUT);
    assert_eq!(EtcdError::from(Error::Unavailable("none".into())), EtcdError::NO_LEADER);
    let compacted = Error::Compacted { floor: Revision(7) };
    assert_eq!(EtcdError::from(compacted), EtcdError::COMPACTED);
}
