//! What is published: `[ADDR:]HOSTPORT:GUESTPORT[/tcp|/udp]`.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::str::FromStr;

/// How a publication is written.
const FORM: &str = "[ADDR:]HOSTPORT:GUESTPORT[/tcp|/udp], for example 8080:80, 0.0.0.0:8080:80 or 5353:53/udp; \
                    HOSTPORT 0 takes any free port";

/// The protocol of a published port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        })
    }
}

/// A port of the host that leads to one of the guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Publish {
    /// Where the host listens. Port 0: any that is free.
    pub host: SocketAddr,
    /// The guest's port.
    pub guest_port: u16,
    /// Of which protocol.
    pub protocol: Protocol,
}

/// Why a publication cannot be understood.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PublishError {
    /// It has another form.
    #[error("write it as {FORM}")]
    Form,
    /// A number is no port.
    #[error("{text:?} is no port: ports are 1 to 65535; write it as {FORM}")]
    Port {
        /// What was given.
        text: String,
    },
    /// The guest's port is 0.
    #[error("the guest's port cannot be 0: say which one the image serves, for example 8080:80")]
    GuestPort,
    /// The address is none.
    #[error("{text:?} is no IP address; write it as {FORM}, an IPv6 address in brackets")]
    Address {
        /// What was given.
        text: String,
    },
    /// The protocol is neither TCP nor UDP.
    #[error("{text:?} is neither tcp nor udp; write it as {FORM}")]
    Protocol {
        /// What was given.
        text: String,
    },
}

impl FromStr for Publish {
    type Err = PublishError;

    fn from_str(text: &str) -> Result<Self, PublishError> {
        let (ports, protocol) = match text.split_once('/') {
            None | Some((_, "tcp")) => (text.strip_suffix("/tcp").unwrap_or(text), Protocol::Tcp),
            Some((ports, "udp")) => (ports, Protocol::Udp),
            Some((_, other)) => return Err(PublishError::Protocol { text: other.into() }),
        };
        let (rest, guest) = ports.rsplit_once(':').ok_or(PublishError::Form)?;
        let (address, host) = match rest.rsplit_once(':') {
            Some((address, host)) => (parse_address(address)?, host),
            None => (IpAddr::V4(Ipv4Addr::LOCALHOST), rest),
        };
        let guest_port = parse_port(guest)?;
        if guest_port == 0 {
            return Err(PublishError::GuestPort);
        }
        Ok(Self { host: SocketAddr::new(address, parse_port(host)?), guest_port, protocol })
    }
}

fn parse_port(text: &str) -> Result<u16, PublishError> {
    // `parse` alone would take a sign.
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|_| digits).ok_or(PublishError::Port { text: text.into() })
}

fn parse_address(text: &str) -> Result<IpAddr, PublishError> {
    let wrong = || PublishError::Address { text: text.into() };
    match text.strip_prefix('[') {
        Some(rest) => {
            let inner = rest.strip_suffix(']').ok_or_else(wrong)?;
            Ok(IpAddr::V6(inner.parse().map_err(|_| wrong())?))
        }
        None => Ok(IpAddr::V4(text.parse().map_err(|_| wrong())?)),
    }
}

impl fmt::Display for Publish {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.guest_port)?;
        if self.protocol == Protocol::Udp { f.write_str("/udp") } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parse(text: &str) -> Result<Publish, PublishError> {
        text.parse()
    }

    #[test]
    fn parse_without_address_binds_to_loopback() {
        let expected = Publish {
            host: SocketAddr::from(([127, 0, 0, 1], 8080)),
            guest_port: 80,
            protocol: Protocol::Tcp,
        };
        assert_eq!(parse("8080:80"), Ok(expected));
        assert_eq!(parse("8080:80/tcp"), Ok(expected));
        assert_eq!(parse("127.0.0.1:8080:80/udp"), Ok(Publish { protocol: Protocol::Udp, ..expected }));
    }

    #[test]
    fn parse_addresses_of_both_families() {
        assert_eq!(parse("0.0.0.0:0:443").unwrap().host, SocketAddr::from(([0, 0, 0, 0], 0)));
        assert_eq!(parse("[::1]:8080:80").unwrap().host, "[::1]:8080".parse().unwrap());
    }

    #[test]
    fn parse_nonsense_says_how_it_is_written() {
        for text in [
            "",
            "80",
            "8080:",
            ":80",
            "a:80",
            "8080:b",
            "65536:80",
            "-1:80",
            "8080:+80",
            "1:2:3",
            "::1:8080:80",
            "localhost:8080:80",
            "[::1:8080:80",
            "8080:80/sctp",
            "8080:80/",
            "8080:80/tcp/udp",
            "8080:0",
        ] {
            let error = parse(text).expect_err(text).to_string();
            assert!(error.contains("8080:80"), "{text}: {error}");
        }
    }

    proptest! {
        #[test]
        fn what_is_printed_is_what_is_parsed(ip: std::net::IpAddr, port: u16, guest_port in 1u16.., udp: bool) {
            let protocol = if udp { Protocol::Udp } else { Protocol::Tcp };
            let publish = Publish { host: SocketAddr::new(ip, port), guest_port, protocol };
            prop_assert_eq!(parse(&publish.to_string()), Ok(publish));
        }

        #[test]
        fn parse_never_panics(text in "[0-9:/.\\[\\]a-z]{0,24}") {
            let _ = parse(&text);
        }
    }
}
