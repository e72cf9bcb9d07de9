//! Writing the flow table (see [`abi::flow`]), which the hardware reads at the same time.

use abi::call::Error;
use abi::flow::{EMPTY, FlowTable, LIVE, Level, Node, PROBES, REMOVED, ROOT, Target, prefix, slot};
use core::sync::atomic::Ordering;

/// By what a flow is carved out of its parent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Field {
    /// [`Level`] of the child, as a number.
    pub level: u32,
    /// Bits of the prefix, for the levels that are prefixes; otherwise 0.
    pub prefix_len: u32,
    /// The value; bits beyond the prefix do not matter.
    pub value: [u64; 2],
}

/// The only writer of a table.
#[derive(Clone, Copy, Debug)]
pub struct Writer<'a> {
    table: &'a FlowTable,
    /// A power of two of them.
    nodes: &'a [Node],
}

impl<'a> Writer<'a> {
    /// There must be no other. The number of nodes is a power of two.
    pub fn new(table: &'a FlowTable, nodes: &'a [Node]) -> Self {
        Self { table, nodes }
    }

    /// Makes a child of `parent` without a target: its frames go on to whoever gets the parent's. Answers its index.
    pub fn carve(self, parent: u32, field: Field) -> Result<u32, Error> {
        let node = self.live(parent)?;
        let level = match field.level {
            1 => Level::DestinationPrefix,
            2 => Level::Protocol,
            3 => Level::DestinationPort,
            4 => Level::SourcePrefix,
            5 => Level::SourcePort,
            _ => return Err(Error::BadArgument),
        };
        if node.level.load(Ordering::Relaxed) + 1 != field.level {
            return Err(Error::BadArgument);
        }
        let value = match level {
            Level::DestinationPrefix | Level::SourcePrefix if field.prefix_len <= 128 => {
                prefix(field.value, field.prefix_len)
            }
            Level::Protocol if field.prefix_len == 0 && field.value[0] == 0 && field.value[1] <= 0xFF => {
                field.value
            }
            Level::DestinationPort | Level::SourcePort
                if field.prefix_len == 0 && field.value[0] == 0 && field.value[1] <= 0xFFFF =>
            {
                field.value
            }
            _ => return Err(Error::BadArgument),
        };
        let children = node.children.load(Ordering::Relaxed);
        // Siblings are disjoint because all have prefixes of the same length.
        if children > 0 && node.child_prefix_len.load(Ordering::Relaxed) != field.prefix_len {
            return Err(Error::BadArgument);
        }
        let first = slot(parent, level, value, self.nodes.len() as u32);
        let mut free = None;
        for probe in 0..PROBES {
            let index = (first + probe) & (self.nodes.len() as u32 - 1);
            let other = &self.nodes[index as usize];
            let state = other.state.load(Ordering::Relaxed);
            if state != LIVE {
                if free.is_none() && index != ROOT {
                    free = Some(index);
                }
                if state == EMPTY {
                    break;
                }
                continue;
            }
            let same = other.parent.load(Ordering::Relaxed) == parent
                && other.level.load(Ordering::Relaxed) == field.level
                && other.field[0].load(Ordering::Relaxed) == value[0]
                && other.field[1].load(Ordering::Relaxed) == value[1];
            if same {
                return Err(Error::Busy);
            }
        }
        let index = free.ok_or(Error::NoSpace)?;
        self.change(|| {
            node.child_prefix_len.store(field.prefix_len, Ordering::Relaxed);
            node.children.store(children + 1, Ordering::Relaxed);
            fill(&self.nodes[index as usize], LIVE, parent, level, value);
        });
        Ok(index)
    }

    /// Takes a node without children out; its frames go to the nearest above.
    pub fn remove(self, index: u32) -> Result<(), Error> {
        let node = self.live(index)?;
        if index == ROOT {
            return Err(Error::NotPermitted);
        }
        if node.children.load(Ordering::Relaxed) > 0 {
            return Err(Error::Busy);
        }
        let parent = &self.nodes[node.parent.load(Ordering::Relaxed) as usize & (self.nodes.len() - 1)];
        self.change(|| {
            fill(node, REMOVED, 0, Level::Root, [0, 0]);
            parent
                .children
                .store(parent.children.load(Ordering::Relaxed).saturating_sub(1), Ordering::Relaxed);
        });
        Ok(())
    }

    /// Says who gets the frames of a node, and remembers who said so.
    pub fn direct(self, index: u32, target: Option<Target>, director: u32) -> Result<(), Error> {
        let node = self.live(index)?;
        self.change(|| {
            node.director.store(director, Ordering::Relaxed);
            node.target.store(target.map_or(0, Target::pack), Ordering::Release);
        });
        Ok(())
    }

    /// Who directed a node; 0: nobody.
    pub fn director(self, index: u32) -> u32 {
        self.live(index).map_or(0, |node| node.director.load(Ordering::Relaxed))
    }

    fn live(self, index: u32) -> Result<&'a Node, Error> {
        let node = self.nodes.get(index as usize);
        node.filter(|node| index == ROOT || node.state.load(Ordering::Relaxed) == LIVE).ok_or(Error::NotFound)
    }

    /// Readers start again if the number is odd or has changed.
    fn change(self, change: impl FnOnce()) {
        let sequence = self.table.sequence.load(Ordering::Relaxed);
        self.table.sequence.store(sequence.wrapping_add(1), Ordering::SeqCst);
        change();
        self.table.sequence.store(sequence.wrapping_add(2), Ordering::SeqCst);
    }
}

/// Writes a node without children and target.
fn fill(node: &Node, state: u32, parent: u32, level: Level, field: [u64; 2]) {
    node.parent.store(parent, Ordering::Relaxed);
    node.level.store(level as u32, Ordering::Relaxed);
    node.child_prefix_len.store(0, Ordering::Relaxed);
    node.children.store(0, Ordering::Relaxed);
    node.director.store(0, Ordering::Relaxed);
    node.field[0].store(field[0], Ordering::Relaxed);
    node.field[1].store(field[1], Ordering::Relaxed);
    node.target.store(0, Ordering::Relaxed);
    node.state.store(state, Ordering::Release);
}
