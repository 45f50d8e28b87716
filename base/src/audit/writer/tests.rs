//! Tests of the queue and its thread.

use std::fs;
use std::path::Path;
use std::sync::atomic::AtomicUsize;

use super::*;

const PATIENCE: Duration = Duration::from_secs(20);

fn event(number: usize) -> AuditEvent {
    AuditEvent::new(Kind::Act, Who::default(), What::new("test", number.to_string()))
}

fn queue(path: &Path) -> AuditQueue {
    let file = AuditFile::open(path, 1 << 20, 2).unwrap();
    AuditQueue::start(file, "node", |_| Vec::new()).unwrap()
}

/// Waits until the lines of a file are as wanted.
fn until(path: &Path, wanted: impl Fn(&[&str]) -> bool) -> String {
    let begun = Instant::now();
    loop {
        let text = fs::read_to_string(path).unwrap_or_default();
        if wanted(&text.lines().collect::<Vec<_>>()) {
            return text;
        }
        assert!(begun.elapsed() < PATIENCE, "{text}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn events_are_written_in_order_and_a_flush_waits_for_them() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("audit.jsonl");
    let queue = queue(&path);
    for number in 0..1000 {
        queue.send(event(number));
    }
    queue.flush(PATIENCE);
    let text = fs::read_to_string(&path).unwrap();
    for (number, line) in text.lines().enumerate() {
        assert!(line.contains(&format!("\"target\":\"{number}\"")), "{number}: {line}");
    }
    let figures = AuditFigures { written: 1000, ..AuditFigures::default() };
    assert_eq!(queue.figures(), figures);
}

#[test]
fn what_was_lost_is_counted_and_told_once_there_is_room() {
    let dir = tempfile::tempdir().unwrap();
    let inner = dir.path().join("inner");
    fs::create_dir(&inner).unwrap();
    let path = inner.join("audit.jsonl");
    let queue = queue(&path);
    queue.send(event(0));
    queue.flush(PATIENCE);
    // As a disk that takes nothing: there is no directory for the file.
    fs::rename(&inner, dir.path().join("away")).unwrap();
    for number in 1..=5 {
        queue.send(event(number));
    }
    queue.flush(PATIENCE);
    assert_eq!(queue.figures(), AuditFigures { written: 1, lost: 5, suppressed: 0 });
    // The writer reports the count without any further event.
    fs::create_dir(&inner).unwrap();
    let text = until(&path, |lines| lines.len() == 1);
    let expected =
        r#""at":"node","kind":"audit","act":"lost events","target":"5","outcome":"failed""#;
    assert!(text.contains(expected), "{text}");
    queue.send(event(6));
    queue.flush(PATIENCE);
    assert_eq!(fs::read_to_string(&path).unwrap().lines().count(), 2);
    assert_eq!(queue.figures(), AuditFigures { written: 3, lost: 5, suppressed: 0 });
}

#[test]
fn a_full_queue_holds_nobody_up() {
    let (items, waiting) = mpsc::sync_channel(2);
    let queue = AuditQueue { items, counts: Arc::default() };
    for number in 0..5 {
        queue.send(event(number));
    }
    assert_eq!(queue.figures().lost, 3);
    assert_eq!(waiting.try_iter().count(), 2);
}

#[test]
fn what_was_counted_only_is_told_by_itself_and_at_the_end() {
    static ASKED: AtomicUsize = AtomicUsize::new(0);
    let untold = |which| {
        let first = ASKED.fetch_add(1, Ordering::Relaxed) == 0;
        let suppressed = match which {
            Untold::Quiet if first => 7,
            Untold::Quiet => return Vec::new(),
            Untold::All => 8,
        };
        vec![AuditEvent { suppressed, ..event(0) }]
    };
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("audit.jsonl");
    let file = AuditFile::open(&path, 1 << 20, 2).unwrap();
    let queue = AuditQueue::start(file, "node", untold).unwrap();
    // Without any event.
    let text = until(&path, |lines| lines.len() == 1);
    assert!(text.contains(r#""at":"node""#) && text.contains(r#""suppressed":7"#), "{text}");
    queue.flush(PATIENCE);
    let text = fs::read_to_string(&path).unwrap();
    assert!(text.lines().count() == 2 && text.contains(r#""suppressed":8"#), "{text}");
}

#[test]
fn an_event_that_is_lost_takes_those_with_it_for_which_it_stands() {
    let dir = tempfile::tempdir().unwrap();
    let inner = dir.path().join("inner");
    fs::create_dir(&inner).unwrap();
    let on_disk = queue(&inner.join("audit.jsonl"));
    fs::rename(&inner, dir.path().join("away")).unwrap();
    on_disk.send(AuditEvent { suppressed: 5, ..event(0) });
    on_disk.flush(PATIENCE);
    assert_eq!(on_disk.figures().lost, 6);
    let (items, _waiting) = mpsc::sync_channel(0);
    let full = AuditQueue { items, counts: Arc::default() };
    full.send(AuditEvent { suppressed: 5, ..event(0) });
    assert_eq!(full.figures().lost, 6);
}

#[test]
fn the_end_waits_for_a_full_queue() {
    let (items, waiting) = mpsc::sync_channel(1);
    let queue = AuditQueue { items, counts: Arc::default() };
    queue.send(event(0));
    let (begun, time) = (Instant::now(), Duration::from_millis(20));
    queue.flush(time);
    assert!(begun.elapsed() >= time);
    std::thread::scope(|scope| {
        scope.spawn(|| queue.flush(PATIENCE));
        let flushed = waiting.iter().find_map(|item| match item {
            Item::Event(_) => None,
            Item::Flushed(to) => Some(to),
        });
        flushed.unwrap().send(()).unwrap();
    });
}

#[test]
fn the_writer_goes_on_after_a_panic() {
    static HAS_PANICKED: AtomicBool = AtomicBool::new(false);
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("audit.jsonl");
    let file = AuditFile::open(&path, 1 << 20, 2).unwrap();
    let untold = |_| {
        assert!(HAS_PANICKED.swap(true, Ordering::SeqCst), "planned");
        Vec::new()
    };
    let queue = AuditQueue::start(file, "node", untold).unwrap();
    let begun = Instant::now();
    while queue.figures().lost == 0 {
        assert!(begun.elapsed() < PATIENCE, "it did not panic");
        std::thread::sleep(Duration::from_millis(5));
    }
    queue.send(event(7));
    let text = until(&path, |lines| lines.len() >= 2);
    assert!(text.contains("lost events") && text.contains("\"target\":\"7\""), "{text}");
}
