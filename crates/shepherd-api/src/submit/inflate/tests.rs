use flate2::Compression;
use flate2::write::GzEncoder;

use super::*;

fn gzip(text: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(text).unwrap();
    encoder.finish().unwrap()
}

fn encoding(name: &'static str) -> Result<Encoding, ApiError> {
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_ENCODING, http::HeaderValue::from_static(name));
    Encoding::of(&headers)
}

/// The whole text, and the longest piece of it.
fn decode(packed: &[u8], size: usize) -> Result<(Vec<u8>, usize), ApiError> {
    let mut encoding = encoding("gzip")?;
    let (mut text, mut longest) = (Vec::new(), 0);
    for mut piece in packed.chunks(size) {
        while !piece.is_empty() {
            let (used, more) = encoding.decode(piece)?;
            longest = longest.max(more.len());
            text.extend_from_slice(more);
            piece = &piece[used..];
        }
    }
    let more = encoding.finish()?;
    longest = longest.max(more.len());
    text.extend_from_slice(more);
    Ok((text, longest))
}

#[test]
fn a_packed_body_is_unpacked_however_it_is_cut() {
    let text: Vec<u8> = (0..200_000_u32).flat_map(|n| n.wrapping_mul(n).to_le_bytes()).collect();
    let twice = [gzip(&text), gzip(b"end")].concat();
    for size in [1, 7, 4096, usize::MAX] {
        let (all, _) = decode(&twice, size.min(twice.len())).unwrap();
        assert_eq!(all, [&text[..], b"end"].concat(), "{size}");
    }
}

#[test]
fn a_bomb_comes_out_in_pieces_of_bounded_size() {
    let packed = gzip(&vec![0; 50_000_000]);
    assert!(packed.len() < 60_000);
    let (all, longest) = decode(&packed, packed.len()).unwrap();
    assert_eq!(all.len(), 50_000_000);
    assert!(longest <= 256 * 1024, "{longest}");
}

#[test]
fn what_is_not_whole_or_not_gzip_is_refused() {
    let packed = gzip(b"{}");
    let mut wrong = packed.clone();
    let checksum = wrong.len() - 6;
    wrong[checksum] ^= 1;
    for bad in [&packed[..packed.len() - 1], &packed[..5], &wrong, b"{}", b""] {
        assert!(matches!(decode(bad, 64), Err(ApiError::BadRequest(_))), "{bad:?}");
    }
    assert!(matches!(encoding("br"), Err(ApiError::BadRequest(why)) if why.contains("`br`")));
    assert!(matches!(encoding("gzip, gzip"), Err(ApiError::BadRequest(_))));
    assert!(matches!(encoding("Identity"), Ok(Encoding::Identity)));
}
