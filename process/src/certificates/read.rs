//! Makes identities and authorities of files, and finds out until when they are good.

use std::{
    io,
    path::{Path, PathBuf},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use konnectivity_transport::tls::{self, Identity, TlsError};
use rustls::{RootCertStore, pki_types::CertificateDer};
use x509_parser::prelude::{FromDer, X509Certificate};

use super::file::{MOST_BYTES, check_path};
use crate::utc::Utc;

/// What was read.
pub(super) struct Loaded<T> {
    pub(super) value: std::sync::Arc<T>,
    /// When it, or the first part of it, stops being good; `None`: it does not say.
    pub(super) expires: Option<SystemTime>,
    /// When it begins to be good, if that is one moment.
    pub(super) begins: Option<SystemTime>,
}

/// Why files cannot be used.
#[derive(Debug, thiserror::Error)]
pub(super) enum ReadError {
    #[error(transparent)]
    Tls(#[from] TlsError),
    #[error("cannot read {}; make it a readable file with the certificates or the key", .path.display())]
    File { path: PathBuf, source: io::Error },
    #[error("{} has more than {} MiB; put only certificates and keys into it", .path.display(), MOST_BYTES / 1024 / 1024)]
    TooLarge { path: PathBuf },
    #[error("the certificate in {} has expired at {}; renew it", .path.display(), Utc::new(*.at).rfc3339())]
    Expired { path: PathBuf, at: SystemTime },
    #[error("the certificate in {} is good from {} on only; it is used then, without a restart", .path.display(), Utc::new(*.at).rfc3339())]
    NotYet { path: PathBuf, at: SystemTime },
}

/// Reads a certificate and its key.
pub(super) fn identity(files: &[PathBuf]) -> Result<Loaded<Identity>, ReadError> {
    let [certificate, key] = files else { unreachable!("a certificate and a key are two files") };
    let identity = Identity::load(certificate, key)?;
    // Whether they fit is said when they are used.
    tls::server_config(&identity, None, &[])?;
    let (begins, expires) = tls::load_certificates(certificate)?.first().and_then(validity).unzip();
    Ok(Loaded { value: identity.into(), expires, begins })
}

/// Reads authorities.
pub(super) fn authorities(files: &[PathBuf]) -> Result<Loaded<RootCertStore>, ReadError> {
    let [path] = files else { unreachable!("a bundle is one file") };
    let value = tls::load_roots(path)?;
    let ends: Vec<_> = tls::load_certificates(path)?.iter().filter_map(validity).map(|(_, end)| end).collect();
    Ok(Loaded { value, expires: next_of(&ends, SystemTime::now()), begins: None })
}

/// The next to expire. Those that have already are not missed, or are the only ones.
fn next_of(ends: &[SystemTime], now: SystemTime) -> Option<SystemTime> {
    let to_come = ends.iter().filter(|end| **end > now).min();
    to_come.or_else(|| ends.iter().max()).copied()
}

/// Whether all files may be read again.
pub(super) fn check(files: &[PathBuf]) -> Result<(), ReadError> {
    files.iter().try_for_each(|path| check_path(path).map_err(|source| of_file(path, source)))
}

fn of_file(path: &Path, source: io::Error) -> ReadError {
    let path = path.to_owned();
    match source.kind() {
        io::ErrorKind::FileTooLarge => ReadError::TooLarge { path },
        _ => ReadError::File { path, source },
    }
}

/// From when until when a certificate is good.
fn validity(certificate: &CertificateDer<'static>) -> Option<(SystemTime, SystemTime)> {
    let (_, parsed) = X509Certificate::from_der(certificate).ok()?;
    let time = |seconds| UNIX_EPOCH.checked_add(Duration::from_secs(u64::try_from(seconds).unwrap_or(0)));
    Some((time(parsed.validity().not_before.timestamp())?, time(parsed.validity().not_after.timestamp())?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn authorities_that_have_expired_hide_nothing() {
        let at = |seconds| UNIX_EPOCH + Duration::from_secs(seconds);
        for (ends, expected) in [
            (&[][..], None),
            (&[at(50)], Some(at(50))),
            (&[at(50), at(90)], Some(at(90))),
            (&[at(300), at(50), at(200)], Some(at(200))),
        ] {
            assert_eq!(next_of(ends, at(100)), expected);
        }
    }
}
