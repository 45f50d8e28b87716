//! Checks of what is about to be complete.

use super::*;
use crate::sample::{Sample, base, changes, cut, pages};

#[tokio::test]
async fn a_backup_that_was_removed_meanwhile_is_never_complete() {
    let sample = Sample::new();
    let full = sample.full(10, &["a"]).await;
    let (begun, plan) = sample.begin(20, Kind::Full, &["a"]).await;
    let mut contents = vec![base(false), base(false), pages(true), cut(20)];
    sample.chunks(&begun, "a", std::mem::take(&mut contents)).await;
    let chain = ChainSummary { keyspace: "a".into(), first: 2, hashes: vec![[0; 32]; 3] };
    let manifest = Manifest { plan, chains: vec![chain] };
    let check = async || check(&sample.destination, &begun, &manifest).await;
    check().await.unwrap();
    std::fs::remove_file(sample.file(&begun, "a", 3)).unwrap();
    let refused = check().await.unwrap_err().to_string();
    assert!(refused.contains("were removed while it was made"), "{refused}");
    let other = Manifest { plan: [1; 32], chains: Vec::new() };
    assert!(super::check(&sample.destination, &full, &other).await.is_err());
    let plan = sample.file(&begun, "a", 1).parent().unwrap().with_file_name(PLAN);
    std::fs::remove_file(plan).unwrap();
    assert!(check().await.unwrap_err().to_string().contains("run the same command again"));
}

#[tokio::test]
async fn a_plan_that_cannot_be_read_at_the_moment_is_no_missing_one() {
    let sample = Sample::new();
    let destination = &sample.destination;
    let (plan, _) = sample.begin(10, Kind::Full, &["a"]).await;
    let names = ["a".to_owned()];
    let find =
        async || unfinished(destination, plan.network, Kind::Full, (plan.all, &names), None).await;
    assert_eq!(find().await.unwrap().unwrap().0.backup, plan.backup);
    *destination.broken.lock().unwrap() = Some(format!("{}/{PLAN}", plan.backup));
    assert!(matches!(find().await, Err(BackupError::Read { .. })));
    *destination.broken.lock().unwrap() = None;
    let file = sample.file(&plan, "a", 1).parent().unwrap().with_file_name(PLAN);
    std::fs::write(file, "damage").unwrap();
    assert!(find().await.unwrap().is_none(), "damage is left to the user");
}

#[tokio::test]
async fn no_more_than_one_damaged_chunk_is_removed() {
    let sample = Sample::new();
    let (plan, _) = sample.begin(10, Kind::Full, &["a"]).await;
    let contents = vec![base(false), pages(false), pages(true), changes(), changes()];
    sample.chunks(&plan, "a", contents).await;
    let recover = async || {
        let numbers = reader::numbers_of(&sample.destination, &plan.backup, "a").await.unwrap();
        recovered(&sample.destination, &plan.backup, "a", &numbers, &|_| {}).await
    };
    std::fs::write(sample.file(&plan, "a", 4), "damage").unwrap();
    let refused = recover().await.unwrap_err().to_string();
    assert!(
        refused.contains("a/0000000004 to ") && refused.contains("nothing was removed"),
        "{refused}"
    );
    assert_eq!(sample.left(&plan, "a").await, [1, 2, 3, 4, 5]);
    std::fs::remove_file(sample.file(&plan, "a", 5)).unwrap();
    assert_eq!(recover().await.unwrap().last().unwrap().header.number, 3);
    assert_eq!(sample.left(&plan, "a").await, [1, 2, 3]);
}
