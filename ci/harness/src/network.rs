//! A guest's TAP, in the network namespace of the test.

use exovm::backend::tap::Tap;
use exovm::machine::NetSetup;
use exovm_netns::Interface;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddrV4};

/// Queue pairs that the NIC offers, as the CLI's machines have it.
const QUEUE_PAIRS: u16 = 4;
/// Frames the host queues for a guest that lags, as the CLI sets it.
const TRANSMIT_QUEUE_FRAMES: u32 = 4000;
const PREFIX_LEN: u8 = 24;
const MTU_BYTES: u16 = 1500;

/// The host's side of a guest's network: TAP number `n` is called `tap<n>`, is 10.80.n.1, and its guest 10.80.n.2.
#[derive(Debug)]
pub struct Network {
    number: u8,
    interface: Interface,
}

impl Network {
    /// Makes the TAP and brings it up. Gives back what the machine takes; the TAP vanishes with that.
    pub fn create(number: u8) -> (Self, NetSetup) {
        let name = format!("tap{number}");
        let interface = Interface::named(&name).expect("a good name");
        let tap = Tap::create(&name).unwrap_or_else(|error| panic!("{error}"));
        let network = Self { number, interface };
        network.set_up().unwrap_or_else(|error| panic!("{error}"));
        let address = network.guest_address().octets();
        let setup = NetSetup {
            backend: Box::new(tap),
            ipv4: abi::boot::Ipv4Config { address, prefix_len: PREFIX_LEN.into(), ..Default::default() },
            ipv6: abi::boot::Ipv6Config::default(),
            name_servers: abi::boot::NameServers::default(),
            mac: network.guest_mac(),
            mtu_bytes: MTU_BYTES,
            queue_pairs: QUEUE_PAIRS,
        };
        (network, setup)
    }

    fn set_up(&self) -> Result<(), exovm_netns::NetnsError> {
        self.interface.add_address(IpAddr::V4(self.host_address()), PREFIX_LEN)?;
        self.interface.set_transmit_queue_length(TRANSMIT_QUEUE_FRAMES)?;
        self.interface.up()
    }

    /// The TAP.
    pub fn interface(&self) -> &Interface {
        &self.interface
    }

    /// The host's address.
    pub fn host_address(&self) -> Ipv4Addr {
        Ipv4Addr::new(10, 80, self.number, 1)
    }

    /// The guest's address.
    pub fn guest_address(&self) -> Ipv4Addr {
        Ipv4Addr::new(10, 80, self.number, 2)
    }

    /// The guest's hardware address: locally administered.
    pub fn guest_mac(&self) -> [u8; 6] {
        [0x02, 0x78, 10, 80, self.number, 2]
    }

    /// The link-local address that a guest with IPv6 makes of it (RFC 4291, appendix A).
    pub fn guest_link_local(&self) -> Ipv6Addr {
        let [a, b, c, d, e, f] = self.guest_mac().map(u16::from);
        Ipv6Addr::new(0xfe80, 0, 0, 0, (a ^ 2) << 8 | b, c << 8 | 0xff, 0xfe00 | d, e << 8 | f)
    }

    /// A port of the guest.
    pub fn guest_socket(&self, port: u16) -> SocketAddrV4 {
        SocketAddrV4::new(self.guest_address(), port)
    }
}
