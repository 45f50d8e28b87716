use std::sync::Arc;

use super::*;

#[tokio::test]
async fn what_was_ended_is_gone_and_nothing_begins_after() {
    let tasks = Tasks::default();
    let held = Arc::new(());
    for _ in 0..100 {
        let held = Arc::clone(&held);
        tasks.spawn(async move {
            std::future::pending::<()>().await;
            drop(held);
        });
    }
    assert_eq!(Arc::strong_count(&held), 101);
    tasks.end().await;
    assert_eq!(Arc::strong_count(&held), 1);
    let late = Arc::clone(&held);
    tasks.spawn(async move { drop(late) });
    assert_eq!(Arc::strong_count(&held), 1);
    tasks.end().await;
}

#[tokio::test]
async fn those_that_have_completed_are_let_go_of() {
    let tasks = Tasks::default();
    for _ in 0..10_000 {
        tasks.spawn(async {});
        tokio::task::yield_now().await;
    }
    assert!(tasks.kept() < 10, "{} are kept", tasks.kept());
}
