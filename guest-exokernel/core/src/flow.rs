//! Writing the flow table (see [`abi::flow`]), which the hardware reads at the same time.

use crate::refuse;
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
    #[inline(always)]
    pub fn carve(self, parent: u32, field: Field) -> Result<u32, Error> {
        let node = self.live(parent)?;
        let Some(level) = level(field.level) else { return refuse(Error::BadArgument) };
        if node.level.load(Ordering::Relaxed) + 1 != field.level {
            return refuse(Error::BadArgument);
        }
        let mut value = field.value;
        if matches!(level, Level::DestinationPrefix | Level::SourcePrefix) {
            if field.prefix_len > 128 {
                return refuse(Error::BadArgument);
            }
            if field.prefix_len != 128 {
                value = prefix(value, field.prefix_len);
            }
        } else {
            let most = if level == Level::Protocol { 0xFF } else { 0xFFFF };
            if field.prefix_len != 0 || value[0] != 0 || value[1] > most {
                return refuse(Error::BadArgument);
            }
        }
        let children = node.children.load(Ordering::Relaxed);
        // Siblings are disjoint because all have prefixes of the same length.
        if children > 0 && node.child_prefix_len.load(Ordering::Relaxed) != field.prefix_len {
            return refuse(Error::BadArgument);
        }
        let mut index =
            slot(self.table.key.load(Ordering::Relaxed), parent, level, value, self.nodes.len() as u32);
        if self.node(index).state.load(Ordering::Relaxed) != EMPTY || index == ROOT {
            index = self.find_free(index, parent, field.level, value)?;
        }
        let child = self.node(index);
        self.change(|| {
            node.child_prefix_len.store(field.prefix_len, Ordering::Relaxed);
            node.children.store(children + 1, Ordering::Relaxed);
            // All else of a node that is not live is zero.
            child.parent.store(parent, Ordering::Relaxed);
            child.level.store(field.level, Ordering::Relaxed);
            child.field[0].store(value[0], Ordering::Relaxed);
            child.field[1].store(value[1], Ordering::Relaxed);
            child.state.store(LIVE, Ordering::Release);
        });
        Ok(index)
    }

    /// A free node near the first that was looked at, unless there is one like it.
    #[cold]
    fn find_free(self, first: u32, parent: u32, level: u32, value: [u64; 2]) -> Result<u32, Error> {
        let mut free = None;
        for probe in 0..PROBES {
            let index = (first + probe) & (self.nodes.len() as u32 - 1);
            let other = self.node(index);
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
                && other.level.load(Ordering::Relaxed) == level
                && other.field[0].load(Ordering::Relaxed) == value[0]
                && other.field[1].load(Ordering::Relaxed) == value[1];
            if same {
                return refuse(Error::Busy);
            }
        }
        free.ok_or(Error::NoSpace)
    }

    /// Takes a node without children out; its frames go to the nearest above.
    pub fn remove(self, index: u32) -> Result<(), Error> {
        let node = self.live(index)?;
        if index == ROOT {
            return refuse(Error::NotPermitted);
        }
        if node.children.load(Ordering::Relaxed) > 0 {
            return refuse(Error::Busy);
        }
        let parent = &self.nodes[node.parent.load(Ordering::Relaxed) as usize & (self.nodes.len() - 1)];
        self.change(|| {
            clear(node);
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

    #[inline(always)]
    fn live(self, index: u32) -> Result<&'a Node, Error> {
        let node = self.node(index);
        if index == ROOT || node.state.load(Ordering::Relaxed) == LIVE {
            Ok(node)
        } else {
            refuse(Error::NotFound)
        }
    }

    /// An index is cut to what there is.
    #[inline(always)]
    fn node(self, index: u32) -> &'a Node {
        &self.nodes[index as usize & (self.nodes.len() - 1)]
    }

    /// Readers start again if the number is odd or has changed.
    fn change(self, change: impl FnOnce()) {
        let sequence = self.table.sequence.load(Ordering::Relaxed);
        self.table.sequence.store(sequence.wrapping_add(1), Ordering::SeqCst);
        change();
        self.table.sequence.store(sequence.wrapping_add(2), Ordering::SeqCst);
    }
}

/// The level with this number, that a child may have.
#[inline(always)]
fn level(number: u32) -> Option<Level> {
    Some(match number {
        1 => Level::DestinationPrefix,
        2 => Level::Protocol,
        3 => Level::DestinationPort,
        4 => Level::SourcePrefix,
        5 => Level::SourcePort,
        _ => return None,
    })
}

/// A node that was live is free.
fn clear(node: &Node) {
    node.state.store(REMOVED, Ordering::Relaxed);
    for word in [&node.parent, &node.level, &node.child_prefix_len, &node.children, &node.director] {
        word.store(0, Ordering::Relaxed);
    }
    node.target.store(0, Ordering::Relaxed);
    for word in &node.field {
        word.store(0, Ordering::Relaxed);
    }
}
