//! A client of the API that lives through changes of its files and through the API's absence.

use std::{
    path::PathBuf,
    sync::Arc,
    time::{Duration, SystemTime},
};

use kube::{Client, client::ClientBuilder};
use tokio::{
    runtime::Handle,
    sync::Mutex,
    task::{JoinError, JoinHandle},
    time::{Instant, sleep_until, timeout},
};

use crate::{
    bounded::BoundedLayer,
    error::ApiError,
    pace::{Pace, Rate},
    right::Right,
    source::{self, SourceError},
};

/// How long a request may take, with the credentials' plug-in. An API server under load takes ten seconds.
const REQUEST_LIMIT: Duration = Duration::from_secs(15);

/// How long a request may wait for its turn.
const TURN_LIMIT: Duration = Duration::from_secs(15);

/// After a failure the files are read again, but not more often than this.
const RENEWAL_PAUSE: Duration = Duration::from_secs(5);

/// How to use the API.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// The kubeconfig file; `None`: what a pod finds.
    pub kubeconfig: Option<PathBuf>,
    /// How often.
    pub rate: Rate,
    /// Who asks, as in `proxy-server/1.0`.
    pub user_agent: String,
}

/// The Kubernetes API; clones are handles to the same client.
///
/// What it needs is read from its files when it is needed, and read again after a failure: credentials may have been
/// renewed meanwhile. The API may be away at any time.
#[derive(Clone)]
pub struct Kubernetes(Arc<Inner>);

struct Inner {
    settings: Settings,
    /// Where the settings are from, for messages.
    origin: String,
    pace: Pace,
    spare: Pace,
    /// Where connections live.
    runtime: Handle,
    current: Mutex<Current>,
}

type Made = Result<Client, kube::Error>;

#[derive(Default)]
struct Current {
    client: Option<Client>,
    /// Not before then are files read again.
    rests_until: Option<Instant>,
    /// Something has failed since.
    doubtful: bool,
    /// A client that is being made. It may take long: credentials may come from a program. One at a time.
    making: Option<JoinHandle<Made>>,
}

impl Kubernetes {
    /// Looks whether the files can be used. Nothing is connected, and no plug-in is run. Connections will live in the
    /// runtime that this is called in.
    ///
    /// # Errors
    /// [`SourceError`] names the file.
    pub async fn new(settings: Settings) -> Result<Self, SourceError> {
        source::read(settings.kubeconfig.as_deref(), &settings.user_agent).await?;
        let origin = match &settings.kubeconfig {
            Some(path) => format!("kubeconfig {}", path.display()),
            None => "this pod's service account".to_owned(),
        };
        let (pace, spare) = (Pace::new(settings.rate), Pace::new(settings.rate.half()));
        let (runtime, current) = (Handle::current(), Mutex::default());
        Ok(Self(Arc::new(Inner { settings, origin, pace, spare, runtime, current })))
    }

    /// Waits until a request may be made that can wait: such requests have half of the rate, so that others find room.
    /// It has to wait for its turn among all requests, too, when it is made.
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn spare_turn(&self) {
        self.0.spare.wait().await;
    }

    /// Makes one request when it is its turn, and waits 15 s for each. For a stream of changes that is the time until
    /// it begins. `right` is what the request needs, for messages.
    ///
    /// # Errors
    /// [`ApiError`].
    ///
    /// # Cancel safety
    /// Dropping the future abandons the request, which the API may have carried out.
    pub async fn call<T, F>(&self, right: Right, request: impl FnOnce(Client) -> F) -> Result<T, ApiError>
    where
        F: Future<Output = Result<T, kube::Error>>,
    {
        let inner = &self.0;
        let turn = timeout(TURN_LIMIT, inner.pace.wait()).await;
        turn.map_err(|_elapsed| ApiError::Busy { right: right.clone() })?;
        let asked = async {
            let client = inner.client(&right).await?;
            request(client).await.map_err(|error| ApiError::new(error, right.clone(), &inner.origin))
        };
        let timed_out =
            || ApiError::Timeout { origin: inner.origin.clone(), right: right.clone(), limit: REQUEST_LIMIT };
        let result = timeout(REQUEST_LIMIT, asked).await.unwrap_or_else(|_elapsed| Err(timed_out()));
        if result.as_ref().is_err_and(other_files_may_help) {
            inner.current.lock().await.doubtful = true;
        }
        result
    }

    /// The file that says where the API is, for messages.
    pub(crate) fn origin(&self) -> &str {
        &self.0.origin
    }

    /// What an error of the library means, when it does not come out of [`Self::call`]: that of a stream of changes.
    pub fn error(&self, error: kube::Error, right: Right) -> ApiError {
        ApiError::new(error, right, &self.0.origin)
    }
}

fn other_files_may_help(error: &ApiError) -> bool {
    !matches!(error, ApiError::Refused { .. } | ApiError::Malformed { .. } | ApiError::Busy { .. })
}

impl Inner {
    /// The client. It is made anew when it is doubtful, or when its credentials have come to their end.
    ///
    /// # Cancel safety
    /// Safe: what is being made is kept.
    async fn client(&self, right: &Right) -> Result<Client, ApiError> {
        let mut current = self.current.lock().await;
        let rests_until = current.rests_until.filter(|end| *end > Instant::now());
        match (&current.client, rests_until) {
            (Some(client), _) if !current.doubtful && !has_expired(client) => return Ok(client.clone()),
            (Some(client), Some(_)) => return Ok(client.clone()),
            (None, Some(end)) if current.making.is_none() => sleep_until(end).await,
            _ => {}
        }
        let made = self.make(&mut current).await.map_err(|error| match error {
            MakeError::Source(error) => ApiError::Source(error),
            MakeError::Client(error) => ApiError::new(error, right.clone(), &self.origin),
            MakeError::Panic(error) => ApiError::Credentials { origin: self.origin.clone(), reason: error.to_string() },
        });
        current.rests_until = Some(Instant::now() + RENEWAL_PAUSE);
        match (made, &current.client) {
            (Ok(client), _) => {
                current.client = Some(client.clone());
                current.doubtful = false;
                Ok(client)
            }
            // The files may be in the midst of a change.
            (Err(error), Some(client)) => {
                tracing::warn!(%error, "going on with earlier credentials for the Kubernetes API");
                Ok(client.clone())
            }
            (Err(error), None) => Err(error),
        }
    }

    async fn make(&self, current: &mut Current) -> Result<Client, MakeError> {
        let making = match &mut current.making {
            Some(making) => making,
            None => {
                let config = source::read(self.settings.kubeconfig.as_deref(), &self.settings.user_agent).await?;
                let runtime = self.runtime.clone();
                current.making.insert(self.runtime.spawn_blocking(move || {
                    // The library starts a task.
                    let _runtime = runtime.enter();
                    Ok(ClientBuilder::try_from(config)?.with_layer(&BoundedLayer).build())
                }))
            }
        };
        let made = making.await;
        current.making = None;
        Ok(made??)
    }
}

#[derive(Debug, thiserror::Error)]
enum MakeError {
    #[error(transparent)]
    Source(#[from] SourceError),
    #[error(transparent)]
    Client(#[from] kube::Error),
    #[error(transparent)]
    Panic(#[from] JoinError),
}

/// Credentials of a plug-in may have an end.
fn has_expired(client: &Client) -> bool {
    client.valid_until().is_some_and(|end| SystemTime::from(end) <= SystemTime::now())
}
