//! Our readers of packets beside etherparse's, and of what is said of groups beside smoltcp's: packets made field by field, by our writers and by theirs, with options and
//! without, then damaged or not, checksums repaired or not. Both accept or both refuse, and read the same; where they do not,
//! `differences.txt` says that and why. A difference that is not listed fails, and so does a listed one that never shows.

mod layers;
mod layers_groups;
mod layers_v6;
mod packets;
mod packets_v6;
mod round_trip;

use std::collections::BTreeMap;
use std::sync::Mutex;

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use layers::Layer;

/// Packets of each layer.
const CASES: u32 = 20_000;

/// What one side makes of some bytes: each field in words, or nothing.
type Reading = Result<Vec<(&'static str, String)>, String>;

/// The lines of `differences.txt`: layer and name.
fn listed() -> Vec<(&'static str, &'static str)> {
    let lines = include_str!("differences.txt").lines();
    let lines = lines.filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines
        .map(|line| {
            let mut parts = line.splitn(3, '|').map(str::trim);
            let (layer, name) = (parts.next().expect("a layer"), parts.next().expect("a name"));
            assert!(
                parts.next().is_some_and(|reason| reason.len() > 10),
                "{line}: a difference has a reason"
            );
            (layer, name)
        })
        .collect()
}

/// Which difference this is, if there is one: by name, or as it is.
fn difference(layer: &Layer, bytes: &[u8]) -> Result<Option<&'static str>, String> {
    let (ours, theirs) = ((layer.ours)(bytes), (layer.theirs)(bytes));
    let same = match (&ours, &theirs) {
        (Ok(ours), Ok(theirs)) => ours == theirs,
        (ours, theirs) => ours.is_err() == theirs.is_err(),
    };
    if same {
        return Ok(None);
    }
    let known = layer.differences.iter().find(|(_, applies)| applies(bytes, &ours, &theirs));
    let known = known.map(|(name, _)| *name).filter(|&name| listed().contains(&(layer.name, name)));
    known
        .map(Some)
        .ok_or_else(|| format!("{}: ours {ours:?}, theirs {theirs:?}, of {bytes:02x?}", layer.name))
}

/// Compares one layer, and counts the differences that showed.
fn compare(layer: &Layer) {
    let seen = Mutex::new(BTreeMap::<&str, u32>::new());
    let config = Config { cases: CASES, failure_persistence: None, ..Config::default() };
    let mut runner = TestRunner::new(config);
    let outcome = runner.run(&(layer.packets)(), |bytes| {
        match difference(layer, &bytes) {
            Ok(None) => {}
            Ok(Some(name)) => *seen.lock().unwrap().entry(name).or_default() += 1,
            Err(unlisted) => return Err(TestCaseError::fail(unlisted)),
        }
        let accepted = if (layer.ours)(&bytes).is_ok() { "accepted" } else { "refused" };
        *seen.lock().unwrap().entry(accepted).or_default() += 1;
        Ok(())
    });
    outcome.unwrap_or_else(|error| panic!("a difference that is not listed: {error}"));
    let seen = seen.into_inner().unwrap();
    println!("{}: {seen:?}", layer.name);
    for name in ["accepted", "refused"] {
        assert!(
            seen.get(name).is_some_and(|&count| count > CASES / 50),
            "{}: hardly any was {name}",
            layer.name
        );
    }
    for (_, name) in listed().into_iter().filter(|(of, _)| *of == layer.name) {
        assert!(seen.contains_key(name), "{}: {name:?} is listed and never showed", layer.name);
    }
}

#[test]
fn ethernet_differs_only_where_listed() {
    compare(&layers::ETHERNET);
}

#[test]
fn arp_differs_only_where_listed() {
    compare(&layers::ARP);
}

#[test]
fn ipv4_differs_only_where_listed() {
    compare(&layers::IPV4);
}

#[test]
fn tcp_differs_only_where_listed() {
    compare(&layers::TCP);
}

#[test]
fn tcp_options_differ_only_where_listed() {
    compare(&layers::TCP_OPTIONS);
}

#[test]
fn udp_differs_only_where_listed() {
    compare(&layers::UDP);
}

#[test]
fn icmp_differs_only_where_listed() {
    compare(&layers::ICMP);
}

#[test]
fn ipv6_differs_only_where_listed() {
    compare(&layers_v6::IPV6);
}

#[test]
fn ipv6_extensions_differ_only_where_listed() {
    compare(&layers_v6::EXTENSIONS);
}

#[test]
fn icmpv6_differs_only_where_listed() {
    compare(&layers_v6::ICMPV6);
}

#[test]
fn igmp_differs_only_where_listed() {
    compare(&layers_groups::IGMP);
}

#[test]
fn mld_differs_only_where_listed() {
    compare(&layers_groups::MLD);
}

#[test]
fn every_listed_difference_is_looked_for() {
    let layers = [
        layers::ETHERNET,
        layers::ARP,
        layers::IPV4,
        layers::TCP,
        layers::TCP_OPTIONS,
        layers::UDP,
        layers::ICMP,
        layers_v6::IPV6,
        layers_v6::EXTENSIONS,
        layers_v6::ICMPV6,
        layers_groups::IGMP,
        layers_groups::MLD,
    ];
    for (layer, name) in listed() {
        let of = layers
            .iter()
            .find(|known| known.name == layer)
            .unwrap_or_else(|| panic!("there is no layer {layer}"));
        assert!(of.differences.iter().any(|(known, _)| *known == name), "{layer}: nobody knows {name:?}");
    }
}
