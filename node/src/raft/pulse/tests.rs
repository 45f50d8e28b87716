use openraft::raft::VoteRequest;

use super::super::Vote;
use super::*;

fn beat(group: u32, urgent: bool) -> (Beat, oneshot::Receiver<CallResult>) {
    let (waiter, answer) = oneshot::channel();
    let call = Call::Vote(VoteRequest::new(Vote::new(1, NodeId::random()), None));
    (Beat { group: GroupId(group), call, urgent, waiter }, answer)
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
    frame(1, vec![gone], &waiting);
    frame(2, vec![stays], &waiting);
    drop(answer);
    // What has lost patience before it is sent is not sent.
    let late = beat(3, false).0;
    assert!(frame(3, vec![late], &waiting).calls.is_empty());
    let mut left: Vec<u64> = lock(&waiting).keys().copied().collect();
    left.sort_unstable();
    assert_eq!(left, [2, 3]);
}
