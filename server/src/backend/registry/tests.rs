use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};

use proptest::prelude::*;

use super::*;
use crate::strategy::Strategy;

#[derive(Debug, Default)]
struct Fake {
    agent_id: String,
    identifiers: Identifiers,
    draining: AtomicBool,
    in_doubt: AtomicBool,
    open_dials: AtomicUsize,
    examined: AtomicUsize,
}

impl Fake {
    fn new(agent_id: &str, identifiers: &str) -> Arc<Self> {
        Arc::new(Self {
            agent_id: agent_id.to_owned(),
            identifiers: Identifiers::parse(identifiers).unwrap(),
            ..Self::default()
        })
    }
}

impl BackendView for Fake {
    fn agent_id(&self) -> &str {
        &self.agent_id
    }
    fn identifiers(&self) -> &Identifiers {
        &self.identifiers
    }
    fn is_draining(&self) -> bool {
        self.examined.fetch_add(1, Relaxed);
        self.draining.load(Relaxed)
    }
    fn is_in_doubt(&self) -> bool {
        self.in_doubt.load(Relaxed)
    }
    fn open_dials(&self) -> usize {
        self.open_dials.load(Relaxed)
    }
}

type Fakes = Arc<Registry<Fake>>;

fn none(_: &Fake) -> bool {
    false
}

#[track_caller]
fn assert_picks(registry: &Fakes, strategies: &[Strategy], address: &str, random: u64, expected: &Arc<Fake>) {
    let picked = registry.pick(strategies, address, random, &none).unwrap();
    assert!(Arc::ptr_eq(&picked, expected), "picked {picked:?}");
}

#[test]
fn nothing_is_found_in_an_empty_registry() {
    let registry = Fakes::default();
    for strategy in Strategy::ALL {
        assert!(registry.pick(&[strategy], "a:1", 0, &none).is_none());
        assert!(!registry.has_any(strategy));
    }
}

#[test]
fn a_backend_in_doubt_is_passed_over_while_others_can() {
    let registry = Fakes::default();
    let [old, new] = [Fake::new("a", "host=h"), Fake::new("a", "host=h")];
    let _old = registry.register(old.clone());
    let kept = registry.register(new.clone());
    let picks = |expected: &Arc<Fake>| {
        for strategy in [Strategy::Default, Strategy::DestHost] {
            assert_picks(&registry, &[strategy], "h:1", 0, expected);
        }
    };
    picks(&old);
    old.in_doubt.store(true, Relaxed);
    picks(&new);
    drop(kept);
    picks(&old);
}

#[test]
fn kin_have_the_same_id_or_host_and_are_not_too_many() {
    let registry = Fakes::default();
    let same = |kin: Vec<Arc<Fake>>, wanted: &[&Arc<Fake>]| {
        kin.len() == wanted.len() && wanted.iter().all(|wanted| kin.iter().any(|kin| Arc::ptr_eq(kin, wanted)))
    };
    let [id, host, address] = [Fake::new("a", ""), Fake::new("b", "host=h"), Fake::new("c", "ipv4=10.0.0.1")];
    let [both, stranger] = [Fake::new("a", "host=h"), Fake::new("d", "host=i&default-route=true")];
    let _kept = [&id, &host, &address, &both, &stranger].map(|backend| registry.register(backend.clone()));
    let new = Fake::new("a", "host=h&ipv4=10.0.0.1&default-route=true");
    let _new = registry.register(new.clone());
    assert!(same(registry.kin(&new), &[&id, &host, &address, &both]));
    assert!(same(registry.kin(&stranger), &[]));

    let crowd: Vec<_> = (0..100).map(|_| registry.register(Fake::new("e", "host=j"))).collect();
    let last = Fake::new("e", "host=j");
    let _last = registry.register(last.clone());
    assert_eq!(registry.kin(&last).len(), MOST_KIN);
    drop(crowd);
    assert!(registry.kin(&last).is_empty());
}

#[test]
fn default_takes_agents_in_turn_by_the_random_number() {
    let registry = Fakes::default();
    let backends = ["a", "b", "c"].map(|id| Fake::new(id, ""));
    let _kept = backends.clone().map(|backend| registry.register(backend));
    for random in 0..6 {
        assert_picks(&registry, &[Strategy::Default], "x:1", random, &backends[random as usize % 3]);
    }
}

#[test]
fn default_passes_over_a_draining_agent_until_all_are() {
    let registry = Fakes::default();
    let [a, b] = ["a", "b"].map(|id| Fake::new(id, ""));
    let _kept = [registry.register(a.clone()), registry.register(b.clone())];
    a.draining.store(true, Relaxed);
    assert_picks(&registry, &[Strategy::Default], "x:1", 0, &b);
    b.draining.store(true, Relaxed);
    assert_picks(&registry, &[Strategy::Default], "x:1", 0, &a);
    assert_picks(&registry, &[Strategy::Default], "x:1", 1, &b);
}

#[test]
fn an_agents_second_connection_serves_when_its_first_drains() {
    let registry = Fakes::default();
    let [first, second] = [Fake::new("a", ""), Fake::new("a", "")];
    let _kept = [registry.register(first.clone()), registry.register(second.clone())];
    assert_picks(&registry, &[Strategy::Default], "x:1", 1, &first);
    first.draining.store(true, Relaxed);
    assert_picks(&registry, &[Strategy::Default], "x:1", 0, &second);
    assert_eq!(registry.count(Strategy::Default), 1);
    assert_eq!(registry.backends().len(), 2);
}

#[test]
fn the_next_connection_is_promoted_when_the_first_goes() {
    let registry = Fakes::default();
    let [first, second] = [Fake::new("a", "host=h"), Fake::new("a", "host=h")];
    let first_registration = registry.register(first);
    let _kept = registry.register(second.clone());
    drop(first_registration);
    for strategy in [Strategy::Default, Strategy::DestHost] {
        assert_picks(&registry, &[strategy], "h:1", 0, &second);
    }
}

#[test]
fn dest_host_matches_every_kind_of_identifier_exactly() {
    let registry = Fakes::default();
    let backend = Fake::new("a", "host=node-1&ipv4=10.0.0.7&ipv6=fd00::7&cidr=10.1.0.0/16");
    let _kept = registry.register(backend.clone());
    for address in ["node-1:10250", "10.0.0.7:1", "[fd00::7]:443", "fd00::7"] {
        assert_picks(&registry, &[Strategy::DestHost], address, 0, &backend);
    }
    for address in ["NODE-1:1", "node-1.:1", "[fd00:0::7]:1", "10.1.0.5:1", ":1", ""] {
        assert!(registry.pick(&[Strategy::DestHost], address, 0, &none).is_none(), "{address}");
    }
    assert_eq!(registry.count(Strategy::DestHost), 3);
}

#[test]
fn an_empty_identifier_matches_no_address() {
    let registry = Fakes::default();
    let _kept = registry.register(Fake::new("a", "host="));
    assert!(registry.pick(&[Strategy::DestHost], ":80", 0, &none).is_none());
}

#[test]
fn dest_host_takes_the_first_that_arrived_whatever_the_random_number() {
    let registry = Fakes::default();
    let [a, b] = ["a", "b"].map(|id| Fake::new(id, "host=h"));
    let _kept = [registry.register(a.clone()), registry.register(b.clone())];
    assert_picks(&registry, &[Strategy::DestHost], "h:1", 1, &a);
    a.draining.store(true, Relaxed);
    assert_picks(&registry, &[Strategy::DestHost], "h:1", 0, &b);
    b.draining.store(true, Relaxed);
    assert_picks(&registry, &[Strategy::DestHost], "h:1", 1, &a);
}

#[test]
fn a_host_named_twice_by_one_agent_counts_once_and_goes_entirely() {
    let registry = Fakes::default();
    let kept = registry.register(Fake::new("a", "host=10.0.0.7&ipv4=10.0.0.7&host=10.0.0.7"));
    assert_eq!(registry.by_host.get("10.0.0.7").unwrap().len(), 1);
    drop(kept);
    assert_eq!(registry.count(Strategy::DestHost), 0);
}

#[test]
fn default_route_takes_only_agents_that_have_it() {
    let registry = Fakes::default();
    let _plain = registry.register(Fake::new("a", ""));
    assert!(!registry.has_any(Strategy::DefaultRoute));
    let route = Fake::new("b", "default-route=true");
    let _kept = registry.register(route.clone());
    for random in 0..4 {
        assert_picks(&registry, &[Strategy::DefaultRoute], "x:1", random, &route);
    }
    assert_eq!(registry.count(Strategy::DefaultRoute), 1);
}

#[test]
fn strategies_are_tried_in_the_order_given() {
    let registry = Fakes::default();
    let [host, route, plain] = [Fake::new("a", "host=h"), Fake::new("b", "default-route=true"), Fake::new("c", "")];
    let order = [Strategy::DestHost, Strategy::DefaultRoute, Strategy::Default];
    let _plain = registry.register(plain.clone());
    assert_picks(&registry, &order, "h:1", 0, &plain);
    let _route = registry.register(route.clone());
    assert_picks(&registry, &order, "h:1", 0, &route);
    let _host = registry.register(host.clone());
    assert_picks(&registry, &order, "h:1", 0, &host);
    assert_picks(&registry, &order, "other:1", 0, &route);
}

#[test]
fn a_strategy_whose_backends_were_all_tried_passes_on_to_the_next() {
    let registry = Fakes::default();
    let [host, plain] = [Fake::new("a", "host=h"), Fake::new("b", "")];
    let _kept = [registry.register(host.clone()), registry.register(plain.clone())];
    let order = [Strategy::DestHost, Strategy::Default];
    let not_host = |backend: &Fake| std::ptr::eq(backend, &*host);
    let picked = registry.pick(&order, "h:1", 0, &not_host).unwrap();
    assert!(Arc::ptr_eq(&picked, &plain));
    assert!(registry.pick(&order, "h:1", 0, &|_| true).is_none());
}

#[test]
fn least_loaded_compares_connections_and_not_agents() {
    let registry = Fakes::default();
    let [busy, idle, other] = [Fake::new("a", ""), Fake::new("a", ""), Fake::new("b", "")];
    let _kept = [&busy, &idle, &other].map(|backend| registry.register(backend.clone()));
    busy.open_dials.store(7, Relaxed);
    other.open_dials.store(1, Relaxed);
    assert_picks(&registry, &[Strategy::LeastLoaded], "x:1", 5, &idle);
    idle.draining.store(true, Relaxed);
    assert_picks(&registry, &[Strategy::LeastLoaded], "x:1", 5, &other);
}

#[test]
fn a_pick_examines_one_backend_however_many_there_are() {
    let registry = Fakes::default();
    let backends: Vec<_> =
        (0..1000).map(|number| Fake::new(&number.to_string(), &format!("default-route=true&host=h{number}"))).collect();
    let _kept: Vec<_> = backends.iter().map(|backend| registry.register(backend.clone())).collect();
    let examined = || backends.iter().map(|backend| backend.examined.load(Relaxed)).sum::<usize>();
    for strategy in [Strategy::Default, Strategy::DefaultRoute, Strategy::DestHost] {
        let before = examined();
        registry.pick(&[strategy], "h500:1", 777, &none).unwrap();
        assert_eq!(examined() - before, 1, "{strategy}");
    }
}

#[test]
fn everything_is_gone_when_the_registrations_are() {
    let registry = Fakes::default();
    let identifiers = "host=h&ipv4=10.0.0.7&default-route=true";
    let kept: Vec<_> =
        (0..10).map(|number| registry.register(Fake::new(&(number % 3).to_string(), identifiers))).collect();
    drop(kept);
    for strategy in Strategy::ALL {
        assert_eq!(registry.count(strategy), 0, "{strategy}");
    }
    assert!(registry.backends().is_empty());
    assert!(registry.agents.read().unwrap().places.is_empty());
}

proptest! {
    /// Whatever came and went, a pick is registered and not excluded, and is found if one exists.
    #[test]
    fn a_pick_is_registered_and_not_excluded(
        steps in proptest::collection::vec((0_u8..4, any::<bool>(), any::<bool>(), any::<prop::sample::Index>()), 0..40),
        random: u64,
        excluded: prop::sample::Index,
    ) {
        let registry = Fakes::default();
        let mut kept: Vec<Registration<Fake>> = Vec::new();
        for (agent, draining, leaves, which) in steps {
            if leaves && !kept.is_empty() {
                drop(kept.swap_remove(which.index(kept.len())));
            } else {
                let backend = Fake::new(&agent.to_string(), "host=h&default-route=true");
                backend.draining.store(draining, Relaxed);
                kept.push(registry.register(backend));
            }
        }
        prop_assert_eq!(registry.backends().len(), kept.len());
        let excluded = (!kept.is_empty()).then(|| kept[excluded.index(kept.len())].backend.clone());
        let not = |backend: &Fake| excluded.as_deref().is_some_and(|excluded| std::ptr::eq(backend, excluded));
        let usable: Vec<_> = kept.iter().filter(|kept| !not(&kept.backend)).collect();
        for strategy in Strategy::ALL {
            let picked = registry.pick(&[strategy], "h:1", random, &not);
            prop_assert_eq!(picked.is_some(), !usable.is_empty());
            if let Some(picked) = picked {
                prop_assert!(usable.iter().any(|kept| Arc::ptr_eq(&kept.backend, &picked)));
                let any_ready = usable.iter().any(|kept| !kept.backend.draining.load(Relaxed));
                prop_assert_eq!(picked.draining.load(Relaxed), !any_ready);
            }
        }
    }
}
