//! Where a runner listens.
//!
//! A socket file gets a new name for every run, so that an old runner is never
//! taken for a new one. It lies in the sheep's directory, hidden (no job id begins
//! with a dot); where the path would be too long for a socket address, in a private
//! directory of its own for temporary files.

use std::io;
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{DirBuilderExt as _, FileTypeExt as _};
use std::path::{Path, PathBuf};

use super::spawn::between_forks;
use super::{BareOptions, Transport};
use crate::SheepError;

/// The longest path of a socket: `sun_path` of unix(7) without its final NUL.
const MAX_SOCKET_PATH: usize = 107;

/// An endpoint that is free. Its files go when it is dropped.
#[derive(Debug)]
pub(super) struct Endpoint {
    url: String,
    socket: Option<Socket>,
}

#[derive(Debug)]
enum Socket {
    InSheep(PathBuf),
    Private(PathBuf),
}

impl Endpoint {
    /// Makes the place for the run of this name.
    pub(super) fn prepare(options: &BareOptions, run: &str) -> Result<Self, SheepError> {
        std::fs::create_dir_all(&options.data_root).map_err(|e| {
            SheepError::Misconfigured(format!(
                "cannot make the directory {}: {e}",
                options.data_root.display()
            ))
        })?;
        match options.transport {
            Transport::Tcp => Self::tcp(options.port),
            Transport::Ipc => {
                Self::ipc(&options.data_root, &[std::env::temp_dir(), PathBuf::from("/tmp")], run)
            }
        }
    }

    fn tcp(port: u16) -> Result<Self, SheepError> {
        // A listener on any address would be in the way of the runner's.
        // Its own probe would be too, were it left open in a child.
        match between_forks(|| TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).map(drop)) {
            Ok(()) if port == 0 => {
                Err(SheepError::Misconfigured("port 0 cannot be dialled: give the sheep a port".to_owned()))
            }
            Ok(()) => Ok(Self { url: format!("tcp://127.0.0.1:{port}"), socket: None }),
            Err(e) if e.kind() == io::ErrorKind::AddrInUse => {
                Err(SheepError::Unavailable(format!("port {port} is in use by another process")))
            }
            Err(e) => Err(SheepError::Misconfigured(format!("cannot listen on port {port}: {e}"))),
        }
    }

    fn ipc(sheep: &Path, temporary: &[PathBuf], run: &str) -> Result<Self, SheepError> {
        remove_stale(sheep);
        // The end of the name is its random part.
        let short = &run[run.len().saturating_sub(8)..];
        let path = sheep.join(format!(".runner-{short}.sock"));
        if let Some(url) = url(&path) {
            return Ok(Self { url, socket: Some(Socket::InSheep(path)) });
        }
        for dir in temporary {
            let dir = dir.join(format!("shepherd-{short}"));
            let path = dir.join("sock");
            let Some(url) = url(&path) else { continue };
            // Fails when it is there already: nobody else can have made it for us.
            return match std::fs::DirBuilder::new().mode(0o700).create(&dir) {
                Ok(()) => Ok(Self { url, socket: Some(Socket::Private(path)) }),
                Err(e) => Err(SheepError::Misconfigured(format!(
                    "cannot make the directory {}: {e}",
                    dir.display()
                ))),
            };
        }
        Err(SheepError::Misconfigured(format!(
            "{} is no path for a socket: that is UTF-8 of at most {MAX_SOCKET_PATH} bytes",
            path.display()
        )))
    }

    pub(super) fn url(&self) -> &str {
        &self.url
    }

    /// The socket, when it lies outside the sheep's directory.
    pub(super) fn private_socket(&self) -> Option<&str> {
        match &self.socket {
            Some(Socket::Private(path)) => path.to_str(),
            Some(Socket::InSheep(_)) | None => None,
        }
    }
}

impl Drop for Endpoint {
    fn drop(&mut self) {
        match &self.socket {
            Some(Socket::Private(path)) => remove_private(path),
            Some(Socket::InSheep(path)) => {
                // The runner may have removed it, or never made it.
                let _ = std::fs::remove_file(path);
            }
            None => {}
        }
    }
}

/// Removes a socket and its directory, if that holds nothing else.
pub(super) fn remove_private(socket: &Path) {
    let _ = std::fs::remove_file(socket);
    if let Some(dir) = socket.parent() {
        let _ = std::fs::remove_dir(dir);
    }
}

fn url(path: &Path) -> Option<String> {
    let fits = path.as_os_str().as_bytes().len() <= MAX_SOCKET_PATH;
    path.to_str().filter(|_| fits).map(|path| format!("ipc://{path}"))
}

/// Removes the sockets of earlier runs, which are over.
fn remove_stale(sheep: &Path) {
    for entry in std::fs::read_dir(sheep).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let is_ours =
            name.to_str().is_some_and(|name| name.starts_with(".runner-") && name.ends_with(".sock"));
        if is_ours && entry.file_type().is_ok_and(|kind| kind.is_socket()) {
            let _ = std::fs::remove_file(entry.path());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::os::unix::fs::PermissionsExt as _;
    use std::os::unix::net::UnixListener;
    use std::path::{Path, PathBuf};

    use super::{Endpoint, MAX_SOCKET_PATH};
    use crate::SheepError;

    const RUN: &str = "0193aaaabbbbccccddddeeee12345678";

    fn path(endpoint: &Endpoint) -> PathBuf {
        endpoint.url().strip_prefix("ipc://").unwrap().into()
    }

    #[test]
    fn a_socket_lies_in_the_sheeps_directory_and_goes_with_the_run() {
        let dir = tempfile::tempdir().unwrap();
        let endpoint = Endpoint::ipc(dir.path(), &[], RUN).unwrap();
        let path = path(&endpoint);
        assert_eq!(path, dir.path().join(".runner-12345678.sock"));
        let _listener = UnixListener::bind(&path).unwrap();
        drop(endpoint);
        assert!(!path.exists());
    }

    #[test]
    fn stale_sockets_are_removed_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let (stale, file) = (dir.path().join(".runner-0.sock"), dir.path().join(".runner-1.sock"));
        drop(UnixListener::bind(&stale).unwrap());
        std::fs::write(&file, "").unwrap();
        Endpoint::ipc(dir.path(), &[], RUN).unwrap();
        assert!(!stale.exists());
        assert!(file.exists());
    }

    #[test]
    fn the_longest_path_that_fits_is_bindable_and_a_longer_one_falls_back() {
        let dir = tempfile::tempdir().unwrap();
        let temporary = tempfile::tempdir().unwrap();
        let name = "/.runner-12345678.sock".len();
        let fitting = MAX_SOCKET_PATH - name - dir.path().as_os_str().len() - 1;
        for (length, falls_back) in [(fitting, false), (fitting + 1, true)] {
            let sheep = dir.path().join("x".repeat(length));
            std::fs::create_dir(&sheep).unwrap();
            let endpoint = Endpoint::ipc(&sheep, &[temporary.path().to_owned()], RUN).unwrap();
            let path = path(&endpoint);
            let _listener = UnixListener::bind(&path).unwrap();
            assert_eq!(path.starts_with(temporary.path()), falls_back);
            assert_eq!(endpoint.private_socket().is_some(), falls_back);
            if falls_back {
                let mode = path.parent().unwrap().metadata().unwrap().permissions().mode();
                assert_eq!(mode & 0o777, 0o700);
            }
        }
        assert_eq!(
            temporary.path().read_dir().unwrap().count(),
            0,
            "the private directory goes with the run"
        );
    }

    #[test]
    fn a_private_directory_that_is_there_already_is_not_trusted() {
        let temporary = tempfile::tempdir().unwrap();
        std::fs::create_dir(temporary.path().join("shepherd-12345678")).unwrap();
        let long = PathBuf::from(format!("/{}", "x".repeat(200)));
        let error = Endpoint::ipc(&long, &[temporary.path().to_owned()], RUN).unwrap_err();
        assert!(matches!(&error, SheepError::Misconfigured(m) if m.contains("shepherd-12345678")), "{error}");
    }

    #[test]
    fn no_place_for_a_socket_is_said_clearly() {
        let long = PathBuf::from(format!("/{}", "x".repeat(200)));
        let error = Endpoint::ipc(&long, std::slice::from_ref(&long), RUN).unwrap_err();
        assert!(matches!(&error, SheepError::Misconfigured(m) if m.contains("107 bytes")), "{error}");
        assert!(Endpoint::ipc(Path::new("/nowhere"), &[], RUN).is_ok());
    }

    #[test]
    fn a_port_in_use_is_named() {
        for address in ["127.0.0.1:0", "0.0.0.0:0"] {
            let listener = TcpListener::bind(address).unwrap();
            let port = listener.local_addr().unwrap().port();
            let error = Endpoint::tcp(port).unwrap_err();
            assert_eq!(error.to_string(), format!("port {port} is in use by another process"));
            assert!(matches!(error, SheepError::Unavailable(_)));
        }
        assert!(matches!(Endpoint::tcp(0), Err(SheepError::Misconfigured(_))));
    }
}
