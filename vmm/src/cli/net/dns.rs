//! The part of `--net` that says whom the guest asks for names: `dns=ADDRESS`, up to three times.

use abi::boot::{NAME_SERVERS, NameServers};
use exovm_user_net::{GATEWAY_ADDRESS, Outbound};
use std::net::{IpAddr, Ipv4Addr};

const DNS_PORT: u16 = 53;

/// The servers that were said.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct DnsArgument {
    servers: Vec<IpAddr>,
}

/// Which families the guest can have an address of.
#[derive(Clone, Copy, Debug)]
pub(super) struct Families {
    pub(super) ipv4: bool,
    pub(super) ipv6: bool,
}

impl DnsArgument {
    /// Takes what is behind `dns=`.
    pub(super) fn add(&mut self, text: &str) -> Result<(), String> {
        let server = text.parse().ok().filter(|&server| is_host(server)).ok_or_else(|| {
            format!("dns={text}: not the address of a name server; write it as 10.80.0.1 or 2001:db8::1")
        })?;
        if self.servers.contains(&server) {
            return Err(format!("dns={text}: that server is there already; leave one out"));
        }
        if self.servers.len() == NAME_SERVERS {
            return Err(format!(
                "dns={text}: the guest asks {NAME_SERVERS} name servers at most; leave one out"
            ));
        }
        self.servers.push(server);
        Ok(())
    }

    /// Whether the guest can ask them.
    pub(super) fn check(&self, families: Families) -> Result<(), String> {
        for server in &self.servers {
            let (can_ask, missing) =
                if server.is_ipv4() { (families.ipv4, "ip=") } else { (families.ipv6, "ip6=") };
            if !can_ask {
                return Err(format!(
                    "dns={server}: the guest has no address of that family to ask from; say {missing} as well, or a server of \
                     the other family"
                ));
            }
        }
        Ok(())
    }

    /// Whether a guest on the user network can ask them, whose packets go to the gateway and, if it is `outbound`, beyond.
    pub(super) fn check_user(&self, outbound: Outbound, host_ports: &[u16]) -> Result<(), String> {
        let is_gateway = |server: &IpAddr| *server == IpAddr::V4(GATEWAY_ADDRESS);
        let asks_host = host_ports.contains(&DNS_PORT) && self.servers.iter().all(is_gateway);
        match self.servers.iter().find(|server| server.is_ipv6()) {
            Some(server) => Err(format!(
                "dns={server}: the user network is IPv4; say a server's IPv4 address, or outbound alone, which asks the host's"
            )),
            None if self.servers.is_empty() || outbound == Outbound::Allowed || asks_host => Ok(()),
            None => Err(format!(
                "dns=: the guest reaches no name server unless it may go out; say outbound as well (or, for one on this host, \
                 dns={GATEWAY_ADDRESS},allow-host={DNS_PORT})"
            )),
        }
    }

    /// As the guest is told: these, or `otherwise` if none was said.
    pub(super) fn servers(&self, otherwise: Option<Ipv4Addr>) -> NameServers {
        if self.servers.is_empty() {
            return NameServers::new(otherwise.map(IpAddr::V4));
        }
        NameServers::new(self.servers.iter().copied())
    }
}

/// Whether a host that a guest reaches can have the address.
fn is_host(address: IpAddr) -> bool {
    let is_special = address.is_unspecified() || address.is_loopback() || address.is_multicast();
    let is_disguised = matches!(address, IpAddr::V6(address) if address.to_ipv4_mapped().is_some());
    !is_special && !is_disguised && address != IpAddr::V4(Ipv4Addr::BROADCAST)
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOTH: Families = Families { ipv4: true, ipv6: true };

    fn argument(servers: &[&str]) -> Result<DnsArgument, String> {
        let mut argument = DnsArgument::default();
        servers.iter().try_for_each(|server| argument.add(server))?;
        Ok(argument)
    }

    #[test]
    fn servers_of_both_families_are_told_in_their_order() {
        let servers = ["10.80.0.1", "2001:db8::1", "fe80::1"];
        let said = argument(&servers).expect("good");
        assert_eq!(said.check(BOTH), Ok(()));
        let told: Vec<_> = said.servers(Some([10, 0, 2, 2].into())).iter().collect();
        assert_eq!(told, servers.map(|server| server.parse::<IpAddr>().expect("an address")));
    }

    #[test]
    fn server_of_the_network_itself_is_told_if_none_is_said() {
        let told = |otherwise| DnsArgument::default().servers(otherwise).iter().collect::<Vec<_>>();
        assert!(told(None).is_empty());
        assert_eq!(told(Some([10, 0, 2, 2].into())), [IpAddr::from([10, 0, 2, 2])]);
    }

    #[test]
    fn what_is_no_server_or_cannot_be_asked_says_what_to_do() {
        for servers in [
            &["dns.example.org"][..],
            &[""],
            &["0.0.0.0"],
            &["127.0.0.1"],
            &["255.255.255.255"],
            &["::"],
            &["::1"],
            &["ff02::fb"],
            &["::ffff:10.0.0.1"],
        ] {
            let error = argument(servers).expect_err("wrong");
            assert!(error.contains("write it as 10.80.0.1"), "{servers:?}: {error}");
        }
        let four = argument(&["10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.4"]).expect_err("too many");
        assert!(four.contains("3 name servers at most"), "{four}");
        let twice = argument(&["10.0.0.1", "2001:db8::1", "10.0.0.1"]).expect_err("twice");
        assert!(twice.contains("there already"), "{twice}");
        for (server, families, missing) in [
            ("10.0.0.1", Families { ipv4: false, ..BOTH }, "say ip= as well"),
            ("2001:db8::1", Families { ipv6: false, ..BOTH }, "say ip6= as well"),
        ] {
            let error = argument(&[server]).expect("good").check(families).expect_err(server);
            assert!(error.contains(missing), "{error}");
        }
    }

    #[test]
    fn guest_on_the_user_network_asks_whom_it_may_reach() {
        let check = |servers: &[&str], outbound, ports: &[u16]| {
            argument(servers).expect("good").check_user(outbound, ports)
        };
        for (servers, outbound, ports) in [
            (&[][..], Outbound::Refused, &[][..]),
            (&["10.0.0.1", "10.0.2.2"], Outbound::Allowed, &[]),
            (&["10.0.2.2"], Outbound::Refused, &[5432, 53]),
        ] {
            assert_eq!(check(servers, outbound, ports), Ok(()), "{servers:?}");
        }
        for (servers, outbound, ports, expected) in [
            (&["10.0.0.1"][..], Outbound::Refused, &[53][..], "say outbound as well"),
            (&["10.0.2.2"], Outbound::Refused, &[5432], "say outbound as well"),
            (&["10.0.2.2", "10.0.0.1"], Outbound::Refused, &[53], "say outbound as well"),
            (&["2001:db8::1"], Outbound::Allowed, &[53], "the user network is IPv4"),
        ] {
            let error = check(servers, outbound, ports).expect_err("wrong");
            assert!(error.contains(expected) && !error.contains("ip6="), "{servers:?}: {error}");
        }
    }
}
