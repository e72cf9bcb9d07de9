//! Name servers that an IPv6 router advertises (RFC 8106): dnsmasq is the router, and the name server.

use super::*;

/// Nobody has it.
const NOBODY_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 80, 0, 0, 0, 0x77);
const TARGET: &str = "http://www.test";

/// Routers have a link-local address; this is the host's (RFC 4861 6.1.2).
const HOST_LINK_LOCAL: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1);

/// Has the host have its addresses before the guest begins.
fn with_router(guest: GuestBuilder) -> GuestBuilder {
    with_host_v6(guest).wrap_backend(|backend| {
        Interface::named("tap0").unwrap().add_address(HOST_LINK_LOCAL.into(), 64).unwrap();
        backend
    })
}

/// Advertises itself, a prefix and these name servers, as dnsmasq writes them, and knows `www.test`.
fn router(servers: &str, options: &[&str]) -> Dnsmasq {
    let record = format!("--host-record=www.test,{HOST_V6}");
    let servers = format!("--dhcp-option=option6:dns-server,{servers}");
    let prefix = Ipv6Addr::from_bits(HOST_V6.to_bits() >> 64 << 64);
    let prefix = format!("--dhcp-range={prefix},ra-only");
    let own = ["--enable-ra", "--no-ping", &prefix, &record, &servers];
    Dnsmasq::start(&[&own[..], options].concat())
}

/// Whether webswamp finds the server by its name. A router's word may come later than it is waited for on a busy host, so it may
/// try again.
fn finds(server: &Server, guest: impl Fn() -> GuestBuilder) -> bool {
    let target = format!("{TARGET}:{}/", server.port);
    (0..3).any(|_| {
        let guest = with_router(guest()).arguments(&["--target", &target, "-c", "1", "-n", "5"]);
        guest.launch().wait().0 == End::PowerOff { status: 0 }
    })
}

fn automatic() -> GuestBuilder {
    Guest::image("webswamp").ipv6_auto()
}

#[test]
fn router_says_whom_to_ask_where_there_is_only_ipv6() {
    in_namespace!(|| {
        let server = Server::start(Manners::Good(64));
        // The second is dnsmasq's own link-local address.
        for servers in [format!("[{HOST_V6}]"), "[fe80::]".to_owned()] {
            let dnsmasq = router(&servers, &[]);
            assert!(finds(&server, || automatic().without_ipv4()), "{servers}: {}", dnsmasq.log());
            assert!(dnsmasq.questions("AAAA", "www.test") >= 1);
            assert_eq!(dnsmasq.questions("A", "www.test"), 0);
        }
    });
}

/// Leases 10.80.0.20 and says that this server is to be asked, beside the router's word that it is the host.
fn router_with_leases(name_server: Ipv4Addr) -> Dnsmasq {
    let name_server = format!("--dhcp-option=option:dns-server,{name_server}");
    let lease = ["--dhcp-range=10.80.0.20,10.80.0.20,1h", "--dhcp-authoritative", &name_server];
    router(&format!("[{HOST_V6}]"), &lease)
}

#[test]
fn routers_word_is_taken_where_nobody_answers_at_the_leases() {
    in_namespace!(|| {
        let server = Server::start(Manners::Good(64));
        let dnsmasq = router_with_leases(Ipv4Addr::new(10, 80, 0, 77));
        assert!(finds(&server, || automatic().dhcp()), "{}", dnsmasq.log());
    });
}

#[test]
fn leases_word_comes_before_the_routers() {
    in_namespace!(|| {
        let server = Server::start(Manners::Good(64));
        // On a busy host a lease may take longer than it is waited for.
        let is_lease_first = |_| {
            let dnsmasq = router_with_leases(HOST);
            assert!(finds(&server, || automatic().dhcp()), "{}", dnsmasq.log());
            let log = dnsmasq.log();
            let first = log.lines().find(|line| line.contains("query[AAAA] www.test")).expect("it was asked");
            first.contains("from 10.80.0.20")
        };
        assert!((0..3).any(is_lease_first));
    });
}

#[test]
fn users_word_is_taken_alone() {
    in_namespace!(|| {
        let dnsmasq = router(&format!("[{HOST_V6}]"), &[]);
        let guest = with_router(automatic().without_ipv4().name_server(NOBODY_V6));
        let said = failure(guest, TARGET);
        assert!(said.contains("no name server answered"), "{said}");
        assert_eq!(dnsmasq.questions("AAAA", "www.test"), 0, "{}", dnsmasq.log());
    });
}
