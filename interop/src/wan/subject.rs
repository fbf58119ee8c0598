//! What is measured, and how it is started on a link.

use std::fmt;
use std::str::FromStr;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::Context;
use serde::{Serialize, Serializer};

use super::setting::Setting;
use super::ssh::Ssh;
use super::stage::Stage;
use crate::load::path::Path;
use crate::peer::{Entrance, Make, Mode, Pair, Places};

/// Something that carries dials, and by which congestion control.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Subject {
    /// What it is.
    pub kind: Kind,
    /// Of ours, QUIC's, none: the default; of others, TCP's in both namespaces.
    pub congestion_control: Option<String>,
}

/// What carries dials.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// This project's programs.
    Ours,
    /// The Go reference.
    Go,
    /// `ssh -L`, which the reference has replaced in Kubernetes.
    Ssh,
    /// TCP without a tunnel.
    Direct,
}

impl Kind {
    const ALL: [(Self, &str); 4] =
        [(Self::Ours, "ours"), (Self::Go, "go"), (Self::Ssh, "ssh"), (Self::Direct, "direct")];

    fn key(self) -> &'static str {
        Self::ALL.iter().find(|(kind, _)| *kind == self).map_or("", |(_, key)| key)
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.congestion_control {
            None => f.pad(self.kind.key()),
            Some(name) => f.pad(&format!("{}/{name}", self.kind.key())),
        }
    }
}

impl FromStr for Subject {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (kind, name) = text.split_once('/').map_or((text, None), |(kind, name)| (kind, Some(name.to_owned())));
        let found = Kind::ALL.iter().find(|(_, key)| *key == kind);
        match (found, name) {
            (Some((Kind::Ours, _)), name) => Ok(Self { kind: Kind::Ours, congestion_control: name }),
            (Some((kind, _)), Some(name)) => Ok(Self { kind: *kind, congestion_control: Some(name) }),
            _ => {
                Err("a subject is ours, ours/NAME, go/NAME, ssh/NAME or direct/NAME, NAME that of a congestion control"
                    .to_owned())
            }
        }
    }
}

impl Serialize for Subject {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// A subject that carries dials; it ends when this is dropped.
pub struct Running {
    /// Where clients dial.
    pub path: Path,
    pair: Option<Pair>,
    ssh: Option<Ssh>,
}

impl Subject {
    /// Whether it is this project's.
    pub fn is_ours(&self) -> bool {
        self.kind == Kind::Ours
    }

    /// Sets TCP's congestion control, which counts for sockets that are made later: before the targets are started.
    ///
    /// # Errors
    /// When the kernel does not have it, or does not let namespaces have it.
    pub fn prepare(&self, stage: &Stage) -> anyhow::Result<()> {
        if let (false, Some(name)) = (self.is_ours(), &self.congestion_control) {
            stage.link.set_congestion_control(name)?;
        }
        Ok(())
    }

    /// Starts it on a stage.
    ///
    /// # Errors
    /// A program that cannot be started or does not get ready.
    pub async fn start(&self, setting: &Setting, stage: &Stage) -> anyhow::Result<Running> {
        let make = match self.kind {
            Kind::Direct => return Ok(Running { path: Path::Direct, pair: None, ssh: None }),
            Kind::Ssh => {
                let ssh = Ssh::start(setting, stage).await?;
                return Ok(Running { path: ssh.path(), pair: None, ssh: Some(ssh) });
            }
            Kind::Go => &setting.go,
            Kind::Ours => &setting.ours,
        };
        let make = self.named(make);
        let places = Places { server: stage.link.cloud().ipv4, agent: Some(stage.site().to_owned()) };
        let entrance = (Mode::HttpConnect, Entrance::Unix);
        let pair = Pair::start_at(&places, &make, entrance, &setting.certificates, &setting.folder).await?;
        let path = Path::through(&pair.frontend, &setting.certificates)?;
        Ok(Running { path, pair: Some(pair), ssh: None })
    }

    /// Several may run at the same time, so each start has a name of its own.
    fn named(&self, make: &Make) -> Make {
        static STARTS: AtomicUsize = AtomicUsize::new(0);
        let mut make = make.clone();
        make.name = format!("{}-{}", make.name, STARTS.fetch_add(1, Ordering::Relaxed));
        if let (true, Some(name)) = (self.is_ours(), &self.congestion_control) {
            for arguments in [&mut make.server_args, &mut make.agent_args] {
                arguments.push(format!("--quic-congestion-control={name}"));
            }
        }
        make
    }
}

impl Running {
    /// Checks that its programs still run.
    ///
    /// # Errors
    /// Names the one that ended, with the last lines of its log.
    pub fn check(&mut self) -> anyhow::Result<()> {
        self.pair.as_mut().map_or(Ok(()), Pair::check)?;
        self.ssh.as_mut().map_or(Ok(()), Ssh::check).context("the SSH tunnel is gone")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_subject_is_read_as_it_is_shown() {
        for text in ["ours", "ours/model", "go/cubic", "ssh/bbr", "direct/cubic"] {
            assert_eq!(text.parse::<Subject>().unwrap().to_string(), text);
        }
        for text in ["", "go", "direct", "other/cubic"] {
            assert!(text.parse::<Subject>().unwrap_err().starts_with("a subject is"), "{text}");
        }
    }
}
