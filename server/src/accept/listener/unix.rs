//! A listening Unix socket and its file.

use std::{
    fs, io,
    os::unix::{
        fs::{FileTypeExt, MetadataExt, PermissionsExt},
        net::UnixListener,
    },
    path::{Path, PathBuf},
};

use socket2::{Domain, SockAddr, Socket, Type};

/// The owner and the group may connect, as in the reference.
const MODE: u32 = 0o770;

/// `sun_path` has 108 bytes (unix(7)), and the last one is zero.
const MAX_PATH_BYTES: usize = 107;

/// As many as the kernel lets us have; it takes the lesser of this and net.core.somaxconn.
const BACKLOG: i32 = 4096;

/// Why a Unix socket could not be made.
#[derive(Debug, thiserror::Error)]
pub enum BindUnixError {
    /// The operating system has a limit.
    #[error("socket path {path} has {bytes} bytes; choose one of at most {MAX_PATH_BYTES}", path = path.display())]
    PathTooLong {
        /// The path.
        path: PathBuf,
        /// Its length.
        bytes: usize,
    },
    /// The folder is not there.
    #[error("folder {folder} for the socket does not exist; create it", folder = folder.display())]
    NoFolder {
        /// The folder.
        folder: PathBuf,
    },
    /// Something else is at the path. It is left alone.
    #[error("{path} exists and is not a socket; choose another path or remove it", path = path.display())]
    NotASocket {
        /// The path.
        path: PathBuf,
    },
    /// A socket is there, and it was not to be removed.
    #[error("socket {path} exists; remove it or set --delete-existing-uds-file", path = path.display())]
    Exists {
        /// The path.
        path: PathBuf,
    },
    /// A socket is there and cannot be removed.
    #[error("cannot remove the existing socket {path}; make its folder writable to the server's user", path = path.display())]
    NotRemovable {
        /// The path.
        path: PathBuf,
        /// What the operating system says.
        #[source]
        source: io::Error,
    },
    /// Anything else.
    #[error("cannot make the socket {path}", path = path.display())]
    Bind {
        /// The path.
        path: PathBuf,
        /// What the operating system says.
        #[source]
        source: io::Error,
    },
}

/// Makes a socket at `path` and listens.
///
/// A socket that is there is removed first if `delete_existing`, whether or not somebody listens on it: that is how a
/// new server takes over from an old one.
///
/// # Errors
/// See [`BindUnixError`]. Nothing has changed then, except that an existing socket may be gone.
pub fn bind(path: &Path, delete_existing: bool) -> Result<(UnixListener, SocketFile), BindUnixError> {
    let bytes = path.as_os_str().len();
    if bytes > MAX_PATH_BYTES {
        let path = path.to_owned();
        return Err(BindUnixError::PathTooLong { path, bytes });
    }
    make_way(path, delete_existing)?;
    bind_and_listen(path).map_err(|source| BindUnixError::Bind { path: path.to_owned(), source })
}

fn make_way(path: &Path, delete_existing: bool) -> Result<(), BindUnixError> {
    let folder = match path.parent() {
        Some(folder) if folder != Path::new("") => folder,
        _ => Path::new("."),
    };
    if !folder.is_dir() {
        let folder = folder.to_owned();
        return Err(BindUnixError::NoFolder { folder });
    }
    let path_buf = || path.to_owned();
    match fs::symlink_metadata(path) {
        // Nothing is there, or bind(2) will say better what is wrong.
        Err(_) => Ok(()),
        Ok(existing) if !existing.file_type().is_socket() => Err(BindUnixError::NotASocket { path: path_buf() }),
        Ok(_) if !delete_existing => Err(BindUnixError::Exists { path: path_buf() }),
        Ok(_) => fs::remove_file(path).map_err(|source| BindUnixError::NotRemovable { path: path_buf(), source }),
    }
}

/// Binding makes the file with a mode that the umask decides. Nobody can connect before listen(2), so there is time
/// to set the right one; a change of the umask would hit other threads that make files.
fn bind_and_listen(path: &Path) -> io::Result<(UnixListener, SocketFile)> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    socket.bind(&SockAddr::unix(path)?)?;
    let file = SocketFile::at(path)?;
    fs::set_permissions(path, fs::Permissions::from_mode(MODE))?;
    socket.listen(BACKLOG)?;
    Ok((socket.into(), file))
}

/// The file of a Unix socket. Dropping it removes the file, if it is still the same one.
#[derive(Debug)]
pub struct SocketFile {
    path: PathBuf,
    id: (u64, u64),
}

impl SocketFile {
    fn at(path: &Path) -> io::Result<Self> {
        Ok(Self { path: path.to_owned(), id: Self::id(path)? })
    }

    fn id(path: &Path) -> io::Result<(u64, u64)> {
        let file = fs::symlink_metadata(path)?;
        Ok((file.dev(), file.ino()))
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        let still_ours = Self::id(&self.path).is_ok_and(|id| id == self.id);
        if !still_ours {
            return;
        }
        if let Err(error) = fs::remove_file(&self.path) {
            tracing::warn!(path = %self.path.display(), %error, "cannot remove the socket's file");
        }
    }
}

#[cfg(test)]
mod tests;
