//! Looking through a write-ahead log before the database does.
//!
//! The database takes the log up to the first frame whose checksum is wrong, and says
//! nothing about what follows. After a crash that is a commit that nobody was told of.
//! When whole commits follow, the log was damaged, and jobs that were accepted are lost.
//!
//! The format: <https://www.sqlite.org/fileformat.html#the_write_ahead_log>

use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::Path;

const HEADER_BYTES: usize = 32;
const FRAME_HEADER_BYTES: usize = 24;
/// The lowest bit says in which order the bytes of checksummed words are.
const MAGIC: u32 = 0x377f_0682;

/// What is behind the part of a log that the database takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Rest {
    /// Where it begins, in bytes.
    pub(super) at: u64,
    /// Commits in it that were written as whole as those before it.
    pub(super) commits: u64,
}

/// The first frame of the log's present generation that does not verify, if there is one.
/// Frames of earlier generations behind the end are normal: a log is written over.
///
/// # Errors
/// When the log cannot be read.
pub(super) fn unverified(path: &Path) -> io::Result<Option<Rest>> {
    let mut log = match File::open(path) {
        Ok(file) => BufReader::with_capacity(1 << 16, file),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut header = [0; HEADER_BYTES];
    if !read_whole(&mut log, &mut header)? {
        return Ok(None);
    }
    let magic = word(&header, 0);
    let big_endian = magic & 1 == 1;
    let page_bytes = word(&header, 8) as usize;
    let sum = checksum([0; 2], &header[..24], big_endian);
    if magic & !1 != MAGIC || !page_bytes.is_power_of_two() || sum != [word(&header, 24), word(&header, 28)] {
        return Ok(Some(Rest { at: 0, commits: 0 }));
    }
    let salts = &header[16..24];
    let mut frame = vec![0; FRAME_HEADER_BYTES + page_bytes];
    let mut at = HEADER_BYTES as u64;
    let mut sum = sum;
    let mut rest: Option<Rest> = None;
    while read_whole(&mut log, &mut frame)? {
        if frame[8..16] != *salts {
            break;
        }
        let start = checksum(sum, &frame[..8], big_endian);
        sum = checksum(start, &frame[FRAME_HEADER_BYTES..], big_endian);
        let stored = [word(&frame, 16), word(&frame, 20)];
        // Checksums go on from frame to frame: from what is stored, those behind a damaged
        // one verify again.
        match &mut rest {
            None if sum != stored => rest = Some(Rest { at, commits: 0 }),
            // The frame that ends a commit has the database's size.
            Some(rest) if sum == stored && word(&frame, 4) != 0 => rest.commits += 1,
            None | Some(_) => {}
        }
        sum = stored;
        at += frame.len() as u64;
    }
    Ok(rest)
}

/// Fills the buffer; false at the end of the file, or when too little is left.
fn read_whole(from: &mut impl Read, buffer: &mut [u8]) -> io::Result<bool> {
    match from.read_exact(buffer) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
        Err(error) => Err(error),
    }
}

fn word(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

/// Goes on with a checksum over pairs of words.
fn checksum([mut one, mut two]: [u32; 2], bytes: &[u8], big_endian: bool) -> [u32; 2] {
    for pair in bytes.chunks_exact(8) {
        let [first, second] = [word(pair, 0), word(pair, 4)];
        let [first, second] =
            if big_endian { [first, second] } else { [first.swap_bytes(), second.swap_bytes()] };
        one = one.wrapping_add(first).wrapping_add(two);
        two = two.wrapping_add(second).wrapping_add(one);
    }
    [one, two]
}

#[cfg(test)]
mod tests {
    use rusqlite::Connection;

    use super::*;

    const FRAME: usize = FRAME_HEADER_BYTES + 4096;

    /// A log with several commits, and how many frames are in it.
    fn log() -> (tempfile::TempDir, std::path::PathBuf, usize) {
        let dir = tempfile::tempdir().unwrap();
        let conn = Connection::open(dir.path().join("db")).unwrap();
        conn.execute_batch("PRAGMA journal_mode = WAL; PRAGMA wal_autocheckpoint = 0; CREATE TABLE t (x);")
            .unwrap();
        for n in 0..5 {
            conn.execute("INSERT INTO t VALUES (?1)", [n]).unwrap();
        }
        let path = dir.path().join("copy-wal");
        std::fs::copy(dir.path().join("db-wal"), &path).unwrap();
        let frames = (std::fs::metadata(&path).unwrap().len() as usize - HEADER_BYTES) / FRAME;
        (dir, path, frames)
    }

    #[test]
    fn a_whole_log_verifies_and_so_does_none() {
        let (dir, path, frames) = log();
        assert!(frames >= 6);
        assert_eq!(unverified(&path).unwrap(), None);
        assert_eq!(unverified(&dir.path().join("absent")).unwrap(), None);
        // The database ignores a frame that is cut off, whose commit nobody was told of.
        let file = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
        file.set_len((HEADER_BYTES + 2 * FRAME + 100) as u64).unwrap();
        assert_eq!(unverified(&path).unwrap(), None);
    }

    #[test]
    fn a_torn_last_commit_is_told_from_a_damaged_log() {
        for (damaged, lost) in [(1, 0), (3, 2)] {
            let (_dir, path, frames) = log();
            let mut bytes = std::fs::read(&path).unwrap();
            let at = HEADER_BYTES + (frames - damaged) * FRAME;
            bytes[at + FRAME_HEADER_BYTES + 50] ^= 1;
            std::fs::write(&path, bytes).unwrap();
            let rest = Rest { at: at as u64, commits: lost };
            assert_eq!(unverified(&path).unwrap(), Some(rest));
        }
    }

    #[test]
    fn frames_of_an_earlier_generation_are_no_damage() {
        let dir = tempfile::tempdir().unwrap();
        let conn = Connection::open(dir.path().join("db")).unwrap();
        conn.execute_batch("PRAGMA journal_mode = WAL; PRAGMA wal_autocheckpoint = 0; CREATE TABLE t (x);")
            .unwrap();
        for n in 0..5 {
            conn.execute("INSERT INTO t VALUES (?1)", [n]).unwrap();
        }
        conn.query_row("PRAGMA wal_checkpoint(RESTART)", [], |_| Ok(())).unwrap();
        conn.execute("INSERT INTO t VALUES (9)", []).unwrap();
        assert_eq!(unverified(&dir.path().join("db-wal")).unwrap(), None);
    }

    #[test]
    fn a_damaged_header_is_told() {
        let (_dir, path, _) = log();
        let mut bytes = std::fs::read(&path).unwrap();
        bytes[9] ^= 1;
        std::fs::write(&path, bytes).unwrap();
        assert_eq!(unverified(&path).unwrap(), Some(Rest { at: 0, commits: 0 }));
    }
}
