//! Flows: what one must not carve and direct, and whose frames one must not send. Two children have a flow and a queue pair each;
//! what the first tries is asked for it by its parent, and is decided as if it asked itself.

use crate::child::{Child, Code, derive, give};
use crate::queue::{Queue, RING_PAGES};
use crate::{Case, HELD};
use abi::boot::DEVICE_CONSOLE;
use abi::call::{Call, Error};
use abi::capability::{Handle, rights};
use abi::flow::ipv4;
use abi::layout::{PAGE_BYTES, WINDOW_VA};
use alloc::vec::Vec;
use exos_runtime::{kernel, pages};

type Arguments<'a> = &'a mut dyn Iterator<Item = &'static str>;

pub(crate) const CASES: &[Case] = &[("flow-attacks", flow_attacks), ("flow-egress", flow_egress)];

/// Levels of the flow tree, as [`Call::FlowCarve`] takes them.
const DESTINATION: u64 = 1;
const PROTOCOL: u64 = 2;
const PORT: u64 = 3;
const TCP: u64 = 6;
const UDP: u8 = 17;
/// A whole address.
const WHOLE: u64 = 128 << 8;
const SLASH_24: u64 = (96 + 24) << 8;

const OWN: [u8; 4] = [10, 0, 0, 2];
const ANOTHERS: [u8; 4] = [10, 0, 0, 3];
const SOMEBODY: [u8; 4] = [10, 0, 0, 9];
const OWN_PORT: u16 = 80;
/// All but [`rights::GIVE`] and [`rights::SEND_ANY`].
const PLAIN: u16 = rights::CARVE | rights::DIRECT;

/// A child with a flow and a queue pair.
struct Holder {
    child: Child,
    flow: Handle,
    queues: Handle,
}

fn carve(environment: Handle, flow: Handle, field: u64, value: [u64; 2]) -> Result<u64, Error> {
    kernel::raw(Call::FlowCarve, [environment.0, flow.0, field, value[0], value[1]])
}

fn direct(environment: Handle, flow: Handle, queues: Handle, pairs: u64, rights: u64) -> Result<u64, Error> {
    kernel::raw(Call::FlowDirect, [environment.0, flow.0, queues.0, pairs, rights])
}

/// One that holds this flow and a pair of the NIC, to which the flow goes.
fn holder(flow: Handle, pair: u64) -> Result<Holder, Error> {
    let own = &pages::environment().capabilities;
    let child = Child::with_pages(Code::new().exit(0), rights::WRITE | rights::DMA, 2 + RING_PAGES)?;
    child.grant_to_devices()?;
    let queues = derive(own.queues[0], 2 * pair, 2, rights::BIND | rights::GIVE)?;
    let queues = give(queues, &child, rights::BIND)?;
    let flow = give(flow, &child, PLAIN | rights::GIVE)?;
    direct(child.environment, flow, queues, pair | 1 << 16, 0)?;
    Ok(Holder { child, flow, queues })
}

/// The first has 10.0.0.2, TCP, the second port 8080 of that; and 10.0.0.3 is a third part, nobody's.
fn holders() -> Result<(Holder, Holder), Error> {
    let root = pages::environment().capabilities.flows[0];
    let address = carve(Handle::NONE, root, DESTINATION | WHOLE, ipv4(OWN)).map(Handle)?;
    carve(Handle::NONE, root, DESTINATION | WHOLE, ipv4(ANOTHERS))?;
    let tcp = carve(Handle::NONE, address, PROTOCOL, [0, TCP]).map(Handle)?;
    let port = carve(Handle::NONE, tcp, PORT, [0, 8080]).map(Handle)?;
    Ok((holder(tcp, 1)?, holder(port, 2)?))
}

fn flow_attacks(_: Arguments<'_>) -> Option<u32> {
    let environment = pages::environment();
    let root = environment.capabilities.flows[0];
    let (one, other) = holders().ok()?;
    let who = one.child.environment;
    let dividing = give(root, &one.child, rights::CARVE).ok()?;
    let directing = give(root, &one.child, rights::DIRECT).ok()?;
    let unbinding = give(environment.capabilities.queues[0], &one.child, 0).ok()?;
    // Of a slot that the first has not.
    let (mut others, mut others_queues) = (other.flow, other.queues);
    for _ in 0..16 {
        others = give(root, &other.child, PLAIN).ok()?;
        others_queues = give(environment.capabilities.queues[0], &other.child, rights::BIND).ok()?;
    }
    let try_ = |what: &str, answer: Result<u64, Error>| {
        // What is allowed answers a handle, which tells nothing.
        log::info!("probe: {what}: {:?}", answer.map(drop));
    };
    let address = |address: [u8; 4]| ipv4(address);
    try_("carve out of nothing", carve(who, Handle::NONE, PORT, [0, 80]));
    try_("carve out of another's flow", carve(who, others, DESTINATION | WHOLE, address(SOMEBODY)));
    try_("carve out of memory", carve(who, one.child.given, PORT, [0, 80]));
    try_("carve without the right", carve(who, directing, DESTINATION | WHOLE, address(SOMEBODY)));
    try_("carve the port that another has", carve(who, one.flow, PORT, [0, 8080]));
    try_("carve the address that another has", carve(who, dividing, DESTINATION | WHOLE, address(ANOTHERS)));
    try_("carve wider than another's", carve(who, dividing, DESTINATION | SLASH_24, address(ANOTHERS)));
    try_("carve all addresses", carve(who, dividing, DESTINATION, [0, 0]));
    try_("carve narrower than another's, past a level", carve(who, dividing, PORT, [0, 8080]));
    try_("carve an address out of a protocol", carve(who, one.flow, DESTINATION | WHOLE, address(ANOTHERS)));
    try_("carve a protocol out of a protocol", carve(who, one.flow, PROTOCOL, [0, TCP]));
    try_("carve a level that there is not", carve(who, one.flow, 6, [0, 0]));
    try_("carve with bits that mean nothing", carve(who, one.flow, PORT | 1 << 16, [0, 80]));
    try_("carve a port beyond the last", carve(who, one.flow, PORT, [0, 65536]));
    try_("carve a port with another word", carve(who, one.flow, PORT, [1, 80]));
    try_("carve a prefix longer than an address", carve(who, dividing, DESTINATION | 129 << 8, address(OWN)));
    let pair = |first: u64, count: u64| first | count << 16;
    try_("direct what one only carves", direct(who, dividing, one.queues, pair(1, 1), 0));
    try_("direct another's flow", direct(who, others, one.queues, pair(1, 1), 0));
    try_("direct to no queues", direct(who, one.flow, Handle::NONE, pair(1, 1), 0));
    try_("direct to another's queues", direct(who, one.flow, others_queues, pair(2, 1), 0));
    try_("direct to another's pair with one's own", direct(who, one.flow, one.queues, pair(2, 1), 0));
    try_("direct to the pair before one's own", direct(who, one.flow, one.queues, pair(0, 1), 0));
    try_("direct to one's own pair and the next", direct(who, one.flow, one.queues, pair(1, 2), 0));
    try_("direct to all pairs", direct(who, one.flow, one.queues, pair(0, 0xFFFF), 0));
    try_("direct to queues without the right to bind", direct(who, one.flow, unbinding, pair(1, 1), 0));
    try_("direct with memory", direct(who, one.flow, one.child.given, pair(1, 1), 0));
    try_("direct with the right to send anything", direct(who, one.flow, one.queues, pair(1, 1), 4));
    try_("direct with rights that mean nothing", direct(who, one.flow, one.queues, pair(1, 1), 8));
    try_("direct with bits that mean nothing", direct(who, one.flow, one.queues, 1 << 32 | pair(1, 1), 0));
    let console = environment.devices.iter().position(|device| device.kind == DEVICE_CONSOLE)?;
    let channel = environment.capabilities.queues[console];
    try_("direct to queues of another device", direct(Handle::NONE, root, channel, pair(0, 1), 0));
    let carved = carve(Handle::NONE, root, DESTINATION | WHOLE, address([10, 0, 0, 7])).ok()?;
    let give_more = [0, carved, who.0, u64::from(rights::SEND_ANY), 0];
    try_("give the right to send anything that a part has not", kernel::raw(Call::CapabilityGive, give_more));
    try_("carve the next port", carve(who, one.flow, PORT, [0, 8081]));
    try_("direct to one's own pair", direct(who, one.flow, one.queues, pair(1, 1), 0));
    Some(HELD)
}

/// A frame with a virtio header in front, and a name in it by which the other end knows it.
struct Frame(Vec<u8>);

impl Frame {
    /// Of this EtherType.
    fn new(ether_type: u16) -> Self {
        let mut bytes = Vec::with_capacity(256);
        bytes.extend_from_slice(&[0; 12]);
        bytes.extend_from_slice(&[2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1]);
        bytes.extend_from_slice(&ether_type.to_be_bytes());
        Self(bytes)
    }

    fn bytes(mut self, bytes: &[u8]) -> Self {
        self.0.extend_from_slice(bytes);
        self
    }

    /// IPv4 (RFC 791 3.1) of this protocol, and offset in units of eight bytes.
    fn ip(self, source: [u8; 4], protocol: u8, fragment_offset: u16) -> Self {
        self.bytes(&[0x45, 0, 0, 128, 0, 1])
            .bytes(&fragment_offset.to_be_bytes())
            .bytes(&[64, protocol, 0, 0])
            .bytes(&source)
            .bytes(&[10, 0, 0, 1])
    }

    /// TCP or UDP: ports, and the rest of a TCP header.
    fn ports(self, source: u16) -> Self {
        self.bytes(&source.to_be_bytes())
            .bytes(&[0x30, 0x39, 0, 0, 0, 1, 0, 0, 0, 1, 0x50, 0x10, 1, 0, 0, 0, 0, 0])
    }
}

fn tcp(source: [u8; 4], port: u16) -> Frame {
    Frame::new(0x0800).ip(source, TCP as u8, 0).ports(port)
}

/// Frames out of a queue pair, one after the other. The log says that each was offered; the other end of the wire knows which came.
fn flow_egress(_: Arguments<'_>) -> Option<u32> {
    let (one, _other) = holders().ok()?;
    let queue = Queue::of(one.child.environment, one.queues, 3, one.child.gpa(2))?;
    queue.bind().ok()?;
    let frames = [
        ("sent as one's own", tcp(OWN, OWN_PORT)),
        ("sent from another's port", tcp(OWN, 8080)),
        ("sent from another's address", tcp(ANOTHERS, OWN_PORT)),
        ("sent from somebody's address", tcp(SOMEBODY, OWN_PORT)),
        ("sent from no address", tcp([0; 4], OWN_PORT)),
        ("sent from the broadcast address", tcp([255; 4], OWN_PORT)),
        ("sent by another protocol", Frame::new(0x0800).ip(OWN, UDP, 0).ports(OWN_PORT)),
        ("sent as ICMP", Frame::new(0x0800).ip(OWN, 1, 0).bytes(&[8, 0, 0, 0, 0, 1, 0, 1])),
        (
            "sent as ICMP about another's segment",
            Frame::new(0x0800)
                .ip(OWN, 1, 0)
                .bytes(&[3, 1, 0, 0, 0, 0, 0, 0])
                .bytes(&tcp(ANOTHERS, 80).0[26..]),
        ),
        ("sent as a later fragment of nothing", Frame::new(0x0800).ip(OWN, TCP as u8, 100).ports(OWN_PORT)),
        ("sent with a header cut short", Frame::new(0x0800).bytes(&[0x45, 0, 0, 128])),
        ("sent with a header of no length", Frame::new(0x0800).bytes(&[0x40]).bytes(&[0; 60])),
        (
            "sent as ARP in another's name",
            Frame::new(0x0806)
                .bytes(&[0, 1, 8, 0, 6, 4, 0, 2, 2, 0, 0, 0, 0, 1])
                .bytes(&ANOTHERS)
                .bytes(&[2, 0, 0, 0, 0, 2, 10, 0, 0, 1]),
        ),
        (
            "sent by IPv6",
            Frame::new(0x86DD)
                .bytes(&[0x60, 0, 0, 0, 0, 84, TCP as u8, 64])
                .bytes(&[0xFE; 32])
                .ports(OWN_PORT),
        ),
        ("sent behind a VLAN tag", Frame::new(0x8100).bytes(&[0, 1]).bytes(&tcp(ANOTHERS, OWN_PORT).0[24..])),
        ("sent by no protocol that is known", Frame::new(0x88B5)),
    ];
    for (index, (what, frame)) in frames.into_iter().enumerate() {
        let frame = frame.bytes(b"attack:").bytes(what.as_bytes()).bytes(&[0]).0;
        let page = one.child.gpa(1);
        // SAFETY: a data page of the child's, which does not run; a frame is shorter.
        unsafe {
            let at = (WINDOW_VA + page) as *mut u8;
            at.write_bytes(0, PAGE_BYTES as usize);
            core::ptr::copy_nonoverlapping(frame.as_ptr(), at, frame.len());
        }
        queue.descriptor(0, page, 12 + 14 + 128, 0, 0);
        queue.offer(0, index as u16 + 1);
        let offered = queue.used(index as u16 + 1) == index as u16 + 1;
        log::info!("probe: {what}: {}", if offered { "offered" } else { "not taken" });
    }
    queue.unbind().ok()?;
    Some(HELD)
}
