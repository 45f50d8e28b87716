//! Bodies and their memory budget.

use axum::http::Request;
use dkv_api::HolderId;
use dkv_wire::bearer::{Bearer, Rights};
use futures::stream;

use super::*;
use crate::limits::{
    ANSWER_PIECE_BYTES, BEARER_BODIES_BYTES_MAX, BEARER_WATCHES_MAX, READERS_BODIES_BYTES_MAX,
};

#[tokio::test]
async fn bodies_have_a_limit_and_a_budget() {
    let budget = Budget::default();
    let (head, ()) = Request::new(()).into_parts();
    let chunks = |count: usize| {
        let chunk = || Ok::<_, std::io::Error>(Bytes::from_static(b"x"));
        Body::from_stream(stream::iter(std::iter::repeat_with(chunk).take(count)))
    };
    let (whole, reservation) = budget.read(&head, chunks(10_000), 10_000).await.unwrap();
    assert_eq!(
        (whole.len(), budget.bytes.available_permits()),
        (10_000, BODIES_BYTES_MAX - 10_000)
    );
    drop(reservation);
    assert_eq!(budget.bytes.available_permits(), BODIES_BYTES_MAX);
    let over = budget.read(&head, chunks(10_001), 10_000).await;
    assert_eq!(over.unwrap_err(), BodyError::TooLong(10_000));
    let all = budget.reserve(BODIES_BYTES_MAX).unwrap();
    let refused = budget.read(&head, chunks(1), 10).await;
    assert_eq!(refused.unwrap_err(), BodyError::NoRoom);
    drop(all);
    let broken = stream::iter([Ok(Bytes::from_static(b"x")), Err(std::io::Error::other("gone"))]);
    let broken = budget.read(&head, Body::from_stream(broken), 10).await;
    assert_eq!(broken.unwrap_err(), BodyError::Broken);
    assert_eq!(budget.bytes.available_permits(), BODIES_BYTES_MAX);
}

#[tokio::test]
async fn a_response_in_parts_keeps_its_reservation_until_it_is_dropped() {
    let budget = Budget::default();
    let mut pieces = ResponseParts::default();
    pieces.push("[");
    for number in 0..3 {
        let piece = Bytes::from(number.to_string());
        pieces.push_reserved(piece, budget.reserve(1000).unwrap());
    }
    pieces.push("");
    assert_eq!((pieces.len(), budget.bytes.available_permits()), (4, BODIES_BYTES_MAX - 3000));
    let mut body = pieces.into_body();
    assert_eq!(body.size_hint().exact(), Some(4));
    let first = body.frame().await.unwrap().unwrap().into_data().unwrap();
    assert_eq!((first.as_ref(), body.size_hint().exact()), (&b"["[..], Some(3)));
    let mut last = Bytes::new();
    while let Some(frame) = body.frame().await {
        last = frame.unwrap().into_data().unwrap();
    }
    assert!(body.is_end_stream());
    // The reservation lasts as long as the connection holds any of the bytes.
    drop(body);
    assert_eq!((&last[..], budget.bytes.available_permits()), (&b"2"[..], BODIES_BYTES_MAX - 1000));
    drop(last);
    assert_eq!(budget.bytes.available_permits(), BODIES_BYTES_MAX);
}

#[tokio::test]
async fn a_long_response_is_handed_over_in_frames() {
    let value = Bytes::from(vec![7; 2 * ANSWER_PIECE_BYTES + 1]);
    let (place, budget) = (value.as_ptr(), Budget::default());
    let mut body = budget.answer(value.clone()).unwrap();
    let first = body.frame().await.unwrap().unwrap().into_data().unwrap();
    // Not copied.
    assert_eq!((first.len(), first.as_ptr()), (ANSWER_PIECE_BYTES, place));
    assert_eq!(body.size_hint().exact(), Some(ANSWER_PIECE_BYTES as u64 + 1));
    assert_eq!([&first[..], &body.collect().await.unwrap().to_bytes()[..]].concat(), value);
    assert!(budget.bytes.available_permits() < BODIES_BYTES_MAX);
    drop(first);
    assert_eq!(budget.bytes.available_permits(), BODIES_BYTES_MAX);
}

#[tokio::test]
async fn a_body_allocates_no_more_than_its_length() {
    let (head, ()) = Request::new(()).into_parts();
    let sent = [&[1_u8; 3000][..], &[2; 100_000], &[3; 50_000]].map(Bytes::from_static);
    let mut known = ResponseParts::default();
    sent.iter().for_each(|piece| known.push(piece.clone()));
    let (read, _reservation) =
        Budget::default().read(&head, known.into_body(), 1 << 20).await.unwrap();
    assert_eq!(read, sent.concat());
    assert_eq!(Vec::from(read).capacity(), 153_000);
}

#[tokio::test]
async fn a_bearer_cannot_use_up_the_budget_of_others() {
    let (budget, quotas) = (Budget::default(), CallerQuotas::default());
    let caller = |number: u128, rights| {
        let holder = HolderId(dkv_api::Uuid::from_u128(number));
        let network = dkv_api::NetworkId(dkv_api::Uuid::nil());
        quotas.caller(&Bearer { network, holder, rights, expires_ms: None, user: None })
    };
    let take = |caller: Caller, bytes| {
        let budget = budget.clone();
        caller.scope(async move { budget.reserve(bytes) })
    };
    let (first, second) = (caller(1, Rights::Read), caller(2, Rights::Read));
    let _first = take(first.clone(), BEARER_BODIES_BYTES_MAX).await.unwrap();
    assert_eq!(take(first, 1).await.unwrap_err(), BodyError::NoRoom);
    let left = READERS_BODIES_BYTES_MAX - BEARER_BODIES_BYTES_MAX;
    let reservation = take(second.clone(), left).await.unwrap();
    assert_eq!(take(second.clone(), 1).await.unwrap_err(), BodyError::NoRoom);
    // However many readers there are, a writer has room.
    let writer = take(caller(3, Rights::Write), BODIES_BYTES_MAX - READERS_BODIES_BYTES_MAX).await;
    assert!(writer.is_ok());
    drop(reservation);
    assert!(take(second, left).await.is_ok());
    assert!(!Caller::is_read_only());
    assert!(caller(4, Rights::Read).scope(async { Caller::is_read_only() }).await);
}

#[tokio::test]
async fn a_bearer_cannot_use_up_the_watches_of_others() {
    let quotas = CallerQuotas::default();
    let caller = |number: u128| {
        let holder = HolderId(dkv_api::Uuid::from_u128(number));
        let network = dkv_api::NetworkId(dkv_api::Uuid::nil());
        quotas.caller(&Bearer {
            network,
            holder,
            rights: Rights::Read,
            expires_ms: None,
            user: None,
        })
    };
    let mut watches: Vec<_> =
        (0..BEARER_WATCHES_MAX).map(|_| caller(1).take_watch().unwrap()).collect();
    assert!(caller(1).take_watch().is_none());
    assert!(caller(2).take_watch().is_some());
    watches.pop();
    assert!(caller(1).take_watch().is_some());
    // A stream acts in the name of the caller that began it.
    assert!(Caller::current().is_none());
    let second = caller(2);
    assert!(Caller::in_name_of(Some(&second), Caller::is_read_only));
    assert!(!Caller::in_name_of(None, Caller::is_read_only));
}
