//! Which backends are here, by what each strategy looks them up by.

use std::{
    collections::{HashMap, hash_map::Entry},
    fmt,
    sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard},
};

use dashmap::DashMap;
use konnectivity_transport::identifier::Identifiers;

use crate::strategy::{Candidate, Strategy, around, dial_host, first_ready, least_loaded};

/// What the registry needs to know of one connection of an agent.
pub trait BackendView {
    /// Whose connection it is. Does not change.
    fn agent_id(&self) -> &str;
    /// What the agent said it can reach. Does not change.
    fn identifiers(&self) -> &Identifiers;
    /// Whether the agent asked for no more dials.
    fn is_draining(&self) -> bool;
    /// Whether the agent does not answer just now, so that others should have the dials that they can take.
    fn is_in_doubt(&self) -> bool;
    /// Dials that the connection carries now.
    fn open_dials(&self) -> usize;
}

/// Connections that may be those of one agent. Many are a mistake, and not worth a look at each whenever one comes.
const MOST_KIN: usize = 16;

/// All registered backends. Several connections of one agent are several backends, in the order of their arrival.
///
/// Picking is done for every dial, registering only when an agent comes or goes. Hence one index for each strategy,
/// so that a pick by `default`, `destHost` or `defaultRoute` costs the same however many agents there are (unless
/// many are draining). `leastLoaded` looks at every backend.
pub struct Registry<B> {
    agents: RwLock<Agents<B>>,
    default_route: RwLock<Agents<B>>,
    by_host: DashMap<String, Vec<Arc<B>>>,
}

impl<B> Default for Registry<B> {
    fn default() -> Self {
        Self { agents: RwLock::default(), default_route: RwLock::default(), by_host: DashMap::new() }
    }
}

impl<B: BackendView> Registry<B> {
    /// Makes a backend available to [`Registry::pick`] for as long as the guard is kept.
    pub fn register(self: &Arc<Self>, backend: Arc<B>) -> Registration<B> {
        write(&self.agents).add(&backend);
        if backend.identifiers().default_route {
            write(&self.default_route).add(&backend);
        }
        for host in hosts(&*backend) {
            let mut backends = self.by_host.entry(host.clone()).or_default();
            // An agent may name the same host twice, as `host` and as `ipv4` for instance.
            if !contains(&backends, &backend) {
                backends.push(backend.clone());
            }
        }
        Registration { registry: self.clone(), backend }
    }

    /// The backend that is to serve a dial to `address` (`host:port`): that of the first strategy that finds one.
    ///
    /// `random` decides between equals. Backends for which `not` is true are passed over: those that the dial has
    /// been tried on. `not` is called with the registry locked, and must not call it.
    pub fn pick(
        &self,
        strategies: &[Strategy],
        address: &str,
        random: u64,
        not: &dyn Fn(&B) -> bool,
    ) -> Option<Arc<B>> {
        let pick = |strategy: &Strategy| match strategy {
            Strategy::Default => read(&self.agents).pick(random, not),
            Strategy::DefaultRoute => read(&self.default_route).pick(random, not),
            Strategy::DestHost => self.pick_by_host(dial_host(address), not),
            Strategy::LeastLoaded => self.pick_least_loaded(random, not),
        };
        strategies.iter().find_map(pick)
    }

    /// How many keys a strategy can find backends under: agents, or hosts for `destHost`.
    pub fn count(&self, strategy: Strategy) -> usize {
        match strategy {
            Strategy::Default | Strategy::LeastLoaded => read(&self.agents).list.len(),
            Strategy::DefaultRoute => read(&self.default_route).list.len(),
            Strategy::DestHost => self.by_host.len(),
        }
    }

    /// Whether a strategy could find any backend at all, draining or not.
    pub fn has_any(&self, strategy: Strategy) -> bool {
        self.count(strategy) > 0
    }

    /// Every backend once.
    pub fn backends(&self) -> Vec<Arc<B>> {
        read(&self.agents).backends().cloned().collect()
    }

    /// Other connections that may be older ones of the same agent: they have its id, or say that they are the same host.
    /// At most 16, those that came first.
    pub fn kin(&self, of: &Arc<B>) -> Vec<Arc<B>> {
        let mut kin: Vec<Arc<B>> = Vec::new();
        let mut add = |backends: &[Arc<B>]| {
            let others: Vec<_> =
                backends.iter().filter(|other| !Arc::ptr_eq(other, of) && !contains(&kin, other)).collect();
            let room = MOST_KIN.saturating_sub(kin.len());
            kin.extend(others.into_iter().take(room).cloned());
        };
        add(read(&self.agents).of(of.agent_id()));
        for host in hosts(&**of) {
            if let Some(backends) = self.by_host.get(host) {
                add(&backends);
            }
        }
        kin
    }

    fn pick_by_host(&self, host: &str, not: &dyn Fn(&B) -> bool) -> Option<Arc<B>> {
        if host.is_empty() {
            return None;
        }
        let backends = self.by_host.get(host)?;
        let (backend, _) = first_ready(candidates(&backends, not))?;
        Some(backend.clone())
    }

    fn pick_least_loaded(&self, random: u64, not: &dyn Fn(&B) -> bool) -> Option<Arc<B>> {
        let agents = read(&self.agents);
        let backends: Vec<_> = agents.backends().filter(|backend| !not(backend)).collect();
        let candidates: Vec<_> = backends.iter().map(|backend| candidate(backend)).collect();
        let place = least_loaded(&candidates, random)?;
        Some(backends[place].clone())
    }

    fn deregister(&self, backend: &Arc<B>) {
        write(&self.agents).remove(backend);
        if backend.identifiers().default_route {
            write(&self.default_route).remove(backend);
        }
        for host in hosts(&**backend) {
            self.by_host.remove_if_mut(host, |_, backends| {
                backends.retain(|other| !Arc::ptr_eq(other, backend));
                backends.is_empty()
            });
        }
    }
}

/// Keeps a backend registered; dropping it deregisters the backend.
#[must_use = "dropping it deregisters the backend"]
pub struct Registration<B: BackendView> {
    registry: Arc<Registry<B>>,
    backend: Arc<B>,
}

impl<B: BackendView> fmt::Debug for Registration<B> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let agent_id = self.backend.agent_id();
        formatter.debug_tuple("Registration").field(&agent_id).finish()
    }
}

impl<B: BackendView> Drop for Registration<B> {
    fn drop(&mut self) {
        self.registry.deregister(&self.backend);
    }
}

/// Agents in a list that a random place can be taken from, each with its connections in the order of their arrival.
struct Agents<B> {
    list: Vec<Agent<B>>,
    places: HashMap<String, usize>,
}

struct Agent<B> {
    id: String,
    /// Never empty.
    connections: Vec<Arc<B>>,
}

impl<B> Default for Agents<B> {
    fn default() -> Self {
        Self { list: Vec::new(), places: HashMap::new() }
    }
}

impl<B: BackendView> Agents<B> {
    fn add(&mut self, backend: &Arc<B>) {
        match self.places.entry(backend.agent_id().to_owned()) {
            Entry::Occupied(place) => {
                let connections = &mut self.list[*place.get()].connections;
                if !contains(connections, backend) {
                    connections.push(backend.clone());
                }
            }
            Entry::Vacant(place) => {
                self.list.push(Agent { id: place.key().clone(), connections: vec![backend.clone()] });
                place.insert(self.list.len() - 1);
            }
        }
    }

    fn remove(&mut self, backend: &Arc<B>) {
        let Some(&place) = self.places.get(backend.agent_id()) else {
            return;
        };
        let connections = &mut self.list[place].connections;
        connections.retain(|other| !Arc::ptr_eq(other, backend));
        if connections.is_empty() {
            let removed = self.list.swap_remove(place);
            self.places.remove(&removed.id);
            if let Some(moved) = self.list.get(place) {
                self.places.insert(moved.id.clone(), place);
            }
        }
    }

    /// A random agent that isn't draining, and its first connection that isn't. The reference looks at an agent's
    /// first connection only, even when that one is draining and the next is not.
    fn pick(&self, random: u64, not: &dyn Fn(&B) -> bool) -> Option<Arc<B>> {
        let of_each_agent =
            around(&self.list, random).filter_map(|agent| first_ready(candidates(&agent.connections, not)));
        let (backend, _) = first_ready(of_each_agent)?;
        Some(backend.clone())
    }

    fn of(&self, agent_id: &str) -> &[Arc<B>] {
        self.places.get(agent_id).map_or(&[], |place| &self.list[*place].connections)
    }

    fn backends(&self) -> impl Iterator<Item = &Arc<B>> {
        self.list.iter().flat_map(|agent| &agent.connections)
    }
}

/// The texts that `destHost` finds a backend by.
fn hosts<B: BackendView>(backend: &B) -> impl Iterator<Item = &String> {
    let identifiers = backend.identifiers();
    let addresses = identifiers.ipv4.iter().chain(&identifiers.ipv6);
    addresses.chain(&identifiers.host)
}

fn candidates<'a, B: BackendView>(
    backends: &'a [Arc<B>],
    not: &'a dyn Fn(&B) -> bool,
) -> impl Iterator<Item = (&'a Arc<B>, Candidate)> {
    let usable = backends.iter().filter(|backend| !not(backend));
    usable.map(|backend| (backend, candidate(backend)))
}

fn candidate<B: BackendView>(backend: &Arc<B>) -> Candidate {
    Candidate { draining: backend.is_draining() || backend.is_in_doubt(), open_dials: backend.open_dials() }
}

fn contains<B>(backends: &[Arc<B>], backend: &Arc<B>) -> bool {
    backends.iter().any(|other| Arc::ptr_eq(other, backend))
}

// A panic while a lock is held can only come from `not` under a read lock, which leaves nothing half-done.
fn read<T>(lock: &RwLock<T>) -> RwLockReadGuard<'_, T> {
    lock.read().unwrap_or_else(PoisonError::into_inner)
}

fn write<T>(lock: &RwLock<T>) -> RwLockWriteGuard<'_, T> {
    lock.write().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
