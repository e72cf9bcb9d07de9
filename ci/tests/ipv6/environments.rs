//! Environments that share an interface and all of its addresses, each with a port of its own: the first one speaks for all with the
//! link, the others hear what it hears.

use super::*;
use exovm::backend::disk::Access;
use exovm_ci::make_image;

/// A machine with two environments, of which each serves a file of its own.
fn two(scratch: &Path) -> GuestBuilder {
    let mut guest = Guest::image("cheetah");
    for content in ["first", "second"] {
        let site = Site::new().file("file", content);
        let image = scratch.join(content);
        make_image(site.path(), &image);
        guest = guest.disk(&image, Access::ReadOnly);
    }
    guest.environments(2)
}

/// Addresses that an environment says it uses.
fn used_by(guest: &Guest, environment: usize) -> Vec<Ipv6Addr> {
    let addresses = guest.machine().ipv6_addresses(environment);
    let used = addresses.iter().filter(|address| address.state == Ipv6AddressState::Used);
    used.map(|address| address.ip).collect()
}

#[test]
fn environments_that_share_an_address_are_each_reached_at_their_port() {
    in_namespace!(|| {
        let scratch = tempfile::tempdir().unwrap();
        let guest = with_host_addresses(two(scratch.path()), &[HOST, HOST_LINK_LOCAL]).ipv6(GIVEN).launch();
        wait_until("both are ready", || guest.machine().is_ready(Duration::ZERO));
        let link_local = guest.network().guest_link_local();
        for host in [format!("[{GIVEN}]"), format!("[{link_local}%tap0]"), "10.80.0.2".to_owned()] {
            assert_reads(&format!("http://{host}/file"), &[], b"first");
            assert_reads(&format!("http://{host}:81/file"), &[], b"second");
        }
        guest.stop();
    });
}

/// Both make the same address of what the router advertises, which nobody knew when their ports were given to them, and ask once.
#[test]
fn advertised_prefix_makes_one_address_for_all_environments_and_each_is_reached_at_its_port() {
    in_namespace!(|| {
        Interface::named("lo").unwrap().add_address(FAR.into(), 128).unwrap();
        let scratch = tempfile::tempdir().unwrap();
        let capture = scratch.path().join("frames.pcapng");
        let guest = with_host_addresses(two(scratch.path()), &[HOST, HOST_LINK_LOCAL]);
        let guest = guest.ipv6_auto().without_ipv4().pcap(&capture).launch();
        let router = Router::advertise("tap0", HOST_LINK_LOCAL, HOST);
        wait_until("both are ready", || guest.machine().is_ready(Duration::ZERO));
        let made = made_of(&guest, HOST);
        let link_local = guest.network().guest_link_local();
        for environment in [0, 1] {
            wait_until("there is an address of the prefix", || used_by(&guest, environment).contains(&made));
            assert_eq!(used_by(&guest, environment), [link_local, made]);
        }
        for host in [format!("[{made}]"), format!("[{link_local}%tap0]")] {
            assert_reads(&format!("http://{host}/file"), &[], b"first");
            assert_reads(&format!("http://{host}:81/file"), &[], b"second");
        }
        // Beyond the link, through the router that both heard.
        let far = FAR.to_string();
        assert_reads(&format!("http://[{made}]/file"), &["--interface", &far], b"first");
        assert_reads(&format!("http://[{made}]:81/file"), &["--interface", &far], b"second");
        router.stop();
        let statistics = guest.statistics();
        let of =
            |environment, name| statistics.labelled("ip", name, &[("environment", environment)]).unwrap();
        let (first, second) = (|name| of("0", name), |name| of("1", name));
        assert_eq!((first("address_probes"), second("address_probes")), (2, 0));
        assert_eq!((first("duplicate_addresses"), second("duplicate_addresses")), (0, 0));
        assert!(second("router_advertisements") >= 1 && second("neighbour_advertisements") == 0);
        let metrics = guest.machine().placement().nic().expect("a NIC").metrics();
        assert!(metrics.receive_link_copies >= 1);
        // The second one sends nothing that it may not send.
        assert_eq!(metrics.send_dropped_flow, 0);
        guest.stop();
    });
}

#[test]
fn address_that_a_host_has_is_used_by_no_environment() {
    in_namespace!(|| {
        let scratch = tempfile::tempdir().unwrap();
        let guest = with_host_addresses(two(scratch.path()), &[HOST, HOST_LINK_LOCAL, GIVEN]);
        let guest = guest.ipv6(GIVEN).launch();
        wait_until("both are ready", || guest.machine().is_ready(Duration::ZERO));
        let link_local = guest.network().guest_link_local();
        for environment in [0, 1] {
            assert_eq!(used_by(&guest, environment), [link_local], "environment {environment}");
        }
        assert_reads(&format!("http://[{link_local}%tap0]:81/file"), &[], b"second");
        guest.wait_for_log(&format!("has our address {GIVEN}"));
        assert_eq!(guest.end(), End::PowerOff { status: 0 });
    });
}
