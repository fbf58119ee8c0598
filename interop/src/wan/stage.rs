//! A link with targets at its site's end, and the caller's thread in the cloud.

use anyhow::Context;

use super::subject::Subject;
use crate::link::Link;
use crate::link::profile::Profile;
use crate::load::targets::Targets;

/// A link with targets; all of it ends when this is dropped, the link last.
#[derive(Debug)]
pub struct Stage {
    targets: Option<Targets>,
    /// The link.
    pub link: Link,
}

impl Stage {
    /// Makes the link, starts targets at the site and moves the calling thread into the cloud, for good.
    ///
    /// # Errors
    /// When no link can be made, TCP cannot have the subject's congestion control, or the targets do not start.
    pub fn set(profile: &Profile, seed: u64, subjects: &[&Subject]) -> anyhow::Result<Self> {
        let link = Link::start(profile.clone(), seed).context("there is no link")?;
        link.cloud().namespace.enter()?;
        let mut stage = Self { targets: None, link };
        for subject in subjects {
            subject.prepare(&stage)?;
        }
        stage.targets = Some(Targets::start_in(stage.site(), stage.link.site().ipv4)?);
        Ok(stage)
    }

    /// The name of the site's network namespace.
    pub fn site(&self) -> &str {
        self.link.site().namespace.name()
    }

    /// The targets.
    pub fn targets(&self) -> &Targets {
        self.targets.as_ref().expect("they are started with the stage")
    }

    /// The targets, to be asked for their counters.
    pub fn targets_mut(&mut self) -> &mut Targets {
        self.targets.as_mut().expect("they are started with the stage")
    }
}
