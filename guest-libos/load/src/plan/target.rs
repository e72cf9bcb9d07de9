//! The URL that is asked for (RFC 3986, RFC 9110 4.2.1).

use alloc::string::{String, ToString};
use core::fmt::{self, Write};
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The port of http URLs that name none.
const DEFAULT_PORT: u16 = 80;
/// What servers commonly take.
const MAX_PATH_BYTES: usize = 4096;
/// RFC 1035 2.3.4, without the dot at the end.
const MAX_NAME_BYTES: usize = 253;
const MAX_LABEL_BYTES: usize = 63;

/// Where the server is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Host {
    /// At this address.
    Address(IpAddr),
    /// At an address that name servers know.
    Name(String),
}

/// Whom to ask, and for what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// The server.
    pub host: Host,
    /// Its port, not 0.
    pub port: u16,
    /// Path and query, as they stand in the request.
    pub path: String,
}

/// Why a URL cannot be asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TargetError {
    /// Not http.
    Scheme,
    /// The host is neither an address nor a name.
    Host,
    /// The address says through which interface it is reached, and there is but one.
    Zone,
    /// No server can have that address.
    NotUnicast,
    /// The port is no number from 1 to 65535.
    Port,
    /// The path has bytes that a request cannot have, or too many.
    Path,
}

impl fmt::Display for TargetError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Scheme => "only http is spoken here; begin with http://, such as http://10.80.0.1/",
            Self::Host => {
                "the host is neither a name nor an address; write it as http://www.example.org/, http://10.80.0.1/ or \
                 http://[2001:db8::1]/"
            }
            Self::Zone => "there is one interface, so leave out what is behind %: http://[fe80::1]/",
            Self::NotUnicast => "no server has that address; give the one that it listens on",
            Self::Port => "the port is not a number from 1 to 65535; leave it out for 80",
            Self::Path => "the path has spaces, control or non-ASCII characters, or more than 4096; write them as %20 and so on",
        })
    }
}

impl Target {
    /// Reads `http://HOST[:PORT][/PATH][?QUERY]`; a fragment is left out, as servers never see it.
    pub fn parse(url: &str) -> Result<Self, TargetError> {
        const SCHEME: &str = "http://";
        let scheme = url.get(..SCHEME.len()).ok_or(TargetError::Scheme)?;
        if !scheme.eq_ignore_ascii_case(SCHEME) {
            return Err(TargetError::Scheme);
        }
        let rest = &url[SCHEME.len()..];
        let rest = rest.split('#').next().unwrap_or(rest);
        let path_at = rest.find(['/', '?']).unwrap_or(rest.len());
        let (authority, path) = rest.split_at(path_at);
        let (host, port) = match authority.strip_prefix('[') {
            Some(rest) => bracketed(rest)?,
            None => {
                let (host, port) = match authority.split_once(':') {
                    Some((host, port)) => (host, Some(port)),
                    None => (authority, None),
                };
                (named(host)?, port)
            }
        };
        if matches!(host, Host::Address(ip)
            if ip.is_unspecified() || ip.is_multicast() || ip == IpAddr::V4(Ipv4Addr::BROADCAST))
        {
            return Err(TargetError::NotUnicast);
        }
        let port = match port {
            None => DEFAULT_PORT,
            Some(port) if port.bytes().all(|byte| byte.is_ascii_digit()) => {
                port.parse().ok().filter(|&port: &u16| port != 0).ok_or(TargetError::Port)?
            }
            Some(_) => return Err(TargetError::Port),
        };
        if path.len() > MAX_PATH_BYTES || !path.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(TargetError::Path);
        }
        let slash = if path.starts_with('/') { "" } else { "/" };
        Ok(Self { host, port, path: slash.to_string() + path })
    }

    /// Host and port as the `Host` of a request has them (RFC 9110 7.2): an IPv6 address in brackets, no port where it is
    /// http's own.
    pub(super) fn write_authority(&self, out: &mut impl Write) -> fmt::Result {
        match &self.host {
            Host::Address(IpAddr::V4(ip)) => write!(out, "{ip}")?,
            Host::Address(IpAddr::V6(ip)) => write!(out, "[{ip}]")?,
            Host::Name(name) => out.write_str(name)?,
        }
        if self.port == DEFAULT_PORT { Ok(()) } else { write!(out, ":{}", self.port) }
    }
}

/// An IPv4 address, or a name (RFC 1123 2.1, with the underscores that there are in practice): labels of letters, digits and
/// hyphens. As nobody's top-level domain is a number, what ends with one is meant for an address.
fn named(host: &str) -> Result<Host, TargetError> {
    if let Ok(ip) = host.parse() {
        return Ok(Host::Address(IpAddr::V4(ip)));
    }
    let name = host.strip_suffix('.').unwrap_or(host);
    let is_inside = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    let is_label = |label: &str| {
        (1..=MAX_LABEL_BYTES).contains(&label.len())
            && label.bytes().all(is_inside)
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    let last = name.rsplit('.').next().unwrap_or_default();
    let is_number = last.bytes().all(|byte| byte.is_ascii_digit());
    if name.len() > MAX_NAME_BYTES || !name.split('.').all(is_label) || is_number {
        return Err(TargetError::Host);
    }
    Ok(Host::Name(host.to_string()))
}

/// An IPv6 address and its bracket (RFC 3986 3.2.2), and the port behind it.
fn bracketed(rest: &str) -> Result<(Host, Option<&str>), TargetError> {
    let (host, behind) = rest.split_once(']').ok_or(TargetError::Host)?;
    if host.contains('%') {
        return Err(TargetError::Zone);
    }
    let ip: Ipv6Addr = host.parse().map_err(|_| TargetError::Host)?;
    if ip.is_loopback() || ip.to_ipv4_mapped().is_some() {
        return Err(TargetError::NotUnicast);
    }
    let host = Host::Address(ip.into());
    match behind.strip_prefix(':') {
        None if behind.is_empty() => Ok((host, None)),
        None => Err(TargetError::Host),
        port => Ok((host, port)),
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("http://")?;
        self.write_authority(f)?;
        f.write_str(&self.path)
    }
}
