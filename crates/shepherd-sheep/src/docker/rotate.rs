//! A file that output is appended to, and that is renamed when it has grown.

use std::fs::{File, Metadata};
use std::io::{self, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use crate::lines::open_log;

/// `NAME`, with `NAME.1` and so on before it.
#[derive(Debug)]
pub(super) struct RotatedFile {
    path: PathBuf,
    /// It is renamed rather than grow past so many bytes.
    most: u64,
    /// Number of renamed files that are kept.
    kept: u32,
    file: Option<File>,
    /// Whether the last write failed, which was said.
    is_failing: bool,
}

impl RotatedFile {
    pub(super) fn new(path: &Path, most: u64, kept: u32) -> Self {
        Self { path: path.to_owned(), most, kept, file: None, is_failing: false }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Opens it, so that its absence is heard of early.
    pub(super) fn open(&mut self) -> io::Result<()> {
        self.ready(0)
    }

    /// Appends what is to stay together. What cannot be written is lost, and said once.
    pub(super) fn append(&mut self, bytes: &[u8]) {
        let written = self.ready(bytes.len() as u64).and_then(|()| match &mut self.file {
            Some(file) => file.write_all(bytes),
            None => Ok(()),
        });
        match written {
            Ok(()) => self.is_failing = false,
            Err(error) => {
                if !self.is_failing {
                    tracing::warn!(file = %self.path.display(), %error, "a runner's output is lost");
                }
                self.is_failing = true;
                self.file = None;
            }
        }
    }

    /// Has the file open, with room for so many more bytes.
    fn ready(&mut self, more: u64) -> io::Result<()> {
        let meta = match &self.file {
            // Another may have removed it.
            Some(file) => Some(file.metadata()?).filter(|meta| meta.nlink() > 0),
            None => None,
        };
        let meta = match meta {
            Some(meta) => meta,
            None => self.reopen()?,
        };
        if meta.is_file() && meta.len() > 0 && meta.len() + more > self.most {
            match self.rotate() {
                Ok(()) => {
                    self.reopen()?;
                }
                // Better a file that is too long than output that is lost.
                Err(error) if !self.is_failing => {
                    tracing::warn!(file = %self.path.display(), %error, "cannot rename a log file");
                }
                Err(_) => {}
            }
        }
        Ok(())
    }

    fn reopen(&mut self) -> io::Result<Metadata> {
        let file = open_log(&self.path)?;
        let meta = file.metadata()?;
        self.file = Some(file);
        Ok(meta)
    }

    fn rotate(&self) -> io::Result<()> {
        if self.kept == 0 {
            return std::fs::remove_file(&self.path);
        }
        for number in (1..self.kept).rev() {
            match std::fs::rename(self.numbered(number), self.numbered(number + 1)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                Ok(()) | Err(_) => {}
            }
        }
        std::fs::rename(&self.path, self.numbered(1))
    }

    fn numbered(&self, number: u32) -> PathBuf {
        let mut name = self.path.clone().into_os_string();
        name.push(format!(".{number}"));
        name.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(path: &Path) -> String {
        std::fs::read_to_string(path).unwrap()
    }

    #[test]
    fn a_grown_file_is_renamed_and_the_oldest_goes() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let mut file = RotatedFile::new(&path, 10, 2);
        for line in ["one\n", "two\n", "three\n", "four\n", "five, which is long\n", "six\n"] {
            file.append(line.as_bytes());
        }
        assert_eq!(read(&path), "six\n");
        assert_eq!(read(&dir.path().join("log.1")), "five, which is long\n");
        assert_eq!(read(&dir.path().join("log.2")), "four\n");
        assert_eq!(dir.path().read_dir().unwrap().count(), 3);
    }

    #[test]
    fn what_was_there_counts_and_none_need_be_kept() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        std::fs::write(&path, "0123456789").unwrap();
        let mut file = RotatedFile::new(&path, 10, 0);
        file.append(b"new\n");
        assert_eq!(read(&path), "new\n");
        assert_eq!(dir.path().read_dir().unwrap().count(), 1);
    }

    #[test]
    fn a_file_that_another_removed_is_made_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let mut file = RotatedFile::new(&path, 100, 1);
        file.append(b"lost\n");
        std::fs::remove_file(&path).unwrap();
        file.append(b"kept\n");
        assert_eq!(read(&path), "kept\n");
    }

    #[test]
    fn what_cannot_be_written_does_not_stop_what_can() {
        let dir = tempfile::tempdir().unwrap();
        let in_the_way = dir.path().join("logs");
        std::fs::write(&in_the_way, "").unwrap();
        let path = in_the_way.join("of/sheep");
        let mut file = RotatedFile::new(&path, 100, 1);
        assert!(file.open().is_err());
        file.append(b"lost\n");
        std::fs::remove_file(&in_the_way).unwrap();
        file.append(b"kept\n");
        assert_eq!(read(&path), "kept\n", "its directory is made");
        let mut full = RotatedFile::new(Path::new("/dev/full"), 100, 1);
        full.open().unwrap();
        full.append(b"lost\n");
        assert!(Path::new("/dev/full").exists(), "only files are renamed");
    }
}
