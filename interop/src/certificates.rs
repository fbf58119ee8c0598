//! Certificates for tests, benchmarks and the quick start: an authority, and what it signs for the server, the agent and a client.
//!
//! Every key is EC P-256. Nothing here is meant for production: the authority's key lies beside its certificate.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};

/// The names that every server certificate of [`Folder::write`] holds.
pub const LOCAL_NAMES: [&str; 3] = ["localhost", "127.0.0.1", "::1"];

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// Why certificates could not be made.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    /// The names or the key were refused; the source says which.
    #[error("cannot make the certificate of {subject}")]
    Make {
        /// The common name asked for.
        subject: String,
        /// What the library did not like.
        #[source]
        source: rcgen::Error,
    },
    /// A file or its folder could not be written.
    #[error("cannot write {path}")]
    Write {
        /// The file or folder.
        path: PathBuf,
        /// What the system answered.
        #[source]
        source: io::Error,
    },
}

/// What the holder of a certificate may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Usage {
    /// A TLS or QUIC server.
    Server,
    /// A TLS or QUIC client.
    Client,
}

/// What [`Authority::issue`] is asked to sign.
#[derive(Debug, Clone)]
pub struct Leaf {
    /// The common name.
    pub subject: String,
    /// DNS names and IP addresses, as text.
    pub names: Vec<String>,
    /// Server or client.
    pub usage: Usage,
    /// Valid from this moment.
    pub not_before: SystemTime,
    /// Valid until this moment.
    pub not_after: SystemTime,
}

impl Leaf {
    /// A server's certificate with these names, valid from yesterday for a year.
    pub fn server<S: Into<String>>(names: impl IntoIterator<Item = S>) -> Self {
        Self::new("konnectivity-server", Usage::Server, names.into_iter().map(Into::into).collect())
    }

    /// A client's certificate, valid from yesterday for a year.
    pub fn client(subject: &str) -> Self {
        Self::new(subject, Usage::Client, Vec::new())
    }

    /// The same, but expired an hour ago.
    pub fn expired(mut self) -> Self {
        let now = SystemTime::now();
        self.not_before = now - 2 * DAY;
        self.not_after = now - DAY / 24;
        self
    }

    /// The same, but valid only from tomorrow.
    pub fn not_yet_valid(mut self) -> Self {
        let now = SystemTime::now();
        self.not_before = now + DAY;
        self.not_after = now + 2 * DAY;
        self
    }

    fn new(subject: &str, usage: Usage, names: Vec<String>) -> Self {
        let now = SystemTime::now();
        Self { subject: subject.to_owned(), names, usage, not_before: now - DAY, not_after: now + 365 * DAY }
    }
}

/// A certificate and the private key that fits it, both as PEM text.
#[derive(Clone)]
pub struct Identity {
    /// The certificate.
    pub certificate: String,
    /// Its private key (PKCS #8).
    pub key: String,
}

impl Identity {
    /// Writes `NAME.crt` and `NAME.key` into `folder`, which must exist; answers with both paths.
    ///
    /// # Errors
    /// [`CertificateError::Write`] names the file.
    pub fn write(&self, folder: &Path, name: &str) -> Result<(PathBuf, PathBuf), CertificateError> {
        let certificate = folder.join(format!("{name}.crt"));
        let key = folder.join(format!("{name}.key"));
        write_file(&certificate, 0o644, &self.certificate)?;
        write_file(&key, 0o600, &self.key)?;
        Ok((certificate, key))
    }
}

/// Signs certificates, and is trusted by those who hold its own.
pub struct Authority {
    identity: Identity,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    /// A new authority with a new key; two of the same name do not trust each other's certificates.
    ///
    /// # Errors
    /// [`CertificateError::Make`] when no key can be made.
    pub fn new(name: &str) -> Result<Self, CertificateError> {
        let fail = |source| CertificateError::Make { subject: name.to_owned(), source };
        let now = SystemTime::now();
        let mut params = CertificateParams::new(Vec::new()).map_err(fail)?;
        params.distinguished_name = common_name(name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages =
            vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign, KeyUsagePurpose::DigitalSignature];
        set_validity(&mut params, now - 10 * DAY, now + 3650 * DAY);
        let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).map_err(fail)?;
        let certificate = params.self_signed(&key).map_err(fail)?;
        let identity = Identity { certificate: certificate.pem(), key: key.serialize_pem() };
        Ok(Self { identity, issuer: Issuer::new(params, key) })
    }

    /// The authority's own certificate and key.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// Signs a certificate with a new key.
    ///
    /// # Errors
    /// [`CertificateError::Make`] when a name is not ASCII or no key can be made.
    pub fn issue(&self, leaf: &Leaf) -> Result<Identity, CertificateError> {
        let fail = |source| CertificateError::Make { subject: leaf.subject.clone(), source };
        let mut params = CertificateParams::new(leaf.names.clone()).map_err(fail)?;
        params.distinguished_name = common_name(&leaf.subject);
        params.use_authority_key_identifier_extension = true;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![match leaf.usage {
            Usage::Server => ExtendedKeyUsagePurpose::ServerAuth,
            Usage::Client => ExtendedKeyUsagePurpose::ClientAuth,
        }];
        set_validity(&mut params, leaf.not_before, leaf.not_after);
        let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).map_err(fail)?;
        let certificate = params.signed_by(&key, &self.issuer).map_err(fail)?;
        Ok(Identity { certificate: certificate.pem(), key: key.serialize_pem() })
    }
}

/// A folder with everything that a server, an agent and a client need, under fixed file names.
///
/// `ca`, `server`, `agent` and `client`, each with `.crt` and `.key`.
#[derive(Debug, Clone)]
pub struct Folder {
    path: PathBuf,
}

impl Folder {
    /// Makes a new authority and its three certificates and writes them, over older files of the same names.
    ///
    /// The server's certificate holds [`LOCAL_NAMES`] and `extra_names`.
    ///
    /// # Errors
    /// [`CertificateError`] names the certificate or the file.
    pub fn write(path: &Path, extra_names: &[String]) -> Result<Self, CertificateError> {
        fs::create_dir_all(path).map_err(|source| CertificateError::Write { path: path.to_owned(), source })?;
        let authority = Authority::new("konnectivity-quic test authority")?;
        let names = LOCAL_NAMES.iter().map(|&name| name.to_owned()).chain(extra_names.iter().cloned());
        authority.identity().write(path, "ca")?;
        authority.issue(&Leaf::server(names))?.write(path, "server")?;
        authority.issue(&Leaf::client("konnectivity-agent"))?.write(path, "agent")?;
        authority.issue(&Leaf::client("konnectivity-client"))?.write(path, "client")?;
        Ok(Self { path: path.to_owned() })
    }

    /// A folder that holds them already, or will when they are needed.
    pub fn at(path: &Path) -> Self {
        Self { path: path.to_owned() }
    }

    /// The path of one of the files, such as `ca.crt`.
    pub fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }
}

fn common_name(name: &str) -> DistinguishedName {
    let mut distinguished = DistinguishedName::new();
    distinguished.push(DnType::CommonName, name);
    distinguished
}

fn set_validity(params: &mut CertificateParams, not_before: SystemTime, not_after: SystemTime) {
    let since_epoch = |time: SystemTime| time.duration_since(UNIX_EPOCH).unwrap_or_default();
    let epoch = rcgen::date_time_ymd(1970, 1, 1);
    params.not_before = epoch + since_epoch(not_before);
    params.not_after = epoch + since_epoch(not_after);
}

fn write_file(path: &Path, mode: u32, text: &str) -> Result<(), CertificateError> {
    let write = || -> io::Result<()> {
        // An older file would keep its own mode.
        match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        OpenOptions::new().write(true).create_new(true).mode(mode).open(path)?.write_all(text.as_bytes())
    };
    write().map_err(|source| CertificateError::Write { path: path.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;
    use std::sync::Arc;

    use rustls::client::WebPkiServerVerifier;
    use rustls::client::danger::ServerCertVerifier;
    use rustls::pki_types::pem::PemObject;
    use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
    use rustls::{CertificateError as Refusal, Error, RootCertStore};

    use super::*;

    fn verify(authority: &Authority, leaf: &Identity, name: &str) -> Result<(), Error> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(authority.identity().certificate.as_bytes()).unwrap()).unwrap();
        let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider).build().unwrap();
        let certificate = CertificateDer::from_pem_slice(leaf.certificate.as_bytes()).unwrap();
        let name = ServerName::try_from(name.to_owned()).unwrap();
        verifier.verify_server_cert(&certificate, &[], &name, &[], UnixTime::now()).map(drop)
    }

    #[test]
    fn a_server_certificate_is_good_for_its_names_only() {
        let authority = Authority::new("one").unwrap();
        let leaf = authority.issue(&Leaf::server(["localhost", "::1", "tunnel.example"])).unwrap();
        for name in ["localhost", "::1", "tunnel.example"] {
            verify(&authority, &leaf, name).unwrap();
        }
        assert!(verify(&authority, &leaf, "other.example").is_err());
    }

    #[test]
    fn another_authority_of_the_same_name_is_not_trusted() {
        let leaf = Authority::new("one").unwrap().issue(&Leaf::server(["localhost"])).unwrap();
        let result = verify(&Authority::new("one").unwrap(), &leaf, "localhost");
        assert!(matches!(result, Err(Error::InvalidCertificate(Refusal::BadSignature | Refusal::UnknownIssuer))));
    }

    #[test]
    fn validity_is_as_asked() {
        let authority = Authority::new("one").unwrap();
        let expired = authority.issue(&Leaf::server(["localhost"]).expired()).unwrap();
        assert!(matches!(
            verify(&authority, &expired, "localhost"),
            Err(Error::InvalidCertificate(Refusal::Expired | Refusal::ExpiredContext { .. }))
        ));
        let early = authority.issue(&Leaf::server(["localhost"]).not_yet_valid()).unwrap();
        assert!(matches!(
            verify(&authority, &early, "localhost"),
            Err(Error::InvalidCertificate(Refusal::NotValidYet | Refusal::NotValidYetContext { .. }))
        ));
    }

    #[test]
    fn a_folder_holds_four_pairs_with_private_keys_kept_private() {
        let path = std::env::temp_dir().join(format!("konnectivity-certificates-{}", std::process::id()));
        // Twice: the second run replaces the first.
        Folder::write(&path, &[]).unwrap();
        let folder = Folder::write(&path, &["tunnel.example".to_owned()]).unwrap();
        for name in ["ca", "server", "agent", "client"] {
            CertificateDer::from_pem_file(folder.file(&format!("{name}.crt"))).unwrap();
            let key = folder.file(&format!("{name}.key"));
            PrivateKeyDer::from_pem_file(&key).unwrap();
            assert_eq!(fs::metadata(&key).unwrap().permissions().mode() & 0o777, 0o600);
        }
        fs::remove_dir_all(&path).unwrap();
    }
}
