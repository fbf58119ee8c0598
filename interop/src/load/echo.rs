//! Ping-pong of 64 bytes, one outstanding on each dial.

use std::convert::Infallible;
use std::ops::AddAssign;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinSet;

use super::meter::{Cpu, Meter};
use super::path::{Dial, Path};
use super::targets::Targets;
use super::{ECHO_BYTES, Window};

/// An echo that is out for so long when the window ends counts with its age; shorter ones say nothing.
const STUCK_AFTER: Duration = Duration::from_millis(100);

/// What was measured in a window.
#[derive(Debug, Clone, Default)]
pub struct Latencies {
    /// Every duration, sorted.
    sorted: Vec<Duration>,
    /// How many of them are only the age of something that had not ended.
    pub stuck: usize,
    /// The window's real length.
    pub time: Duration,
    /// CPU time in it.
    pub cpu: Cpu,
}

impl Latencies {
    /// How many ended in the window.
    pub fn completed(&self) -> usize {
        self.sorted.len() - self.stuck
    }

    /// How many ended per second.
    pub fn per_second(&self) -> f64 {
        self.completed() as f64 / self.time.as_secs_f64()
    }

    /// The duration that this part of all did not exceed (0.5 = median); none when there is nothing.
    pub fn quantile(&self, part: f64) -> Option<Duration> {
        let rank = (self.sorted.len() as f64 * part).ceil() as usize;
        self.sorted.get(rank.saturating_sub(1)).copied()
    }
}

/// Both together, as if measured in one window.
impl AddAssign for Latencies {
    fn add_assign(&mut self, other: Self) {
        self.sorted.extend(other.sorted);
        self.sorted.sort_unstable();
        self.stuck += other.stuck;
        self.time += other.time;
        self.cpu += other.cpu;
    }
}

/// What one task has measured since it was last told to begin anew.
#[derive(Debug, Default)]
struct Record {
    done: Vec<Duration>,
    since: Option<Instant>,
}

/// Where a task leaves its durations, to be taken while it goes on.
#[derive(Debug, Clone, Default)]
pub struct Recorder(Arc<Mutex<Record>>);

impl Recorder {
    /// Something begins.
    pub fn begin(&self) {
        self.with(|record| record.since = Some(Instant::now()));
    }

    /// It has ended well.
    pub fn end(&self) {
        self.with(|record| record.done.extend(record.since.take().map(|since| since.elapsed())));
    }

    fn with<T>(&self, f: impl FnOnce(&mut Record) -> T) -> T {
        f(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Lets load run that writes to `recorders`: the ramp is thrown away, the window is kept.
///
/// # Errors
/// When a process is gone.
pub async fn watch(recorders: &[Recorder], meter: Meter<'_>, window: Window) -> anyhow::Result<Latencies> {
    tokio::time::sleep(window.ramp).await;
    for recorder in recorders {
        recorder.with(|record| record.done.clear());
    }
    let (start, cpu_before) = (Instant::now(), meter.read()?);
    tokio::time::sleep(window.length).await;
    let (time, cpu) = (start.elapsed(), meter.read()? - cpu_before);
    Ok(Latencies { time, cpu, ..gather(recorders) })
}

fn gather(recorders: &[Recorder]) -> Latencies {
    let mut all = Latencies::default();
    for recorder in recorders {
        recorder.with(|record| {
            all.sorted.append(&mut record.done);
            let age = record.since.map(|since| since.elapsed()).filter(|&age| age >= STUCK_AFTER);
            all.stuck += usize::from(age.is_some());
            all.sorted.extend(age);
        });
    }
    all.sorted.sort_unstable();
    all
}

/// Dials that echo.
pub struct Echoes {
    dials: Vec<Dial>,
}

impl Echoes {
    /// Opens dials, a few at a time, each proved by one echo.
    ///
    /// # Errors
    /// The first dial that fails.
    pub async fn open(path: &Path, targets: &Targets, count: usize) -> anyhow::Result<Self> {
        const AT_A_TIME: usize = 32;
        let mut dials = Vec::with_capacity(count);
        let mut tasks = JoinSet::new();
        for n in 0..count {
            if tasks.len() >= AT_A_TIME {
                dials.extend(tasks.join_next().await.transpose()?.transpose()?);
            }
            let (path, target) = (path.clone(), targets.echo(n));
            tasks.spawn(async move {
                let mut dial = path.dial(target).await.with_context(|| format!("dial {n} of {count}"))?;
                once(&mut dial, n as u64).await.with_context(|| format!("dial {n} of {count}"))?;
                anyhow::Ok(dial)
            });
        }
        while let Some(dial) = tasks.join_next().await {
            dials.push(dial??);
        }
        Ok(Self { dials })
    }

    /// Lets all of them echo as fast as answers come, until the answer to this is dropped.
    pub fn start(self) -> Running {
        let mut tasks = JoinSet::new();
        let mut recorders = Vec::with_capacity(self.dials.len());
        for dial in self.dials {
            let recorder = Recorder::default();
            recorders.push(recorder.clone());
            tasks.spawn(repeat(dial, recorder));
        }
        Running { tasks, recorders }
    }
}

/// Dials that are echoing.
pub struct Running {
    tasks: JoinSet<anyhow::Result<Infallible>>,
    recorders: Vec<Recorder>,
}

impl Running {
    /// Measures for a while; may be called again.
    ///
    /// # Errors
    /// A dial that has ended or answered something else.
    pub async fn measure(&mut self, meter: Meter<'_>, window: Window) -> anyhow::Result<Latencies> {
        let latencies = watch(&self.recorders, meter, window).await?;
        if let Some(ended) = self.tasks.try_join_next() {
            let Err(error) = ended?;
            return Err(error.context("an echo failed"));
        }
        Ok(latencies)
    }
}

/// For ever, or until the first error.
async fn repeat(mut dial: Dial, recorder: Recorder) -> anyhow::Result<Infallible> {
    let mut n = 0;
    loop {
        recorder.begin();
        once(&mut dial, n).await?;
        recorder.end();
        n += 1;
    }
}

/// One echo; its number is in it, so that an old answer is not taken for a new one.
///
/// # Errors
/// When the dial ends or the answer is another.
pub async fn once(dial: &mut Dial, n: u64) -> anyhow::Result<()> {
    let mut question = [0x42; ECHO_BYTES];
    question[..8].copy_from_slice(&n.to_be_bytes());
    dial.write_all(&question).await.context("cannot send")?;
    dial.flush().await.context("cannot send")?;
    let mut answer = [0; ECHO_BYTES];
    dial.read_exact(&mut answer).await.context("no answer")?;
    ensure!(answer == question, "another answer than was sent");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_of_what_was_seen() {
        let none = Latencies::default();
        assert_eq!(none.quantile(0.99), None);
        let hundred = Latencies {
            sorted: (1..=100).map(Duration::from_millis).collect(),
            time: Duration::from_secs(2),
            ..Latencies::default()
        };
        assert_eq!(hundred.quantile(0.5), Some(Duration::from_millis(50)));
        assert_eq!(hundred.quantile(0.99), Some(Duration::from_millis(99)));
        assert_eq!(hundred.quantile(1.0), Some(Duration::from_millis(100)));
        assert!((hundred.per_second() - 50.0).abs() < 1e-9);
    }

    #[test]
    fn what_never_ends_is_counted_with_its_age_but_not_as_completed() {
        let [stuck, done, young] = [Recorder::default(), Recorder::default(), Recorder::default()];
        stuck.with(|record| record.since = Instant::now().checked_sub(Duration::from_secs(5)));
        done.begin();
        done.end();
        young.begin();
        let all = gather(&[stuck, done, young]);
        assert_eq!((all.completed(), all.stuck), (1, 1));
        assert!(all.quantile(1.0).unwrap() >= Duration::from_secs(5));
    }
}
