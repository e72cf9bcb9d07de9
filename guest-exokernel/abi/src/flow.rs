//! Flows: which frames a queue pair receives and may send.
//!
//! A tree, kept as an open-addressing hash table that the kernel writes and the VMM reads. The root stands for all
//! traffic of the device. A child is carved out of its parent by the next field of the chain
//!
//! ```text
//! destination prefix -> protocol -> destination port -> source prefix -> source port
//! ```
//!
//! All children of a node use the same prefix length (the node's `child_prefix_len`), so siblings are disjoint by
//! construction and a look-up is one hash a level, however many flows there are. The deepest node on the path that has
//! a target gets the frame; the root's target is the guardian. For a frame that is sent, the VMM looks up its reverse:
//! it must arrive at the sender, unless the sender's target carries [`SEND_ANY`].
//!
//! An IPv6 address that the interface makes of its hardware address in a prefix of a router's (RFC 4862 5.5.3) has the flows of
//! the link-local address, unless a node of its own is there: who carves cannot know those prefixes.

use core::sync::atomic::{AtomicU32, AtomicU64};

/// Nodes of a table, root included, unless somebody wants another number. It is always a power of two.
pub const NODES: u32 = 1024;
/// Most nodes of a table.
pub const NODES_MAX: u32 = 1 << 22;
/// Index of the root.
pub const ROOT: u32 = 0;
/// Longest run of slots that a look-up visits a level.
pub const PROBES: u32 = 16;

/// [`Node::state`]: never used; ends a probe.
pub const EMPTY: u32 = 0;
/// [`Node::state`]: was used; a probe goes on.
pub const REMOVED: u32 = 1;
/// [`Node::state`]: in use.
pub const LIVE: u32 = 2;

/// [`Target`] right: may send frames whatever their addresses (guardians, direct server return).
pub const SEND_ANY: u32 = 1;
/// [`Target`] right: the first queue pair gets a copy of what IPv6 hosts are told of their link, whoever's flow that is: router
/// advertisements, and what neighbours say or ask in groups (RFC 4861). Given at boot only.
pub const HEAR_LINK: u32 = 2;

/// The field by which a level is carved out of the one above.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Level {
    /// All traffic of the device.
    Root = 0,
    /// Destination address prefix (IPv4 as an IPv4-mapped IPv6 address).
    DestinationPrefix = 1,
    /// IP protocol number.
    Protocol = 2,
    /// Destination port.
    DestinationPort = 3,
    /// Source address prefix.
    SourcePrefix = 4,
    /// Source port.
    SourcePort = 5,
}

/// Who gets the frames of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Target {
    /// Environment.
    pub environment: u16,
    /// First queue pair of the device.
    pub queue_pair: u16,
    /// How many queue pairs from there on share the frames, by a symmetric hash of addresses and ports.
    pub queue_pairs: u16,
    /// [`SEND_ANY`], [`HEAR_LINK`], both or 0.
    pub rights: u16,
}

impl Target {
    /// As stored in [`Node::target`]. Never 0, because `queue_pairs` is not.
    pub const fn pack(self) -> u64 {
        self.environment as u64
            | (self.queue_pair as u64) << 16
            | (self.queue_pairs as u64) << 32
            | (self.rights as u64) << 48
    }
    /// The inverse of [`Self::pack`]; `None` if there is no target.
    pub const fn unpack(word: u64) -> Option<Self> {
        let queue_pairs = (word >> 32) as u16;
        if queue_pairs == 0 {
            return None;
        }
        Some(Self {
            environment: word as u16,
            queue_pair: (word >> 16) as u16,
            queue_pairs,
            rights: (word >> 48) as u16,
        })
    }
}

/// A node of the tree. 64 bytes, words only.
#[derive(Debug, Default)]
#[repr(C, align(64))]
pub struct Node {
    /// [`EMPTY`], [`REMOVED`] or [`LIVE`].
    pub state: AtomicU32,
    /// Index of the parent.
    pub parent: AtomicU32,
    /// [`Level`] of this node.
    pub level: AtomicU32,
    /// Prefix length that the children use, in bits of the 128-bit address, if they are prefixes.
    pub child_prefix_len: AtomicU32,
    /// How many children there are; 0 ends a look-up early.
    pub children: AtomicU32,
    /// The kernel's own: number plus one of the capability with which it was directed.
    pub director: AtomicU32,
    /// The field's value: an address prefix as two big-endian halves, or a number in the second word.
    pub field: [AtomicU64; 2],
    /// [`Target::pack`], or 0: frames go to the nearest node above that has one.
    pub target: AtomicU64,
    /// Zero.
    pub reserved2: AtomicU64,
}

/// What a table begins with. Its nodes follow, [`ROOT`] first.
#[derive(Debug, Default)]
#[repr(C, align(64))]
pub struct FlowTable {
    /// Odd while the kernel changes the table; readers start again when it changed under them.
    pub sequence: AtomicU32,
    /// How many nodes follow. Written once, by the VMM, before the machine runs.
    pub nodes: AtomicU32,
    /// Where in the table a node lies depends on it, so that nobody who carves can aim at a place that somebody else will need.
    /// Written once, by the VMM, before the machine runs; no environment can read it.
    pub key: AtomicU64,
    /// Zero, to the next cache line.
    pub padding: [AtomicU32; 12],
}

/// Bytes of a table of so many nodes.
pub const fn table_bytes(nodes: u32) -> u64 {
    size_of::<FlowTable>() as u64 + nodes as u64 * size_of::<Node>() as u64
}

/// First slot to look into for a child of `parent` with this field, in a table of so many nodes with this key.
pub const fn slot(key: u64, parent: u32, level: Level, field: [u64; 2], nodes: u32) -> u32 {
    let mut hash = ((parent as u64) << 3 | level as u64) ^ key;
    hash = (hash ^ field[0]).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    hash = (hash.rotate_left(29) ^ field[1]).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    // What differs in the upper bits only must not fall together whatever the key.
    hash = (hash ^ (hash >> 32)).wrapping_mul(0x94D0_49BB_1331_11EB);
    ((hash >> 40) as u32) & (nodes - 1)
}

/// The first `len` bits of an address, the rest zero.
pub const fn prefix(address: [u64; 2], len: u32) -> [u64; 2] {
    let bits = (address[0] as u128) << 64 | address[1] as u128;
    let kept = if len == 0 {
        0
    } else if len >= 128 {
        bits
    } else {
        bits & !(u128::MAX >> len)
    };
    [(kept >> 64) as u64, kept as u64]
}

/// An IPv4 address as the tree sees it: `::ffff:a.b.c.d`. An IPv4 prefix of `n` bits has length `96 + n` here.
pub const fn ipv4(address: [u8; 4]) -> [u64; 2] {
    [0, 0xFFFF_0000_0000 | u32::from_be_bytes(address) as u64]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn node_is_a_cache_line_and_so_is_what_comes_first() {
        assert_eq!((size_of::<Node>(), size_of::<FlowTable>()), (64, 64));
    }

    #[test]
    fn prefix_keeps_the_leading_bits() {
        let address = ipv4([10, 1, 2, 3]);
        assert_eq!(prefix(address, 128), address);
        assert_eq!(prefix(address, 96 + 24), ipv4([10, 1, 2, 0]));
        assert_eq!(prefix(address, 96 + 8), ipv4([10, 0, 0, 0]));
        assert_eq!(prefix(address, 0), [0, 0]);
    }

    #[test]
    fn target_round_trips_and_zero_is_none() {
        let target = Target { environment: 5, queue_pair: 2, queue_pairs: 1, rights: 1 };
        assert_eq!(Target::unpack(target.pack()), Some(target));
        assert_eq!(Target::unpack(0), None);
    }

    proptest::proptest! {
        #[test]
        fn slot_is_in_the_table(parent: u32, a: u64, b: u64, bits in 0u32..=22) {
            proptest::prop_assert!(slot(a ^ b, parent, Level::Protocol, [a, b], 1 << bits) < 1 << bits);
        }
    }
}
