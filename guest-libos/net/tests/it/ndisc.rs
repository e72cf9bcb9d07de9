//! Neighbor Discovery against another implementation: smoltcp reads what is written here, and the other way round.

use std::net::Ipv6Addr;

use exos_net::MacAddress;
use exos_net::wire::ipv6::{HEADER_BYTES, Ipv6Header, NextHeader};
use exos_net::wire::ndisc::{HOP_LIMIT, MESSAGE_BYTES_MAX, Message};
use proptest::prelude::*;
use smoltcp::wire::{
    EthernetAddress, Icmpv6Message, Icmpv6Packet, Icmpv6Repr, IpProtocol, Ipv6Packet, Ipv6Repr,
    NdiscNeighborFlags, NdiscRepr, RawHardwareAddress,
};

fn raw(mac: Option<MacAddress>) -> Option<RawHardwareAddress> {
    mac.map(|mac| EthernetAddress(mac.0).into())
}

/// The same, in smoltcp's words.
fn theirs(message: Message) -> NdiscRepr<'static> {
    match message {
        Message::Solicitation { target, source_mac, .. } => {
            NdiscRepr::NeighborSolicit { target_addr: target, lladdr: raw(source_mac) }
        }
        Message::Advertisement { target, router, solicited, overrides, target_mac } => {
            let mut flags = NdiscNeighborFlags::empty();
            flags.set(NdiscNeighborFlags::ROUTER, router);
            flags.set(NdiscNeighborFlags::SOLICITED, solicited);
            flags.set(NdiscNeighborFlags::OVERRIDE, overrides);
            NdiscRepr::NeighborAdvert { flags, target_addr: target, lladdr: raw(target_mac) }
        }
    }
}

fn unicast() -> impl Strategy<Value = Ipv6Addr> {
    any::<u64>().prop_map(|low| Ipv6Addr::from_bits(0xfe80 << 112 | u128::from(low)))
}

fn mac() -> impl Strategy<Value = Option<MacAddress>> {
    proptest::option::of(any::<[u8; 5]>().prop_map(|[b, c, d, e, f]| MacAddress([2, b, c, d, e, f])))
}

fn message() -> impl Strategy<Value = Message> {
    let solicitation = (unicast(), mac()).prop_map(|(target, source_mac)| Message::Solicitation {
        target,
        source_mac,
        nonce: None,
    });
    let advertisement = (unicast(), any::<[bool; 3]>(), mac()).prop_map(
        |(target, [router, solicited, overrides], target_mac)| Message::Advertisement {
            target,
            router,
            solicited,
            overrides,
            target_mac,
        },
    );
    prop_oneof![solicitation, advertisement]
}

proptest! {
    #[test]
    fn ndisc_of_ours_and_of_smoltcp_are_the_same(message in message(), source in unicast(), destination in unicast()) {
        let ip = Ipv6Header { source, destination, next_header: NextHeader::Icmpv6, hop_limit: HOP_LIMIT };
        let mut out = [0; MESSAGE_BYTES_MAX];
        let len = message.emit(source, destination, &mut out);
        let mut bytes = vec![0; HEADER_BYTES];
        ip.emit(len, bytes.first_chunk_mut().unwrap());
        bytes.extend(&out[..len]);

        let packet = Ipv6Packet::new_checked(&bytes).unwrap();
        let repr = Ipv6Repr::parse(&packet).unwrap();
        prop_assert_eq!((repr.src_addr, repr.dst_addr, repr.hop_limit), (source, destination, HOP_LIMIT));
        prop_assert_eq!(repr.next_header, IpProtocol::Icmpv6);
        let icmp = Icmpv6Packet::new_checked(packet.payload()).unwrap();
        prop_assert!(matches!(icmp.msg_type(), Icmpv6Message::NeighborSolicit | Icmpv6Message::NeighborAdvert));
        let read = Icmpv6Repr::parse(&source, &destination, &icmp, &Default::default()).unwrap();
        prop_assert_eq!(read, Icmpv6Repr::Ndisc(theirs(message)));

        let theirs = Icmpv6Repr::Ndisc(theirs(message));
        let mut written = vec![0; theirs.buffer_len()];
        theirs.emit(&source, &destination, &mut Icmpv6Packet::new_unchecked(&mut written), &Default::default());
        prop_assert_eq!(Message::parse(&ip, &written), Ok(message));
    }
}
