//! The same script over IPv6: every script runs over both unless it says why it cannot.

use std::net::{IpAddr, Ipv4Addr};

use exos_net::{Config, Ipv6Config};

use crate::ip::{Family, LONGER_HEADER_BYTES, PREFIX_LEN_V6, over_ipv6};
use crate::parse::{Action, Call, Script};

/// What is called otherwise over IPv6: counters, and what ICMP errors mean.
const OTHER_NAMES: [(&str, &str); 3] = [
    ("arp_requests", "neighbour_solicitations"),
    ("problem protocol_unreachable", "problem parameter_problem"),
    ("problem source_route_failed", "problem host_unreachable"),
];

/// IPv6 with one address beside the link-local one, used at once, and no IPv4.
pub(crate) fn enable(config: &mut Config) {
    let IpAddr::V6(host) = Family::V6.host() else { unreachable!("it is of IPv6") };
    let addresses = vec![(host, PREFIX_LEN_V6)];
    config.ipv6 = Some(Ipv6Config { addresses, probes: 0, ..Ipv6Config::default() });
    (config.ip, config.group_reports) = (Ipv4Addr::UNSPECIFIED, false);
}

impl Script {
    /// The script as it runs over IPv6: addresses and ICMP errors are those that play their parts, and the MTU is larger by what
    /// the header is longer, so that all segments are as they are over IPv4.
    pub(crate) fn over_ipv6(&self) -> Result<Self, String> {
        let mut script = self.clone();
        script.family = Family::V6;
        enable(&mut script.config);
        script.config.mtu += LONGER_HEADER_BYTES;
        for peer in &mut script.peers {
            (peer.ip, peer.host) = (over_ipv6(peer.ip)?, over_ipv6(peer.host)?);
        }
        for step in &mut script.steps {
            let at = |error: String| format!("{}:{}: {error}", self.path, step.line);
            match &mut step.action {
                Action::In(tcp) => {
                    if !tcp.around.ip_options.is_empty() {
                        return Err(at("IPv6 has no such options".into()));
                    }
                    for address in [&mut tcp.around.source, &mut tcp.around.destination] {
                        *address = address.map(over_ipv6).transpose().map_err(at)?;
                    }
                }
                Action::Call(
                    Call::Listen(_, address) | Call::Unlisten(_, address) | Call::Connect(address, _),
                    _,
                ) => *address = address.map(over_ipv6).transpose().map_err(at)?,
                Action::LinkMtu(mtu) => *mtu += LONGER_HEADER_BYTES,
                Action::Icmp(icmp) => *icmp = icmp.over_ipv6().map_err(at)?,
                Action::Event(name) | Action::Check(name, _) => {
                    if let Some((_, other)) = OTHER_NAMES.iter().find(|(of_ipv4, _)| name == of_ipv4) {
                        *name = (*other).into();
                    }
                }
                _ => {}
            }
        }
        Ok(script)
    }
}
