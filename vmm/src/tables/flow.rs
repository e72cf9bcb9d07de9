//! Flow look-up: whose is a received frame, and may a frame be sent.
//!
//! The walk takes one hash a level and at most [`PROBES`] slots a hash, whatever the table holds, so it ends on any content.
//! The kernel's changes are noticed by the table's sequence number; a table that stays in the middle of a change counts as
//! one without children: its frames go to the guardian, and only the guardian may send.
//!
//! An address that the interface makes of its hardware address, in whatever prefix a router advertises (RFC 4862 5.5.3), has the
//! flows of the link-local one, unless it has flows of its own: nobody knows those prefixes when the table is made.

use std::hint::spin_loop;
use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};

use abi::flow::{
    FlowTable, HEAR_LINK, LIVE, Level, NODES_MAX, Node, PROBES, ROOT, SEND_ANY, Target, prefix, slot,
};

use super::frame::FrameKey;
use super::shared::{Shared, TableError};
use super::{Memory, Tables};

/// How often a look-up waits for the end of a change: some 50 us, more than any change takes natively.
const RETRIES: u32 = 2000;

/// A flow table in guest memory. The number of its nodes, a power of two, is read once.
#[derive(Clone, Debug)]
pub(super) struct Table {
    pub(super) head: Shared<FlowTable>,
    pub(super) nodes: Shared<[Node]>,
}

impl Table {
    /// The table at `gpa`, which is made already.
    pub(super) fn open(memory: &Arc<Memory>, gpa: u64) -> Result<Self, TableError> {
        let what = "the flow table";
        let head: Shared<FlowTable> = Shared::open(memory, what, gpa)?;
        let count = head.nodes.load(Ordering::Relaxed);
        if !count.is_power_of_two() || count > NODES_MAX {
            return Err(TableError::Count { what, count, max: NODES_MAX });
        }
        let nodes = Shared::slice(memory, what, gpa + size_of::<FlowTable>() as u64, count as usize)?;
        Ok(Self { head, nodes })
    }

    /// How many nodes there are.
    #[inline]
    pub(super) fn len(&self) -> u32 {
        self.nodes.len() as u32
    }
}

/// A reader of the flow table.
#[derive(Clone, Debug)]
pub struct Flows {
    table: Table,
    /// The sequence number at which a look-up gave up; the next one does not wait for it again.
    stuck_at: Option<u32>,
    stuck_lookups: u64,
    send_any: SendAny,
    /// Nodes with [`HEAR_LINK`] at the first look: it is given at boot only, so there are no others later.
    hearing_nodes: Option<Vec<u32>>,
    /// The last eight bytes of the addresses that the interface makes of its hardware address; 0: it has none.
    interface_id: u64,
}

/// Who may send anything, as of one state of the table.
#[derive(Clone, Copy, Debug, Default)]
struct SendAny {
    /// The state; `None`: look again.
    sequence: Option<u32>,
    environments: u64,
}

/// The first eight bytes of link-local addresses (RFC 4291 2.5.6).
pub(crate) const LINK_LOCAL: u64 = 0xFE80 << 48;

/// The last eight bytes of the addresses that an interface makes of its hardware address (RFC 4291, appendix A).
pub(crate) fn interface_id(mac: [u8; 6]) -> u64 {
    let [a, b, c, d, e, f] = mac;
    u64::from_be_bytes([a ^ 2, b, c, 0xFF, 0xFE, d, e, f])
}

impl Flows {
    /// The table at `gpa`.
    pub fn open(memory: &Arc<Memory>, gpa: u64) -> Result<Self, TableError> {
        let table = Table::open(memory, gpa)?;
        let send_any = SendAny::default();
        Ok(Self { table, stuck_at: None, stuck_lookups: 0, send_any, hearing_nodes: None, interface_id: 0 })
    }

    /// A reader of the tables' flows.
    pub fn of(tables: &Tables) -> Self {
        tables.flows()
    }

    /// Says which hardware address the interface has.
    pub fn set_hardware_address(&mut self, mac: [u8; 6]) {
        self.interface_id = interface_id(mac);
    }

    /// How many look-ups met a table that stayed in the middle of a change.
    pub fn stuck_lookups(&self) -> u64 {
        self.stuck_lookups
    }

    /// Who gets every frame, if the root has no children: then nobody needs to look into frames. One cache line.
    #[inline]
    pub fn undivided(&self) -> Option<Option<Target>> {
        let root = &self.table.nodes[ROOT as usize];
        (root.children.load(Ordering::Acquire) == 0)
            .then(|| Target::unpack(root.target.load(Ordering::Acquire)))
    }

    /// Who gets a received frame: the deepest node with a target on the way that the frame's fields lead. A frame without
    /// a key goes to the root. `None`: nobody, not even a guardian.
    pub fn lookup(&mut self, key: Option<&FrameKey>) -> Option<Target> {
        let root = &self.table.nodes[ROOT as usize];
        let guardian = || Target::unpack(root.target.load(Ordering::Acquire));
        let Some(key) = key else { return guardian() };
        if root.children.load(Ordering::Acquire) == 0 {
            return guardian();
        }
        for _ in 0..RETRIES {
            let sequence = self.table.head.sequence.load(Ordering::Acquire);
            if sequence.is_multiple_of(2) {
                let target = walk(&self.table, key, self.link_local_of(key.destination));
                fence(Ordering::Acquire);
                if self.table.head.sequence.load(Ordering::Relaxed) == sequence {
                    return target;
                }
            } else if self.stuck_at == Some(sequence) {
                break;
            }
            spin_loop();
        }
        self.stuck_at =
            Some(self.table.head.sequence.load(Ordering::Relaxed)).filter(|sequence| sequence % 2 == 1);
        self.stuck_lookups += 1;
        guardian()
    }

    /// The link-local address of the interface, if this is another one that it makes of its hardware address.
    fn link_local_of(&self, address: [u64; 2]) -> Option<[u64; 2]> {
        let [prefix, id] = address;
        // Neither IPv4 nor a group.
        let is_ours = id == self.interface_id && prefix != 0 && prefix >> 56 != 0xFF;
        is_ours.then_some([LINK_LOCAL, id])
    }

    /// Which queue pair of a target gets this frame: by a hash that is the same for both directions of a connection.
    #[inline]
    pub fn queue_pair(target: &Target, key: Option<&FrameKey>) -> u16 {
        let hash = match key {
            Some(key) if target.queue_pairs > 1 => key.symmetric_hash() as u16,
            _ => 0,
        };
        target.queue_pair.wrapping_add(hash % target.queue_pairs.max(1))
    }

    /// Whether `environment` may send this frame: its reverse would arrive there, or the environment may send anything.
    /// An ICMP error must besides go from the address that the quoted packet went to, to the one that it came from.
    pub fn may_send(&mut self, environment: u32, frame: &[u8]) -> bool {
        let arrives = |target: Option<Target>| {
            target.is_some_and(|target| u32::from(target.environment) == environment)
        };
        if let Some(target) = self.undivided() {
            return arrives(target);
        }
        let key = FrameKey::parse(frame);
        let forwarder_error = key.is_some_and(|key| key.forwarder_error);
        let reverse = key.map(FrameKey::reversed);
        (!forwarder_error && arrives(self.lookup(reverse.as_ref()))) || self.may_send_any(environment)
    }

    /// Whether a target of the environment carries [`SEND_ANY`]. The guardian's is found at once.
    fn may_send_any(&mut self, environment: u32) -> bool {
        let root = Target::unpack(self.table.nodes[ROOT as usize].target.load(Ordering::Acquire));
        if root.is_some_and(|root| {
            u32::from(root.environment) == environment && u32::from(root.rights) & SEND_ANY != 0
        }) {
            return true;
        }
        self.senders() & 1u64.checked_shl(environment).unwrap_or(0) != 0
    }

    /// The targets with [`HEAR_LINK`], one an environment.
    pub fn hearing_link(&mut self) -> Vec<Target> {
        let nodes = &self.table.nodes;
        let hearing =
            |index: u32| live_target(nodes, index).filter(|target| u32::from(target.rights) & HEAR_LINK != 0);
        let found = self.hearing_nodes.get_or_insert_with(|| {
            (0..nodes.len() as u32).filter(|&index| hearing(index).is_some()).collect()
        });
        let mut targets: Vec<Target> = Vec::new();
        for target in found.iter().filter_map(|&index| hearing(index)) {
            if !targets.iter().any(|known| known.environment == target.environment) {
                targets.push(target);
            }
        }
        targets
    }

    /// Environments with [`SEND_ANY`], a bit each. Reads the whole table, once for each of its states.
    fn senders(&mut self) -> u64 {
        let sequence = self.table.head.sequence.load(Ordering::Acquire);
        if self.send_any.sequence != Some(sequence) {
            let nodes = &self.table.nodes;
            let targets = (0..nodes.len() as u32).filter_map(|index| live_target(nodes, index));
            let environments = targets
                .filter(|target| u32::from(target.rights) & SEND_ANY != 0)
                .map(|target| 1u64.checked_shl(target.environment.into()).unwrap_or(0))
                .fold(0, |all, environment| all | environment);
            // Not kept while the kernel is in the middle of a change.
            let sequence = Some(sequence).filter(|sequence| sequence.is_multiple_of(2));
            self.send_any = SendAny { sequence, environments };
        }
        self.send_any.environments
    }
}

/// The target of a node that is in the table.
fn live_target(nodes: &[Node], index: u32) -> Option<Target> {
    let node = &nodes[index as usize];
    let is_live = index == ROOT || node.state.load(Ordering::Acquire) == LIVE;
    Target::unpack(node.target.load(Ordering::Acquire)).filter(|_| is_live)
}

/// One pass from the root to the deepest node that fits. A destination without a node has that of `other`.
fn walk(table: &Table, key: &FrameKey, other: Option<[u64; 2]>) -> Option<Target> {
    let mut index = ROOT;
    let mut best = Target::unpack(table.nodes[ROOT as usize].target.load(Ordering::Acquire));
    let levels = [
        Level::DestinationPrefix,
        Level::Protocol,
        Level::DestinationPort,
        Level::SourcePrefix,
        Level::SourcePort,
    ];
    for level in levels {
        let parent = &table.nodes[index as usize];
        if parent.children.load(Ordering::Acquire) == 0 {
            break;
        }
        let prefix_len = parent.child_prefix_len.load(Ordering::Acquire);
        let field = match (level, key.ports) {
            (Level::DestinationPrefix, _) => prefix(key.destination, prefix_len),
            (Level::SourcePrefix, _) => prefix(key.source, prefix_len),
            (Level::Protocol, _) => [0, key.protocol.into()],
            (Level::DestinationPort, Some((_, port))) | (Level::SourcePort, Some((port, _))) => {
                [0, port.into()]
            }
            _ => break,
        };
        let other = other.filter(|_| level == Level::DestinationPrefix);
        let found = find(table, index, level, field);
        let found = found.or_else(|| find(table, index, level, prefix(other?, prefix_len)));
        let Some(child) = found else { break };
        index = child;
        best = Target::unpack(table.nodes[child as usize].target.load(Ordering::Acquire)).or(best);
    }
    best
}

/// The child of `parent` with this field.
pub(super) fn find(table: &Table, parent: u32, level: Level, field: [u64; 2]) -> Option<u32> {
    let first = slot(table.head.key.load(Ordering::Relaxed), parent, level, field, table.len());
    for probe in 0..PROBES {
        let index = (first + probe) & (table.len() - 1);
        let node = &table.nodes[index as usize];
        match node.state.load(Ordering::Acquire) {
            abi::flow::EMPTY => return None,
            LIVE => {
                let fits = node.parent.load(Ordering::Relaxed) == parent
                    && node.level.load(Ordering::Relaxed) == level as u32
                    && node.field[0].load(Ordering::Relaxed) == field[0]
                    && node.field[1].load(Ordering::Relaxed) == field[1];
                if fits {
                    return Some(index);
                }
            }
            _ => {}
        }
    }
    None
}

#[cfg(test)]
mod tests;
