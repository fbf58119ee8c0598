//! What all measurements of a run share.

use std::path::PathBuf;
use std::time::Duration;

use crate::certificates::Folder;
use crate::peer::Make;

/// Programs, certificates, and how long things take.
#[derive(Debug, Clone)]
pub struct Setting {
    /// This project's programs.
    pub ours: Make,
    /// The reference's.
    pub go: Make,
    /// Certificates of everyone; the server's names the cloud's address.
    pub certificates: Folder,
    /// For sockets, keys and logs.
    pub folder: PathBuf,
    /// How long things take.
    pub timing: Timing,
}

/// How long things take.
#[derive(Debug, Clone, Copy)]
pub struct Timing {
    /// Small things go on for so long before bulk begins, so that all of them are open.
    pub before: Duration,
    /// Bulk goes on for so long before anything is counted.
    pub ramp: Duration,
    /// Then it is counted for so long.
    pub window: Duration,
    /// What began in the window is waited for so long; later it counts as never.
    pub patience: Duration,
}
