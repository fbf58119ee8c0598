//! The content of files, as far as it takes to see that it is another one.

use std::{
    fs::{self, File},
    hash::{DefaultHasher, Hash, Hasher},
    io::{self, Read},
    path::{Path, PathBuf},
};

/// Larger than any bundle of certificates: what all the world trusts takes a quarter of a megabyte.
pub(super) const MOST_BYTES: u64 = 4 * 1024 * 1024;

/// The content of some files. What cannot be read has a fingerprint, too, by the reason.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Fingerprint(u64);

impl Fingerprint {
    pub(super) fn of(files: &[PathBuf]) -> Self {
        let mut hasher = DefaultHasher::new();
        for file in files {
            content(file).map_err(|error| error.kind()).hash(&mut hasher);
        }
        Self(hasher.finish())
    }
}

fn content(file: &Path) -> io::Result<Vec<u8>> {
    // Opening a pipe would wait for its writer.
    check(&fs::metadata(file)?)?;
    let mut bytes = Vec::new();
    File::open(file)?.take(MOST_BYTES).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Whether it may be read again.
fn check(metadata: &fs::Metadata) -> io::Result<()> {
    match () {
        () if metadata.is_dir() => Err(io::ErrorKind::IsADirectory.into()),
        () if !metadata.is_file() => Err(io::ErrorKind::InvalidInput.into()),
        () if metadata.len() > MOST_BYTES => Err(io::ErrorKind::FileTooLarge.into()),
        () => Ok(()),
    }
}

/// Whether it may be read again: not a pipe, which gives its bytes once only, and not without end.
///
/// # Errors
/// Why not.
pub(super) fn check_path(file: &Path) -> io::Result<()> {
    check(&fs::metadata(file)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_changes_in_a_file_changes_its_fingerprint() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        let now = || Fingerprint::of(std::slice::from_ref(&file));
        let mut seen = vec![now()];
        let steps: [&dyn Fn(); 5] = [
            &|| fs::write(&file, "").unwrap(),
            &|| fs::write(&file, "1").unwrap(),
            &|| fs::write(&file, "2").unwrap(),
            &|| File::create(&file).unwrap().set_len(MOST_BYTES + 1).unwrap(),
            &|| {
                fs::remove_file(&file).unwrap();
                fs::create_dir(&file).unwrap();
            },
        ];
        for step in steps {
            step();
            assert!(!seen.contains(&now()), "after step {}", seen.len());
            assert_eq!(now(), now());
            seen.push(now());
        }
    }

    #[test]
    fn bytes_do_not_move_from_one_file_to_the_other_unseen() {
        let folder = tempfile::tempdir().unwrap();
        let files = [folder.path().join("a"), folder.path().join("b")];
        let of = |a, b| {
            fs::write(&files[0], a).unwrap();
            fs::write(&files[1], b).unwrap();
            Fingerprint::of(&files)
        };
        assert_ne!(of("12", "3"), of("1", "23"));
    }

    #[test]
    fn a_pipe_is_not_opened() {
        let folder = tempfile::tempdir().unwrap();
        let pipe = folder.path().join("pipe");
        nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
        assert_eq!(content(&pipe).unwrap_err().kind(), io::ErrorKind::InvalidInput);
    }
}
