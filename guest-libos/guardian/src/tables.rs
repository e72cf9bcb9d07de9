//! The page that the guardian writes and everybody reads: whose port is whose, who is on the link, where what is sent goes.
//!
//! Its layout is that of [`LAYOUT`]; a reader that was built for another one says so and reads nothing. A sequence lock keeps what is read
//! whole: the writer makes the sequence odd, writes, and makes it even; a reader that saw an odd one, or two different ones, starts
//! again.

use crate::neighbours::{Interface, NEIGHBOURS_MAX, Neighbour};
use crate::ports::PORTS_MAX;
use crate::request::Port;
use alloc::vec::Vec;
use core::net::Ipv4Addr;
use core::sync::atomic::{AtomicU64, Ordering, fence};
use exos_net::MacAddress;

/// Version of the layout.
pub const LAYOUT: u64 = 1;
/// Words of the page.
pub const WORDS: usize = 512;
/// The page.
pub type Page = [AtomicU64; WORDS];

/// "exosgrd1", little endian.
const MAGIC: u64 = u64::from_le_bytes(*b"exosgrd1");
/// How often a reader starts again before it lets the writer run.
const TRIES: u32 = 16;
/// Routes at most.
const ROUTES_MAX: usize = 8;

/// Words: what it is, the layout, the sequence, the interface, how many there are of each.
const AT_MAGIC: usize = 0;
const AT_LAYOUT: usize = 1;
const AT_SEQUENCE: usize = 2;
const AT_INTERFACE: usize = 3;
const AT_MAC: usize = 4;
const AT_COUNTS: usize = 5;
const AT_PORTS: usize = 8;
const AT_NEIGHBOURS: usize = AT_PORTS + PORTS_MAX;
const AT_ROUTES: usize = AT_NEIGHBOURS + 2 * NEIGHBOURS_MAX;
const _: () = assert!(AT_ROUTES + 2 * ROUTES_MAX <= WORDS);

/// A way for what is not the interface's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Route {
    /// Where it leads.
    pub prefix: Ipv4Addr,
    /// Length of that in bits.
    pub prefix_len: u8,
    /// Who is given the frame; `None`: the destination itself is on the link.
    pub gateway: Option<Ipv4Addr>,
}

/// The guardian's side of the page.
#[derive(Debug)]
pub struct Writer<'a> {
    page: &'a Page,
    interface: Interface,
}

impl<'a> Writer<'a> {
    /// Begins a page, with nothing in it but the interface and its routes.
    pub fn new(page: &'a Page, interface: Interface) -> Self {
        let writer = Self { page, interface };
        writer.publish([].into_iter(), [].into_iter());
        page[AT_MAGIC].store(MAGIC, Ordering::Relaxed);
        // Last: who finds the layout finds all else.
        page[AT_LAYOUT].store(LAYOUT, Ordering::Release);
        writer
    }

    /// Shows what is known now.
    pub fn publish(
        &self,
        ports: impl Iterator<Item = (Port, u32)>,
        neighbours: impl Iterator<Item = Neighbour>,
    ) {
        let sequence = self.page[AT_SEQUENCE].load(Ordering::Relaxed);
        self.page[AT_SEQUENCE].store(sequence.wrapping_add(1), Ordering::Relaxed);
        fence(Ordering::Release);
        let set = |at: usize, word: u64| self.page[at].store(word, Ordering::Relaxed);
        set(AT_INTERFACE, address_word(self.interface.ip, self.interface.prefix_len));
        set(AT_MAC, mac_word(self.interface.mac));
        let mut counts = [0u64; 3];
        for ((port, client), at) in ports.zip(AT_PORTS..AT_NEIGHBOURS) {
            set(at, u64::from(client) << 32 | u64::from(port.protocol) << 16 | u64::from(port.number));
            counts[0] += 1;
        }
        for (neighbour, at) in neighbours.zip((AT_NEIGHBOURS..AT_ROUTES).step_by(2)) {
            set(at, address_word(neighbour.ip, 32));
            set(at + 1, mac_word(neighbour.mac));
            counts[1] += 1;
        }
        for (route, at) in self.routes().zip((AT_ROUTES..).step_by(2).take(ROUTES_MAX)) {
            set(at, address_word(route.prefix, route.prefix_len));
            set(at + 1, route.gateway.map_or(0, |gateway| 1 << 32 | u64::from(gateway.to_bits())));
            counts[2] += 1;
        }
        set(AT_COUNTS, counts[0] | counts[1] << 16 | counts[2] << 32);
        self.page[AT_SEQUENCE].store(sequence.wrapping_add(2), Ordering::Release);
    }

    fn routes(&self) -> impl Iterator<Item = Route> {
        let Interface { ip, prefix_len, gateway, .. } = self.interface;
        let mask = u32::MAX.checked_shl(32 - u32::from(prefix_len)).unwrap_or(0);
        let link = Route { prefix: Ipv4Addr::from_bits(ip.to_bits() & mask), prefix_len, gateway: None };
        let rest = gateway.map(|_| Route { prefix: Ipv4Addr::UNSPECIFIED, prefix_len: 0, gateway });
        [Some(link), rest].into_iter().flatten()
    }
}

/// Why the page cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpenError {
    /// It is not a guardian's.
    NotTables,
    /// It has another layout than [`LAYOUT`].
    OtherLayout {
        /// The one that it has.
        found: u64,
    },
}

impl core::fmt::Display for OpenError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::NotTables => f.write_str("that page is not a guardian's"),
            Self::OtherLayout { found } => write!(
                f,
                "the guardian's tables have layout {found} and this program reads layout {LAYOUT}; build both from the same \
                 sources"
            ),
        }
    }
}

/// The tables were being written whenever they were looked at: let the guardian run, and look again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Changing;

/// A client's side of the page.
#[derive(Clone, Copy, Debug)]
pub struct Reader<'a> {
    page: &'a Page,
}

/// What the tables said at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// The interface's address.
    pub ip: Ipv4Addr,
    /// Length of the prefix on the link.
    pub prefix_len: u8,
    /// The interface's Ethernet address.
    pub mac: MacAddress,
    /// Ports and the environments that have them.
    pub ports: Vec<(Port, u32)>,
    /// Who is on the link.
    pub neighbours: Vec<Neighbour>,
    /// Where what is sent goes.
    pub routes: Vec<Route>,
}

impl<'a> Reader<'a> {
    /// Looks whether that is a page that can be read.
    pub fn open(page: &'a Page) -> Result<Self, OpenError> {
        let found = page[AT_LAYOUT].load(Ordering::Acquire);
        if page[AT_MAGIC].load(Ordering::Relaxed) != MAGIC {
            return Err(OpenError::NotTables);
        }
        if found != LAYOUT {
            return Err(OpenError::OtherLayout { found });
        }
        Ok(Self { page })
    }

    /// What they say now.
    pub fn snapshot(&self) -> Result<Snapshot, Changing> {
        for _ in 0..TRIES {
            let before = self.page[AT_SEQUENCE].load(Ordering::Acquire);
            if before & 1 != 0 {
                continue;
            }
            let snapshot = self.read();
            fence(Ordering::Acquire);
            if self.page[AT_SEQUENCE].load(Ordering::Relaxed) == before {
                return Ok(snapshot);
            }
        }
        Err(Changing)
    }

    /// What is there, whole or not.
    fn read(&self) -> Snapshot {
        let get = |at: usize| self.page[at].load(Ordering::Relaxed);
        let counts = get(AT_COUNTS);
        let count = |shift: u32, max: usize| ((counts >> shift) as usize & 0xFFFF).min(max);
        let (ip, prefix_len) = address(get(AT_INTERFACE));
        Snapshot {
            ip,
            prefix_len,
            mac: mac(get(AT_MAC)),
            ports: (AT_PORTS..)
                .take(count(0, PORTS_MAX))
                .map(|at| {
                    let word = get(at);
                    (Port { protocol: (word >> 16) as u8, number: word as u16 }, (word >> 32) as u32)
                })
                .collect(),
            neighbours: (AT_NEIGHBOURS..)
                .step_by(2)
                .take(count(16, NEIGHBOURS_MAX))
                .map(|at| Neighbour { ip: address(get(at)).0, mac: mac(get(at + 1)) })
                .collect(),
            routes: (AT_ROUTES..)
                .step_by(2)
                .take(count(32, ROUTES_MAX))
                .map(|at| {
                    let (prefix, prefix_len) = address(get(at));
                    let gateway = get(at + 1);
                    let gateway = (gateway >> 32 != 0).then(|| Ipv4Addr::from_bits(gateway as u32));
                    Route { prefix, prefix_len, gateway }
                })
                .collect(),
        }
    }
}

impl Snapshot {
    /// Who on the link is given what is for an address: itself, or a gateway. `None`: there is no way.
    pub fn next_hop(&self, destination: Ipv4Addr) -> Option<Ipv4Addr> {
        let leads = |route: &&Route| {
            let mask = u32::MAX.checked_shl(32 - u32::from(route.prefix_len.min(32))).unwrap_or(0);
            (destination.to_bits() ^ route.prefix.to_bits()) & mask == 0
        };
        let best = self.routes.iter().filter(leads).max_by_key(|route| route.prefix_len)?;
        Some(best.gateway.unwrap_or(destination))
    }

    /// Where that is on the link. `None`: no way, or its place is not known yet.
    pub fn next_hop_mac(&self, destination: Ipv4Addr) -> Option<MacAddress> {
        let hop = self.next_hop(destination)?;
        self.neighbours.iter().find(|neighbour| neighbour.ip == hop).map(|neighbour| neighbour.mac)
    }
}

fn address_word(ip: Ipv4Addr, prefix_len: u8) -> u64 {
    u64::from(ip.to_bits()) | u64::from(prefix_len) << 32
}

fn address(word: u64) -> (Ipv4Addr, u8) {
    (Ipv4Addr::from_bits(word as u32), (word >> 32) as u8)
}

fn mac_word(mac: MacAddress) -> u64 {
    let [a, b, c, d, e, f] = mac.0;
    u64::from_le_bytes([a, b, c, d, e, f, 0, 0])
}

fn mac(word: u64) -> MacAddress {
    let [a, b, c, d, e, f, ..] = word.to_le_bytes();
    MacAddress([a, b, c, d, e, f])
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec;

    fn page() -> Page {
        [const { AtomicU64::new(0) }; WORDS]
    }

    const INTERFACE: Interface = Interface {
        mac: MacAddress([2, 0, 0, 0, 0, 1]),
        ip: Ipv4Addr::new(10, 0, 0, 2),
        prefix_len: 24,
        gateway: Some(Ipv4Addr::new(10, 0, 0, 1)),
    };

    fn neighbour(last: u8) -> Neighbour {
        Neighbour { ip: Ipv4Addr::new(10, 0, 0, last), mac: MacAddress([2, 0, 0, 0, 1, last]) }
    }

    #[test]
    fn what_is_written_is_read() {
        let page = page();
        let writer = Writer::new(&page, INTERFACE);
        let reader = Reader::open(&page).expect("a page of ours");
        assert!(reader.snapshot().expect("quiet").ports.is_empty());
        let (ports, neighbours) =
            (vec![(Port::tcp(80), 1), (Port::udp(53), 63)], vec![neighbour(1), neighbour(9)]);
        writer.publish(ports.iter().copied(), neighbours.iter().copied());
        let snapshot = reader.snapshot().expect("quiet");
        assert_eq!((snapshot.ports.clone(), snapshot.neighbours.clone()), (ports, neighbours));
        assert_eq!((snapshot.ip, snapshot.prefix_len, snapshot.mac), (INTERFACE.ip, 24, INTERFACE.mac));
        assert_eq!(snapshot.next_hop(Ipv4Addr::new(10, 0, 0, 77)), Some(Ipv4Addr::new(10, 0, 0, 77)));
        assert_eq!(snapshot.next_hop(Ipv4Addr::new(192, 0, 2, 1)), INTERFACE.gateway);
        assert_eq!(snapshot.next_hop_mac(Ipv4Addr::new(192, 0, 2, 1)), Some(neighbour(1).mac));
        assert_eq!(snapshot.next_hop_mac(Ipv4Addr::new(10, 0, 0, 77)), None);
        writer.publish([].into_iter(), [].into_iter());
        assert!(reader.snapshot().expect("quiet").neighbours.is_empty());
    }

    #[test]
    fn without_a_gateway_only_the_link_is_reached() {
        let page = page();
        Writer::new(&page, Interface { gateway: None, ..INTERFACE });
        let snapshot = Reader::open(&page).expect("ours").snapshot().expect("quiet");
        assert_eq!(snapshot.next_hop(Ipv4Addr::new(192, 0, 2, 1)), None);
    }

    #[test]
    fn other_layout_and_other_page_are_refused_with_what_was_found() {
        let page = page();
        assert_eq!(Reader::open(&page).expect_err("empty"), OpenError::NotTables);
        Writer::new(&page, INTERFACE);
        page[AT_LAYOUT].store(LAYOUT + 1, Ordering::Relaxed);
        let error = Reader::open(&page).expect_err("of another version");
        assert_eq!(error, OpenError::OtherLayout { found: LAYOUT + 1 });
        assert!(std::format!("{error}").contains("layout 2 and this program reads layout 1"));
    }

    #[test]
    fn what_is_being_written_is_not_read() {
        let page = page();
        Writer::new(&page, INTERFACE);
        let reader = Reader::open(&page).expect("ours");
        page[AT_SEQUENCE].fetch_add(1, Ordering::Relaxed);
        assert_eq!(reader.snapshot(), Err(Changing));
        page[AT_SEQUENCE].fetch_add(1, Ordering::Relaxed);
        assert!(reader.snapshot().is_ok());
    }

    /// A writer that never rests: whatever a reader gets is one of the states, and not a mixture.
    #[test]
    fn reader_beside_a_writer_sees_whole_states_only() {
        let page = page();
        let writer = Writer::new(&page, INTERFACE);
        let over = std::sync::atomic::AtomicBool::new(false);
        let mut mixed = None;
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for round in 0u32.. {
                    if over.load(Ordering::Relaxed) {
                        break;
                    }
                    let count = round as usize % PORTS_MAX;
                    writer.publish((0..count).map(|_| (Port::tcp(round as u16), round)), [].into_iter());
                    std::thread::yield_now();
                }
            });
            let reader = Reader::open(&page).expect("ours");
            let mut whole = 0;
            while whole < 2000 && mixed.is_none() {
                let Ok(snapshot) = reader.snapshot() else { continue };
                let round = snapshot.ports.first().map_or(0, |(_, round)| *round);
                let of_one = |(port, other): &(Port, u32)| *other == round && port.number == round as u16;
                let all =
                    snapshot.ports.iter().all(of_one) && snapshot.ports.len() == round as usize % PORTS_MAX;
                mixed = (!all).then_some(snapshot.ports);
                whole += 1;
            }
            over.store(true, Ordering::Relaxed);
        });
        assert_eq!(mixed, None);
    }

    proptest::proptest! {
        /// The page is another environment's: whatever it holds, reading it is harmless.
        #[test]
        fn any_page_is_read_without_harm(words in proptest::collection::vec(proptest::num::u64::ANY, WORDS)) {
            let page = page();
            for (slot, word) in page.iter().zip(words) {
                slot.store(word, Ordering::Relaxed);
            }
            page[AT_MAGIC].store(MAGIC, Ordering::Relaxed);
            page[AT_LAYOUT].store(LAYOUT, Ordering::Relaxed);
            if let Ok(snapshot) = Reader::open(&page).expect("says it is ours").snapshot() {
                proptest::prop_assert!(snapshot.ports.len() <= PORTS_MAX);
                snapshot.next_hop_mac(Ipv4Addr::new(192, 0, 2, 1));
            }
        }
    }
}
