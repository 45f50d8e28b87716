//! The order and times of attempts, and the result that counts.

use std::sync::Mutex;

use super::*;

fn address(port: u16) -> SocketAddr {
    ([127, 0, 0, 1], port).into()
}

/// Runs attempts, each of which takes that many milliseconds and succeeds or fails. Returns the
/// result, and when each address was tried.
async fn run(attempts: &[(u64, bool)]) -> (Result<u16, Vec<u16>>, Vec<(u16, u64)>) {
    let begun = Instant::now();
    let tried = Mutex::new(Vec::new());
    let addresses: Vec<_> = (0..attempts.len() as u16).map(|port| address(port + 1)).collect();
    let attempt = |address: SocketAddr| {
        let port = address.port();
        let (takes_ms, succeeds) = attempts[usize::from(port) - 1];
        tried.lock().unwrap().push((port, begun.elapsed().as_millis() as u64));
        async move {
            tokio::time::sleep(Duration::from_millis(takes_ms)).await;
            if succeeds { Ok(port) } else { Err(port) }
        }
    };
    let result = first_of(&addresses, attempt).await;
    let tried = tried.lock().unwrap().clone();
    (result, tried)
}

#[tokio::test(start_paused = true)]
async fn an_address_that_works_is_the_only_one_tried() {
    assert_eq!(run(&[(100, true), (0, true)]).await, (Ok(1), vec![(1, 0)]));
}

#[tokio::test(start_paused = true)]
async fn a_silent_address_costs_its_head_start() {
    let (result, tried) = run(&[(5000, false), (10, true)]).await;
    assert_eq!(result, Ok(2));
    assert_eq!(tried, [(1, 0), (2, 200)]);
}

#[tokio::test(start_paused = true)]
async fn a_failure_brings_the_next_at_once() {
    let (result, tried) = run(&[(5, false), (300, false), (10, true)]).await;
    assert_eq!(result, Ok(3));
    assert_eq!(tried, [(1, 0), (2, 5), (3, 205)]);
}

#[tokio::test(start_paused = true)]
async fn a_late_success_of_an_early_address_counts() {
    let (result, _) = run(&[(250, true), (5000, false)]).await;
    assert_eq!(result, Ok(1));
}

#[tokio::test(start_paused = true)]
async fn without_success_every_error_is_told_in_order() {
    assert_eq!(run(&[(300, false), (5, false)]).await.0, Err(vec![1, 2]));
    assert_eq!(run(&[]).await.0, Err(vec![]));
}
