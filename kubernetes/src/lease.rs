//! Leases of servers: each server keeps one, and whoever counts the valid ones knows how many servers there are.
//!
//! ```text
//! record: what is in a lease       book: which leases count, a value without clock
//! call: requests                   follow: list, watch, and again; its book is always current
//! own: writes and deletes one's own
//! ```
//!
//! The objects are those of the reference: same names, labels and fields, so that both programs of either make count
//! each other. The addresses of a server, in an annotation, are ours.

mod book;
mod call;
mod follow;
mod own;
mod record;

pub use self::{
    book::LeaseBook,
    call::{LeaseChange, LeaseScope},
    follow::{Event, FollowSettings, LeaseFollower, Request},
    own::{Deleted, OwnLease},
    record::{ADDRESSES_ANNOTATION, LeaseTerms, NAME_PREFIX, ServerLease},
};
