//! How the host reaches a guest, in words for people.

use crate::machine::{Ipv6Address, Ipv6AddressState};
use exovm_image::manifest::Serves;
use exovm_user_net::{Protocol, Publish, Published};
use std::fmt::Display;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

/// How the host reaches the guest.
pub(in crate::cli) enum Reach {
    /// Not at all.
    Nothing,
    /// By addresses of its own.
    Tap {
        /// The tap, which has to be named beside a link-local address.
        name: String,
        /// The IPv4 address that it was given; those that it has from servers and routers, or makes itself, it tells.
        ipv4: Option<Ipv4Addr>,
    },
    /// By ports of the host that lead there.
    Ports(Vec<Published>),
}

impl Reach {
    /// Says it, for a guest whose environments serve these ports.
    pub(in crate::cli) fn describe(&self, ports: &[EnvironmentPort]) -> String {
        match self {
            Self::Nothing => String::new(),
            Self::Tap { name, ipv4 } => ports.iter().map(|port| describe_tap(name, *ipv4, port)).collect(),
            Self::Ports(published) => describe_ports(published, ports),
        }
    }

    /// Addresses of the guest that the host can go to, and that were given.
    pub(in crate::cli) fn addresses(&self) -> Vec<String> {
        if let Self::Tap { ipv4: Some(address), .. } = self { vec![address.to_string()] } else { Vec::new() }
    }

    /// Ports of the host that lead to the guest, for people.
    pub(in crate::cli) fn published(&self) -> Vec<String> {
        let Self::Ports(published) = self else { return Vec::new() };
        let line =
            |port: &Published| format!("{} -> {}/{}", port.host, port.asked.guest_port, port.asked.protocol);
        published.iter().map(line).collect()
    }
}

/// The port that an environment serves.
#[derive(Clone, Debug)]
pub(in crate::cli) struct EnvironmentPort {
    pub(in crate::cli) port: u16,
    /// What is spoken there.
    pub(in crate::cli) serves: Serves,
    /// Its number, where there are several.
    pub(in crate::cli) environment: Option<usize>,
    /// It serves at the IPv4 address that it was given.
    pub(in crate::cli) given_ipv4: bool,
    /// The address that it has from a DHCP server.
    pub(in crate::cli) leased: Option<Ipv4Addr>,
    /// Its IPv6 addresses.
    pub(in crate::cli) ipv6: Vec<Ipv6Address>,
}

impl EnvironmentPort {
    /// Which of several it is.
    fn name(&self) -> String {
        self.environment.map_or(String::new(), |number| format!("  (environment {number})"))
    }

    /// Says that it serves there.
    fn describe(&self, host: &dyn Display) -> String {
        match self.serves {
            Serves::Http => format!("serving http://{host}/{}\n", self.name()),
            Serves::Tcp => format!("serving tcp://{host}{}\n", self.name()),
        }
    }
}

/// Says how an environment is reached through a tap.
fn describe_tap(tap: &str, given: Option<Ipv4Addr>, environment: &EnvironmentPort) -> String {
    let at = |host: &dyn Display| match (environment.serves, environment.port) {
        (Serves::Http, 80) => environment.describe(host),
        (_, port) => environment.describe(&format!("{host}:{port}")),
    };
    let ipv4 = given
        .filter(|_| environment.given_ipv4)
        .or(environment.leased)
        .map(|address| at(&address))
        .unwrap_or_default();
    let ipv6 = environment.ipv6.iter().map(|&Ipv6Address { ip, state }| match state {
        Ipv6AddressState::Used if ip.is_unicast_link_local() => at(&format!("[{ip}%{tap}]")),
        Ipv6AddressState::Used => at(&format!("[{ip}]")),
        Ipv6AddressState::Tentative | Ipv6AddressState::Unserved => String::new(),
        Ipv6AddressState::Duplicate => {
            format!(
                "not serving {ip}: another host on the link has it; give the guest another one with ip6=\n"
            )
        }
    });
    ipv4 + &ipv6.collect::<String>()
}

/// Says how a guest whose environments serve these ports is reached through what is published.
fn describe_ports(published: &[Published], ports: &[EnvironmentPort]) -> String {
    let mut text = String::new();
    let mut reached = vec![false; ports.len()];
    for Published { asked, host } in published {
        let Publish { guest_port, protocol, .. } = asked;
        let served = ports.iter().position(|environment| environment.port == *guest_port);
        if let Some(served) = served.filter(|_| *protocol == Protocol::Tcp) {
            reached[served] = true;
            text.push_str(&ports[served].describe(&browsable(*host)));
        } else {
            text.push_str(&format!("publishing {host}/{protocol} for the guest's port {guest_port}\n"));
        }
    }
    for (EnvironmentPort { port, environment, .. }, _) in
        ports.iter().zip(reached).filter(|(_, reached)| !reached)
    {
        let who = environment.map_or("the guest".to_owned(), |number| format!("environment {number}"));
        text.push_str(&format!(
            "{who} serves port {port}, but no port of this host leads there; run it with --publish {}:{port}\n",
            8080 + environment.unwrap_or(0)
        ));
    }
    text
}

/// An address that a browser on this host can go to.
fn browsable(mut host: SocketAddr) -> SocketAddr {
    if host.ip().is_unspecified() {
        host.set_ip(if host.is_ipv4() { Ipv4Addr::LOCALHOST.into() } else { Ipv6Addr::LOCALHOST.into() });
    }
    host
}

#[cfg(test)]
mod tests {
    use super::*;

    fn http() -> EnvironmentPort {
        let (serves, given_ipv4) = (Serves::Http, true);
        EnvironmentPort { port: 80, serves, environment: None, given_ipv4, leased: None, ipv6: Vec::new() }
    }

    #[test]
    fn described_addresses_are_what_curl_takes() {
        let address = |ip: &str, state| Ipv6Address { ip: ip.parse().expect(ip), state };
        let reach = Reach::Tap { name: "tap7".to_owned(), ipv4: Some([10, 80, 0, 2].into()) };
        let ipv6 = vec![
            address("fe80::7", Ipv6AddressState::Used),
            address("2001:db8::2", Ipv6AddressState::Used),
            address("2001:db8::3", Ipv6AddressState::Duplicate),
            address("2001:db8::4", Ipv6AddressState::Tentative),
        ];
        assert_eq!(
            reach.describe(&[EnvironmentPort { ipv6, ..http() }]),
            "serving http://10.80.0.2/\nserving http://[fe80::7%tap7]/\nserving http://[2001:db8::2]/\n\
             not serving 2001:db8::3: another host on the link has it; give the guest another one with ip6=\n"
        );
        let reach = Reach::Tap { name: "tap7".to_owned(), ipv4: None };
        let ipv6 = vec![address("2001:db8::2", Ipv6AddressState::Used)];
        let served = EnvironmentPort { port: 8080, environment: Some(1), ipv6, ..http() };
        assert_eq!(reach.describe(&[served]), "serving http://[2001:db8::2]:8080/  (environment 1)\n");
        let leased = EnvironmentPort { leased: Some([10, 1, 2, 3].into()), ..http() };
        assert_eq!(reach.describe(&[leased]), "serving http://10.1.2.3/\n");
    }

    #[test]
    fn addresses_without_a_port_are_not_described_and_what_is_not_http_is_not_called_so() {
        let reach = Reach::Tap { name: "tap7".to_owned(), ipv4: Some([10, 80, 0, 2].into()) };
        let address = |ip: &str, state| Ipv6Address { ip: ip.parse().expect(ip), state };
        let (link_local, served) =
            (address("fe80::7", Ipv6AddressState::Unserved), address("2001:db8::2", Ipv6AddressState::Used));
        let tcp = EnvironmentPort { serves: Serves::Tcp, ipv6: vec![link_local, served], ..http() };
        assert_eq!(
            reach.describe(std::slice::from_ref(&tcp)),
            "serving tcp://10.80.0.2:80\nserving tcp://[2001:db8::2]:80\n"
        );
        let only_ipv6 = EnvironmentPort { given_ipv4: false, ..tcp.clone() };
        assert_eq!(reach.describe(&[only_ipv6]), "serving tcp://[2001:db8::2]:80\n");
        let asked: Publish = "8080:80".parse().expect("a port");
        let published = Published { asked, host: SocketAddr::from(([127, 0, 0, 1], 8080)) };
        assert_eq!(Reach::Ports(vec![published]).describe(&[tcp]), "serving tcp://127.0.0.1:8080\n");
    }

    #[test]
    fn described_ports_name_where_a_browser_goes_or_the_flag_to_use() {
        let published = |text: &str, port: u16| {
            let asked: Publish = text.parse().expect(text);
            Published { asked, host: SocketAddr::new(asked.host.ip(), port) }
        };
        for (ports, expected) in [
            (vec![published("8080:80", 8080)], "serving http://127.0.0.1:8080/\n"),
            (vec![published("0.0.0.0:0:80", 41234)], "serving http://127.0.0.1:41234/\n"),
            (vec![published("[::]:8080:80", 8080)], "serving http://[::1]:8080/\n"),
            (
                vec![],
                "the guest serves port 80, but no port of this host leads there; run it with --publish 8080:80\n",
            ),
        ] {
            assert_eq!(Reach::Ports(ports).describe(&[http()]), expected);
        }
        let dns = Reach::Ports(vec![published("5353:53/udp", 5353), published("8080:80", 8080)]);
        assert_eq!(
            dns.describe(&[http()]),
            "publishing 127.0.0.1:5353/udp for the guest's port 53\nserving http://127.0.0.1:8080/\n"
        );
    }
}
