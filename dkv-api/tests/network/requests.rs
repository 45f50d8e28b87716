//! Requests against a network that misbehaves.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::fake::{Act, Fake};
use dkv_api::{
    Client, Condition, Error, Level, ReadOptions, Revision, Role, ScanOptions, WriteOptions,
};
use dkv_wire::message::{LimitKind, Refusal, RequestBody};

fn is_propose(body: &RequestBody) -> bool {
    matches!(body, RequestBody::Propose { .. })
}

/// Does `act` with the first write that is no opening of a session, and then behaves.
fn with_first_write(act: Act) -> impl FnMut(&RequestBody) -> Act + Send {
    let mut act = Some(act);
    move |body| {
        let is_write = matches!(body, RequestBody::Propose { command, .. } if command[0] == 1);
        if is_write { act.take().unwrap_or(Act::Serve) } else { Act::Serve }
    }
}

async fn connected(nodes: usize) -> (Fake, Client) {
    let fake = Fake::start(nodes).await;
    let client = fake.builder().connect().await.unwrap();
    (fake, client)
}

fn within(milliseconds: u64) -> WriteOptions {
    WriteOptions::default().timeout(Duration::from_millis(milliseconds))
}

#[tokio::test]
async fn values_are_written_read_and_deleted() {
    let (_fake, client) = connected(3).await;
    assert!(matches!(client.read("k").await, Err(Error::NotFound { .. })));
    assert!(matches!(client.delete("k").await, Err(Error::NotFound { .. })));
    let first = client.write("k", "one").await.unwrap();
    assert!(!first.existed);
    let read = client.read("k").await.unwrap();
    assert_eq!((&read.value[..], read.receipt.revision), (&b"one"[..], first.receipt.revision));
    let eventual = client.read_with("k", ReadOptions::eventual()).await.unwrap();
    assert_eq!(eventual.receipt.level, Level::Eventual);
    assert!(client.write("k", "").await.unwrap().existed);
    assert_eq!(client.read("k").await.unwrap().value, "");
    assert!(client.delete("k").await.unwrap().existed);
    assert!(matches!(client.read("k").await, Err(Error::NotFound { .. })));
    let every_byte: Vec<u8> = (0..=255).collect();
    client.write(&every_byte, every_byte.clone()).await.unwrap();
    assert_eq!(client.read(&every_byte).await.unwrap().value, every_byte);
}

#[tokio::test]
async fn scans_go_over_all_shards_in_order() {
    let (fake, client) = connected(3).await;
    for number in 0..500 {
        client.write(format!("k{number:03}"), number.to_string()).await.unwrap();
    }
    client.write("other", "").await.unwrap();
    // A refusal and a lost answer cost time only.
    let mut acts = vec![Act::Refuse(Refusal::Unavailable("no quorum".into())), Act::CloseAtOnce];
    for node in &fake.nodes {
        let mut acts = std::mem::take(&mut acts);
        node.script(move |body| match body {
            RequestBody::Scan { .. } => acts.pop().unwrap_or(Act::Serve),
            _ => Act::Serve,
        });
    }
    let options = ScanOptions::prefix("k").after("k099");
    let mut scan = client.scan(options.clone());
    for number in 100..500 {
        let pair = scan.next().await.unwrap().unwrap();
        let expected = (format!("k{number}").into(), Some(number.to_string().into()));
        assert_eq!((pair.key, pair.value), expected);
    }
    assert_eq!((scan.next().await, scan.staleness_ms()), (Ok(None), Some(0)));
    let mut keys = client.scan(options.limit(5).values(false));
    let page = keys.page(3, usize::MAX).await.unwrap();
    assert_eq!((page.pairs.len(), page.more, &page.pairs[0].value), (3, true, &None));
    let page = keys.page(3, usize::MAX).await.unwrap();
    assert_eq!((page.pairs.len(), page.more), (2, false));
    let by_bytes = client.scan(ScanOptions::default()).page(usize::MAX, 10).await.unwrap();
    assert_eq!((by_bytes.pairs.len(), by_bytes.more), (2, true));
}

#[tokio::test]
async fn conditions_hold_or_are_a_conflict() {
    let (_fake, client) = connected(1).await;
    let when = |condition: Condition| WriteOptions::from(condition);
    let conflict = client.write_with("k", "x", when(Condition::Present)).await;
    assert!(matches!(conflict, Err(Error::Conflict { current: None, .. })), "{conflict:?}");
    let one = client.write_with("k", "one", when(Condition::Absent)).await.unwrap();
    let at = one.receipt.revision;
    let conflict = client.write_with("k", "x", when(Condition::Absent)).await;
    assert!(matches!(conflict, Err(Error::Conflict { current, .. }) if current == Some(at)));
    let wrong = Condition::Revision(Revision(at.0 + 7));
    assert!(matches!(client.delete_with("k", when(wrong)).await, Err(Error::Conflict { .. })));
    client.delete_with("k", when(Condition::Revision(at))).await.unwrap();
}

#[tokio::test]
async fn what_is_too_large_is_refused_before_it_is_sent() {
    let (fake, client) = connected(1).await;
    let arrived = fake.state().arrived;
    assert!(matches!(client.read("").await, Err(Error::Invalid(_))));
    assert!(matches!(client.write("", "v").await, Err(Error::Invalid(_))));
    let long = client.write(vec![1; 4097], "v").await;
    assert!(matches!(long, Err(Error::TooLarge { bytes: 4097, limit: 4096, .. })), "{long:?}");
    let large = client.write("k", vec![0; 2 * 1024 * 1024 + 1]).await;
    assert!(matches!(large, Err(Error::TooLarge { limit: 2_097_152, .. })), "{large:?}");
    assert_eq!(fake.state().arrived, arrived);
    client.write(vec![1; 4096], vec![7; 2 * 1024 * 1024]).await.unwrap();
    assert_eq!(client.read(vec![1; 4096]).await.unwrap().value.len(), 2 * 1024 * 1024);
}

/// Whatever happens to the reply, a conditional write that is sent again comes to what it came to
/// the first time.
#[tokio::test]
async fn a_write_whose_reply_is_lost_is_executed_once() {
    for act in
        [Act::ServeAndClose, Act::CloseAtOnce, Act::Garbage, Act::Oversize, Act::StrangerFirst]
    {
        let (fake, client) = connected(3).await;
        fake.nodes[0].script(with_first_write(act.clone()));
        let written = client.write_with("k", "v", Condition::Absent.into()).await;
        assert!(written.is_ok(), "{act:?}: {written:?}");
        assert_eq!(fake.state().executed.len(), 1, "{act:?}");
        client.write("k", "after").await.unwrap();
    }
}

/// A node that executes and says nothing, until it is reached over another connection.
#[tokio::test]
async fn a_reply_that_never_comes_is_fetched_over_another_connection() {
    let (fake, client) = connected(1).await;
    client.write("other", "v").await.unwrap();
    let begun = Instant::now();
    fake.nodes[0].script(move |_| {
        if begun.elapsed() < Duration::from_millis(900) { Act::Swallow } else { Act::Serve }
    });
    client.write_with("k", "v", Condition::Absent.into()).await.unwrap();
    assert!(begun.elapsed() < Duration::from_secs(3), "{:?}", begun.elapsed());
    assert_eq!(fake.state().executed.len(), 2);
}

#[tokio::test]
async fn a_refusal_that_asks_to_come_again_is_followed() {
    for refusal in [
        Refusal::Unavailable("not now".into()),
        Refusal::Overloaded { retry_after_ms: 5 },
        Refusal::Limited { limit: LimitKind::Requests, retry_after_ms: 5 },
        Refusal::Unknown("perhaps".into()),
        Refusal::NotPrimary { primary: None },
    ] {
        let (fake, client) = connected(3).await;
        fake.nodes[0].script(with_first_write(Act::Refuse(refusal.clone())));
        client.write("k", "v").await.unwrap_or_else(|error| panic!("{refusal:?}: {error}"));
        assert_eq!(fake.state().executed.len(), 1);
    }
}

#[tokio::test]
async fn a_limit_that_outlasts_the_request_is_reported_at_once() {
    let (fake, client) = connected(1).await;
    let limited = Refusal::Limited { limit: LimitKind::Bytes, retry_after_ms: 60_000 };
    fake.nodes[0].script(move |body| match body {
        RequestBody::Read { .. } => Act::Refuse(limited.clone()),
        _ => Act::Serve,
    });
    let begun = Instant::now();
    let error = client.read("k").await.unwrap_err();
    let wait = Duration::from_secs(60);
    assert!(
        matches!(&error, Error::Limited { retry_after, .. } if *retry_after == wait),
        "{error}"
    );
    assert!(error.is_retryable() && begun.elapsed() < Duration::from_secs(1), "{error}");
}

#[tokio::test]
async fn definite_refusals_are_told_apart() {
    for (refusal, expected) in [
        (Refusal::Invalid("x".into()), Error::Invalid("x".into())),
        (Refusal::Denied("x".into()), Error::Denied("x".into())),
        (
            Refusal::TooLarge { what: "value".into(), bytes: 2, limit: 1 },
            Error::TooLarge { what: "value".into(), bytes: 2, limit: 1 },
        ),
    ] {
        let (fake, client) = connected(1).await;
        fake.nodes[0].script(move |body| {
            if is_propose(body) { Act::Refuse(refusal.clone()) } else { Act::Serve }
        });
        assert_eq!(client.write("k", "v").await, Err(expected));
    }
}

/// Trap 5: what may have happened is never called a failure.
#[tokio::test]
async fn a_deadline_after_a_silent_attempt_is_unknown() {
    let (fake, client) = connected(1).await;
    client.write("k", "before").await.unwrap();
    for act in [Act::Swallow, Act::Refuse(Refusal::Unknown("perhaps".into())), Act::ServeAndClose] {
        fake.nodes[0].script(move |body| if is_propose(body) { act.clone() } else { Act::Serve });
        let outcome = client.write_with("k", "v", within(300)).await;
        assert!(matches!(outcome, Err(Error::Unknown(_))), "{outcome:?}");
        assert!(outcome.unwrap_err().may_have_had_effect());
    }
    fake.nodes[0].behave();
    client.write("k", "after").await.unwrap();
}

#[tokio::test]
async fn a_deadline_after_refusals_without_effect_is_unavailable() {
    let (fake, client) = connected(1).await;
    client.write("k", "before").await.unwrap();
    let executed = fake.state().executed.len();
    for refusal in [
        Refusal::Unavailable("no quorum".into()),
        Refusal::Overloaded { retry_after_ms: 1 },
        Refusal::NotPrimary { primary: None },
    ] {
        fake.nodes[0].script(move |body| {
            if is_propose(body) { Act::Refuse(refusal.clone()) } else { Act::Serve }
        });
        // On a busy machine the last refusal may come after the deadline, and is unknown by then.
        let mut outcome = client.write_with("k", "v", within(300)).await;
        for _ in 0..5 {
            if !matches!(outcome, Err(Error::Unknown(_))) {
                break;
            }
            outcome = client.write_with("k", "v", within(300)).await;
        }
        assert!(matches!(outcome, Err(Error::Unavailable(_))), "{outcome:?}");
    }
    assert_eq!(fake.state().executed.len(), executed);
}

#[tokio::test]
async fn a_read_that_is_not_answered_had_no_effect() {
    let (fake, client) = connected(1).await;
    fake.nodes[0].script(|_| Act::Ignore);
    let begun = Instant::now();
    let options = ReadOptions::default().timeout(Duration::from_millis(200));
    let outcome = client.read_with("k", options).await;
    assert!(matches!(outcome, Err(Error::Unavailable(_))), "{outcome:?}");
    let waited = begun.elapsed();
    assert!(waited >= Duration::from_millis(200) && waited < Duration::from_secs(2));
}

#[tokio::test]
async fn a_session_that_expired_is_opened_anew_if_nothing_is_in_doubt() {
    let (fake, client) = connected(1).await;
    client.write("k", "one").await.unwrap();
    fake.state().forget_sessions();
    client.write("k", "two").await.unwrap();
    assert_eq!(fake.state().executed.len(), 2);
    // The second attempt meets a shard that has forgotten what it did with the first.
    fake.nodes[0].script(with_first_write(Act::Refuse(Refusal::Unknown("perhaps".into()))));
    let fake = Arc::new(fake);
    let forgetful = fake.clone();
    let write = tokio::spawn({
        let client = client.clone();
        async move { client.write("k", "three").await }
    });
    tokio::time::sleep(Duration::from_millis(3)).await;
    forgetful.state().forget_sessions();
    let outcome = write.await.unwrap();
    assert!(matches!(outcome, Err(Error::Unknown(_))), "{outcome:?}");
    client.write("k", "four").await.unwrap();
}

#[tokio::test]
async fn a_redirect_is_followed() {
    let (fake, client) = connected(3).await;
    client.write("k", "one").await.unwrap();
    fake.state().set_primary(fake.nodes[2].id);
    let written = client.write("k", "two").await.unwrap();
    assert_eq!(written.receipt.node, fake.nodes[2].id);
    assert_eq!(client.read("k").await.unwrap().receipt.node, fake.nodes[2].id);
}

/// The primary goes silent, as when its process is killed. Another takes over 100 ms later.
#[tokio::test]
async fn silence_of_the_primary_is_noticed_and_its_successor_found() {
    let (fake, client) = connected(3).await;
    client.write("k", "before").await.unwrap();
    tokio::time::sleep(Duration::from_millis(100)).await;
    fake.nodes[0].script(|_| Act::Ignore);
    let writes: Vec<_> = (0..50)
        .map(|n| {
            let client = client.clone();
            tokio::spawn(async move { client.write(format!("k{n}"), "v").await })
        })
        .collect();
    tokio::time::sleep(Duration::from_millis(100)).await;
    fake.state().set_primary(fake.nodes[1].id);
    let taken_over = Instant::now();
    for write in writes {
        assert_eq!(write.await.unwrap().unwrap().receipt.node, fake.nodes[1].id);
    }
    let delay = taken_over.elapsed();
    assert!(delay < Duration::from_millis(900), "found only after {delay:?}");
    assert_eq!(fake.state().executed.len(), 51);
}

/// A deposed primary that executed the write answers after its successor was asked.
#[tokio::test]
async fn the_first_answer_counts_and_the_second_is_ignored() {
    let (fake, client) = connected(2).await;
    client.write("k", "before").await.unwrap();
    tokio::time::sleep(Duration::from_millis(50)).await;
    fake.nodes[0].script(with_first_write(Act::Late(Duration::from_millis(300))));
    let late = tokio::spawn({
        let client = client.clone();
        async move { client.write_with("new", "v", Condition::Absent.into()).await }
    });
    tokio::time::sleep(Duration::from_millis(20)).await;
    fake.state().set_primary(fake.nodes[1].id);
    let written = late.await.unwrap().unwrap();
    assert!(!written.existed, "the stored reply of the one execution");
    tokio::time::sleep(Duration::from_millis(350)).await;
    assert_eq!(fake.state().executed.len(), 2);
    assert_eq!(client.read("new").await.unwrap().value, "v");
}

#[tokio::test]
async fn eventual_reads_leave_a_silent_replica() {
    let (fake, client) = connected(3).await;
    client.write("k", "v").await.unwrap();
    tokio::time::sleep(Duration::from_millis(100)).await;
    let first = client.read_with("k", ReadOptions::eventual()).await.unwrap().receipt.node;
    let silent = fake.nodes.iter().find(|node| node.id == first).unwrap();
    silent.script(|_| Act::Ignore);
    let begun = Instant::now();
    for _ in 0..3 {
        let read = client.read_with("k", ReadOptions::eventual()).await.unwrap();
        assert_ne!(read.receipt.node, first);
    }
    assert!(begun.elapsed() < Duration::from_millis(1500), "{:?}", begun.elapsed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_requests_are_under_way_at_once() {
    let fake = Fake::start(3).await;
    // Whatever else the machine does: this is about how many there are, not about how long they
    // take.
    let client = fake.builder().timeout(Duration::from_secs(120)).connect().await.unwrap();
    let tasks: Vec<_> = (0..10_000)
        .map(|n: u32| {
            let client = client.clone();
            tokio::spawn(async move {
                let written = client.write(n.to_be_bytes(), n.to_string()).await.unwrap();
                let read = client.read(n.to_be_bytes()).await.unwrap();
                assert_eq!(read.value, n.to_string());
                (written.receipt.shard, written.receipt.revision)
            })
        })
        .collect();
    let mut revisions = HashSet::new();
    for task in tasks {
        assert!(revisions.insert(task.await.unwrap()));
    }
    let state = fake.state();
    let named: HashSet<_> =
        state.executed.iter().map(|one| (one.shard, one.session, one.serial)).collect();
    assert_eq!((state.executed.len(), named.len()), (10_000, 10_000));
    let sessions: HashSet<_> = state.executed.iter().map(|one| one.session).collect();
    assert_eq!(sessions.len(), 1, "one session a client");
}

/// Dropped futures leave nothing behind, neither here nor in what the shard has to remember.
#[tokio::test]
async fn dropped_futures_are_settled() {
    let (fake, client) = connected(1).await;
    client.write("k", "first").await.unwrap();
    fake.nodes[0].script(|_| Act::Ignore);
    for _ in 0..100 {
        let write = client.write("k", "dropped");
        assert!(tokio::time::timeout(Duration::from_millis(1), write).await.is_err());
    }
    fake.nodes[0].behave();
    client.write("k", "last").await.unwrap();
    let last = *fake.state().executed.last().unwrap();
    assert_eq!(last.settled, last.serial, "nothing before it is unsettled");
    assert!(last.serial.0 > 100);
    assert!(!client_debt(&client).await);
}

/// Whether the client still waits for something: then closing it would tell somebody.
async fn client_debt(client: &Client) -> bool {
    client.status().await.nodes.iter().any(|(_, status)| status.is_err())
}

#[tokio::test]
async fn closing_tells_those_who_wait() {
    let (fake, client) = connected(1).await;
    client.write("k", "before").await.unwrap();
    fake.nodes[0].script(|_| Act::Ignore);
    let (write, read) = (client.clone(), client.clone());
    let write = tokio::spawn(async move { write.write("k", "v").await });
    let read = tokio::spawn(async move { read.read("k").await });
    tokio::time::sleep(Duration::from_millis(20)).await;
    let clone = client.clone();
    client.close().await;
    assert!(matches!(write.await.unwrap(), Err(Error::Unknown(_))));
    assert!(matches!(read.await.unwrap(), Err(Error::Unavailable(_))));
    assert!(matches!(clone.read("k").await, Err(Error::Unavailable(_))));
}

#[tokio::test]
async fn administrators_manage_and_clients_may_not() {
    let (fake, client) = connected(2).await;
    let node = fake.nodes[1].id;
    assert!(matches!(client.create_token(Role::Client, None, None).await, Err(Error::Denied(_))));
    let admin = fake.builder().role(Role::Admin).connect().await.unwrap();
    assert_eq!(admin.create_token(Role::Client, None, Some(1)).await.unwrap(), "a token");
    assert!(admin.list_tokens().await.unwrap().is_empty());
    admin.revoke_token(dkv_api::Uuid::new_v4()).await.unwrap();
    // The coordinator has changed, which the client finds out by a redirect.
    fake.state().set_primary(node);
    admin.remove_node(fake.nodes[0].id).await.unwrap();
    admin.revoke(client.identity().holder).await.unwrap();
    assert_eq!(admin.refresh().await.unwrap().coordinator, Some(node));
}

#[tokio::test]
async fn status_reports_who_is_silent() {
    let (fake, client) = connected(3).await;
    fake.nodes[1].script(|_| Act::Ignore);
    fake.nodes[2].stop();
    let begun = Instant::now();
    let status = client.status().await;
    // Long before a request's own time is up, which is ten seconds.
    assert!(begun.elapsed() < Duration::from_secs(6), "{:?}", begun.elapsed());
    assert_eq!(status.server.unwrap().network, fake.network);
    let answered: Vec<bool> = status.nodes.iter().map(|(_, status)| status.is_ok()).collect();
    assert_eq!(answered, [true, false, false]);
    assert_eq!(status.view.unwrap().nodes.len(), 3);
}
