//! `edge-nal`'s trait for names. Names of addresses are not asked for.

use crate::error::Error;
use crate::state::Sockets;
use core::net::IpAddr;
use edge_nal::{AddrType, Dns};
use exos_dns::{Failure, Family};

impl Dns for Sockets {
    type Error = Error;

    async fn get_host_by_name(&self, host: &str, addr_type: AddrType) -> Result<IpAddr, Error> {
        let addresses = match addr_type {
            AddrType::IPv4 => self.lookup(host, Family::V4).await?,
            AddrType::IPv6 => self.lookup(host, Family::V6).await?,
            AddrType::Either => self.resolve(host).await?,
        };
        addresses.first().copied().ok_or(Error::Name(Failure::NoAddress))
    }

    async fn get_host_by_address(&self, _: IpAddr, _: &mut [u8]) -> Result<usize, Error> {
        Err(Error::Unsupported)
    }
}
