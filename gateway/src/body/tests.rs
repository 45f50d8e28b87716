//! Bodies and their room.

use axum::http::Request;
use futures::stream;

use super::*;

#[tokio::test]
async fn bodies_have_a_limit_and_a_budget() {
    let budget = Budget::default();
    let (head, ()) = Request::new(()).into_parts();
    let chunks = |count: usize| {
        let chunk = || Ok::<_, std::io::Error>(Bytes::from_static(b"x"));
        Body::from_stream(stream::iter(std::iter::repeat_with(chunk).take(count)))
    };
    let (whole, held) = budget.read(&head, chunks(10_000), 10_000).await.unwrap();
    assert_eq!(
        (whole.len(), budget.bytes.available_permits()),
        (10_000, BODIES_BYTES_MAX - 10_000)
    );
    drop(held);
    assert_eq!(budget.bytes.available_permits(), BODIES_BYTES_MAX);
    let over = budget.read(&head, chunks(10_001), 10_000).await;
    assert_eq!(over.unwrap_err(), BodyError::TooLong(10_000));
    let all = budget.take(BODIES_BYTES_MAX).unwrap();
    let refused = budget.read(&head, chunks(1), 10).await;
    assert_eq!(refused.unwrap_err(), BodyError::NoRoom);
    drop(all);
    let broken = stream::iter([Ok(Bytes::from_static(b"x")), Err(std::io::Error::other("gone"))]);
    let broken = budget.read(&head, Body::from_stream(broken), 10).await;
    assert_eq!(broken.unwrap_err(), BodyError::Broken);
    assert_eq!(budget.bytes.available_permits(), BODIES_BYTES_MAX);
}

#[tokio::test]
async fn an_answer_in_pieces_holds_its_room_until_it_is_gone() {
    let budget = Budget::default();
    let mut pieces = Pieces::default();
    pieces.push("[");
    for number in 0..3 {
        let piece = Bytes::from(number.to_string());
        pieces.push_held(piece, budget.take(1000).unwrap());
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
    // As long as a connection has any of them left to send.
    drop(body);
    assert_eq!((&last[..], budget.bytes.available_permits()), (&b"2"[..], BODIES_BYTES_MAX - 1000));
    drop(last);
    assert_eq!(budget.bytes.available_permits(), BODIES_BYTES_MAX);
}

#[tokio::test]
async fn a_long_answer_is_taken_in_pieces() {
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
async fn a_body_takes_no_more_room_than_it_has_bytes() {
    let (head, ()) = Request::new(()).into_parts();
    let sent = [&[1_u8; 3000][..], &[2; 100_000], &[3; 50_000]].map(Bytes::from_static);
    let mut known = Pieces::default();
    sent.iter().for_each(|piece| known.push(piece.clone()));
    let (read, _held) = Budget::default().read(&head, known.into_body(), 1 << 20).await.unwrap();
    assert_eq!(read, sent.concat());
    assert_eq!(Vec::from(read).capacity(), 153_000);
}

#[tokio::test]
async fn a_bearer_does_not_take_the_room_of_the_others() {
    let (budget, shares) = (Budget::default(), Shares::default());
    let asker = |number: u128, rights| {
        let holder = HolderId(dkv_api::Uuid::from_u128(number));
        let network = dkv_api::NetworkId(dkv_api::Uuid::nil());
        shares.of(&Bearer { network, holder, rights, expires_ms: None })
    };
    let take = |asker: Asker, bytes| {
        let budget = budget.clone();
        asker.ask(async move { budget.take(bytes) })
    };
    let (first, second) = (asker(1, Rights::Read), asker(2, Rights::Read));
    let _first = take(first.clone(), BEARER_BODIES_BYTES_MAX).await.unwrap();
    assert_eq!(take(first, 1).await.unwrap_err(), BodyError::NoRoom);
    let left = READERS_BODIES_BYTES_MAX - BEARER_BODIES_BYTES_MAX;
    let held = take(second.clone(), left).await.unwrap();
    assert_eq!(take(second.clone(), 1).await.unwrap_err(), BodyError::NoRoom);
    // However many there are who read, who writes has room.
    let writer = take(asker(3, Rights::Write), BODIES_BYTES_MAX - READERS_BODIES_BYTES_MAX).await;
    assert!(writer.is_ok());
    drop(held);
    assert!(take(second, left).await.is_ok());
    assert!(!Asker::only_reads());
    assert!(asker(4, Rights::Read).ask(async { Asker::only_reads() }).await);
}
