use tokio::time::sleep_until;

use super::*;
use crate::replica::in_flight::UNDER_WAY_MAX;

/// Duration of a round between regions, and of one within a place.
const FAR: Duration = Duration::from_millis(400);
const NEAR: Duration = Duration::from_millis(2);

fn ms(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

/// The observed waits and rounds.
#[derive(Default)]
struct Seen {
    waits: Vec<Duration>,
    rounds: usize,
    at_once: usize,
}

/// Serves requests that arrive at these times.
async fn serve(round: Duration, arrivals: &[Duration]) -> Seen {
    let (queue, waiting) = mpsc::channel(arrivals.len());
    let (start, mut rounds) = (Instant::now(), QuorumRounds::new(waiting));
    let arriving = async {
        for arrival in arrivals {
            sleep_until(start + *arrival).await;
            queue.send(start + *arrival).await.unwrap();
        }
        drop(queue);
    };
    let begun = std::cell::Cell::new(0);
    let begin = || {
        begun.set(begun.get() + 1);
        tokio::time::sleep(round)
    };
    let answering = async {
        let mut seen = Seen::default();
        while let Some((waiting, ())) = rounds.next(begin).await {
            seen.at_once = seen.at_once.max(begun.get() - seen.rounds);
            seen.rounds += 1;
            seen.waits.extend(waiting.into_iter().map(|arrived| arrived.elapsed()));
        }
        seen
    };
    tokio::join!(arriving, answering).1
}

#[tokio::test(start_paused = true)]
async fn over_a_long_way_nobody_waits_for_the_round_of_another() {
    let apart = FAR / UNDER_WAY_MAX as u32;
    // One request that shows how long a round takes, and then some while others are in flight.
    let arrivals: Vec<_> = [0, 1000, 1050, 1060, 1070, 1200, 1399].map(ms).into();
    let seen = serve(FAR, &arrivals).await;
    assert_eq!((seen.waits.len(), seen.rounds), (arrivals.len(), 6));
    for wait in seen.waits {
        assert!((FAR..=FAR + apart + ms(1)).contains(&wait), "{wait:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn those_who_come_without_a_pause_are_bounded_in_what_they_cost() {
    let arrivals: Vec<_> = (0..4000).map(ms).collect();
    let seen = serve(FAR, &arrivals).await;
    let at_most = arrivals.len() / (FAR.as_millis() as usize / UNDER_WAY_MAX);
    assert!(seen.rounds <= at_most + UNDER_WAY_MAX, "{} rounds", seen.rounds);
    assert!(seen.at_once <= UNDER_WAY_MAX, "{} at once", seen.at_once);
    assert!(seen.waits.iter().skip(1000).all(|wait| *wait <= FAR * 17 / 16 + ms(1)));
}

#[tokio::test(start_paused = true)]
async fn among_near_members_one_round_is_under_way_at_a_time() {
    let arrivals: Vec<_> = (0..1000).map(ms).collect();
    let seen = serve(NEAR, &arrivals).await;
    assert_eq!(seen.at_once, 1);
    assert!(seen.waits.iter().all(|wait| *wait <= NEAR * 2 + ms(1)));
}
