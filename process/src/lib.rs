//! What `proxy-server` and `proxy-agent` both need to be good processes.
//!
//! ```text
//! flags, environment, file --> layers --> options --> config (in each binary) --> listen, logging, admin, signals
//!                                 |                      |
//!                                 +------ problems ------+   all of them told at once, before anything is bound
//! ```
//!
//! `certificates` take effect when their files change, which `reload` looks after. `carry` and `dial_record` end a dial in
//! the same way at both ends. Nothing here knows agents or servers.
#![warn(missing_docs)]

pub mod admin;
pub mod byte_size;
pub mod carry;
pub mod certificates;
pub mod check;
pub mod connections;
pub mod dial_record;
pub mod duration;
pub mod exit;
pub mod flag;
pub mod float;
pub mod klog;
pub mod labels;
pub mod layers;
pub mod list;
pub mod listen;
pub mod log_file;
pub mod logging;
pub mod memory_limit;
pub mod metrics;
pub mod open_files;
pub mod percent;
pub mod problems;
pub mod profile;
pub mod proxy_environment;
pub mod quic;
pub mod reload;
pub mod selector;
pub mod signals;
pub mod slice;
pub mod sparse;
pub mod utc;
pub mod version;

#[cfg(any(test, feature = "testing"))]
pub mod testing;
