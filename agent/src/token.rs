//! The token by which servers know this agent: a file that Kubernetes writes anew before the token in it expires.

use std::{
    fmt,
    fs::File,
    io::{self, Read},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use tokio::time::sleep;

/// Bytes that a token file may have, as many as servers take. A token of a service account has about 1 KiB.
const MAX_FILE_BYTES: u64 = 16 * 1024;

/// How often the file is looked at while a connection lives. Kubernetes replaces a token of an hour after 48 minutes.
const LOOK_EVERY: Duration = Duration::from_secs(10);

/// Why there is no token to show. Each text names the file.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// The file cannot be read.
    #[error("cannot read the token file {} of --service-account-token-path", .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// There is nothing in it, or only white space.
    #[error("the token file {} of --service-account-token-path is empty", .path.display())]
    Empty {
        /// The file.
        path: PathBuf,
    },
    /// It is no token.
    #[error("the token file {} of --service-account-token-path has more than {MAX_FILE_BYTES} bytes, and no token has", .path.display())]
    TooLong {
        /// The file.
        path: PathBuf,
    },
    /// It is no token.
    #[error(
        "the token file {} of --service-account-token-path holds no token: it must be one line of printable ASCII", .path.display()
    )]
    NoToken {
        /// The file.
        path: PathBuf,
    },
}

/// A secret.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(Arc<str>);

impl Token {
    /// The secret, which is printable ASCII.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(redacted)")
    }
}

/// Where the token is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenFile {
    path: PathBuf,
}

impl TokenFile {
    /// The token of this file, whichever there is when it is read.
    pub fn new(path: PathBuf) -> Self {
        Self { path }
    }

    /// Reads the token. White space at its ends is left out: editors and `echo` put a line's end there, and a header of
    /// gRPC cannot have it.
    ///
    /// # Errors
    /// [`TokenError`].
    pub fn read(&self) -> Result<Token, TokenError> {
        let path = || self.path.clone();
        let bytes = read(&self.path).map_err(|source| TokenError::Read { path: path(), source })?;
        if bytes.len() as u64 > MAX_FILE_BYTES {
            return Err(TokenError::TooLong { path: path() });
        }
        let token = bytes.trim_ascii();
        if token.len() < bytes.len() {
            tracing::debug!(path = %self.path.display(), "white space at the ends of the token file is left out");
        }
        if token.is_empty() {
            return Err(TokenError::Empty { path: path() });
        }
        match str::from_utf8(token) {
            Ok(text) if token.iter().all(|byte| (b' '..=b'~').contains(byte)) => Ok(Token(text.into())),
            _ => Err(TokenError::NoToken { path: path() }),
        }
    }

    /// Waits until the file has another token than `known`. It is read every ten seconds: that sees links that are
    /// swapped and files on any file system. A file that cannot be used is logged, once, and waited for.
    ///
    /// # Cancel safety
    /// Dropping the future begins the wait anew.
    pub async fn renewed(&self, known: &Token) -> Token {
        let mut is_bad = false;
        loop {
            sleep(LOOK_EVERY).await;
            match self.read() {
                Ok(token) if token != *known => return token,
                Ok(_) => is_bad = false,
                Err(error) if !is_bad => {
                    is_bad = true;
                    let error = konnectivity_transport::error::with_sources(&error);
                    tracing::error!(error, "going on with the token of before");
                }
                Err(_) => {}
            }
        }
    }
}

/// The file, or as much of it as is enough to know that it is too long.
fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use tempfile::TempDir;

    use super::*;

    struct Stage {
        folder: TempDir,
        file: TokenFile,
    }

    impl Stage {
        fn new(content: &[u8]) -> Self {
            let folder = TempDir::new().unwrap();
            let path = folder.path().join("token");
            std::fs::write(&path, content).unwrap();
            Self { folder, file: TokenFile::new(path) }
        }

        fn read(&self) -> Result<String, String> {
            self.file.read().map(|token| token.expose().to_owned()).map_err(|error| {
                let text = error.to_string();
                assert!(text.contains(self.folder.path().to_str().unwrap()), "{text}");
                text
            })
        }
    }

    #[test]
    fn white_space_at_the_ends_is_left_out() {
        for content in ["a.b.c", "a.b.c\n", "\r\n a.b.c\t\n\n"] {
            assert_eq!(Stage::new(content.as_bytes()).read().as_deref(), Ok("a.b.c"), "{content:?}");
        }
        assert_eq!(Stage::new(b"a b").read().as_deref(), Ok("a b"), "what is inside is the API's to judge");
    }

    #[test]
    fn what_is_no_token_is_refused_with_the_files_name() {
        for (content, words) in [
            (&b""[..], "is empty"),
            (b" \n\t", "is empty"),
            (b"a\nb", "printable ASCII"),
            (b"a\xffb", "printable ASCII"),
            ("t\u{f6}ken".as_bytes(), "printable ASCII"),
            (&[b'a'; 16 * 1024 + 1], "more than 16384 bytes"),
            (&[b'\n'; 1_000_000], "more than 16384 bytes"),
        ] {
            let refused = Stage::new(content).read().unwrap_err();
            assert!(refused.contains(words), "{refused}");
        }
        assert!(Stage::new(&[b'a'; 16 * 1024]).read().is_ok());
        let stage = Stage::new(b"a");
        std::fs::remove_file(&stage.file.path).unwrap();
        assert!(stage.read().unwrap_err().contains("cannot read"));
    }

    #[tokio::test(start_paused = true)]
    async fn a_new_token_is_seen_when_a_link_is_swapped_and_a_bad_file_is_waited_for() {
        // As a volume of Kubernetes: token -> ..data/token, ..data -> one folder or another.
        let folder = TempDir::new().unwrap();
        let path = |name: &str| folder.path().join(name);
        for (name, content) in [("1", "first"), ("2", ""), ("3", "second\n")] {
            std::fs::create_dir(path(name)).unwrap();
            std::fs::write(path(name).join("token"), content).unwrap();
        }
        let swap = |name: &str| {
            symlink(name, path("new")).unwrap();
            std::fs::rename(path("new"), path("..data")).unwrap();
        };
        swap("1");
        symlink("..data/token", path("token")).unwrap();
        let file = TokenFile::new(path("token"));
        let first = file.read().unwrap();
        let renewed = file.renewed(&first);
        tokio::pin!(renewed);
        for name in ["1", "2"] {
            swap(name);
            let waited = tokio::time::timeout(LOOK_EVERY * 3, &mut renewed).await;
            assert!(waited.is_err(), "{waited:?}");
        }
        swap("3");
        assert_eq!(renewed.await.expose(), "second");
        assert_eq!(format!("{first:?}"), "Token(redacted)");
    }
}
