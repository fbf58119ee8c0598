//! Several addresses of one host, tried in the happy-eyeballs way (RFC 8305): a dead address costs a quarter of a
//! second instead of a time limit. Used for targets and for servers.

use std::{
    future::{Future, poll_fn},
    net::SocketAddr,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

/// How long one attempt has the field to itself before the next address is tried too. 250 ms is the
/// "connection attempt delay" of RFC 8305, section 5.
pub const STAGGER: Duration = Duration::from_millis(250);

/// Puts the addresses in the order of attempts: families alternate, beginning with the family of the first address,
/// and within a family the resolver's order is kept (RFC 8305, section 4, with a first family count of one).
pub fn order(addresses: Vec<SocketAddr>) -> Vec<SocketAddr> {
    let Some(first) = addresses.first() else {
        return addresses;
    };
    let first_is_v6 = first.is_ipv6();
    let (first_family, other_family): (Vec<_>, Vec<_>) =
        addresses.into_iter().partition(|address| address.is_ipv6() == first_is_v6);

    let mut ordered = Vec::with_capacity(first_family.len() + other_family.len());
    let mut others = other_family.into_iter();
    for address in first_family {
        ordered.push(address);
        ordered.extend(others.next());
    }
    ordered.extend(others);
    ordered
}

/// Makes attempts in the given order until one succeeds. The next one starts when the last one started `stagger` ago,
/// or at once when one failed; those under way go on. The first success wins and the other attempts are dropped.
///
/// # Errors
/// When every attempt has failed: all failures, in the order of `addresses`. No address, no failures.
///
/// # Cancel safety
/// Dropping the future drops every attempt under way; nothing else is held.
pub async fn race<T, E, F>(
    addresses: Vec<SocketAddr>,
    stagger: Duration,
    mut attempt: impl FnMut(SocketAddr) -> F,
) -> Result<T, Vec<(SocketAddr, E)>>
where
    F: Future<Output = Result<T, E>>,
{
    let mut waiting = addresses.into_iter().enumerate();
    let mut under_way = Vec::new();
    let mut failures = Vec::new();
    loop {
        match waiting.next() {
            Some((place, address)) => under_way.push(Attempt { place, address, future: Box::pin(attempt(address)) }),
            None if under_way.is_empty() => return Err(in_order(failures)),
            None => {}
        }
        tokio::select! {
            biased;
            (place, address, result) = poll_fn(|cx| poll_attempts(&mut under_way, cx)) => match result {
                Ok(winner) => return Ok(winner),
                Err(error) => failures.push((place, address, error)),
            },
            () = tokio::time::sleep(stagger), if waiting.len() > 0 => {}
        }
    }
}

struct Attempt<F> {
    place: usize,
    address: SocketAddr,
    future: Pin<Box<F>>,
}

/// Polls every attempt; takes out the first that has ended. A host has few addresses, so polling all of them at each
/// wake-up is cheaper than a waker for each.
fn poll_attempts<F: Future>(
    attempts: &mut Vec<Attempt<F>>,
    cx: &mut Context<'_>,
) -> Poll<(usize, SocketAddr, F::Output)> {
    for index in 0..attempts.len() {
        if let Poll::Ready(output) = attempts[index].future.as_mut().poll(cx) {
            let ended = attempts.swap_remove(index);
            return Poll::Ready((ended.place, ended.address, output));
        }
    }
    Poll::Pending
}

fn in_order<E>(mut failures: Vec<(usize, SocketAddr, E)>) -> Vec<(SocketAddr, E)> {
    failures.sort_by_key(|(place, ..)| *place);
    failures.into_iter().map(|(_, address, error)| (address, error)).collect()
}

#[cfg(test)]
mod tests;
