//! A writer of the flow table: for the VMM's boot, before the kernel runs, and for tests. The kernel has its own.

use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use abi::flow::{
    EMPTY, FlowTable, LIVE, Level, NODES_MAX, Node, PROBES, REMOVED, ROOT, Target, prefix, slot,
};

use super::Memory;
use super::flow::{Table, find};
use super::shared::{Shared, TableError};

/// Why the table cannot be changed so.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FlowTableError {
    /// There is no such node.
    #[error("flow {index} does not exist")]
    NoSuchFlow {
        /// What was named.
        index: u32,
    },
    /// The field is not the next one of the chain.
    #[error(
        "flow {parent} is not carved up by this field; the chain is destination, protocol, destination port, source, source port"
    )]
    WrongField {
        /// The parent.
        parent: u32,
    },
    /// The siblings use another prefix length.
    #[error("the children of flow {parent} use prefixes of {used} bits, not {asked}")]
    OtherPrefixLen {
        /// The parent.
        parent: u32,
        /// What the siblings use.
        used: u32,
        /// What was asked for.
        asked: u32,
    },
    /// There is such a child already.
    #[error("this flow exists already, as {index}")]
    Exists {
        /// Its index.
        index: u32,
    },
    /// All slots that a look-up would visit are taken.
    #[error("the flow table is full; remove flows first")]
    Full,
    /// It has children.
    #[error("flow {index} has children; remove them first")]
    HasChildren {
        /// The node.
        index: u32,
    },
}

/// By what a flow is carved out of its parent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FlowField {
    /// Destination prefix; IPv4 by [`abi::flow::ipv4`] and 96 bits more.
    Destination {
        /// The address; bits beyond the prefix do not matter.
        address: [u64; 2],
        /// Bits of the prefix.
        prefix_len: u32,
    },
    /// IP protocol.
    Protocol(u8),
    /// Destination port.
    DestinationPort(u16),
    /// Source prefix.
    Source {
        /// The address; bits beyond the prefix do not matter.
        address: [u64; 2],
        /// Bits of the prefix.
        prefix_len: u32,
    },
    /// Source port.
    SourcePort(u16),
}

impl FlowField {
    /// Level and value as the table has them, and the prefix length.
    fn encode(self) -> (Level, [u64; 2], u32) {
        match self {
            Self::Destination { address, prefix_len } => {
                (Level::DestinationPrefix, prefix(address, prefix_len), prefix_len)
            }
            Self::Protocol(protocol) => (Level::Protocol, [0, protocol.into()], 0),
            Self::DestinationPort(port) => (Level::DestinationPort, [0, port.into()], 0),
            Self::Source { address, prefix_len } => {
                (Level::SourcePrefix, prefix(address, prefix_len), prefix_len)
            }
            Self::SourcePort(port) => (Level::SourcePort, [0, port.into()], 0),
        }
    }
}

/// The only writer of a table.
#[derive(Debug)]
pub struct FlowTableWriter {
    table: Table,
}

impl FlowTableWriter {
    /// Makes a table of so many nodes at `gpa`, where there is nothing yet: no flow, no guardian.
    pub fn create(memory: &Arc<Memory>, gpa: u64, nodes: u32) -> Result<Self, TableError> {
        let what = "the flow table";
        if !nodes.is_power_of_two() || nodes > NODES_MAX {
            return Err(TableError::Count { what, count: nodes, max: NODES_MAX });
        }
        let head: Shared<FlowTable> = Shared::open(memory, what, gpa)?;
        head.nodes.store(nodes, Ordering::Relaxed);
        // Random for each table: what the standard library protects its own hash tables with.
        head.key.store(RandomState::new().hash_one(gpa), Ordering::Relaxed);
        let mut writer = Self::open(memory, gpa)?;
        writer.change(|table| table.nodes[ROOT as usize].state.store(LIVE, Ordering::Relaxed));
        Ok(writer)
    }

    /// The table at `gpa`. There must be no other writer.
    pub fn open(memory: &Arc<Memory>, gpa: u64) -> Result<Self, TableError> {
        Ok(Self { table: Table::open(memory, gpa)? })
    }

    /// Empties the table: no flow, no guardian.
    pub fn clear(&mut self) {
        self.change(|table| {
            for node in table.nodes.iter() {
                fill(node, EMPTY, 0, Level::Root, [0, 0], None);
            }
            table.nodes[ROOT as usize].state.store(LIVE, Ordering::Relaxed);
        });
    }

    /// Makes somebody the guardian.
    pub fn set_root(&mut self, target: Option<Target>) {
        self.change(|table| {
            let root = &table.nodes[ROOT as usize];
            root.state.store(LIVE, Ordering::Relaxed);
            root.target.store(target.map_or(0, Target::pack), Ordering::Release);
        });
    }

    /// Carves a flow out of `parent`. Returns its index.
    pub fn insert(
        &mut self,
        parent: u32,
        field: FlowField,
        target: Option<Target>,
    ) -> Result<u32, FlowTableError> {
        let (level, value, prefix_len) = field.encode();
        let parent_node = self.live(parent)?;
        if parent_node.level.load(Ordering::Relaxed) + 1 != level as u32 {
            return Err(FlowTableError::WrongField { parent });
        }
        let children = parent_node.children.load(Ordering::Relaxed);
        let used = parent_node.child_prefix_len.load(Ordering::Relaxed);
        if children > 0 && used != prefix_len {
            return Err(FlowTableError::OtherPrefixLen { parent, used, asked: prefix_len });
        }
        if let Some(index) = find(&self.table, parent, level, value) {
            return Err(FlowTableError::Exists { index });
        }
        let nodes = self.table.len();
        let first = slot(self.table.head.key.load(Ordering::Relaxed), parent, level, value, nodes);
        let free = (0..PROBES).map(|probe| (first + probe) & (nodes - 1)).find(|&index| {
            index != ROOT && self.table.nodes[index as usize].state.load(Ordering::Relaxed) != LIVE
        });
        let index = free.ok_or(FlowTableError::Full)?;
        self.change(|table| {
            let parent_node = &table.nodes[parent as usize];
            parent_node.child_prefix_len.store(prefix_len, Ordering::Relaxed);
            parent_node.children.store(children + 1, Ordering::Relaxed);
            fill(&table.nodes[index as usize], LIVE, parent, level, value, target);
        });
        Ok(index)
    }

    /// Takes a flow out; its frames go to the nearest flow above.
    pub fn remove(&mut self, index: u32) -> Result<(), FlowTableError> {
        let node = self.live(index)?;
        if index == ROOT {
            return Err(FlowTableError::NoSuchFlow { index });
        }
        if node.children.load(Ordering::Relaxed) > 0 {
            return Err(FlowTableError::HasChildren { index });
        }
        let parent = (node.parent.load(Ordering::Relaxed) & (self.table.len() - 1)) as usize;
        self.change(|table| {
            fill(&table.nodes[index as usize], REMOVED, 0, Level::Root, [0, 0], None);
            table.nodes[parent].children.fetch_sub(1, Ordering::Relaxed);
        });
        Ok(())
    }

    /// A node that is in use.
    fn live(&self, index: u32) -> Result<&Node, FlowTableError> {
        let node = self.table.nodes.get(index as usize);
        let node = node.filter(|node| index == ROOT || node.state.load(Ordering::Relaxed) == LIVE);
        node.ok_or(FlowTableError::NoSuchFlow { index })
    }

    /// Changes the table under an odd sequence number.
    pub(super) fn change(&mut self, change: impl FnOnce(&Table)) {
        self.table.head.sequence.fetch_add(1, Ordering::AcqRel);
        change(&self.table);
        self.table.head.sequence.fetch_add(1, Ordering::Release);
    }
}

/// Writes a node without children.
fn fill(node: &Node, state: u32, parent: u32, level: Level, field: [u64; 2], target: Option<Target>) {
    node.parent.store(parent, Ordering::Relaxed);
    node.level.store(level as u32, Ordering::Relaxed);
    node.child_prefix_len.store(0, Ordering::Relaxed);
    node.children.store(0, Ordering::Relaxed);
    node.field[0].store(field[0], Ordering::Relaxed);
    node.field[1].store(field[1], Ordering::Relaxed);
    node.target.store(target.map_or(0, Target::pack), Ordering::Relaxed);
    node.state.store(state, Ordering::Release);
}
