use std::{
    fs,
    os::unix::fs::symlink,
    process::{self, Command},
};

use tokio::{sync::watch, task::JoinSet, time::timeout};

use super::*;

/// A file's content, used as soon as it is seen. It can be told from outside that it was.
struct Plain {
    file: PathBuf,
    current: Current<String>,
    asked: watch::Sender<u32>,
}

impl Plain {
    fn new(file: &Path) -> Self {
        let current = Current::new(fs::read_to_string(file).unwrap());
        Self { file: file.to_owned(), current, asked: watch::Sender::new(0) }
    }
}

impl Source for Plain {
    fn files(&self) -> Vec<PathBuf> {
        vec![self.file.clone()]
    }

    fn look(&mut self, _now: Instant, asked: bool) -> bool {
        let content = fs::read_to_string(&self.file).unwrap_or_default();
        if content != *self.current.get() {
            self.current.set(content);
        }
        if asked {
            self.asked.send_modify(|times| *times += 1);
        }
        true
    }
}

/// Waits until the value is this, less than until the next look that no event makes come sooner.
async fn becomes(current: &Current<String>, expected: &str) {
    let (seen, mut sees) = watch::channel(());
    current.follow(move |_| {
        seen.send_replace(());
    });
    let become_so = async {
        while *current.get() != expected {
            sees.changed().await.unwrap();
        }
    };
    timeout(LOOK_EVERY / 2, become_so).await.unwrap_or_else(|_| panic!("still {:?}", current.get()));
}

struct Running {
    tasks: JoinSet<Infallible>,
    current: Current<String>,
    asked: watch::Receiver<u32>,
}

/// Looks after a file. Its first look is over when this returns.
async fn run(file: &Path) -> Running {
    let source = Plain::new(file);
    let (current, asked) = (source.current.clone(), source.asked.subscribe());
    let content = (*current.get()).clone();
    // A change that the first look sees.
    current.set(String::new());
    let mut reloader = Reloader::new().unwrap();
    reloader.add(source);
    let mut tasks = JoinSet::new();
    tasks.spawn(reloader.run());
    becomes(&current, &content).await;
    Running { tasks, current, asked }
}

#[tokio::test]
async fn a_file_that_is_written_replaced_or_removed_is_looked_at_soon() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    fs::write(&file, "1").unwrap();
    let running = run(&file).await;
    fs::write(&file, "2").unwrap();
    becomes(&running.current, "2").await;
    fs::write(folder.path().join("new"), "3").unwrap();
    fs::rename(folder.path().join("new"), &file).unwrap();
    becomes(&running.current, "3").await;
    fs::remove_file(&file).unwrap();
    becomes(&running.current, "").await;
    fs::write(&file, "4").unwrap();
    becomes(&running.current, "4").await;
    drop(running.tasks);
}

/// As a kubelet renews a mounted secret.
#[tokio::test]
async fn links_that_are_swapped_are_followed() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    for (version, content) in [("..1", "1"), ("..2", "2")] {
        fs::create_dir(path(version)).unwrap();
        fs::write(path(version).join("file"), content).unwrap();
    }
    symlink("..1", path("..data")).unwrap();
    symlink("..data/file", path("file")).unwrap();
    let running = run(&path("file")).await;
    symlink("..2", path("..data_tmp")).unwrap();
    fs::rename(path("..data_tmp"), path("..data")).unwrap();
    becomes(&running.current, "2").await;
}

/// The file is a link to a folder that is not watched: no event tells of its change.
#[tokio::test]
async fn sighup_makes_a_look_come_at_once_and_ends_nobody() {
    let (folder, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (file, target) = (folder.path().join("file"), elsewhere.path().join("file"));
    fs::write(&target, "1").unwrap();
    symlink(&target, &file).unwrap();
    let mut running = run(&file).await;
    fs::write(&target, "2").unwrap();
    let sent = Command::new("kill").args(["-s", "HUP", &process::id().to_string()]).status();
    assert!(sent.unwrap().success());
    becomes(&running.current, "2").await;
    timeout(LOOK_EVERY, running.asked.wait_for(|times| *times == 1)).await.unwrap().unwrap();
}

#[tokio::test]
async fn without_event_or_signal_a_change_is_seen_by_the_next_look() {
    let (folder, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (file, target) = (folder.path().join("file"), elsewhere.path().join("file"));
    fs::write(&target, "1").unwrap();
    symlink(&target, &file).unwrap();
    let running = run(&file).await;
    fs::write(&target, "2").unwrap();
    let become_so = async {
        while *running.current.get() != "2" {
            sleep(SETTLE).await;
        }
    };
    timeout(LOOK_EVERY * 2, become_so).await.unwrap();
}

#[test]
fn followers_hear_of_every_value_and_what_is_mapped_follows() {
    let current = Current::new(1);
    let doubled = current.map(|value| value * 2);
    let told = Arc::new(Mutex::new(Vec::new()));
    let tell = told.clone();
    doubled.follow(move |value| tell.lock().unwrap().push(*value));
    current.clone().set(2);
    current.set(3);
    assert_eq!((*current.get(), *doubled.get()), (3, 6));
    assert_eq!(*told.lock().unwrap(), [4, 6]);
}
