//! The URL that is asked for (RFC 3986, RFC 9110 4.2.1): an address, not a name, since nobody here looks up names.

use alloc::string::{String, ToString};
use core::fmt;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// The port of http URLs that name none.
pub(super) const DEFAULT_PORT: u16 = 80;
/// What servers commonly take.
const MAX_PATH_BYTES: usize = 4096;

/// Whom to ask, and for what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// The server.
    pub address: SocketAddr,
    /// Path and query, as they stand in the request.
    pub path: String,
}

/// Why a URL cannot be asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TargetError {
    /// Not http.
    Scheme,
    /// The host is no address.
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
                "names are not looked up; give the server's address, such as http://10.80.0.1/ or http://[2001:db8::1]/"
            }
            Self::Zone => "there is one interface, so leave out what is behind %: http://[fe80::1]/",
            Self::NotUnicast => "no server has that address; give the one that it listens on",
            Self::Port => "the port is not a number from 1 to 65535; leave it out for 80",
            Self::Path => "the path has spaces, control or non-ASCII characters, or more than 4096; write them as %20 and so on",
        })
    }
}

impl Target {
    /// Reads `http://ADDRESS[:PORT][/PATH][?QUERY]`; a fragment is left out, as servers never see it.
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
        let (ip, port) = match authority.strip_prefix('[') {
            Some(rest) => bracketed(rest)?,
            None => {
                let (host, port) = match authority.split_once(':') {
                    Some((host, port)) => (host, Some(port)),
                    None => (authority, None),
                };
                (IpAddr::V4(host.parse().map_err(|_| TargetError::Host)?), port)
            }
        };
        if ip.is_unspecified() || ip.is_multicast() || ip == IpAddr::V4(Ipv4Addr::BROADCAST) {
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
        Ok(Self { address: SocketAddr::new(ip, port), path: slash.to_string() + path })
    }
}

/// An IPv6 address and its bracket (RFC 3986 3.2.2), and the port behind it.
fn bracketed(rest: &str) -> Result<(IpAddr, Option<&str>), TargetError> {
    let (host, behind) = rest.split_once(']').ok_or(TargetError::Host)?;
    if host.contains('%') {
        return Err(TargetError::Zone);
    }
    let ip: Ipv6Addr = host.parse().map_err(|_| TargetError::Host)?;
    if ip.is_loopback() || ip.to_ipv4_mapped().is_some() {
        return Err(TargetError::NotUnicast);
    }
    match behind.strip_prefix(':') {
        None if behind.is_empty() => Ok((ip.into(), None)),
        None => Err(TargetError::Host),
        port => Ok((ip.into(), port)),
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "http://{}{}", self.address, self.path)
    }
}
