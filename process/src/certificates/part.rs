//! An identity or a bundle of authorities: what is in use of it, and what has become of its files since.

use std::{
    path::PathBuf,
    sync::Arc,
    time::{Instant, SystemTime},
};

use anyhow::{Context, Result};
use konnectivity_transport::error::with_sources;

use super::{
    file::Fingerprint,
    read::{self, Loaded, ReadError},
};
use crate::{
    metrics::CertificateMetrics,
    reload::settling::{Settling, Verdict},
    utc::Utc,
};

/// What a look has done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Looked {
    /// Nothing, and there is nothing to come back for.
    Same,
    /// Something is happening to the files.
    Unsettled,
    /// There is a new value.
    Changed,
}

/// An identity or authorities.
pub(super) struct Part<T> {
    setting: &'static str,
    name: String,
    files: Vec<PathBuf>,
    read: fn(&[PathBuf]) -> Result<Loaded<T>, ReadError>,
    metrics: Arc<CertificateMetrics>,
    loaded: Loaded<T>,
    /// `None`: the files can be read once only.
    settling: Option<Settling<Fingerprint>>,
    /// What the files hold now, and why it is not used.
    pub(super) refused: Option<(Fingerprint, String)>,
}

impl<T> Part<T> {
    /// Reads it. `name` names the settings in messages, `setting` in metrics.
    ///
    /// # Errors
    /// What cannot be used, with `name`.
    pub(super) fn load(
        setting: &'static str,
        name: String,
        files: Vec<PathBuf>,
        read: fn(&[PathBuf]) -> Result<Loaded<T>, ReadError>,
        metrics: &Arc<CertificateMetrics>,
        now: SystemTime,
    ) -> Result<Self> {
        // Before it is read: what changes in between is seen as a change.
        let settling = match read::check(&files) {
            Ok(()) => Some(Settling::new(Fingerprint::of(&files))),
            Err(_) => None,
        };
        let loaded = read(&files).with_context(|| name.clone())?;
        if settling.is_none() {
            tracing::info!("the files of {name} are no plain files: changes take effect after a restart only");
        }
        metrics.loaded(setting, loaded.expires);
        let part = Self { setting, name, files, read, metrics: metrics.clone(), loaded, settling, refused: None };
        part.warn_of_end(now);
        Ok(part)
    }

    pub(super) fn value(&self) -> &Arc<T> {
        &self.loaded.value
    }

    /// The settings, for messages.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// The files that may change.
    pub(super) fn files(&self) -> &[PathBuf] {
        if self.settling.is_some() { &self.files } else { &[] }
    }

    /// Looks at the files, and takes over what they hold if it can.
    pub(super) fn look(&mut self, now: Instant, time: SystemTime, asked: bool) -> Looked {
        let Some(settling) = &mut self.settling else { return Looked::Same };
        let found = Fingerprint::of(&self.files);
        let verdict = settling.look(found, now);
        match verdict {
            Verdict::Used => self.unchanged(asked),
            Verdict::Restored => self.restored(),
            Verdict::Wait => Looked::Unsettled,
            Verdict::Try | Verdict::Decide => {
                let read = self.read_new(time);
                // What was read must be what has been there for a while.
                if Fingerprint::of(&self.files) != found {
                    return Looked::Unsettled;
                }
                match read {
                    Ok(loaded) => self.take(loaded, found),
                    Err(_) if verdict == Verdict::Try => Looked::Unsettled,
                    Err(error) => self.refuse(&error, found, asked),
                }
            }
        }
    }

    fn read_new(&self, time: SystemTime) -> Result<Loaded<T>, ReadError> {
        read::check(&self.files)?;
        let loaded = (self.read)(&self.files)?;
        // No better than what is in use.
        if let Some(at) = loaded.expires.filter(|at| *at <= time) {
            return Err(ReadError::Expired { path: self.files[0].clone(), at });
        }
        if let Some(at) = loaded.begins.filter(|at| *at > time) {
            return Err(ReadError::NotYet { path: self.files[0].clone(), at });
        }
        Ok(loaded)
    }

    fn take(&mut self, loaded: Loaded<T>, found: Fingerprint) -> Looked {
        self.metrics.used(self.setting, loaded.expires);
        tracing::info!(
            files = self.paths(),
            expires = date(loaded.expires),
            "{} changed on disk: new connections use what is there now",
            self.name
        );
        self.loaded = loaded;
        self.refused = None;
        if let Some(settling) = &mut self.settling {
            settling.used(found);
        }
        Looked::Changed
    }

    fn refuse(&mut self, error: &ReadError, found: Fingerprint, asked: bool) -> Looked {
        let refused = (found, with_sources(error));
        let is_new = self.refused.as_ref() != Some(&refused);
        if is_new {
            self.metrics.refused(self.setting);
        }
        if is_new || asked {
            tracing::error!(
                error = refused.1,
                in_use_expires = date(self.loaded.expires),
                "{} changed on disk and cannot be used: what was read before stays in use; mend the files, no restart \
                 is needed",
                self.name
            );
        }
        self.refused = Some(refused);
        if let Some(settling) = &mut self.settling {
            settling.refused(found);
        }
        Looked::Same
    }

    fn restored(&mut self) -> Looked {
        self.refused = None;
        self.metrics.restored(self.setting);
        tracing::info!(files = self.paths(), "{} are again on disk what is in use", self.name);
        Looked::Same
    }

    fn unchanged(&self, asked: bool) -> Looked {
        if asked {
            let expires = date(self.loaded.expires);
            tracing::info!(files = self.paths(), expires, "{} in use are those on disk", self.name);
        }
        Looked::Same
    }

    /// What was read at the start is used whatever its dates are: the peers decide, as they always did.
    fn warn_of_end(&self, now: SystemTime) {
        if self.loaded.expires.is_some_and(|at| at <= now) {
            let expired = date(self.loaded.expires);
            tracing::warn!(
                files = self.paths(),
                expired,
                "{} have expired: peers will refuse them; renew them",
                self.name
            );
        }
    }

    fn paths(&self) -> String {
        self.files.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(", ")
    }
}

fn date(at: Option<SystemTime>) -> String {
    at.map_or_else(|| "unknown".to_owned(), |at| Utc::new(at).rfc3339())
}
