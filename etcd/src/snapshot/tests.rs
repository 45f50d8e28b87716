use super::*;

/// Returns what is remaining after each blob, and its length.
async fn cut(database: usize, writes: usize) -> Vec<(u64, usize)> {
    let (sender, mut receiver) = mpsc::channel(100);
    let writing = tokio::task::spawn_blocking(move || {
        let left = database as u64;
        let mut blobs = Blobs::new(&sender, ResponseHeader::default(), left);
        for part in vec![7; database].chunks(writes) {
            blobs.write_all(part).unwrap();
        }
        blobs.write_all(&[1; 32]).unwrap();
    });
    let mut all = Vec::new();
    while let Some(answer) = receiver.recv().await {
        let answer = answer.unwrap();
        all.push((answer.remaining_bytes, answer.blob.len()));
    }
    writing.await.unwrap();
    all
}

#[tokio::test]
async fn the_checksum_follows_what_remains() {
    const BLOB: usize = SNAPSHOT_BLOB_BYTES;
    for writes in [4096, 10_000, 3 * BLOB] {
        assert_eq!(cut(4096, writes).await, [(0, 4096), (0, 32)]);
        assert_eq!(cut(BLOB, writes).await, [(0, BLOB), (0, 32)]);
        let (left, whole) = ((BLOB + 4096) as u64, 2 * BLOB + 4096);
        assert_eq!(cut(whole, writes).await, [(left, BLOB), (4096, BLOB), (0, 4096), (0, 32)]);
    }
}

/// Returns how the answers to a snapshot end that is sent like this.
async fn end(
    send: impl FnOnce(&mpsc::Sender<Result<SnapshotResponse, EtcdError>>) -> Sent + Send + 'static,
) -> Option<EtcdError> {
    let (sender, receiver) = mpsc::channel(1);
    let sending = tokio::task::spawn_blocking(move || send(&sender));
    let mut answers = sent(receiver, sending);
    assert!(answers.next().await.expect("a part").is_ok());
    let end = answers.next().await.map(|end| end.expect_err("the end"));
    assert!(answers.next().await.is_none());
    end
}

#[tokio::test]
async fn only_a_whole_snapshot_ends_without_an_error() {
    let part = |sender: &mpsc::Sender<_>| {
        sender.blocking_send(Ok(SnapshotResponse::default())).expect("a reader");
    };
    let whole = move |sender: &_| {
        part(sender);
        Sent::Whole
    };
    assert_eq!(end(whole).await, None);
    let cut = move |sender: &_| {
        part(sender);
        Sent::Part
    };
    assert_eq!(end(cut).await.map(|error| error.code()), Some(Code::Unavailable));
    let panics = move |sender: &_| {
        part(sender);
        panic!("as the test says");
    };
    assert_eq!(end(panics).await.map(|error| error.code()), Some(Code::Internal));
    let told = move |sender: &mpsc::Sender<Result<SnapshotResponse, EtcdError>>| {
        part(sender);
        sender.blocking_send(Err(spool_failed(&"no room"))).expect("a reader");
        Sent::Part
    };
    assert_eq!(end(told).await.map(|error| error.code()), Some(Code::ResourceExhausted));
}

#[tokio::test(start_paused = true)]
async fn a_snapshot_has_to_be_read_at_a_rate() {
    const BLOBS: usize = 3600;
    let (sender, mut receiver) = mpsc::channel(SNAPSHOT_ANSWERS_WAITING);
    let reading = tokio::spawn(async move {
        let mut read = 0;
        // One within the time that each may take.
        while receiver.recv().await.is_some() {
            read += 1;
            tokio::time::sleep(SNAPSHOT_READ_TIMEOUT - Duration::from_secs(1)).await;
        }
        read
    });
    let left = (BLOBS * SNAPSHOT_BLOB_BYTES) as u64;
    let mut blobs = Blobs::new(&sender, ResponseHeader::default(), left);
    let mut failed = None;
    for _ in 0..BLOBS {
        blobs.blob.extend_from_slice(&vec![7; SNAPSHOT_BLOB_BYTES]);
        failed = blobs.send_soon().await.err();
        if failed.is_some() {
            break;
        }
    }
    assert_eq!(failed.map(|error| error.kind()), Some(io::ErrorKind::BrokenPipe));
    drop(sender);
    assert!(reading.await.expect("a reader") < 20, "it kept its place for long");
}
