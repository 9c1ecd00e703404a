use futures::TryStreamExt as _;

use super::*;

async fn fill(spool: &Spool, pieces: &[&[u8]]) -> Result<Data, ApiError> {
    let mut payload = Payload::new(spool);
    for piece in pieces {
        payload.text.extend_from_slice(piece);
        payload.settle().await?;
    }
    payload.finish().await
}

fn spool() -> (tempfile::TempDir, Spool) {
    let dir = tempfile::tempdir().unwrap();
    let spool = Spool::new(dir.path().join("not/yet"));
    (dir, spool)
}

async fn streamed(data: Data) -> Vec<u8> {
    let Data::Stream(body) = data else { panic!("not streamed") };
    body.try_collect::<Vec<Bytes>>().await.unwrap().concat()
}

#[tokio::test]
async fn nothing_is_stored_data_and_little_stays_in_memory() {
    let (dir, spool) = spool();
    assert!(matches!(fill(&spool, &[]).await, Ok(Data::Stored)));
    let most = vec![b'a'; MAX_HELD];
    assert!(matches!(fill(&spool, &[&most]).await, Ok(Data::Payload(bytes)) if bytes == most));
    assert!(std::fs::read_dir(dir.path()).unwrap().next().is_none(), "a file was made");
}

#[tokio::test]
async fn more_goes_through_a_file_that_has_no_name() {
    let (dir, spool) = spool();
    let piece = "ž".repeat(40_000);
    let (first, second) = piece.as_bytes().split_at(piece.len() - 1);
    let pieces: Vec<&[u8]> = std::iter::repeat_n([first, second], 20).flatten().collect();
    let data = fill(&spool, &pieces).await.unwrap();
    assert!(std::fs::read_dir(dir.path().join("not/yet")).unwrap().next().is_none(), "it has a name");
    assert_eq!(streamed(data).await, piece.repeat(20).as_bytes());
}

#[tokio::test]
async fn without_common_memory_left_a_small_one_goes_to_a_file() {
    let (_dir, spool) = spool();
    assert!(spool.reserve(BUDGET));
    let piece = vec![b'a'; FREE_BYTES + 1];
    assert!(matches!(fill(&spool, &[&piece[..FREE_BYTES]]).await, Ok(Data::Payload(_))));
    assert_eq!(streamed(fill(&spool, &[&piece]).await.unwrap()).await, piece);
    spool.release(BUDGET);
    assert!(matches!(fill(&spool, &[&piece]).await, Ok(Data::Payload(_))));
    assert_eq!(spool.held.load(Ordering::Relaxed), 0, "memory was not given back");
}

#[tokio::test]
async fn bytes_that_are_no_utf8_are_refused_wherever_they_are() {
    let (_dir, spool) = spool();
    let big = vec![b'a'; MAX_HELD];
    for pieces in [
        &[&b"\xc5"[..]][..],
        &[b"\xc5", b"a"],
        &[b"\xff", &big, &big],
        &[&big, &big, b"\xc5"],
        &[&big, b"a", b"\xc5", b"a"],
    ] {
        assert!(matches!(fill(&spool, pieces).await, Err(ApiError::BadRequest(_))));
    }
    assert_eq!(spool.held.load(Ordering::Relaxed), 0);
}

#[tokio::test]
async fn a_directory_that_cannot_be_is_unavailable() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    std::fs::write(&file, "").unwrap();
    let spool = Spool::new(file.join("below"));
    let big = vec![b'a'; MAX_HELD + 1];
    assert!(matches!(fill(&spool, &[&big]).await, Err(ApiError::Unavailable(_))));
}
