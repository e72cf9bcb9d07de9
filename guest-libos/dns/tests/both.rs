//! What the answers of both families come to.

use exos_dns::{Failure, first_host, merge};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

const IPV4: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
const IPV6: IpAddr = IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1));

#[test]
fn addresses_of_both_families_begin_with_those_of_ipv6() {
    assert_eq!(merge(Ok(vec![IPV6]), Ok(vec![IPV4])), Ok(vec![IPV6, IPV4]));
    assert_eq!(merge(Ok(vec![]), Ok(vec![IPV4])), Ok(vec![IPV4]));
}

#[test]
fn one_answer_with_addresses_is_enough() {
    for failure in [Failure::NoAddress, Failure::NoSuchName, Failure::TimedOut, Failure::Refused(2)] {
        assert_eq!(merge(Ok(vec![IPV6]), Err(failure)), Ok(vec![IPV6]));
        assert_eq!(merge(Err(failure), Ok(vec![IPV4])), Ok(vec![IPV4]));
    }
}

#[test]
fn failure_that_says_most_is_told() {
    use Failure::{NoAddress, NoSuchName, TimedOut};
    assert_eq!(merge(Err(NoAddress), Err(TimedOut)), Err(TimedOut));
    assert_eq!(merge(Err(TimedOut), Err(NoAddress)), Err(TimedOut));
    assert_eq!(merge(Err(NoSuchName), Err(TimedOut)), Err(NoSuchName));
    assert_eq!(merge(Err(NoAddress), Err(NoAddress)), Err(NoAddress));
    // A family that was not asked for.
    assert_eq!(merge(Ok(vec![]), Err(NoAddress)), Err(NoAddress));
    assert_eq!(merge(Err(NoSuchName), Ok(vec![])), Err(NoSuchName));
}

#[test]
fn address_that_no_host_can_have_is_skipped() {
    let none = [
        "0.0.0.0",
        "127.0.0.1",
        "224.0.0.251",
        "255.255.255.255",
        "::",
        "::1",
        "ff02::fb",
        "::ffff:192.0.2.1",
    ];
    let none = none.map(|text| text.parse::<IpAddr>().unwrap());
    for address in none {
        assert_eq!(first_host(&[address]), Err(Failure::NotAHost), "{address}");
        assert_eq!(first_host(&[address, IPV6, IPV4]), Ok(IPV6), "{address}");
    }
    assert_eq!(first_host(&none), Err(Failure::NotAHost));
    assert_eq!(first_host(&[IPV4]), Ok(IPV4));
    assert_eq!(first_host(&[]), Err(Failure::NoAddress));
}
