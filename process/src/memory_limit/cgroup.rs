//! What control groups say, of either version (cgroups(7), "CGROUP VERSION 1" and "CGROUP VERSION 2").

use std::{
    fs,
    path::{Path, PathBuf},
};

/// The smallest limit of the groups that a process is in, and of those above them. `membership` is the process's file in
/// `/proc`, and `root` where the groups are mounted.
pub(super) fn limit(membership: &Path, root: &Path) -> Option<u64> {
    let membership = fs::read_to_string(membership).ok()?;
    let groups = membership.lines().filter_map(|line| group(line, root));
    groups.flat_map(|(mount, path, file)| limits(&mount, path, file)).min()
}

/// The mount, path and file of the group that one line of a process's membership names, if it bounds memory:
/// `4:memory:/pod` in version 1, `0::/pod` in version 2.
fn group<'a>(line: &'a str, root: &Path) -> Option<(PathBuf, &'a Path, &'static str)> {
    let mut fields = line.splitn(3, ':');
    let (_, controllers, path) = (fields.next()?, fields.next()?, fields.next()?);
    let path = Path::new(path.trim_start_matches('/'));
    match controllers {
        "" => Some((root.to_owned(), path, "memory.max")),
        _ if controllers.split(',').any(|name| name == "memory") => {
            Some((root.join("memory"), path, "memory.limit_in_bytes"))
        }
        _ => None,
    }
}

/// The limits of a group and of those above it. In a container the path may be that of the host, of which only the
/// container's own group is mounted, as the root.
fn limits(mount: &Path, path: &Path, file: &str) -> Vec<u64> {
    let groups = path.ancestors().map(|group| mount.join(group).join(file));
    groups.filter_map(|file| fs::read_to_string(file).ok()?.trim().parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A machine with these files, and what a process finds there that is in these groups.
    fn found(membership: &str, files: &[(&str, &str)]) -> Option<u64> {
        let folder = tempfile::TempDir::new().unwrap();
        let root = folder.path().join("sys");
        for (path, text) in files {
            let path = root.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        let own = folder.path().join("cgroup");
        fs::write(&own, membership).unwrap();
        limit(&own, &root)
    }

    #[test]
    fn the_smallest_on_the_way_up_counts() {
        let files = [("a/b/memory.max", "max\n"), ("a/memory.max", "31457280\n"), ("memory.max", "99999999999\n")];
        assert_eq!(found("0::/a/b\n", &files), Some(31_457_280));
        assert_eq!(found("0::/\n", &files), Some(99_999_999_999));
        assert_eq!(found("0::/a/b\n", &files[..1]), None, "no limit is said as max");
    }

    #[test]
    fn version_1() {
        let groups = "5:cpu,cpuacct:/pod\n4:memory:/pod\n0::/\n";
        let no_limit = "9223372036854771712\n";
        let files = [("memory/pod/memory.limit_in_bytes", "1048576\n"), ("memory/memory.limit_in_bytes", no_limit)];
        assert_eq!(found(groups, &files), Some(1_048_576));
        assert_eq!(found(groups, &files[1..]), Some(9_223_372_036_854_771_712), "more than any default asks for");
    }

    #[test]
    fn a_container_that_sees_the_path_of_its_host_finds_its_own_group_at_the_root() {
        assert_eq!(found("4:memory:/kubepods/x\n", &[("memory/memory.limit_in_bytes", "7\n")]), Some(7));
        assert_eq!(found("0::/kubepods/x\n", &[("memory.max", "7\n")]), Some(7));
    }

    #[test]
    fn nothing_is_no_limit() {
        assert_eq!(found("", &[]), None);
        assert_eq!(found("0::/a\n", &[]), None);
        assert_eq!(found("what is this\n1:memory\n", &[("memory.max", "x")]), None);
        assert_eq!(limit(Path::new("/no-such-file"), Path::new("/")), None);
    }
}
