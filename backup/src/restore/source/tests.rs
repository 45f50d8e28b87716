//! Finds out what is restored of backups that are written by hand.

use std::sync::Mutex;

use super::*;
use crate::destination::MANIFEST;
use crate::sample::{Sample, after, base, cut, dropped, pages};

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

#[tokio::test]
async fn a_dropped_keyspace_stays_away_unless_it_is_named() {
    let sample = Sample::new();
    let (plan, _) = sample.begin(1, Kind::Followed, &[]).await;
    let cuts = |seconds: &[u64]| {
        let begin = [base(false), pages(true)].into_iter();
        begin.chain(seconds.iter().map(|second| cut(*second))).collect::<Vec<_>>()
    };
    sample.chunks(&plan, "gone", [cuts(&[2, 3]), vec![dropped(5)]].concat()).await;
    sample.chunks(&plan, "kept", cuts(&[2, 3, 6, 9])).await;
    sample.chunks(&plan, "twice", [cuts(&[2]), vec![dropped(4)], cuts(&[7, 9])].concat()).await;
    let at = |second: Option<u64>, keyspaces: &[&str]| RestoreOptions {
        at_ms: second.map(|second| second * 1000),
        keyspaces: keyspaces.iter().map(|&name| name.to_owned()).collect(),
        ..RestoreOptions::default()
    };
    let (found, notes) = restored(&sample, &at(None, &[])).await.unwrap();
    assert_eq!(found, expected(&[("kept", 9), ("twice", 9)]));
    assert_eq!(notes, ["keyspace gone is left out: it was dropped at 1970-01-01T00:00:05Z"]);
    let (found, notes) = restored(&sample, &at(Some(6), &[])).await.unwrap();
    assert_eq!((found, notes.len()), (expected(&[("kept", 6)]), 2));
    let (found, _) = restored(&sample, &at(Some(2), &[])).await.unwrap();
    assert_eq!(found, expected(&[("gone", 2), ("kept", 2), ("twice", 2)]));
    for second in [None, Some(6)] {
        let (found, _) = restored(&sample, &at(second, &["gone"])).await.unwrap();
        assert_eq!(found, expected(&[("gone", 3)]));
    }
    // It may have changed until it was dropped.
    let unknown = restored(&sample, &at(Some(4), &["gone"])).await.unwrap_err();
    assert!(unknown.contains("ends before that moment, at 1970-01-01T00:00:03Z"), "{unknown}");
}

#[tokio::test]
async fn a_moment_in_a_gap_is_refused() {
    let sample = Sample::new();
    let (plan, _) = sample.begin(1, Kind::Followed, &[]).await;
    let before = [base(false), pages(true), cut(2), cut(3), base(false), pages(false)];
    sample.chunks(&plan, "k", before.to_vec()).await;
    let at = |ms| RestoreOptions { at_ms: Some(ms), ..of(&plan) };
    let refused = restored(&sample, &at(5000)).await.unwrap_err();
    assert!(refused.contains("lacks what changed after 1970-01-01T00:00:03Z"), "{refused}");
    sample.chunks(&plan, "k", vec![pages(true), cut(9)]).await;
    assert!(restored(&sample, &at(8999)).await.is_err());
    // The second of the last cut is there.
    for (ms, second) in [(2999, 2), (3999, 3), (9000, 9), (9999, 9)] {
        assert_eq!(restored(&sample, &at(ms)).await.unwrap().0, expected(&[("k", second)]));
    }
    let end = restored(&sample, &at(10_000)).await.unwrap_err();
    assert!(end.contains("ends before that moment"), "{end}");
}

#[tokio::test]
async fn keyspaces_may_have_any_name() {
    let sample = Sample::new();
    let full = sample.full(10, &["manifest", "plan", "removed"]).await;
    let (found, _) = restored(&sample, &of(&full)).await.unwrap();
    assert_eq!(found, expected(&[("manifest", 10), ("plan", 10), ("removed", 10)]));
}

#[tokio::test]
async fn an_increment_needs_the_whole_of_its_parent() {
    let sample = Sample::new();
    let full = sample.full(10, &["a", "b"]).await;
    let change = |plan: &mut Plan| plan.parent = Some(full.backup.clone());
    let increment = sample.begin_as(20, Kind::Increment, &["a", "b"], change).await;
    for keyspace in ["a", "b"] {
        sample.chunks(&increment.0, keyspace, vec![after(&full, 10), cut(20)]).await;
    }
    sample.complete(&increment).await;
    let options = of(&increment.0);
    let (found, _) = restored(&sample, &options).await.unwrap();
    assert_eq!(found, expected(&[("a", 20), ("b", 20)]));
    let chunk = sample.file(&full, "b", 3);
    let bytes = std::fs::read(&chunk).unwrap();
    std::fs::remove_file(&chunk).unwrap();
    let lost = restored(&sample, &options).await.unwrap_err();
    assert!(lost.ends_with("b/0000000003 is damaged: it is missing"), "{lost}");
    std::fs::write(&chunk, bytes).unwrap();
    std::fs::remove_file(chunk.parent().unwrap().with_file_name(MANIFEST)).unwrap();
    let lost = restored(&sample, &options).await.unwrap_err();
    assert!(lost.ends_with("is damaged: its manifest is missing"), "{lost}");
}
