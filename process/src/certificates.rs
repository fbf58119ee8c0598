//! Certificates, keys and certificate authorities in files, which take effect when the files change.
//!
//! A certificate and its key are taken together or not at all. What cannot be used changes nothing: what was read
//! before stays in use, the log says which file and why, and metrics keep saying it until it is mended. The authorities
//! are a part of their own, so that a broken bundle does not keep a certificate from being renewed.

mod file;
mod part;
mod read;

use std::{
    path::PathBuf,
    sync::Arc,
    time::{Instant, SystemTime},
};

use anyhow::{Context, Result};
use konnectivity_transport::tls::{Identity, TlsError};
use rustls::RootCertStore;

use self::part::{Looked, Part};
use crate::{
    metrics::CertificateMetrics,
    reload::{Current, Reloader, Source},
};

/// The files of one end of TLS.
#[derive(Debug, Clone, Default)]
pub struct TlsFiles {
    /// What this end shows; `None`: nothing.
    pub identity: Option<IdentityFiles>,
    /// Whom it trusts; `None`: that is not asked.
    pub authorities: Option<AuthoritiesFile>,
}

/// A certificate chain and its private key.
#[derive(Debug, Clone)]
pub struct IdentityFiles {
    /// The settings that name the two files, for messages; metrics have the first.
    pub settings: [&'static str; 2],
    /// The chain, in PEM form.
    pub certificate: PathBuf,
    /// The key.
    pub key: PathBuf,
}

/// A bundle of certificate authorities.
#[derive(Debug, Clone)]
pub struct AuthoritiesFile {
    /// The setting that names the file, for messages and metrics.
    pub setting: &'static str,
    /// The bundle, in PEM form.
    pub path: PathBuf,
}

/// Reads the files and makes of them what TLS needs, now and whenever they change while `reloader` runs.
///
/// # Errors
/// What cannot be used now, with its settings. What cannot be used later is logged.
pub fn load<T: Send + Sync + 'static>(
    reloader: &mut Reloader,
    metrics: &Arc<CertificateMetrics>,
    files: TlsFiles,
    make: impl Make<T>,
) -> Result<Current<T>> {
    let end = End::load(metrics, files, make)?;
    let current = end.current.clone();
    reloader.add(end);
    Ok(current)
}

/// Makes of an identity and authorities what TLS needs.
pub trait Make<T>: Fn(Option<&Identity>, Option<Arc<RootCertStore>>) -> Result<T, TlsError> + Send + 'static {}

impl<T, M> Make<T> for M where
    M: Fn(Option<&Identity>, Option<Arc<RootCertStore>>) -> Result<T, TlsError> + Send + 'static
{
}

/// One end of TLS.
struct End<T, M> {
    parts: Parts,
    make: M,
    current: Current<T>,
}

struct Parts {
    identity: Option<Part<Identity>>,
    authorities: Option<Part<RootCertStore>>,
}

impl<T, M: Make<T>> End<T, M> {
    fn load(metrics: &Arc<CertificateMetrics>, files: TlsFiles, make: M) -> Result<Self> {
        let now = SystemTime::now();
        let identity = files.identity.map(|IdentityFiles { settings: [setting, key_setting], certificate, key }| {
            let name = format!("--{setting} and --{key_setting}");
            Part::load(setting, name, vec![certificate, key], read::identity, metrics, now)
        });
        let identity = identity.transpose()?;
        let authorities = files.authorities.map(|AuthoritiesFile { setting, path }| {
            Part::load(setting, format!("--{setting}"), vec![path], read::authorities, metrics, now)
        });
        let parts = Parts { identity, authorities: authorities.transpose()? };
        // Each is good on its own; together they can only fail for a reason that is not in the files.
        let made = parts.make(&make).with_context(|| parts.names())?;
        Ok(Self { parts, make, current: Current::new(made) })
    }
}

impl Parts {
    fn make<T>(&self, make: &impl Make<T>) -> Result<T, TlsError> {
        let authorities = self.authorities.as_ref().map(|part| part.value().clone());
        make(self.identity.as_ref().map(|part| &**part.value()), authorities)
    }

    fn names(&self) -> String {
        let names = [self.identity.as_ref().map(Part::name), self.authorities.as_ref().map(Part::name)];
        names.into_iter().flatten().collect::<Vec<_>>().join(", ")
    }
}

impl<T: Send + Sync, M: Make<T>> End<T, M> {
    /// `time` is what certificates know, `now` what has passed between looks.
    fn look_at(&mut self, now: Instant, time: SystemTime, asked: bool) -> bool {
        let parts = &mut self.parts;
        let looked = [
            parts.identity.as_mut().map(|part| part.look(now, time, asked)),
            parts.authorities.as_mut().map(|part| part.look(now, time, asked)),
        ];
        if looked.contains(&Some(Looked::Changed)) {
            match self.parts.make(&self.make) {
                Ok(made) => self.current.set(made),
                Err(error) => tracing::error!(%error, "cannot use the new {} together", self.parts.names()),
            }
        }
        !looked.contains(&Some(Looked::Unsettled))
    }
}

impl<T: Send + Sync, M: Make<T>> Source for End<T, M> {
    fn files(&self) -> Vec<PathBuf> {
        let files = [self.parts.identity.as_ref().map(Part::files), self.parts.authorities.as_ref().map(Part::files)];
        files.into_iter().flatten().flatten().cloned().collect()
    }

    fn look(&mut self, now: Instant, asked: bool) -> bool {
        self.look_at(now, SystemTime::now(), asked)
    }
}

#[cfg(test)]
mod tests;
