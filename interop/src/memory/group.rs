//! A control group with a bound on memory, of either version (cgroups(7)).

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::Context;

/// Where systems mount the groups; a system with both versions has version 2 in a folder of its own.
const MOUNTS: [(&str, Version); 3] = [
    ("/sys/fs/cgroup/memory", Version::One),
    ("/sys/fs/cgroup", Version::Two),
    ("/sys/fs/cgroup/unified", Version::Two),
];

/// More than any socket takes: without a bound, version 1 does not count sockets.
const NO_BOUND: u64 = 1 << 40;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Version {
    One,
    Two,
}

/// What a group uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Usage {
    /// Bytes of the processes and of the kernel for them; in version 2, sockets are among them.
    pub memory: u64,
    /// Bytes that the kernel holds for TCP sockets.
    pub tcp: u64,
    /// The most of both that there were at once; in version 1 the sum of the most of each, which may be more.
    pub peak: u64,
}

/// A group; it goes when this is dropped and its processes have gone.
#[derive(Debug)]
pub struct Group {
    path: PathBuf,
    version: Version,
    limit: u64,
}

impl Group {
    /// A new group that may have `limit` bytes. Needs root.
    ///
    /// # Errors
    /// When the system has no groups that bound memory, or does not let us make one.
    pub fn new(limit: u64) -> anyhow::Result<Self> {
        let bounds = |(mount, version): &(&str, Version)| match version {
            Version::One => Path::new(mount).join("memory.limit_in_bytes").exists(),
            Version::Two => fs::read_to_string(Path::new(mount).join("cgroup.subtree_control"))
                .is_ok_and(|controllers| controllers.split_whitespace().any(|name| name == "memory")),
        };
        let (mount, version) = MOUNTS.into_iter().find(bounds).context("no control groups that bound memory")?;
        let path = Path::new(mount).join(format!("konnectivity-memory-{}", std::process::id()));
        fs::create_dir(&path).with_context(|| format!("cannot make the control group {}", path.display()))?;
        let group = Self { path, version, limit };
        match version {
            Version::One => {
                group.write("memory.limit_in_bytes", limit)?;
                group.write("memory.kmem.tcp.limit_in_bytes", NO_BOUND)?;
            }
            Version::Two => {
                group.write("memory.max", limit)?;
                // Without swap there is no way to have more.
                let _ = group.write("memory.swap.max", 0);
            }
        }
        Ok(group)
    }

    /// The bound in bytes.
    pub fn limit(&self) -> u64 {
        self.limit
    }

    /// A program in `folder` that enters the group and becomes `program`.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn wrap(&self, program: &Path, folder: &Path) -> anyhow::Result<PathBuf> {
        let program = program.canonicalize().with_context(|| format!("no program {}", program.display()))?;
        let path = folder.join("in-group");
        let text = format!(
            "#!/bin/sh\necho $$ >'{}/cgroup.procs' && exec '{}' \"$@\"\n",
            self.path.display(),
            program.display()
        );
        fs::write(&path, text).and_then(|()| fs::set_permissions(&path, Permissions::from_mode(0o755)))?;
        Ok(path)
    }

    /// What it uses, and what it has used.
    ///
    /// # Errors
    /// When the group is gone.
    pub fn usage(&self) -> anyhow::Result<Usage> {
        match self.version {
            Version::One => {
                let peak = self.read("memory.max_usage_in_bytes")? + self.read("memory.kmem.tcp.max_usage_in_bytes")?;
                let tcp = self.read("memory.kmem.tcp.usage_in_bytes")?;
                Ok(Usage { memory: self.read("memory.usage_in_bytes")?, tcp, peak })
            }
            Version::Two => {
                let (memory, tcp) = (self.read("memory.current")?, self.count("memory.stat", "sock")?);
                Ok(Usage { memory, tcp, peak: self.read("memory.peak")? })
            }
        }
    }

    /// How many of its processes were killed for want of memory.
    pub fn kills(&self) -> u64 {
        let file = if self.version == Version::One { "memory.oom_control" } else { "memory.events" };
        self.count(file, "oom_kill").unwrap_or_default()
    }

    fn write(&self, file: &str, value: u64) -> anyhow::Result<()> {
        let path = self.path.join(file);
        fs::write(&path, value.to_string()).with_context(|| format!("cannot write to {}", path.display()))
    }

    fn text(&self, file: &str) -> anyhow::Result<String> {
        let path = self.path.join(file);
        fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))
    }

    fn read(&self, file: &str) -> anyhow::Result<u64> {
        self.text(file)?.trim().parse().with_context(|| format!("no number in {file}"))
    }

    /// The number behind a name.
    fn count(&self, file: &str, name: &str) -> anyhow::Result<u64> {
        let text = self.text(file)?;
        let number = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        number.with_context(|| format!("no {name} in {file}"))?.trim().parse().context("not a number")
    }
}

#[allow(clippy::disallowed_methods, reason = "a drop has no other way to wait, and nothing else runs any more")]
impl Drop for Group {
    fn drop(&mut self) {
        // The kernel keeps a group whose processes are just ending.
        for _ in 0..100 {
            if fs::remove_dir(&self.path).is_ok() {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        eprintln!("cannot remove the control group {}", self.path.display());
    }
}
