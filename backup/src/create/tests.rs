//! Checks of what is about to be complete.

use super::*;
use crate::sample::{Sample, base, cut, pages};

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
