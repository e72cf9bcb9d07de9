//! Addresses that another host has already: it is the kernel, and the kernel answers for them.

use super::*;
use abi::boot::probing;

#[test]
fn given_ipv6_address_that_a_host_has_is_named_and_the_others_are_served() {
    in_namespace!(|| {
        let site = Site::new().file("file", "content");
        let guest = with_host_addresses(Guest::image("cheetah").site(&site), &[HOST, HOST_LINK_LOCAL, GIVEN]);
        let guest = guest.ipv6(GIVEN).start();
        let link_local = guest.network().guest_link_local();
        assert_eq!(used(&guest), [link_local]);
        let states = guest.machine().ipv6_addresses(0);
        let taken = states.iter().find(|address| address.ip == GIVEN).map(|address| address.state);
        assert_eq!(taken, Some(Ipv6AddressState::Duplicate));
        let line = guest.wait_for_log(&format!("has our address {GIVEN}"));
        assert!(line.contains("so we do not use it") && line.contains("ip6="), "{line}");
        assert_reads(&format!("http://[{link_local}%tap0]/file"), &[], b"content");
        assert_reads(&format!("http://{}/file", guest.network().guest_address()), &[], b"content");
        assert!(guest.statistics().value("ip", "duplicate_addresses").unwrap() >= 1);
        assert_eq!(guest.end(), End::PowerOff { status: 0 });
    });
}

#[test]
fn all_addresses_that_hosts_have_are_named() {
    in_namespace!(|| {
        let site = Site::new().file("file", "content");
        // What TAP 0's guest makes of its hardware address.
        let link_local: Ipv6Addr = "fe80::78:aff:fe50:2".parse().unwrap();
        let guest = with_ipv4_taken("cheetah", &site).probing(probing::MEANWHILE).ipv6(GIVEN);
        let guest = with_host_addresses(guest, &[HOST, HOST_LINK_LOCAL, GIVEN, link_local]).start();
        for line in [
            format!("has our address {GIVEN}"),
            format!("has our address {link_local}"),
            "claims our address 10.80.0.2".to_owned(),
        ] {
            guest.wait_for_log(&line);
        }
        assert_eq!(guest.end(), End::PowerOff { status: 0 });
    });
}

#[test]
fn guest_whose_addresses_are_all_taken_says_so_and_ends() {
    in_namespace!(|| {
        let site = Site::new().file("file", "content");
        for image in ["cheetah", "plain"] {
            let guest = Guest::image(image).site(&site).ipv6(GIVEN).without_ipv4();
            // What TAP 0's guest makes of its hardware address.
            let link_local = "fe80::78:aff:fe50:2".parse().unwrap();
            let (end, log) = with_host_addresses(guest, &[GIVEN, link_local]).launch().wait();
            assert_eq!(end, End::PowerOff { status: 1 }, "{log:#?}");
            assert!(log.iter().any(|line| line.contains("none is left")), "{log:#?}");
        }
    });
}

/// A guest on whose TAP the host has the guest's IPv4 address, too.
fn with_ipv4_taken(image: &str, site: &Site) -> GuestBuilder {
    Guest::image(image).site(site).wrap_backend(|backend| {
        Interface::named("tap0").unwrap().add_address([10, 80, 0, 2].into(), 24).unwrap();
        backend
    })
}

#[test]
fn host_with_the_given_ipv4_address_is_named_while_the_guest_serves() {
    in_namespace!(|| {
        let site = Site::new().file("file", "content");
        let guest = with_ipv4_taken("cheetah", &site).probing(probing::MEANWHILE).start();
        let line = guest.wait_for_log("claims our address 10.80.0.2");
        assert!(line.contains("which we keep") && line.contains("ip="), "{line}");
        let statistics = guest.statistics();
        let number = |name| statistics.value("ip", name).unwrap();
        assert!(number("arp_probes") >= 1 && number("arp_conflicts") >= 1);
        // Whoever was there first keeps his place in everybody's memory.
        assert_eq!(number("arp_announcements"), 0);
        assert_eq!(guest.end(), End::PowerOff { status: 0 });
    });
}

#[test]
fn address_that_nobody_else_has_is_announced_while_the_guest_serves() {
    in_namespace!(|| {
        let site = Site::new().file("file", "content");
        let guest = Guest::image("cheetah").site(&site).probing(probing::MEANWHILE).start();
        guest.get("/file").assert_text("content");
        wait_until("both announcements", || {
            let statistics = guest.machine().statistics();
            statistics.value("ip", "arp_announcements") == Some(2)
        });
        let statistics = guest.statistics();
        let number = |name| statistics.value("ip", name);
        assert_eq!((number("arp_probes"), number("arp_conflicts")), (Some(3), Some(0)));
        guest.get("/file").assert_text("content");
        guest.stop();
    });
}

#[test]
fn address_that_is_probed_first_is_served_later_or_never() {
    in_namespace!(|| {
        let site = Site::new().file("file", "content");
        {
            let started = Instant::now();
            let guest = Guest::image("cheetah").site(&site).probing(probing::BEFORE).start();
            // Three probes that nobody answers take more than 4 s.
            assert!(started.elapsed() > Duration::from_secs(4), "{:?}", started.elapsed());
            guest.get("/file").assert_text("content");
            guest.stop();
        }
        for image in ["cheetah", "plain"] {
            let (end, log) = with_ipv4_taken(image, &site).probing(probing::BEFORE).launch().wait();
            assert_eq!(end, End::PowerOff { status: 1 }, "{log:#?}");
            assert!(log.iter().any(|line| line.contains("has our address 10.80.0.2")), "{log:#?}");
            assert!(log.iter().any(|line| line.contains("none is left")), "{log:#?}");
        }
    });
}
