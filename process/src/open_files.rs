//! The limit of open files: every dial takes one at each end.

use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// Raises this process's soft limit to the hard one, as Go's runtime does for the reference. Systems give 1,024 by
/// default, for the sake of programs that use select(2), and that would be the most dials. What cannot be raised stays.
pub fn raise() {
    let raised = getrlimit(Resource::RLIMIT_NOFILE).and_then(|(soft, hard)| {
        if soft < hard {
            setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;
        }
        Ok(hard)
    });
    match raised {
        Ok(open_files) => tracing::info!(open_files, "limit of open files"),
        Err(error) => tracing::warn!(%error, "cannot raise the limit of open files (ulimit -n)"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_soft_limit_becomes_the_hard_one() {
        let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
        // Enough for the tests beside this one.
        setrlimit(Resource::RLIMIT_NOFILE, hard - 1, hard).unwrap();
        raise();
        assert_eq!(getrlimit(Resource::RLIMIT_NOFILE).unwrap(), (hard, hard));
    }
}
