//! Finds out what is restored of backups that are written by hand.

use std::sync::Mutex;

use super::*;
use crate::sample::{Sample, base, cut, pages};

/// Returns what would be restored: each keyspace with the second of its moment, and the notes.
async fn restored(
    sample: &Sample,
    options: &RestoreOptions,
) -> Result<(Vec<(String, u64)>, Vec<String>), String> {
    let notes = Mutex::new(Vec::new());
    let tell = |event| {
        if let Progress::Note(note) = event {
            notes.lock().unwrap().push(note);
        }
    };
    let found = sources(&sample.destination, options, &tell).await;
    let found = found.map_err(|error| error.to_string())?;
    let of = |source: Source| (source.keyspace, source.at_ms / 1000);
    Ok((found.into_iter().map(of).collect(), notes.into_inner().unwrap()))
}

/// The options that name a backup.
fn of(plan: &Plan) -> RestoreOptions {
    RestoreOptions { backup: Some(plan.backup.clone()), ..RestoreOptions::default() }
}

fn expected(keyspaces: &[(&str, u64)]) -> Vec<(String, u64)> {
    keyspaces.iter().map(|(name, second)| ((*name).to_owned(), *second)).collect()
}

#[tokio::test]
async fn nothing_that_is_lost_is_left_out() {
    let sample = Sample::new();
    let full = sample.full(10, &["a", "b"]).await;
    let (found, notes) = restored(&sample, &of(&full)).await.unwrap();
    assert_eq!((found, notes.len()), (expected(&[("a", 10), ("b", 10)]), 0));

    let chunk = sample.file(&full, "b", 3);
    let bytes = std::fs::read(&chunk).unwrap();
    std::fs::remove_file(&chunk).unwrap();
    let lost = restored(&sample, &of(&full)).await.unwrap_err();
    assert!(lost.ends_with("b/0000000003 is damaged: it is missing"), "{lost}");
    let folder = chunk.parent().unwrap();
    let aside = folder.with_file_name("aside");
    std::fs::rename(folder, &aside).unwrap();
    let lost = restored(&sample, &of(&full)).await.unwrap_err();
    assert!(lost.ends_with("b/0000000001 is damaged: it is missing"), "{lost}");
    std::fs::rename(&aside, folder).unwrap();
    std::fs::write(&chunk, bytes).unwrap();
    assert!(restored(&sample, &of(&full)).await.is_ok());

    let (begun, _) = sample.begin(20, Kind::Full, &["a"]).await;
    sample.chunks(&begun, "a", vec![base(false), pages(true), cut(20)]).await;
    let unfinished = restored(&sample, &of(&begun)).await.unwrap_err();
    assert!(unfinished.contains("is not complete"), "{unfinished}");
}

#[tokio::test]
async fn a_plan_and_a_manifest_belong_together() {
    let sample = Sample::new();
    let full = sample.full(10, &["a"]).await;
    let other = sample.begin(20, Kind::Full, &["a"]).await;
    sample.chunks(&other.0, "a", vec![base(false), pages(true), cut(20)]).await;
    sample.complete(&(other.0.clone(), [7; 32])).await;
    let wrong = restored(&sample, &of(&other.0)).await.unwrap_err();
    assert!(wrong.contains("belongs to another plan"), "{wrong}");
    assert!(restored(&sample, &of(&full)).await.is_ok());
}

#[tokio::test]
async fn a_later_backup_of_one_keyspace_hides_nothing() {
    let sample = Sample::new();
    let all = RestoreOptions::default();
    sample.full_as(5, &["b"], false).await;
    sample.full_as(6, &["a"], false).await;
    let refused = restored(&sample, &all).await.unwrap_err();
    assert!(refused.contains("the last one lacks b; name a keyspace"), "{refused}");
    sample.full(10, &["a", "b", "dropped"]).await;
    sample.full(20, &["a", "b"]).await;
    let later = sample.full_as(30, &["a"], false).await;
    let (found, notes) = restored(&sample, &all).await.unwrap();
    assert_eq!(found, expected(&[("a", 20), ("b", 20)]));
    assert!(notes[0].ends_with(&format!("some of them: {}", later.backup)), "{notes:?}");
    let named = RestoreOptions { keyspaces: vec!["a".into()], ..RestoreOptions::default() };
    assert_eq!(restored(&sample, &named).await.unwrap().0, expected(&[("a", 30)]));

    // Nor does one that is followed and has only begun with some.
    let (followed, _) = sample.begin(40, Kind::Followed, &[]).await;
    sample.chunks(&followed, "a", vec![base(false), pages(true), cut(41)]).await;
    sample.chunks(&followed, "b", vec![base(false), pages(false)]).await;
    sample.chunks(&followed, "new", vec![base(false), pages(false)]).await;
    let (found, _) = restored(&sample, &all).await.unwrap();
    assert_eq!(found, expected(&[("a", 20), ("b", 20)]));
    sample.chunks(&followed, "b", vec![pages(true), cut(42)]).await;
    let (found, notes) = restored(&sample, &all).await.unwrap();
    assert_eq!(found, expected(&[("a", 41), ("b", 42)]));
    assert!(notes[0].contains("keyspace new is left out"), "{notes:?}");
}
