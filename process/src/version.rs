//! What this build is.

use std::sync::LazyLock;

use konnectivity_transport::wire;

static LONG: LazyLock<String> = LazyLock::new(|| {
    let protocol = String::from_utf8_lossy(wire::ALPN);
    format!("{VERSION} (commit {COMMIT}, protocol {protocol})")
});

/// The version of both programs.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The commit it was built from, or `unknown` where there was no repository.
pub const COMMIT: &str = env!("KONNECTIVITY_COMMIT");

/// Both, and the protocol that is spoken between agent and server.
pub fn long() -> &'static str {
    &LONG
}
