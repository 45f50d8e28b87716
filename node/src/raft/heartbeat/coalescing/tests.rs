use openraft::raft::VoteRequest;

use super::*;
use crate::raft::Vote;
use crate::raft::codec::Confirmed;

fn beat(group: u32, urgent: bool) -> (QueuedCall, oneshot::Receiver<CallResult>) {
    let (waiter, answer) = oneshot::channel();
    let call = Call::Vote(VoteRequest::new(Vote::new(1, NodeId::random()), None));
    (QueuedCall { group: GroupId(group), call, made: Instant::now(), urgent, waiter }, answer)
}

#[tokio::test(start_paused = true)]
async fn what_falls_due_together_is_sent_together() {
    let (queue, mut beats) = mpsc::channel(8);
    let begun = Instant::now();
    let ((first, _one), (second, _two)) = (beat(1, false), beat(2, false));
    let sending = async {
        tokio::time::sleep(GATHER / 2).await;
        queue.send(second).await.unwrap();
    };
    let (gathered, ()) = tokio::join!(gather(first, &mut beats, usize::MAX), sending);
    assert_eq!(gathered.len(), 2);
    assert_eq!(begun.elapsed(), GATHER);
}

#[tokio::test(start_paused = true)]
async fn what_is_waited_for_is_sent_at_once_and_takes_the_rest_along() {
    let (queue, mut beats) = mpsc::channel(8);
    let begun = Instant::now();
    let ((idle, _one), (urgent, _two), (after, _three)) =
        (beat(1, false), beat(2, true), beat(3, false));
    queue.send(urgent).await.unwrap();
    queue.send(after).await.unwrap();
    assert_eq!(gather(idle, &mut beats, usize::MAX).await.len(), 3);
    assert_eq!(gather(beat(4, true).0, &mut beats, usize::MAX).await.len(), 1);
    assert_eq!(begun.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn what_is_expected_is_waited_for_no_longer_than_it_takes() {
    let (queue, mut beats) = mpsc::channel(8);
    let begun = Instant::now();
    let ((first, _one), (second, _two)) = (beat(1, false), beat(2, false));
    let sending = async {
        tokio::time::sleep(GATHER / 4).await;
        queue.send(second).await.unwrap();
    };
    let (gathered, ()) = tokio::join!(gather(first, &mut beats, 2), sending);
    assert_eq!(gathered.len(), 2);
    assert_eq!(begun.elapsed(), GATHER / 4);
}

#[test]
fn answers_nobody_waits_for_are_forgotten() {
    let waiting = Waiting::default();
    let ((gone, answer), (stays, _answer)) = (beat(1, false), beat(2, false));
    let now = Instant::now();
    frame(1, vec![gone], &waiting, None, now);
    frame(2, vec![stays], &waiting, None, now);
    drop(answer);
    // A heartbeat whose waiter gave up before it was sent is not sent.
    let late = beat(3, false).0;
    assert!(frame(3, vec![late], &waiting, None, now).calls.is_empty());
    let mut left: Vec<u64> = lock(&waiting).keys().copied().collect();
    left.sort_unstable();
    assert_eq!(left, [2, 3]);
}

/// However long a heartbeat waits and is in flight, its receiver never takes its contents for
/// younger than they are.
#[tokio::test(start_paused = true)]
async fn a_heartbeat_says_when_it_was_sent_by_the_clock_of_its_receiver() {
    const MS: Duration = Duration::from_millis(1);
    // The receiver's stream begins with the first frame, which was in flight for 20 ms.
    let began = Instant::now();
    let answered_us = 3_000;
    let came = began + 3 * MS + 20 * MS;
    let confirmed = Some(Confirmed { age_us: 50_000, applied: 7 });
    let append = Bytes::new();
    let call = Call::Heartbeat { append, confirmed, acknowledged: None, is_quiescent: false };
    let (waiter, _answer) = oneshot::channel();
    let made = came + 10 * MS;
    let beat = QueuedCall { group: GroupId(1), call, made, urgent: false, waiter };

    // It waits for 94 ms before it is sent, and arrives seconds later.
    let sent = made + 94 * MS;
    let last = Some((answered_us, came));
    let HeartbeatBatch { echo, calls, .. } = frame(1, vec![beat], &Waiting::default(), last, sent);
    let Call::Heartbeat { confirmed: Some(Confirmed { age_us, .. }), .. } = calls[0].1 else {
        panic!("another call")
    };
    assert_eq!(age_us, 144_001);
    let echo = echo.unwrap();
    let earliest = echo.sent_at(began, began + 5_000 * MS);
    assert_eq!(sent - earliest, 20 * MS, "the answer's way is all that is not known");

    // A sender that claims to have sent a frame in the future gains nothing by it.
    let now = began + MS;
    assert_eq!(echo.sent_at(began, now), now);
    let endless = Echo { answered_us: u64::MAX, since_us: u64::MAX };
    assert_eq!(endless.sent_at(began, now), now);
}
