//! Certificates that change under running programs: a folder as a kubelet mounts secrets, and who shows which certificate.

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use anyhow::Context;
use konnectivity_transport::wire::ALPN;
use quinn::TransportConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::raw;
use crate::certificates::{Authority, Folder, LOCAL_NAMES, Leaf};

/// A folder whose files are links through one link that is swapped: all of them change in one moment.
#[derive(Debug)]
pub struct Mount {
    path: PathBuf,
    version: usize,
}

impl Mount {
    /// An empty one.
    pub fn new(path: &Path) -> Self {
        Self { path: path.to_owned(), version: 0 }
    }

    /// Puts other files in the place of all, in one moment, as a kubelet does; the old ones are removed.
    ///
    /// # Errors
    /// When the folder cannot be written.
    pub fn replace(&mut self, files: &[(&str, String)]) -> anyhow::Result<()> {
        let old = self.path.join(format!("..{}", self.version));
        self.version += 1;
        let name = format!("..{}", self.version);
        let new = self.path.join(&name);
        fs::create_dir_all(&new).with_context(|| format!("cannot make {}", new.display()))?;
        for (file, text) in files {
            fs::write(new.join(file), text)?;
        }
        symlink(&name, self.path.join("..data_tmp"))?;
        fs::rename(self.path.join("..data_tmp"), self.path.join("..data"))?;
        for (file, _) in files {
            let link = self.path.join(file);
            if link.symlink_metadata().is_err() {
                symlink(Path::new("..data").join(file), link)?;
            }
        }
        if old.is_dir() {
            fs::remove_dir_all(old)?;
        }
        Ok(())
    }
}

/// Certificates in rounds: each round has an authority of its own, which has signed everything, and trusts those of the
/// rounds before and after, so that peers of neighbouring rounds accept each other.
pub struct Rounds {
    mount: Mount,
    /// Of the round before, of this one, and of the next.
    authorities: [Authority; 3],
    /// How often everything was replaced.
    pub replaced: usize,
}

impl Rounds {
    /// The first round, in `path`: `ca`, `server`, `agent` and `client`, each with `.crt` and all but the first with `.key`.
    ///
    /// # Errors
    /// When the folder cannot be written.
    pub fn new(path: &Path) -> anyhow::Result<Self> {
        let authorities = [authority()?, authority()?, authority()?];
        let mut rounds = Self { mount: Mount::new(path), authorities, replaced: 0 };
        rounds.write()?;
        Ok(rounds)
    }

    /// Replaces everything.
    ///
    /// # Errors
    /// When the folder cannot be written.
    pub fn advance(&mut self) -> anyhow::Result<()> {
        self.authorities.rotate_left(1);
        self.authorities[2] = authority()?;
        self.replaced += 1;
        self.write()
    }

    /// The files as they are now.
    pub fn folder(&self) -> Folder {
        Folder::at(&self.mount.path)
    }

    fn write(&mut self) -> anyhow::Result<()> {
        let bundle = self.authorities.iter().map(|authority| authority.identity().certificate.as_str()).collect();
        let now = &self.authorities[1];
        let server = now.issue(&Leaf::server(LOCAL_NAMES))?;
        let agent = now.issue(&Leaf::client("konnectivity-agent"))?;
        let client = now.issue(&Leaf::client("konnectivity-client"))?;
        self.mount.replace(&[
            ("ca.crt", bundle),
            ("server.crt", server.certificate),
            ("server.key", server.key),
            ("agent.crt", agent.certificate),
            ("agent.key", agent.key),
            ("client.crt", client.certificate),
            ("client.key", client.key),
        ])
    }
}

fn authority() -> anyhow::Result<Authority> {
    Ok(Authority::new("authority of a round")?)
}

/// The arguments that make a server of a pair use the files of another folder.
pub fn server_arguments(folder: &Folder) -> Vec<String> {
    let files = [("cert", "server.crt"), ("key", "server.key"), ("ca-cert", "ca.crt")];
    let of = |role| files.map(|(flag, file)| super::file_flag(&format!("{role}-{flag}"), folder, file));
    [of("cluster"), of("server")].concat()
}

/// The arguments that make an agent of a pair use the files of another folder.
pub fn agent_arguments(folder: &Folder) -> Vec<String> {
    [("agent-cert", "agent.crt"), ("agent-key", "agent.key"), ("ca-cert", "ca.crt")]
        .map(|(flag, file)| super::file_flag(flag, folder, file))
        .to_vec()
}

/// The first certificate of a file.
///
/// # Errors
/// When there is none.
pub fn certificate(folder: &Folder, file: &str) -> anyhow::Result<CertificateDer<'static>> {
    CertificateDer::from_pem_file(folder.file(file)).with_context(|| format!("no certificate in {file}"))
}

/// The certificate that a TCP port shows to who connects now.
///
/// # Errors
/// When there is no handshake.
pub async fn shown_over_tcp(address: SocketAddr, connector: &TlsConnector) -> anyhow::Result<CertificateDer<'static>> {
    let stream = TcpStream::connect(address).await?;
    let stream = connector.connect(ServerName::from(address.ip()), stream).await?;
    let shown = stream.get_ref().1.peer_certificates().and_then(|chain| chain.first());
    Ok(shown.context("no certificate")?.clone().into_owned())
}

/// The certificate that the UDP port for agents shows to who connects now.
///
/// # Errors
/// When there is no handshake.
pub async fn shown_over_quic(address: SocketAddr, folder: &Folder) -> anyhow::Result<CertificateDer<'static>> {
    let (_endpoint, connection) = raw::connect(address, folder, ALPN, TransportConfig::default()).await?;
    let chain = connection.peer_identity().and_then(|chain| chain.downcast::<Vec<CertificateDer<'static>>>().ok());
    chain.and_then(|chain| chain.first().cloned()).context("no certificate")
}
