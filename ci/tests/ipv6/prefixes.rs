//! A router that says too much, and one whose prefix is good for seconds only.

use super::*;
use router::Prefix;
use std::io::{Read, Write};
use std::net::TcpStream;

/// The /64 prefix with this number.
fn numbered(number: u16) -> Ipv6Addr {
    Ipv6Addr::new(0x2001, 0xdb8, 7, number, 0, 0, 0, 1)
}

#[test]
fn router_that_advertises_twenty_prefixes_leaves_the_given_address_its_place_and_is_named() {
    in_namespace!(|| {
        let site = Site::new().file("file", "content");
        let guest = with_host_addresses(Guest::image("cheetah").site(&site), &[HOST, HOST_LINK_LOCAL]);
        let guest = guest.ipv6_auto().ipv6(GIVEN).without_ipv4().launch();
        let prefixes: Vec<_> = (0..20).map(|number| Prefix::lasting(numbered(number))).collect();
        let router = Router::advertise_all("tap0", HOST_LINK_LOCAL, &prefixes);
        wait_until("the guest is ready", || guest.machine().is_ready(Duration::ZERO));
        wait_until("all places are taken", || used(&guest).len() == 8);
        let used = used(&guest);
        assert_eq!(used[..2], [guest.network().guest_link_local(), GIVEN]);
        assert_eq!(used[2..], [0, 1, 2, 3, 4, 5].map(|number| made_of(&guest, numbered(number))));
        guest.wait_for_log("advertise more prefixes than we take");
        assert_reads(&format!("http://[{GIVEN}]/file"), &[], b"content");
        router.stop();
        assert!(guest.statistics().value("ip", "prefixes_refused").unwrap() >= 14);
        assert_eq!(guest.end(), End::PowerOff { status: 0 });
    });
}

/// The client does not wait for minutes, and who asks at another address goes on.
#[test]
fn connection_ends_with_the_advertised_address_and_the_given_one_serves_on() {
    in_namespace!(|| {
        let site = Site::new().file("file", "content");
        let guest = with_host_addresses(Guest::image("cheetah").site(&site), &[HOST, HOST_LINK_LOCAL]);
        let guest = guest.ipv6_auto().ipv6(GIVEN).without_ipv4().launch();
        let prefix = numbered(1);
        Interface::named("tap0").unwrap().add_address(prefix.into(), PREFIX_BITS).unwrap();
        let prefixes = [Prefix { valid_s: 8, preferred_s: 8, ..Prefix::lasting(prefix) }];
        let router = Router::advertise_all("tap0", HOST_LINK_LOCAL, &prefixes);
        wait_until("the guest is ready", || guest.machine().is_ready(Duration::ZERO));
        let made = made_of(&guest, prefix);
        wait_until("there is an address of the prefix", || used(&guest).contains(&made));
        let open = |address: Ipv6Addr| TcpStream::connect((address, 80)).unwrap();
        let (idle, other) = (open(made), open(GIVEN));
        wait_until("both are open", || established(&guest) == 2);
        router.stop();
        // It is not advertised any more, so its time is soon over.
        wait_until("the address is gone", || !used(&guest).contains(&made));
        wait_until("its connection is gone as well", || established(&guest) == 1);
        assert_eq!(guest.machine().statistics().value("tcp", "address_lost"), Some(1));
        guest.wait_for_log(&format!("{made} is not our address any more"));
        assert_eq!(ask(&other), b"content");
        drop(idle);
        guest.stop();
    });
}

fn established(guest: &Guest) -> u64 {
    guest.machine().statistics().value("tcp", "curr_estab").unwrap()
}

/// The body of the file, over a connection that is open.
fn ask(mut stream: &TcpStream) -> Vec<u8> {
    stream.write_all(b"GET /file HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    let end = answer.windows(4).position(|window| window == b"\r\n\r\n").expect("a head") + 4;
    answer.split_off(end)
}
