use std::{
    sync::{
        Condvar,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use tokio::{task::JoinSet, time::timeout};

use super::*;

/// A resolver that is stuck until it is let go, and how many names it was asked for.
struct Stuck {
    asked: AtomicUsize,
    let_go: Mutex<bool>,
    changed: Condvar,
}

impl Stuck {
    fn new() -> Arc<Self> {
        Arc::new(Self { asked: AtomicUsize::new(0), let_go: Mutex::new(false), changed: Condvar::new() })
    }

    fn lookups(self: &Arc<Self>, most: usize) -> Arc<Lookups> {
        let stuck = self.clone();
        Lookups::new(most, move |name| stuck.resolve(name))
    }

    fn resolve(&self, name: &str) -> Found {
        self.asked.fetch_add(1, SeqCst);
        let mut let_go = self.let_go.lock().unwrap();
        while !*let_go && name.starts_with("slow") {
            let_go = self.changed.wait(let_go).unwrap();
        }
        Ok(Arc::from([SocketAddr::from(([192, 0, 2, 1], 0))]))
    }

    fn let_go(&self) {
        *self.let_go.lock().unwrap() = true;
        self.changed.notify_all();
    }

    fn asked(&self) -> usize {
        self.asked.load(SeqCst)
    }
}

/// Lets a test's runtime end although an assertion failed while threads are stuck.
struct LetGo(Arc<Stuck>);

impl Drop for LetGo {
    fn drop(&mut self) {
        self.0.let_go();
    }
}

/// Waits for a condition that another thread brings about.
async fn until(condition: impl Fn() -> bool) {
    timeout(Duration::from_secs(10), async {
        while !condition() {
            tokio::task::yield_now().await;
        }
    })
    .await
    .expect("condition within 10 s");
}

/// 2,000 dials to 2,000 names whose server does not answer: no more threads than allowed, every dial ends at its own
/// limit, and when the server is back names are found again.
#[tokio::test]
async fn slow_names_take_no_more_threads_than_allowed() {
    let stuck = Stuck::new();
    let _let_go = LetGo(stuck.clone());
    let lookups = stuck.lookups(4);

    let mut dials = JoinSet::new();
    for number in 0..2_000 {
        let lookups = lookups.clone();
        dials.spawn(async move {
            timeout(Duration::from_millis(200), lookups.addresses(&format!("slow{number}.example"))).await
        });
    }
    while let Some(dial) = dials.join_next().await {
        assert!(dial.unwrap().is_err(), "ends at its limit");
    }
    assert_eq!(stuck.asked(), 4);
    assert_eq!(lookups.threads.available_permits(), 0, "an abandoned lookup keeps its thread");
    assert_eq!(lookups.lock().len(), 4, "abandoned waits leave nothing");

    stuck.let_go();
    lookups.addresses("fast.example").await.expect("found");
    until(|| lookups.threads.available_permits() == 4).await;
    assert!(lookups.lock().is_empty());
}

#[tokio::test]
async fn dials_to_one_name_share_one_lookup() {
    let stuck = Stuck::new();
    let _let_go = LetGo(stuck.clone());
    let lookups = stuck.lookups(2);

    let mut dials = JoinSet::new();
    for _ in 0..100 {
        let lookups = lookups.clone();
        dials.spawn(async move { lookups.addresses("slow.example").await });
    }
    until(|| stuck.asked() > 0).await;
    // The slow name leaves room for others.
    lookups.addresses("fast.example").await.expect("found");
    assert_eq!(stuck.asked(), 2);

    stuck.let_go();
    while let Some(dial) = dials.join_next().await {
        dial.unwrap().expect("found");
    }
    assert_eq!(stuck.asked(), 2);
}

/// When all threads are taken, a name that many want needs one of them, once.
#[tokio::test]
async fn dials_to_one_name_wait_for_one_thread() {
    let stuck = Stuck::new();
    let _let_go = LetGo(stuck.clone());
    let lookups = stuck.lookups(1);
    let mut dials = JoinSet::new();
    let begun = Arc::<AtomicUsize>::default();
    for number in 0..100 {
        let (lookups, begun) = (lookups.clone(), begun.clone());
        let name = if number == 0 { "slow.example" } else { "fast.example" };
        dials.spawn(async move {
            begun.fetch_add(1, SeqCst);
            lookups.addresses(name).await
        });
    }
    until(|| stuck.asked() == 1 && begun.load(SeqCst) == 100).await;
    assert_eq!(lookups.lock().len(), 2);
    stuck.let_go();
    while let Some(dial) = dials.join_next().await {
        dial.unwrap().expect("found");
    }
    assert_eq!(stuck.asked(), 2);
    assert!(lookups.lock().is_empty());
}

#[tokio::test]
async fn a_wait_for_a_thread_that_is_given_up_passes_to_the_next() {
    let stuck = Stuck::new();
    let _let_go = LetGo(stuck.clone());
    let lookups = stuck.lookups(1);
    let dial = |name: &'static str| {
        let lookups = lookups.clone();
        async move { lookups.addresses(name).await }
    };
    let mut slow = JoinSet::new();
    slow.spawn(dial("slow.example"));
    until(|| stuck.asked() == 1).await;
    let mut first = JoinSet::new();
    first.spawn(dial("fast.example"));
    tokio::task::yield_now().await;
    let mut second = JoinSet::new();
    second.spawn(dial("fast.example"));
    tokio::task::yield_now().await;

    first.shutdown().await;
    stuck.let_go();
    second.join_next().await.unwrap().unwrap().expect("found");
    assert_eq!(stuck.asked(), 2);
}

#[tokio::test]
async fn the_one_that_began_a_lookup_may_leave() {
    let stuck = Stuck::new();
    let _let_go = LetGo(stuck.clone());
    let lookups = stuck.lookups(1);

    timeout(Duration::from_millis(20), lookups.addresses("slow.example")).await.expect_err("stuck");
    let mut second = JoinSet::new();
    second.spawn({
        let lookups = lookups.clone();
        async move { lookups.addresses("slow.example").await }
    });
    tokio::task::yield_now().await;
    stuck.let_go();
    second.join_next().await.unwrap().unwrap().expect("found");
    assert_eq!(stuck.asked(), 1);
}

#[tokio::test]
async fn a_name_that_is_none_asks_nobody() {
    let lookups = Lookups::new(1, |_| panic!("asked"));
    for name in ["a b", "a..b", "127.1", "a\0b", "-a", "fe80::1%x"] {
        assert_eq!(lookups.addresses(name).await, Err(LookupError::NotFound { server: None }), "{name}");
    }
}

/// Go 1.26's `isDomainName`.
#[test]
fn domain_names_are_those_of_go() {
    let label = "a".repeat(63);
    let longest = format!("{label}.{label}.{label}.{}", &label[..61]);
    assert_eq!(longest.len(), 253);
    for name in ["localhost", "a.b.", "_srv._tcp.example", "1.2.3.4x", "x--y", label.as_str(), longest.as_str()] {
        assert!(is_domain_name(name), "{name}");
    }
    for name in [
        "",
        "..",
        ".a",
        "a-",
        "a-.b",
        "1.2.3.4.",
        "12",
        "é.example",
        format!("{label}a").as_str(),
        format!("{longest}a").as_str(),
    ] {
        assert!(!is_domain_name(name), "{name}");
    }
}

#[test]
fn the_first_name_server_is_named_with_its_port() {
    let named = |file: &str| first_name_server(file);
    assert_eq!(named("search x\nnameserver 10.0.0.10\nnameserver 10.0.0.11\n").as_deref(), Some("10.0.0.10:53"));
    assert_eq!(named("# nameserver 1.1.1.1\n; x\n\n  nameserver\tfd00::10 \n").as_deref(), Some("[fd00::10]:53"));
    assert_eq!(named("nameserver nonsense\nnameserver\noptions ndots:5\n"), None);
    assert_eq!(named(""), None);
}

#[test]
fn words_of_both_c_libraries_are_understood() {
    let server = || Some("10.0.0.10:53".to_owned());
    let error = |words: &str| io::Error::other(format!("failed to lookup address information: {words}"));
    for words in [
        "Name or service not known",
        "No address associated with hostname",
        "Name does not resolve",
        "Name has no usable address",
    ] {
        assert_eq!(classify(&error(words), server), LookupError::NotFound { server: server() }, "{words}");
    }
    for words in [
        "Temporary failure in name resolution",
        "Try again",
        "Non-recoverable failure in name resolution",
        "Non-recoverable error",
    ] {
        assert_eq!(classify(&error(words), server), LookupError::Misbehaving { server: server() }, "{words}");
    }
    let no_files = io::Error::from_raw_os_error(nix::libc::EMFILE);
    assert_eq!(
        classify(&no_files, server),
        LookupError::System { kind: DialErrorKind::NoResources, text: "too many open files".to_owned() }
    );
}

/// The standard library's words, as they come. A label above 63 bytes fails without a server.
#[test]
fn the_systems_resolver_is_understood() {
    let found = ask_system(&format!("{}.example", "a".repeat(64)));
    assert!(matches!(found, Err(LookupError::NotFound { .. })), "{found:?}");
    let found = ask_system("localhost").expect("localhost has an address");
    assert!(found.iter().all(|address| address.ip().is_loopback() && address.port() == 0));
}
