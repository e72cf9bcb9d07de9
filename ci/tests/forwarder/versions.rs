//! Servers of one version of IP, and interfaces without the other.

use crate::{LISTEN, SERVER_PORT};
use exovm::machine::{End, Ipv6Address, Ipv6AddressState};
use exovm_ci::routed::{Routed, Version, guest, guest_ipv6, image, server};
use exovm_ci::{Guest, GuestBuilder};
use exovm_netns::in_namespace;
use std::io::ErrorKind;

#[test]
fn client_of_a_version_without_a_server_is_refused_at_once_and_the_log_says_why() {
    in_namespace!(|| {
        let routed = Routed::build();
        let _listener = routed.listen(SERVER_PORT);
        for version in Version::ALL {
            let options = [format!("--listen={LISTEN}"), format!("--to={}", server(version, SERVER_PORT))];
            let forwarder = image("forwarder", 0).arguments(&[&options[0], &options[1]]).start();
            routed.connect(guest(version, 0, LISTEN)).expect("a connection");
            let other = if version == Version::Ipv4 { Version::Ipv6 } else { Version::Ipv4 };
            let refused = routed.connect(guest(other, 0, LISTEN)).expect_err("nobody to go to");
            assert_eq!(refused.kind(), ErrorKind::ConnectionRefused, "{refused}");
            // Whatever the router held back and the client repeated before they knew where the forwarder is.
            let statistics = forwarder.statistics();
            let [dropped, told] = ["no_server", "errors_sent"]
                .map(|name| statistics.value("forward", name).expect("a counter"));
            assert!(dropped >= 1 && dropped == told, "{dropped} SYNs, {told} errors");
            forwarder.wait_for_log(&format!("are refused: --to has no {other} server"));
            let is_served = version == Version::Ipv6;
            let state = if is_served { Ipv6AddressState::Used } else { Ipv6AddressState::Unserved };
            let told = forwarder.machine().ipv6_addresses(0);
            assert!(told.contains(&Ipv6Address { ip: guest_ipv6(0), state }), "{told:?}");
            assert_eq!(forwarder.machine().serves_given_ipv4(0), !is_served);
            forwarder.stop();
        }
    });
}

#[test]
fn server_of_a_version_that_the_interface_does_not_have_is_named_at_the_start() {
    in_namespace!(|| {
        let start = |builder: GuestBuilder, to: &str| {
            let (end, log) = builder.arguments(&["--listen=80", to]).launch().wait();
            assert_eq!(end, End::PowerOff { status: 1 });
            log.join("\n")
        };
        let log = start(Guest::image("forwarder"), "--to=[2001:db8::2]:80");
        assert!(
            log.contains("no IPv6 address; start the machine with --net tap=...,ip6=ADDRESS/BITS"),
            "{log}"
        );
        let log = start(Guest::image("forwarder").without_ipv4().ipv6_auto(), "--to=[2001:db8::2]:80");
        assert!(log.contains("leave ip6=auto out"), "{log}");
        let log = start(image("forwarder", 0).without_ipv4(), "--to=10.0.0.2:80");
        assert!(
            log.contains("no IPv4 address; start the machine with --net tap=...,ip=ADDRESS/BITS"),
            "{log}"
        );
        let log = start(image("forwarder", 0), "--to=10.0.0.2:80,10.0.0.3:80");
        assert!(log.contains("[2001:db8::2]:80") && log.contains("--help"), "{log}");
    });
}
