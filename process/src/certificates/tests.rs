use std::{fs, path::Path, time::Duration};

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, date_time_ymd};
use tempfile::TempDir;

use super::*;
use crate::{
    metrics::{QuicSnapshot, Registry},
    reload::settling::{PATIENCE, SETTLE},
};

/// A certificate and its key.
struct Pem {
    certificate: String,
    key: String,
}

/// An authority, which signs for itself only.
fn authority(name: &str) -> (String, Issuer<'static, KeyPair>) {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().unwrap();
    let certificate = params.self_signed(&key).unwrap().pem();
    (certificate, Issuer::new(params, key))
}

fn issue(until_year: i32) -> Pem {
    let mut params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    params.not_after = date_time_ymd(until_year, 1, 1);
    let key = KeyPair::generate().unwrap();
    let certificate = params.signed_by(&key, &authority("signer").1).unwrap().pem();
    Pem { certificate, key: key.serialize_pem() }
}

/// What was made of the files: how many authorities there are.
#[derive(Debug, PartialEq)]
struct Made {
    authorities: usize,
}

type MakeFn = fn(Option<&Identity>, Option<Arc<RootCertStore>>) -> Result<Made, TlsError>;

struct Case {
    folder: TempDir,
    registry: Registry,
    end: End<Made, MakeFn>,
    now: Instant,
    time: SystemTime,
}

fn made(identity: Option<&Identity>, authorities: Option<Arc<RootCertStore>>) -> Result<Made, TlsError> {
    assert!(identity.is_some());
    Ok(Made { authorities: authorities.map_or(0, |roots| roots.len()) })
}

fn files(folder: &Path) -> TlsFiles {
    let [certificate, key, path] = ["tls.crt", "tls.key", "ca.crt"].map(|name| folder.join(name));
    let settings = ["cluster-cert", "cluster-key"];
    TlsFiles {
        identity: Some(IdentityFiles { settings, certificate, key }),
        authorities: Some(AuthoritiesFile { setting: "cluster-ca-cert", path }),
    }
}

impl Case {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let registry = Registry::new("p_");
        write(folder.path(), &issue(2090));
        fs::write(folder.path().join("ca.crt"), authority("one").0).unwrap();
        let metrics = Arc::new(CertificateMetrics::new(&registry));
        let end = End::load(&metrics, files(folder.path()), made as MakeFn).unwrap();
        Self { folder, registry, end, now: Instant::now(), time: SystemTime::now() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The next look, a while later.
    fn look(&mut self, later: Duration) -> bool {
        self.now += later;
        self.end.look_at(self.now, self.time, false)
    }

    /// Looks until nothing is about to change.
    fn settle(&mut self) {
        while !self.look(SETTLE) {}
    }

    fn value(&self) -> Arc<Made> {
        self.end.current.get()
    }

    /// `certificate_reloads_total` by result, and `certificate_files_refused`.
    fn counted(&self, setting: &str) -> (u32, u32, u32) {
        let scrape = self.registry.encode(&QuicSnapshot::default(), &[]).unwrap();
        let sample = |start: String| {
            let line = scrape.lines().find_map(|line| line.strip_prefix(&start)).unwrap();
            line.trim().parse().unwrap()
        };
        let reloads =
            |result| sample(format!("p_certificate_reloads_total{{result=\"{result}\",setting=\"{setting}\"}}"));
        (reloads("used"), reloads("refused"), sample(format!("p_certificate_files_refused{{setting=\"{setting}\"}}")))
    }

    fn refused(&self) -> String {
        let parts = &self.end.parts;
        let refused = [&parts.identity.as_ref().unwrap().refused, &parts.authorities.as_ref().unwrap().refused];
        refused.into_iter().flatten().map(|(_, error)| error.as_str()).collect()
    }
}

fn write(folder: &Path, pem: &Pem) {
    fs::write(folder.join("tls.crt"), &pem.certificate).unwrap();
    fs::write(folder.join("tls.key"), &pem.key).unwrap();
}

#[test]
fn a_new_pair_is_used_when_it_has_settled() {
    let mut case = Case::new();
    assert!(case.look(SETTLE));
    let before = case.value();
    write(case.folder.path(), &issue(2091));
    assert!(!case.look(SETTLE), "it may not be complete");
    assert!(!case.look(SETTLE / 2));
    assert!(Arc::ptr_eq(&case.value(), &before));
    assert!(case.look(SETTLE / 2));
    assert!(!Arc::ptr_eq(&case.value(), &before));
    assert_eq!(case.counted("cluster-cert"), (1, 0, 0));
    assert_eq!(case.counted("cluster-ca-cert"), (0, 0, 0));
    assert!(case.look(SETTLE));
    assert_eq!(case.counted("cluster-cert"), (1, 0, 0));
}

#[test]
fn a_certificate_without_its_key_waits_for_it() {
    let mut case = Case::new();
    let (before, new) = (case.value(), issue(2091));
    fs::write(case.path("tls.crt"), &new.certificate).unwrap();
    assert!(!case.look(SETTLE));
    assert!(!case.look(PATIENCE - SETTLE), "the key may be on its way");
    assert!(Arc::ptr_eq(&case.value(), &before));
    fs::write(case.path("tls.key"), &new.key).unwrap();
    case.settle();
    assert_eq!(case.counted("cluster-cert"), (1, 0, 0));

    fs::write(case.path("tls.crt"), issue(2092).certificate).unwrap();
    case.settle();
    assert_eq!(case.counted("cluster-cert"), (1, 1, 1));
    case.settle();
    assert_eq!(case.counted("cluster-cert"), (1, 1, 1), "once for each change");
    let files = ["tls.crt", "tls.key"].map(|name| case.path(name).display().to_string());
    assert!(files.iter().all(|file| case.refused().contains(file)), "{}", case.refused());
    fs::write(case.path("tls.crt"), &new.certificate).unwrap();
    case.settle();
    assert_eq!(case.counted("cluster-cert"), (1, 1, 0), "what was in use is there again");
    assert_eq!(case.refused(), "");
}

/// Half a certificate, nothing, something else, no file at all, a folder, a pipe, too much, and what has expired.
#[test]
fn what_cannot_be_used_changes_nothing_and_is_named() {
    let mut case = Case::new();
    let before = case.value();
    let new = issue(2091);
    let half = &new.certificate[..new.certificate.len() / 2];
    let not_der = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    let mut refusals = 0;
    for (file, setting) in [("tls.crt", "cluster-cert"), ("ca.crt", "cluster-ca-cert")] {
        let (path, good) = (case.path(file), fs::read(case.path(file)).unwrap());
        let remove = || fs::remove_file(&path).unwrap();
        let breaks: [(&str, &dyn Fn()); 9] = [
            ("half", &|| fs::write(&path, half).unwrap()),
            ("empty", &|| fs::write(&path, "").unwrap()),
            ("a key", &|| fs::write(&path, &new.key).unwrap()),
            ("no PEM", &|| fs::write(&path, [0xff; 100]).unwrap()),
            ("no certificate", &|| fs::write(&path, not_der).unwrap()),
            ("removed", &remove),
            ("a pipe", &|| nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap()),
            ("endless", &|| {
                remove();
                fs::File::create(&path).unwrap().set_len(1 << 40).unwrap();
            }),
            ("expired", &|| fs::write(&path, issue(2001).certificate).unwrap()),
        ];
        for (number, (what, break_it)) in (1..).zip(breaks) {
            break_it();
            case.settle();
            assert!(Arc::ptr_eq(&case.value(), &before), "{file}: {what}");
            assert_eq!(case.counted(setting), (0, number, 1), "{file}: {what}: {}", case.refused());
            assert!(case.refused().contains(&path.display().to_string()), "{what}: {}", case.refused());
            refusals += 1;
        }
        fs::write(&path, good).unwrap();
        case.settle();
        assert_eq!(case.counted(setting), (0, 9, 0));
    }
    assert_eq!(refusals, 18);
}

/// Peers would refuse it now.
#[test]
fn a_certificate_is_used_when_its_time_has_come() {
    let mut case = Case::new();
    let before = case.value();
    let soon = SystemTime::now() + Duration::from_secs(3_600);
    let mut params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    params.not_before = soon.into();
    params.not_after = date_time_ymd(2091, 1, 1);
    let key = KeyPair::generate().unwrap();
    let certificate = params.signed_by(&key, &authority("signer").1).unwrap().pem();
    write(case.folder.path(), &Pem { certificate, key: key.serialize_pem() });
    case.settle();
    assert!(Arc::ptr_eq(&case.value(), &before));
    assert!(case.refused().contains("tls.crt is good from"), "{}", case.refused());
    assert_eq!(case.counted("cluster-cert"), (0, 1, 1));
    case.time = soon;
    case.settle();
    assert!(!Arc::ptr_eq(&case.value(), &before));
    assert_eq!(case.counted("cluster-cert"), (1, 1, 0));
}

#[test]
fn a_broken_bundle_does_not_keep_a_certificate_from_being_renewed() {
    let mut case = Case::new();
    fs::write(case.path("ca.crt"), "").unwrap();
    case.settle();
    write(case.folder.path(), &issue(2091));
    case.settle();
    assert_eq!(case.counted("cluster-cert"), (1, 0, 0));
    assert_eq!(*case.value(), Made { authorities: 1 });
    fs::write(case.path("ca.crt"), authority("one").0 + &authority("two").0).unwrap();
    case.settle();
    assert_eq!(*case.value(), Made { authorities: 2 });
    assert_eq!(case.counted("cluster-ca-cert"), (1, 1, 0));
}

#[test]
fn what_cannot_be_used_at_first_is_an_error_with_its_settings() {
    let folder = tempfile::tempdir().unwrap();
    let metrics = Arc::new(CertificateMetrics::new(&Registry::new("p_")));
    let load = || End::load(&metrics, files(folder.path()), made).map(drop).unwrap_err();
    assert_eq!(load().to_string(), "--cluster-cert and --cluster-key");
    write(folder.path(), &issue(2090));
    let error = load();
    assert_eq!(error.to_string(), "--cluster-ca-cert");
    assert!(format!("{error:#}").contains("ca.crt"), "{error:#}");
}
