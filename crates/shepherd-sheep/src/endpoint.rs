//! Where a runner listens.
//!
//! A socket file gets a new name for every run, so that an old runner is never
//! taken for a new one. It lies in the sheep's directory, hidden (no job id begins
//! with a dot); where the path would be too long for a socket address, in a private
//! directory of its own for temporary files. A [`Trust`] is let in there by its group.

use std::io;
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{DirBuilderExt as _, FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use crate::SheepError;
use crate::bare::between_forks;

/// The longest path of a socket: `sun_path` of unix(7) without its final NUL.
const MAX_SOCKET_PATH: usize = 107;
/// The mode of a directory that a stranger works in: for the group, which it hands down.
const SHARED: u32 = 0o2770;

/// Who listens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Trust {
    /// A process of the daemon's own user.
    Trusted,
    /// A process of any user that has the daemon's group.
    Untrusted,
}

/// An endpoint that is free. Its files go when it is dropped.
#[derive(Debug)]
pub(crate) struct Endpoint {
    url: String,
    socket: Option<Socket>,
}

#[derive(Debug)]
enum Socket {
    InSheep(PathBuf),
    Private(PathBuf),
}

impl Endpoint {
    /// The loopback interface's port. `address` is what the runner's own listener is
    /// going to be bound to: another that is in its way is found there.
    pub(crate) fn tcp(address: Ipv4Addr, port: u16) -> Result<Self, SheepError> {
        // The probe itself would be in the way, were it left open in a child.
        match between_forks(|| TcpListener::bind((address, port)).map(drop)) {
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

    /// The place for a socket of the run of this name: in the sheep's directory, or
    /// in a private one.
    pub(crate) fn ipc(sheep: &Path, guest: Trust, run: &str) -> Result<Self, SheepError> {
        Self::ipc_below(sheep, &[std::env::temp_dir(), PathBuf::from("/tmp")], guest, run)
    }

    fn ipc_below(sheep: &Path, temporary: &[PathBuf], guest: Trust, run: &str) -> Result<Self, SheepError> {
        remove_stale(sheep);
        // The end of the name is its random part.
        let short = &run[run.len().saturating_sub(8)..];
        let path = sheep.join(format!(".runner-{short}.sock"));
        if let Some(url) = url(&path) {
            return Ok(Self { url, socket: Some(Socket::InSheep(path)) });
        }
        for dir in temporary {
            let dir = dir.join(format!("shepherd-{short}"));
            // A stranger may open the inner one to all, which leaves the outer one closed.
            let inner = dir.join("s");
            let path = inner.join("sock");
            let Some(url) = url(&path) else { continue };
            // Fails when it is there already: nobody else can have made it for us.
            let make = |dir| std::fs::DirBuilder::new().mode(0o700).create(dir);
            return match make(&dir).and_then(|()| make(&inner)).and_then(|()| admit(&inner, guest)) {
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

    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// The socket, when it lies outside the sheep's directory.
    pub(crate) fn private_socket(&self) -> Option<&str> {
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

/// Removes a socket and its directories, if they hold nothing else.
pub(crate) fn remove_private(socket: &Path) {
    let _ = std::fs::remove_file(socket);
    for dir in socket.ancestors().skip(1).take(2) {
        let _ = std::fs::remove_dir(dir);
    }
}

/// Makes the sheep's own directory, which its runners may write in.
pub(crate) fn make_home(dir: &Path, guest: Trust) -> Result<(), SheepError> {
    std::fs::create_dir_all(dir)
        .and_then(|()| admit(dir, guest))
        .map_err(|e| SheepError::Misconfigured(format!("cannot make the directory {}: {e}", dir.display())))
}

/// Lets the guest into a directory, and what it makes there be of the daemon's group.
fn admit(dir: &Path, guest: Trust) -> io::Result<()> {
    match guest {
        Trust::Trusted => Ok(()),
        Trust::Untrusted => {
            let meta = std::fs::metadata(dir)?;
            let group = rustix::process::getegid().as_raw();
            if meta.gid() != group {
                std::os::unix::fs::chown(dir, None, Some(group))?;
            }
            // Changing the group may have taken the bit that hands it down.
            if meta.gid() != group || meta.mode() & 0o7777 != SHARED {
                std::fs::set_permissions(dir, std::fs::Permissions::from_mode(SHARED))?;
            }
            Ok(())
        }
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
    use std::net::{Ipv4Addr, TcpListener};
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
    use std::os::unix::net::UnixListener;
    use std::path::{Path, PathBuf};

    use super::{Endpoint, MAX_SOCKET_PATH, Trust, make_home};
    use crate::SheepError;

    const RUN: &str = "0193aaaabbbbccccddddeeee12345678";

    fn path(endpoint: &Endpoint) -> PathBuf {
        endpoint.url().strip_prefix("ipc://").unwrap().into()
    }

    #[test]
    fn a_socket_lies_in_the_sheeps_directory_and_goes_with_the_run() {
        let dir = tempfile::tempdir().unwrap();
        let endpoint = Endpoint::ipc(dir.path(), Trust::Trusted, RUN).unwrap();
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
        Endpoint::ipc(dir.path(), Trust::Trusted, RUN).unwrap();
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
            let endpoint =
                Endpoint::ipc_below(&sheep, &[temporary.path().to_owned()], Trust::Trusted, RUN).unwrap();
            let path = path(&endpoint);
            let _listener = UnixListener::bind(&path).unwrap();
            assert_eq!(path.starts_with(temporary.path()), falls_back);
            assert_eq!(endpoint.private_socket().is_some(), falls_back);
            if falls_back {
                for dir in path.ancestors().skip(1).take(2) {
                    assert_eq!(dir.metadata().unwrap().permissions().mode() & 0o777, 0o700);
                }
            }
        }
        assert_eq!(
            temporary.path().read_dir().unwrap().count(),
            0,
            "the private directory goes with the run"
        );
    }

    #[test]
    fn a_stranger_is_let_in_by_the_group() {
        let temporary = tempfile::tempdir().unwrap();
        let home = temporary.path().join("sheep");
        make_home(&home, Trust::Untrusted).unwrap();
        let long = PathBuf::from(format!("/{}", "x".repeat(200)));
        let endpoint =
            Endpoint::ipc_below(&long, &[temporary.path().to_owned()], Trust::Untrusted, RUN).unwrap();
        let path = path(&endpoint);
        assert_eq!(path.ancestors().nth(2).unwrap().metadata().unwrap().permissions().mode() & 0o7777, 0o700);
        for dir in [home.as_path(), path.parent().unwrap()] {
            let meta = dir.metadata().unwrap();
            assert_eq!(meta.permissions().mode() & 0o7777, 0o2770);
            assert_eq!(meta.gid(), rustix::process::getegid().as_raw());
        }
        std::fs::set_permissions(&home, std::fs::Permissions::from_mode(0o755)).unwrap();
        make_home(&home, Trust::Untrusted).unwrap();
        assert_eq!(home.metadata().unwrap().permissions().mode() & 0o7777, 0o2770);
    }

    #[test]
    fn a_private_directory_that_is_there_already_is_not_trusted() {
        let temporary = tempfile::tempdir().unwrap();
        std::fs::create_dir(temporary.path().join("shepherd-12345678")).unwrap();
        let long = PathBuf::from(format!("/{}", "x".repeat(200)));
        let error =
            Endpoint::ipc_below(&long, &[temporary.path().to_owned()], Trust::Trusted, RUN).unwrap_err();
        assert!(matches!(&error, SheepError::Misconfigured(m) if m.contains("shepherd-12345678")), "{error}");
    }

    #[test]
    fn no_place_for_a_socket_is_said_clearly() {
        let long = PathBuf::from(format!("/{}", "x".repeat(200)));
        let error = Endpoint::ipc_below(&long, std::slice::from_ref(&long), Trust::Trusted, RUN).unwrap_err();
        assert!(matches!(&error, SheepError::Misconfigured(m) if m.contains("107 bytes")), "{error}");
        assert!(Endpoint::ipc(Path::new("/nowhere"), Trust::Trusted, RUN).is_ok());
    }

    #[test]
    fn a_port_in_use_is_named() {
        for address in ["127.0.0.1:0", "0.0.0.0:0"] {
            let listener = TcpListener::bind(address).unwrap();
            let port = listener.local_addr().unwrap().port();
            let error = Endpoint::tcp(Ipv4Addr::UNSPECIFIED, port).unwrap_err();
            assert_eq!(error.to_string(), format!("port {port} is in use by another process"));
            assert!(matches!(error, SheepError::Unavailable(_)));
        }
        assert!(matches!(Endpoint::tcp(Ipv4Addr::LOCALHOST, 0), Err(SheepError::Misconfigured(_))));
    }
}
