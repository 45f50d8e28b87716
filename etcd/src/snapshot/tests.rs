use super::*;

/// Returns what is remaining after each blob, and its length.
async fn cut(database: usize, writes: usize) -> Vec<(u64, usize)> {
    let (sender, mut receiver) = mpsc::channel(100);
    let writing = tokio::task::spawn_blocking(move || {
        let left = database as u64;
        let mut blobs = Blobs { answers: &sender, header: None, blob: BytesMut::new(), left };
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
