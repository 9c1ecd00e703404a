//! Copying a file, whatever becomes of it meanwhile.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;

use rustix::fs::SeekFrom;
use rustix::io::Errno;

/// How much is read at once where the kernel cannot copy by itself.
const SLICE: usize = 256 << 10;

/// Copies the first `len` bytes of `from` to the empty file `to`, or as many as
/// there are, and gives their number. Holes stay holes: a file may be larger than
/// any disk. A file that grows or is rewritten meanwhile does not hold this up.
pub(super) fn copy(from: &File, to: &File, len: u64) -> io::Result<u64> {
    let mut at = 0;
    let mut end = 0;
    // What fits one slice is cheaper read than asked about.
    while at < len {
        let (data, hole) = if len <= SLICE as u64 { (at, len) } else { stretch(from, at, len) };
        if data >= len {
            break;
        }
        let copied = stretch_over(from, to, data, hole)?;
        end = data + copied;
        if end < hole {
            // It became shorter.
            to.set_len(end)?;
            return Ok(end);
        }
        at = hole;
    }
    // A hole at the end is nothing that is written.
    let size = len.min(from.metadata()?.len()).max(end);
    if size > end {
        to.set_len(size)?;
    }
    Ok(size)
}

/// The next stretch of data from `at` on: its begin and end.
fn stretch(from: &File, at: u64, len: u64) -> (u64, u64) {
    let data = match rustix::fs::seek(from, SeekFrom::Data(at)) {
        Ok(data) => data,
        Err(Errno::NXIO) => return (len, len),
        // This file system does not tell.
        Err(_) => return (at, len),
    };
    let hole = rustix::fs::seek(from, SeekFrom::Hole(data)).unwrap_or(len);
    // Always some way on, also where holes come and go.
    (data, hole.clamp(data + 1, len.max(data + 1)))
}

/// Copies the bytes from `at` to `end`, as far as there are any.
fn stretch_over(from: &File, to: &File, at: u64, end: u64) -> io::Result<u64> {
    let mut done = 0;
    if end - at > SLICE as u64 {
        while at + done < end {
            let (mut read, mut written) = (at + done, at + done);
            let left = usize::try_from(end - at - done).unwrap_or(usize::MAX);
            match rustix::fs::copy_file_range(from, Some(&mut read), to, Some(&mut written), left) {
                Ok(0) => return Ok(done),
                Ok(copied) => done += copied as u64,
                Err(Errno::INTR) => {}
                Err(errno @ (Errno::NOSPC | Errno::DQUOT | Errno::FBIG | Errno::IO)) => {
                    return Err(errno.into());
                }
                Err(_) => break,
            }
        }
    }
    let mut buffer = vec![0; usize::try_from(end - at - done).unwrap_or(SLICE).min(SLICE)];
    while at + done < end {
        let left = usize::try_from(end - at - done).unwrap_or(SLICE).min(buffer.len());
        match from.read_at(&mut buffer[..left], at + done) {
            Ok(0) => break,
            Ok(read) => {
                to.write_all_at(&buffer[..read], at + done)?;
                done += read as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(done)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt as _;

    use super::*;

    fn copied(from: &File, len: u64) -> (u64, Vec<u8>, u64) {
        let to = tempfile::tempfile().unwrap();
        let size = copy(from, &to, len).unwrap();
        assert_eq!(to.metadata().unwrap().len(), size);
        let mut bytes = vec![0; usize::try_from(size.min(4 << 20)).unwrap()];
        to.read_exact_at(&mut bytes, 0).unwrap();
        (size, bytes, to.metadata().unwrap().blocks() * 512)
    }

    #[test]
    fn bytes_come_as_they_are() {
        let bytes: Vec<u8> = (0..1_000_003_u32).map(|n| u8::try_from(n % 251).unwrap()).collect();
        for size in [0, 1, SLICE - 1, SLICE, SLICE + 1, bytes.len()] {
            let from = tempfile::tempfile().unwrap();
            from.write_all_at(&bytes[..size], 0).unwrap();
            let (copied, read, _) = copied(&from, size as u64);
            assert_eq!(copied, size as u64);
            assert!(read == bytes[..size]);
        }
    }

    #[test]
    fn holes_stay_holes() {
        let from = tempfile::tempfile().unwrap();
        from.set_len(1 << 40).unwrap();
        from.write_all_at(b"begin", 0).unwrap();
        from.write_all_at(b"middle", 1 << 20).unwrap();
        let (size, read, on_disk) = copied(&from, 1 << 40);
        assert_eq!(size, 1 << 40);
        assert_eq!((&read[..5], &read[1 << 20..(1 << 20) + 6]), (&b"begin"[..], &b"middle"[..]));
        assert!(read[5..1 << 20].iter().all(|byte| *byte == 0));
        assert!(on_disk < 1 << 20, "{on_disk} bytes on disk");
    }

    #[test]
    fn a_file_that_changes_its_size_is_copied_as_far_as_it_goes() {
        let from = tempfile::tempfile().unwrap();
        from.write_all_at(b"0123456789", 0).unwrap();
        assert_eq!(copied(&from, 4).1, b"0123", "what came later is left");
        assert_eq!(copied(&from, 20).1, b"0123456789", "what went is not there");
        assert_eq!(copied(&from, 1 << 30).1, b"0123456789");
    }
}
