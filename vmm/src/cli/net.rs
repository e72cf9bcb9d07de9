//! `--net`: what the guest's interface is connected to, and which address the guest gets.

mod dns;
mod ipv6;
mod reach;

pub(super) use reach::{EnvironmentPort, Reach};

use super::Failure;
use crate::backend::tap::{Tap, TapError};
use crate::backend::user::User;
use crate::machine::{NetSetup, QUEUE_PAIRS};
use abi::boot::{Ipv4Config, probing};
use dns::{DnsArgument, Families};
use exovm_netns::Interface;
use exovm_user_net::{GATEWAY_ADDRESS, GUEST_ADDRESS, GUEST_MAC, Outbound, Publish};
use ipv6::{Ipv6Argument, MTU_BYTES_MIN};
use std::hash::{Hash, Hasher};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
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
    ipv4: Ipv4Origin,
    gateway: Option<Ipv4Addr>,
    /// The link is asked about the address before it is used.
    probe: bool,
    ipv6: Ipv6Argument,
    dns: DnsArgument,
    mac: Option<[u8; 6]>,
    /// Of the user network: what the guest may reach.
    outbound: Outbound,
    host_ports: Vec<u16>,
}

/// Where the guest's IPv4 address comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ipv4Origin {
    /// It is guessed from the tap's own, unless that has none and the guest has IPv6.
    Guessed,
    Given(Ipv4Addr, u8),
    Dhcp,
    None,
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
            ipv4: Ipv4Origin::Guessed,
            gateway: None,
            probe: false,
            ipv6: Ipv6Argument::default(),
            dns: DnsArgument::default(),
            mac: None,
            outbound: Outbound::Refused,
            host_ports: Vec::new(),
        };
        for part in parts {
            let (key, value) = part.split_once('=').unwrap_or((part, ""));
            match key {
                "ip" if argument.ipv4 != Ipv4Origin::Guessed => {
                    return Err(format!("ip={value}: there is an ip= already; leave one out"));
                }
                "ip" => argument.ipv4 = parse_ipv4(value)?,
                "ip6" => argument.ipv6.add(value)?,
                "gw6" => argument.ipv6.set_gateway(value)?,
                "dns" => argument.dns.add(value)?,
                "probe" if part == key => argument.probe = true,
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
                    return Err(format!(
                        "{part:?} is none of outbound, allow-host=PORT, dns=ADDRESS, mac=MAC"
                    ));
                }
                _ => {
                    return Err(format!(
                        "{part:?} is none of ip=ADDRESS/BITS, gw=ADDRESS, ip6=ADDRESS/BITS, gw6=ADDRESS, dns=ADDRESS, probe, mac=MAC"
                    ));
                }
            }
        }
        argument.check()?;
        Ok(argument)
    }
}

impl NetArgument {
    /// Whether the parts go together.
    fn check(&self) -> Result<(), String> {
        self.ipv6.check()?;
        if self.kind != Kind::User {
            self.check_dns(self.ipv4 != Ipv4Origin::None)?;
        }
        let says_gateway = self.gateway.is_some();
        match self.ipv4 {
            Ipv4Origin::Dhcp if says_gateway => {
                return Err("ip=dhcp: the server says address and gateway; leave gw= out".to_owned());
            }
            Ipv4Origin::Dhcp if self.probe => {
                return Err(
                    "ip=dhcp: such an address is always probed before it is used; leave probe out".to_owned()
                );
            }
            Ipv4Origin::None if says_gateway || self.probe => {
                return Err("ip=none: without an IPv4 address, leave gw= and probe out".to_owned());
            }
            Ipv4Origin::None if !self.ipv6.is_on() => {
                return Err("ip=none leaves the guest without an address; say ip6= as well".to_owned());
            }
            _ => {}
        }
        if self.kind != Kind::User {
            return Ok(());
        }
        if self.ipv6.is_said() {
            return Err(
                "the user network is IPv4 (clients reach the guest through --publish '[::1]:8080:80' by IPv6 as well); for \
                 ip6= use a tap"
                    .to_owned(),
            );
        }
        if self.ipv4 != Ipv4Origin::Guessed || says_gateway || self.probe {
            return Err(format!(
                "the user network's addresses are fixed: the guest is {GUEST_ADDRESS}, the gateway {GATEWAY_ADDRESS}; \
                 leave ip=, gw= and probe out, or use a tap"
            ));
        }
        self.dns.check_user(self.outbound, &self.host_ports)
    }

    /// Whether a guest on a tap has addresses to ask name servers from.
    fn check_dns(&self, has_ipv4: bool) -> Result<(), String> {
        self.dns.check(Families { ipv4: has_ipv4, ipv6: self.ipv6.is_on() })
    }
}

fn parse_ipv4(text: &str) -> Result<Ipv4Origin, String> {
    match text {
        "dhcp" => return Ok(Ipv4Origin::Dhcp),
        "none" => return Ok(Ipv4Origin::None),
        _ => {}
    }
    let wrong =
        || format!("ip={text}: write it as ADDRESS/BITS, for example 10.80.0.2/24, or as dhcp or none");
    let (address, bits) = text.split_once('/').ok_or_else(wrong)?;
    let bits = bits.parse().ok().filter(|bits| (1..=30).contains(bits)).ok_or_else(wrong)?;
    Ok(Ipv4Origin::Given(address.parse().map_err(|_| wrong())?, bits))
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
        self.ipv4 == Ipv4Origin::Dhcp
    }

    /// Whether the guest has IPv6.
    pub(super) fn has_ipv6(&self) -> bool {
        self.ipv6.is_on()
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
                let (tap, interface) = make_tap(self.ipv6.for_host())?;
                (tap, Some(interface))
            }
        };
        let mtu_bytes = tap.mtu_bytes()?.min(u32::from(u16::MAX)) as u16;
        if !tap.is_up()? {
            return Err(
                format!("tap {0} is down; switch it on:  sudo ip link set dev {0} up", tap.name()).into()
            );
        }
        if self.ipv6.is_on() && mtu_bytes < MTU_BYTES_MIN {
            return Err(format!(
                "tap {0} has an MTU of {mtu_bytes} bytes and IPv6 needs {MTU_BYTES_MIN}; raise it, or leave ip6= out:  \
                 sudo ip link set dev {0} mtu 1500",
                tap.name()
            )
            .into());
        }
        let address = match self.ipv4 {
            Ipv4Origin::Given(address, bits) => Some((address, bits)),
            Ipv4Origin::Dhcp | Ipv4Origin::None => None,
            Ipv4Origin::Guessed if self.ipv6.is_on() => next_address(tap.name()).ok(),
            Ipv4Origin::Guessed => Some(next_address(tap.name())?),
        };
        self.check_dns(address.is_some() || self.asks_dhcp())?;
        let ipv4 = match address {
            Some((address, prefix_len)) => Ipv4Config {
                address: address.octets(),
                gateway: self.gateway.map_or([0; 4], |gateway| gateway.octets()),
                prefix_len: u32::from(prefix_len),
                dhcp: 0,
                probing: if self.probe { probing::BEFORE } else { probing::MEANWHILE },
            },
            None => Ipv4Config { dhcp: self.asks_dhcp().into(), ..Ipv4Config::default() },
        };
        let [a, b, c, d] = number_of(tap.name());
        let mac = self.mac.unwrap_or([0x02, 0x78, a, b, c, d]);
        let ipv4_address = address.map(|(address, _)| address);
        let reach = Reach::Tap { name: tap.name().to_owned(), ipv4: ipv4_address };
        let ipv6 = self.ipv6.config();
        let name_servers = self.dns.servers(None);
        let backend = Box::new(tap);
        let setup = NetSetup { backend, ipv4, ipv6, name_servers, mac, mtu_bytes, queue_pairs: QUEUE_PAIRS };
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
        // The gateway asks the host's own resolver, for guests that may go out.
        let resolver = (self.outbound == Outbound::Allowed).then_some(GATEWAY_ADDRESS);
        let setup = NetSetup { name_servers: self.dns.servers(resolver), ..NetSetup::user(user, mac) };
        Ok(OpenNet { setup, host: None, reach: Reach::Ports(published) })
    }
}

/// Makes a tap that vanishes with its descriptor, with an address on the host's side.
fn make_tap(ipv6: Option<(Ipv6Addr, u8)>) -> Result<(Tap, Interface), Failure> {
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
    if let Some((address, bits)) = ipv6 {
        interface.add_address(address.into(), bits).map_err(|error| explain(&error))?;
    }
    interface.set_transmit_queue_length(AUTO_TRANSMIT_QUEUE_FRAMES).map_err(|error| explain(&error))?;
    interface.up().map_err(|error| explain(&error))?;
    Ok((tap, interface))
}

/// Four bytes that this tap of this host has each time: with them in its MAC address a guest gets the same lease again, and two that
/// are given the same IP address on one link hear of each other.
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
        assert_eq!(argument.ipv4, Ipv4Origin::Given(Ipv4Addr::new(10, 1, 2, 3), 16));
        assert_eq!(argument.gateway, Some(Ipv4Addr::new(10, 1, 0, 1)));
        assert_eq!(argument.mac, Some([2, 0, 0, 0, 0, 9]));
        assert_eq!("user".parse::<NetArgument>().expect("good").kind, Kind::User);
        assert_eq!("none".parse::<NetArgument>().expect("good").kind, Kind::None);
        assert_eq!("tap=auto".parse::<NetArgument>().expect("good").kind, Kind::AutoTap);
    }

    #[test]
    fn parse_tap_whose_address_a_server_says() {
        let argument: NetArgument = "tap=tap7,ip=dhcp".parse().expect("good");
        assert!(argument.asks_dhcp());
        assert_eq!(number_of("tap7"), number_of("tap7"));
        assert_ne!(number_of("tap7"), number_of("tap8"));
    }

    #[test]
    fn parse_tap_with_addresses_of_both_families_or_of_one() {
        let both: NetArgument =
            "tap=tap7,ip=10.0.0.2/24,ip6=2001:db8::2/64,gw6=fe80::1,probe".parse().expect("good");
        assert!(both.has_ipv6() && both.probe && both.ipv4 == Ipv4Origin::Given([10, 0, 0, 2].into(), 24));
        let one: NetArgument = "tap=tap7,ip=none,ip6=auto".parse().expect("good");
        assert_eq!((one.has_ipv6(), one.ipv4), (true, Ipv4Origin::None));
        let none: NetArgument = "tap=tap7".parse().expect("good");
        assert_eq!((none.has_ipv6(), none.ipv4), (false, Ipv4Origin::Guessed));
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
            ("tap=a,ip=dhcp,ip=10.0.0.1/24", "leave one out"),
            ("tap=a,ip=dhcp,probe", "leave probe out"),
            ("tap=a,ip=none", "say ip6="),
            ("tap=a,ip=none,ip6=auto,probe", "leave gw= and probe out"),
            ("tap=a,ip6=2001:db8::2", "ADDRESS/BITS"),
            ("tap=a,gw6=fe80::1", "ip6=auto"),
            ("tap=a,probe=yes", "ip=ADDRESS/BITS"),
            ("user,ip6=auto", "use a tap"),
            ("user,ip=dhcp", "addresses are fixed"),
            ("tap=a,ip=none,ip6=auto,dns=10.0.0.1", "say ip= as well"),
            ("tap=a,dns=2001:db8::1", "say ip6= as well"),
            ("tap=a,dns=10.0.0.1,dns=10.0.0.1", "leave one out"),
            ("user,dns=10.0.0.1", "say outbound as well"),
            ("user,allow-host=53,dns=10.0.0.1", "say outbound as well"),
            ("user,outbound,dns=2001:db8::1", "the user network is IPv4"),
            ("tap=a,gw=1", "not an IPv4 address"),
            ("tap=a,mac=01:00:00:00:00:00", "group address"),
            ("tap=a,speed=9", "ip=ADDRESS/BITS"),
        ] {
            let error = text.parse::<NetArgument>().expect_err(text);
            assert!(error.contains(expected), "{text}: {error}");
        }
    }
}
