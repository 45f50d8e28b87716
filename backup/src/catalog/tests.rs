//! Lists, finds and prunes backups that are written by hand.

use std::time::Duration;

use super::*;
use crate::sample::{Sample, base, changes, cut, dropped, pages};

/// Prunes what is before a time.
async fn prune(
    destination: &Destination,
    before_ms: u64,
    dry_run: bool,
) -> Result<Pruned, BackupError> {
    prune::before(destination, &list(destination).await?, before_ms, dry_run).await
}

/// A followed backup of one keyspace with cuts at 5, 6, 15 and 16, the last two of a second base.
async fn followed(sample: &Sample) -> Plan {
    let (plan, _) = sample.begin(1, Kind::Followed, &[]).await;
    let old = [base(false), pages(true), changes(), cut(5), changes(), cut(6)];
    let new = [base(true), pages(true), cut(15), cut(16)];
    sample.chunks(&plan, "k", old.into_iter().chain(new).collect()).await;
    plan
}

#[tokio::test]
async fn a_prune_that_is_interrupted_leaves_what_can_be_read() {
    let sample = Sample::in_memory(Duration::from_millis(30));
    let plan = followed(&sample).await;
    let destination = &sample.destination;
    let halfway = async {
        while sample.left(&plan, "k").await.len() > 8 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::select! {
        pruned = prune(destination, 20_000, false) => panic!("it was not interrupted: {pruned:?}"),
        () = halfway => {}
    }
    let left = sample.left(&plan, "k").await;
    assert!(left.len() < 10 && left.len() > 4, "{left:?}");

    let shown = show(destination, &plan.backup).await.unwrap();
    assert_eq!(shown.keyspaces[0].from_ms, Some(15_000), "{shown:?}");
    assert_eq!(shown.keyspaces[0].through_ms, Some(16_000), "{shown:?}");
    let verified = verify(destination, &plan.backup, &|_| {}).await.unwrap();
    assert_eq!(verified.problems, [] as [&str; 0]);
    let pruned = prune(destination, 20_000, false).await.unwrap();
    assert_eq!(pruned.chunks, left.len() as u64 - 4);
    assert_eq!(sample.left(&plan, "k").await, [7, 8, 9, 10]);
    let shown = show(destination, &plan.backup).await.unwrap();
    assert_eq!(shown.keyspaces[0].from_ms, Some(15_000), "{shown:?}");
}

#[tokio::test]
async fn a_chain_can_be_read_while_its_beginning_is_pruned() {
    let sample = Sample::new();
    let plan = followed(&sample).await;
    let numbers = reader::numbers_of(&sample.destination, &plan.backup, "k").await.unwrap();
    for number in 1..4 {
        std::fs::remove_file(sample.file(&plan, "k", number)).unwrap();
    }
    let read = reader::chain(&sample.destination, &plan.backup, "k", &numbers, |_| {}).await;
    assert_eq!(read.unwrap().runs().count(), 2);
    // A gap in the middle is no prune.
    std::fs::remove_file(sample.file(&plan, "k", 9)).unwrap();
    let read = reader::chain(&sample.destination, &plan.backup, "k", &numbers, |_| {}).await;
    assert!(read.unwrap_err().to_string().contains("0000000009 is damaged: it is missing"));
}

#[tokio::test]
async fn backups_are_found_by_the_beginning_of_their_names() {
    let sample = Sample::new();
    let full = sample.full(10, &["k"]).await;
    sample.begin(20, Kind::Full, &["k"]).await;
    let find = async |name: &'static str| find(&sample.destination, name).await;
    assert_eq!(find("latest").await.unwrap(), full.backup);
    assert_eq!(find("19700101T000010Z").await.unwrap(), full.backup);
    let several = find("1970").await.unwrap_err().to_string();
    assert!(several.contains("2 backups begin with 1970"), "{several}");
    assert!(find("").await.is_err() && find("2026").await.is_err());
}

#[tokio::test]
async fn what_cannot_be_read_at_the_moment_is_never_pruned() {
    let sample = Sample::new();
    let destination = &sample.destination;
    let plan = followed(&sample).await;
    sample.full(30, &["k"]).await;
    for number in [2, 10] {
        let chunk = chunk_name(&plan.backup, "k", number);
        *destination.broken.lock().unwrap() = Some(chunk.clone());
        let error = prune(destination, 10_000, false).await.unwrap_err().to_string();
        assert!(error.contains(&chunk) && error.contains("it is broken"), "{error}");
        assert_eq!(sample.left(&plan, "k").await.len(), 10);
    }
    *destination.broken.lock().unwrap() = None;
    prune(destination, 10_000, false).await.unwrap();
    assert_eq!(sample.left(&plan, "k").await.len(), 10, "the second base is complete at 15 only");

    // Damage is shown, and left to the user.
    std::fs::write(sample.file(&plan, "k", 2), "damage").unwrap();
    prune(destination, 50_000, false).await.unwrap();
    assert_eq!(sample.left(&plan, "k").await.len(), 10);
    let shown = show(destination, &plan.backup).await.unwrap();
    assert!(shown.fault.as_ref().unwrap().contains("k/0000000002 is damaged"), "{shown:?}");
    assert_eq!((shown.complete, shown.keyspaces[0].through_ms), (false, None));
}

#[tokio::test]
async fn a_backup_reaches_as_far_while_a_base_begins_and_after_a_drop() {
    let sample = Sample::new();
    let destination = &sample.destination;
    let plan = followed(&sample).await;
    sample.full(30, &["k"]).await;
    for more in [vec![base(true), pages(false)], vec![base(false)], vec![dropped(18)]] {
        assert!(cut_of(destination, &plan.backup, "k").await.unwrap().is_some());
        sample.chunks(&plan, "k", more).await;
        let shown = show(destination, &plan.backup).await.unwrap();
        assert_eq!(shown.keyspaces[0].through_ms, Some(16_000), "{shown:?}");
        let pruned = prune(destination, 10_000, true).await.unwrap();
        assert_eq!(pruned, Pruned::default());
    }
    assert_eq!(cut_of(destination, &plan.backup, "k").await.unwrap(), None);
}

#[tokio::test]
async fn the_last_backup_of_each_keyspace_stays() {
    let sample = Sample::new();
    let full = async |second, keyspaces: &'static [&'static str], all| {
        sample.full_as(second, keyspaces, all).await.backup
    };
    let old = full(10, &["a"], false).await;
    let dropped = full(20, &["a", "b", "dropped"], true).await;
    let of_all = full(30, &["a", "b"], true).await;
    let older = full(40, &["a"], false).await;
    full(50, &["a"], false).await;
    let pruned = prune(&sample.destination, 100_000, false).await.unwrap();
    assert_eq!(pruned.backups, [old, dropped, older]);
    let left = list(&sample.destination).await.unwrap();
    assert_eq!((left.len(), &left[0].name), (2, &of_all));

    // Without one of all, what each keyspace has.
    let sample = Sample::new();
    for (second, keyspace) in [(10, "a"), (20, "b"), (30, "a")] {
        sample.full_as(second, &[keyspace], false).await;
    }
    let pruned = prune(&sample.destination, 100_000, true).await.unwrap();
    assert_eq!(pruned.backups, ["19700101T000010Z-00000"]);
}

#[tokio::test]
async fn a_backup_that_grows_is_never_pruned() {
    let sample = Sample::new();
    let destination = &sample.destination;
    let begin = async |second, kind| {
        let (plan, _) = sample.begin(second, kind, &["k"]).await;
        sample.chunks(&plan, "k", vec![base(false), pages(false)]).await;
        plan
    };
    let old = begin(10, Kind::Full).await;
    let old_followed = begin(15, Kind::Followed).await;
    let full = sample.full(20, &["k"]).await;
    let last = begin(30, Kind::Full).await;
    // They began long ago, and were written just now.
    let pruned = prune(destination, 100_000, false).await.unwrap();
    assert_eq!(pruned.backups, [] as [&str; 0]);
    let pruned = prune(destination, u64::MAX, false).await.unwrap();
    assert_eq!(pruned.backups, [old.backup, old_followed.backup]);
    let left = destination.backups().await.unwrap();
    assert_eq!(left, [full.backup, last.backup]);
}

#[tokio::test]
async fn a_removal_that_was_interrupted_is_completed() {
    let sample = Sample::in_memory(Duration::from_millis(30));
    let destination = &sample.destination;
    let plan = followed(&sample).await;
    let full = sample.full(30, &["k"]).await;
    let halfway = async {
        while sample.left(&plan, "k").await.len() == 10 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::select! {
        pruned = prune(destination, 25_000, false) => panic!("it was not interrupted: {pruned:?}"),
        () = halfway => {}
    }
    assert_eq!(destination.removed().await.unwrap(), [plan.backup.as_str()]);
    let names = async || -> Vec<String> {
        list(destination).await.unwrap().into_iter().map(|backup| backup.name).collect()
    };
    assert_eq!(names().await, [full.backup.as_str()]);
    prune(destination, 25_000, false).await.unwrap();
    assert_eq!(destination.objects(&plan.backup).await.unwrap(), []);
    assert_eq!(names().await, [full.backup.as_str()]);
}
