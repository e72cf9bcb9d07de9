//! `--net`: what the guest's interface is connected to, and which address the guest gets.

use super::Failure;
use crate::backend::tap::{Tap, TapError};
use crate::backend::user::User;
use crate::machine::{NetSetup, QUEUE_PAIRS};
use abi::boot::Ipv4Config;
use exovm_netns::Interface;
use exovm_user_net::{GATEWAY_ADDRESS, GUEST_ADDRESS, GUEST_MAC, Outbound, Protocol, Publish, Published};
use std::hash::{Hash, Hasher};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

/// A tap that exovm makes itself.
const AUTO_NAME_PREFIX: &str = "exovm";
const AUTO_HOST: Ipv4Addr = Ipv4Addr::new(10, 80, 0, 1);
const AUTO_PREFIX_LEN: u8 = 24;
const AUTO_TRANSMIT_QUEUE_FRAMES: u32 = 4000;

/// The parsed argument.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct NetArgument {
    kind: Kind,
    address: Option<(Ipv4Addr, u8)>,
    /// A DHCP server is to be asked for the address.
    dhcp: bool,
    gateway: Option<Ipv4Addr>,
    mac: Option<[u8; 6]>,
    /// Of the user network: what the guest may reach.
    outbound: Outbound,
    host_ports: Vec<u16>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Kind {
    None,
    User,
    AutoTap,
    Tap(String),
}

/// An opened network: what the machine takes, and what must be kept until it has ended.
pub(super) struct OpenNet {
    pub(super) setup: NetSetup,
    /// The interface on the host, if exovm made it.
    pub(super) host: Option<Interface>,
    /// How the host reaches the guest.
    pub(super) reach: Reach,
}

/// How the host reaches the guest.
pub(super) enum Reach {
    /// Not at all.
    Nothing,
    /// By an address of its own.
    Address(Ipv4Addr),
    /// By one that a DHCP server gives it.
    Leased,
    /// By ports of the host that lead there.
    Ports(Vec<Published>),
}

impl Reach {
    /// Says it, for a guest whose environments serve these ports.
    pub(super) fn describe(&self, ports: &[EnvironmentPort]) -> String {
        let at = |address: Ipv4Addr, environment: &EnvironmentPort| match environment.port {
            80 => format!("serving http://{address}/{}\n", environment.name()),
            port => format!("serving http://{address}:{port}/{}\n", environment.name()),
        };
        match self {
            Self::Nothing => String::new(),
            Self::Address(address) => ports.iter().map(|environment| at(*address, environment)).collect(),
            Self::Leased => {
                ports.iter().filter_map(|environment| Some(at(environment.leased?, environment))).collect()
            }
            Self::Ports(published) => describe_ports(published, ports),
        }
    }

    /// Addresses of the guest that the host can go to.
    pub(super) fn addresses(&self) -> Vec<String> {
        if let Self::Address(address) = self { vec![address.to_string()] } else { Vec::new() }
    }

    /// Ports of the host that lead to the guest, for people.
    pub(super) fn published(&self) -> Vec<String> {
        let Self::Ports(published) = self else { return Vec::new() };
        let line =
            |port: &Published| format!("{} -> {}/{}", port.host, port.asked.guest_port, port.asked.protocol);
        published.iter().map(line).collect()
    }
}

/// The port that an environment serves.
#[derive(Clone, Copy, Debug)]
pub(super) struct EnvironmentPort {
    pub(super) port: u16,
    /// Its number, where there are several.
    pub(super) environment: Option<usize>,
    /// The address that it has from a DHCP server.
    pub(super) leased: Option<Ipv4Addr>,
}

impl EnvironmentPort {
    /// Which of several it is.
    fn name(self) -> String {
        self.environment.map_or(String::new(), |number| format!("  (environment {number})"))
    }
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
            text.push_str(&format!("serving http://{}/{}\n", browsable(*host), ports[served].name()));
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

impl FromStr for NetArgument {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut parts = text.split(',');
        let kind = match parts.next().unwrap_or_default() {
            "none" => Kind::None,
            "user" => Kind::User,
            "tap=auto" => Kind::AutoTap,
            other => match other.strip_prefix("tap=") {
                Some(name) if !name.is_empty() => Kind::Tap(name.to_owned()),
                _ => return Err(format!("{other:?} is none of user, tap=NAME, tap=auto, none")),
            },
        };
        let mut argument = Self {
            kind,
            address: None,
            dhcp: false,
            gateway: None,
            mac: None,
            outbound: Outbound::Refused,
            host_ports: Vec::new(),
        };
        for part in parts {
            let (key, value) = part.split_once('=').unwrap_or((part, ""));
            match key {
                "ip" if value == "dhcp" => argument.dhcp = true,
                "ip" => argument.address = Some(parse_address(value)?),
                "gw" => {
                    argument.gateway =
                        Some(value.parse().map_err(|_| format!("gw={value}: not an IPv4 address"))?)
                }
                "mac" => argument.mac = Some(parse_mac(value)?),
                "outbound" if part == key && argument.kind == Kind::User => {
                    argument.outbound = Outbound::Allowed;
                }
                "allow-host" if argument.kind == Kind::User => {
                    argument.host_ports.push(parse_host_port(value)?);
                }
                _ if argument.kind == Kind::User => {
                    return Err(format!("{part:?} is none of outbound, allow-host=PORT, mac=MAC"));
                }
                _ => return Err(format!("{part:?} is none of ip=ADDRESS/BITS, gw=ADDRESS, mac=MAC")),
            }
        }
        if argument.dhcp && (argument.address.is_some() || argument.gateway.is_some()) {
            return Err(
                "ip=dhcp: the server says address and gateway; leave the other ip= and gw= out".to_owned()
            );
        }
        let says_address = argument.dhcp || argument.address.is_some() || argument.gateway.is_some();
        if argument.kind == Kind::User && says_address {
            return Err(format!(
                "the user network's addresses are fixed: the guest is {GUEST_ADDRESS}, the gateway {GATEWAY_ADDRESS}; \
                 leave ip= and gw= out, or use a tap"
            ));
        }
        Ok(argument)
    }
}

fn parse_address(text: &str) -> Result<(Ipv4Addr, u8), String> {
    let wrong = || format!("ip={text}: write it as ADDRESS/BITS, for example 10.80.0.2/24, or as dhcp");
    let (address, bits) = text.split_once('/').ok_or_else(wrong)?;
    let bits = bits.parse().ok().filter(|bits| (1..=30).contains(bits)).ok_or_else(wrong)?;
    Ok((address.parse().map_err(|_| wrong())?, bits))
}

fn parse_host_port(text: &str) -> Result<u16, String> {
    text.parse().ok().filter(|&port| port != 0).ok_or_else(|| {
        format!("allow-host={text}: say one TCP or UDP port of this host, for example allow-host=5432")
    })
}

fn parse_mac(text: &str) -> Result<[u8; 6], String> {
    let wrong =
        || format!("mac={text}: write it as six bytes, for example 02:00:00:00:00:02, not a group address");
    let bytes: Vec<u8> = text
        .split(':')
        .map(|byte| u8::from_str_radix(byte, 16))
        .collect::<Result<_, _>>()
        .map_err(|_| wrong())?;
    let mac: [u8; 6] = bytes.try_into().map_err(|_| wrong())?;
    if mac[0] & 1 != 0 || mac == [0; 6] { Err(wrong()) } else { Ok(mac) }
}

impl NetArgument {
    /// Whether the guest's address comes from a DHCP server.
    pub(super) fn asks_dhcp(&self) -> bool {
        self.dhcp
    }

    /// Opens the network, and the ports of the host that lead to the guest.
    pub(super) fn open(&self, publish: &[Publish]) -> Result<Option<OpenNet>, Failure> {
        if self.kind != Kind::User && !publish.is_empty() {
            return Err(
                "--publish is for --net user; on a tap the guest has an address of its own, and needs none"
                    .into(),
            );
        }
        let (tap, host) = match &self.kind {
            Kind::None => return Ok(None),
            Kind::User => return self.open_user(publish).map(Some),
            Kind::Tap(name) => (Tap::open(name)?, None),
            Kind::AutoTap => {
                let (tap, interface) = make_tap()?;
                (tap, Some(interface))
            }
        };
        let mtu_bytes = tap.mtu_bytes()?.min(u32::from(u16::MAX)) as u16;
        if !tap.is_up()? {
            return Err(
                format!("tap {0} is down; switch it on:  sudo ip link set dev {0} up", tap.name()).into()
            );
        }
        let (ipv4, [a, b, c, d], reach) = if self.dhcp {
            let ipv4 = Ipv4Config { dhcp: 1, ..Ipv4Config::default() };
            (ipv4, number_of(tap.name()), Reach::Leased)
        } else {
            let (address, prefix_len) = match self.address {
                Some(address) => address,
                None => next_address(tap.name())?,
            };
            let gateway = self.gateway.map_or([0; 4], |gateway| gateway.octets());
            let prefix_len = u32::from(prefix_len);
            let ipv4 = Ipv4Config { address: address.octets(), gateway, prefix_len, dhcp: 0 };
            (ipv4, address.octets(), Reach::Address(address))
        };
        let mac = self.mac.unwrap_or([0x02, 0x78, a, b, c, d]);
        let setup = NetSetup { backend: Box::new(tap), ipv4, mac, mtu_bytes, queue_pairs: QUEUE_PAIRS };
        Ok(Some(OpenNet { setup, host, reach }))
    }

    fn open_user(&self, publish: &[Publish]) -> Result<OpenNet, Failure> {
        exovm_user_net::allow_descriptors();
        let mac = self.mac.unwrap_or(GUEST_MAC);
        let user = User::new(exovm_user_net::Config {
            guest_mac: mac,
            publish: publish.to_vec(),
            outbound: self.outbound,
            host_ports: self.host_ports.clone(),
            ..exovm_user_net::Config::default()
        })?;
        let published = user.published().to_vec();
        let setup = NetSetup::user(user, mac);
        Ok(OpenNet { setup, host: None, reach: Reach::Ports(published) })
    }
}

/// An address that a browser on this host can go to.
fn browsable(mut host: SocketAddr) -> SocketAddr {
    if host.ip().is_unspecified() {
        host.set_ip(if host.is_ipv4() { Ipv4Addr::LOCALHOST.into() } else { Ipv6Addr::LOCALHOST.into() });
    }
    host
}

/// Makes a tap that vanishes with its descriptor, with an address on the host's side.
fn make_tap() -> Result<(Tap, Interface), Failure> {
    let explain = |error: &dyn std::fmt::Display| {
        format!(
            "cannot make a tap: {error}\n\
             Making network interfaces takes root or CAP_NET_ADMIN. Either let root make one for you,\n{}\n\
             and use --net tap=tap0, or run in a network namespace of your own:  unshare -rn exovm run ...",
            crate::backend::tap::commands("tap0")
        )
    };
    let mut made = None;
    for number in 0..100u8 {
        let interface = Interface::named(&format!("{AUTO_NAME_PREFIX}{number}"))?;
        if interface.exists() {
            continue;
        }
        match Tap::create(interface.name()) {
            Ok(tap) => {
                made = Some((tap, interface, number));
                break;
            }
            // Another machine, which is starting too, was faster.
            Err(TapError::Busy { .. }) => {}
            Err(error) => return Err(explain(&error).into()),
        }
    }
    let (tap, interface, number) =
        made.ok_or("there are a hundred exovm taps already; remove some with `sudo ip link del exovm0`")?;
    let [a, b, _, d] = AUTO_HOST.octets();
    let host = IpAddr::V4(Ipv4Addr::new(a, b, number, d));
    interface.add_address(host, AUTO_PREFIX_LEN).map_err(|error| explain(&error))?;
    interface.set_transmit_queue_length(AUTO_TRANSMIT_QUEUE_FRAMES).map_err(|error| explain(&error))?;
    interface.up().map_err(|error| explain(&error))?;
    Ok((tap, interface))
}

/// Four bytes that this tap of this host has each time: with them in its MAC address a guest gets the same lease again.
fn number_of(tap: &str) -> [u8; 4] {
    let host = std::fs::read_to_string("/etc/machine-id").unwrap_or_default();
    let mut hasher = std::hash::DefaultHasher::new();
    (host.trim(), tap).hash(&mut hasher);
    (hasher.finish() as u32).to_be_bytes()
}

/// The address behind the tap's own: the host has .1, the guest gets .2.
fn next_address(name: &str) -> Result<(Ipv4Addr, u8), Failure> {
    let (host, bits) = ipv4_of(name).ok_or_else(|| {
        format!(
            "tap {name} has no IPv4 address, so the guest's cannot be guessed. Give it one:\n  \
             sudo ip addr add 10.80.0.1/24 dev {name}\nor say the guest's: --net tap={name},ip=10.80.0.2/24"
        )
    })?;
    let mask = u32::MAX << (32 - u32::from(bits.clamp(1, 30)));
    let host = u32::from(host);
    let next = (host + 1) & !mask | host & mask;
    // Not the network's own address, not its broadcast address.
    let usable = |address: u32| address & !mask != 0 && address & !mask != !mask;
    let guest = [next, host.wrapping_sub(1)].into_iter().find(|&address| usable(address));
    Ok((Ipv4Addr::from(guest.ok_or("the tap's network has no second address")?), bits))
}

/// First IPv4 address of an interface and its prefix length.
fn ipv4_of(name: &str) -> Option<(Ipv4Addr, u8)> {
    let mut list = std::ptr::null_mut();
    // SAFETY: getifaddrs fills `list` with a list that freeifaddrs frees below.
    if unsafe { libc::getifaddrs(&mut list) } != 0 {
        return None;
    }
    let mut found = None;
    let mut entry = list;
    while !entry.is_null() && found.is_none() {
        // SAFETY: entries of the list are valid until it is freed, names end with NUL, and an address of family
        // AF_INET is a sockaddr_in.
        unsafe {
            let ifa = &*entry;
            let matches = std::ffi::CStr::from_ptr(ifa.ifa_name).to_bytes() == name.as_bytes();
            if matches
                && !ifa.ifa_addr.is_null()
                && !ifa.ifa_netmask.is_null()
                && (*ifa.ifa_addr).sa_family == libc::AF_INET as u16
            {
                let address = (*ifa.ifa_addr.cast::<libc::sockaddr_in>()).sin_addr.s_addr;
                let mask = (*ifa.ifa_netmask.cast::<libc::sockaddr_in>()).sin_addr.s_addr;
                found = Some((Ipv4Addr::from(u32::from_be(address)), mask.count_ones() as u8));
            }
            entry = ifa.ifa_next;
        }
    }
    // SAFETY: the list came from getifaddrs and is not used any more.
    unsafe { libc::freeifaddrs(list) };
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parse_tap_with_address() {
        let argument: NetArgument =
            "tap=tap7,ip=10.1.2.3/16,gw=10.1.0.1,mac=02:00:00:00:00:09".parse().expect("good");
        assert_eq!(argument.kind, Kind::Tap("tap7".to_owned()));
        assert_eq!(argument.address, Some((Ipv4Addr::new(10, 1, 2, 3), 16)));
        assert_eq!(argument.gateway, Some(Ipv4Addr::new(10, 1, 0, 1)));
        assert_eq!(argument.mac, Some([2, 0, 0, 0, 0, 9]));
        assert_eq!("user".parse::<NetArgument>().expect("good").kind, Kind::User);
        assert_eq!("none".parse::<NetArgument>().expect("good").kind, Kind::None);
        assert_eq!("tap=auto".parse::<NetArgument>().expect("good").kind, Kind::AutoTap);
    }

    #[test]
    fn parse_tap_whose_address_a_server_says() {
        let argument: NetArgument = "tap=tap7,ip=dhcp".parse().expect("good");
        assert_eq!((argument.asks_dhcp(), argument.address), (true, None));
        let leased = EnvironmentPort { port: 80, environment: None, leased: Some([10, 1, 2, 3].into()) };
        assert_eq!(Reach::Leased.describe(&[leased]), "serving http://10.1.2.3/\n");
        assert_eq!(number_of("tap7"), number_of("tap7"));
        assert_ne!(number_of("tap7"), number_of("tap8"));
    }

    #[test]
    fn parse_user_network_with_what_the_guest_may_reach() {
        let argument: NetArgument =
            "user,outbound,allow-host=5432,allow-host=53,mac=02:00:00:00:00:09".parse().expect("good");
        assert_eq!((argument.kind, argument.outbound), (Kind::User, Outbound::Allowed));
        assert_eq!((argument.host_ports, argument.mac), (vec![5432, 53], Some([2, 0, 0, 0, 0, 9])));
        let default: NetArgument = "user".parse().expect("good");
        assert_eq!((default.outbound, default.host_ports), (Outbound::Refused, vec![]));
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
            assert_eq!(
                Reach::Ports(ports).describe(&[EnvironmentPort {
                    port: 80,
                    environment: None,
                    leased: None
                }]),
                expected
            );
        }
        let dns = Reach::Ports(vec![published("5353:53/udp", 5353), published("8080:80", 8080)]);
        assert_eq!(
            dns.describe(&[EnvironmentPort { port: 80, environment: None, leased: None }]),
            "publishing 127.0.0.1:5353/udp for the guest's port 53\nserving http://127.0.0.1:8080/\n"
        );
    }

    #[test]
    fn parse_nonsense_says_what_there_is() {
        for (text, expected) in [
            ("tun=x", "tap=NAME"),
            ("tap=", "tap=NAME"),
            ("user,ip=10.0.2.3/24", "addresses are fixed"),
            ("user,outbound=yes", "outbound, allow-host=PORT"),
            ("user,inbound", "outbound, allow-host=PORT"),
            ("user,allow-host=0", "allow-host=5432"),
            ("tap=a,outbound", "ip=ADDRESS/BITS"),
            ("tap=a,ip=10.0.0.1", "ADDRESS/BITS"),
            ("tap=a,ip=10.0.0.1/33", "ADDRESS/BITS"),
            ("tap=a,ip=x/24", "ADDRESS/BITS"),
            ("tap=a,ip=dhcp,gw=10.0.0.1", "the server says"),
            ("tap=a,ip=dhcp,ip=10.0.0.1/24", "the server says"),
            ("user,ip=dhcp", "addresses are fixed"),
            ("tap=a,gw=1", "not an IPv4 address"),
            ("tap=a,mac=01:00:00:00:00:00", "group address"),
            ("tap=a,speed=9", "ip=ADDRESS/BITS"),
        ] {
            let error = text.parse::<NetArgument>().expect_err(text);
            assert!(error.contains(expected), "{text}: {error}");
        }
    }
}
