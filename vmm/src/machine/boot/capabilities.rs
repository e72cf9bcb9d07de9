//! The capabilities that environments have at boot: roots, each in the table of the environment that it was made for; where
//! one of them is the parent of the others, their memory comes from roots of its own.

use crate::machine::MachineError;
use crate::tables::Memory;
use abi::boot::{Child, MemoryRange};
use abi::capability::{CAPABILITIES, Capability, Handle, Kind, number as number_of, rights};
use abi::environment::FIRST_GENERATION;
use abi::layout::PAGE_BYTES;
use abi::paging::NO_SLOT;
use vm_memory::{Bytes, GuestAddress};
use zerocopy::IntoBytes;

/// Bytes of a place's table.
pub(super) const TABLE_BYTES: u64 = (CAPABILITIES * size_of::<Capability>()) as u64;

/// What an environment may let others do with itself.
pub(super) const ITSELF: u16 = rights::CONTROL
    | rights::DESTROY
    | rights::WAKE
    | rights::RECEIVE
    | rights::YIELD
    | rights::CALL
    | rights::GIVE;

/// What a guardian may do with the others: give them what they ask for, and tell them.
pub(super) const CLIENT: u16 = rights::RECEIVE | rights::WAKE | rights::YIELD | rights::CALL | rights::GIVE;

/// What they may do with the guardian: ask it, and let those whom they make ask it.
pub(super) const GUARDIAN: u16 = rights::CALL | rights::YIELD | rights::GIVE;

/// The table of one environment, to be written when it is complete.
#[derive(Debug, Default)]
pub(super) struct Capabilities {
    entries: Vec<Capability>,
}

impl Capabilities {
    /// Another root.
    fn add(&mut self, kind: Kind, range: (u64, u64), object: u32, bound: u32, rights: u16) -> Handle {
        let slot = self.entries.len() as u32;
        assert!(slot < NO_SLOT, "a boot needs a few slots a device");
        let (start, count) = range;
        let (kind, generation) = (kind as u8, 1);
        self.entries.push(Capability {
            kind,
            rights,
            generation,
            start,
            count,
            object,
            bound,
            ..Capability::default()
        });
        Handle::new(slot, generation)
    }

    /// Memory that devices may use; `entries` page-table entries map it.
    pub(super) fn memory(&mut self, range: MemoryRange, entries: u32) -> Handle {
        let all = rights::READ | rights::WRITE | rights::EXECUTE | rights::DMA | rights::GIVE;
        let pages = (range.start_gpa / PAGE_BYTES, range.len_bytes / PAGE_BYTES);
        self.add(Kind::Memory, pages, 1, entries, all)
    }

    /// Queues, by their numbers in the owner table.
    pub(super) fn queues(&mut self, first: u32, count: u32) -> Handle {
        self.add(Kind::Queues, (first.into(), count.into()), 0, 0, rights::BIND | rights::GIVE)
    }

    /// Slices of a vCPU.
    pub(super) fn slices(&mut self, first: u32, count: u32) -> Handle {
        self.add(Kind::Slices, (first.into(), count.into()), 0, 0, rights::BIND | rights::GIVE)
    }

    /// Blocks of a disk from 0 on, which an entry of the extent table allows.
    pub(super) fn extent(&mut self, device: u32, blocks: u64, extent_rights: u32, entry: u32) -> Handle {
        let mut rights = rights::GIVE;
        if extent_rights & abi::extent::READ != 0 {
            rights |= rights::READ;
        }
        if extent_rights & abi::extent::WRITE != 0 {
            rights |= rights::WRITE;
        }
        self.add(Kind::Extent, (0, blocks), device, entry + 1, rights)
    }

    /// The root of the flows.
    pub(super) fn all_flows(&mut self) -> Handle {
        let all = rights::CARVE | rights::DIRECT | rights::SEND_ANY | rights::GIVE;
        self.add(Kind::Flow, (abi::flow::ROOT.into(), 1), 0, 0, all)
    }

    /// A flow carved out of it.
    pub(super) fn flow(&mut self, node: u32) -> Handle {
        let own = rights::CARVE | rights::DIRECT | rights::GIVE;
        self.add(Kind::Flow, (node.into(), 1), 0, 0, own)
    }

    /// Places for further environments.
    pub(super) fn places(&mut self, first: u32, count: u32) -> Handle {
        let all = rights::CREATE
            | rights::CONTROL
            | rights::DESTROY
            | rights::WAKE
            | rights::RECEIVE
            | rights::YIELD
            | rights::CALL
            | rights::GIVE;
        self.add(Kind::Environment, (first.into(), count.into()), 0, 0, all)
    }

    /// Another environment that runs from the start, or itself. It does not end with this.
    pub(super) fn neighbour(&mut self, number: u32, rights: u16) -> Handle {
        self.add(Kind::Environment, (number.into(), 1), FIRST_GENERATION, 0, rights)
    }

    /// Being environment `own`'s, becomes the parent's of another one: holds that, and the root of its memory, from which the child's
    /// capability `theirs` is derived.
    pub(super) fn adopt(&mut self, own: u32, number: u32, child: &mut Self, theirs: Handle) -> Child {
        // As if it had made it in a place of its own: then it owns it.
        let place = self.places(number, 1);
        let all =
            rights::CONTROL | rights::DESTROY | rights::WAKE | rights::RECEIVE | rights::YIELD | rights::GIVE;
        let environment = self.neighbour(number, all);
        self.hang(own, place, environment);
        let Some(entry) = child.entries.get_mut(theirs.slot() as usize) else {
            return Child { environment, ..Child::default() };
        };
        let memory = self.add(Kind::Memory, (entry.start, entry.count), 0, 0, entry.rights);
        entry.depth = 1;
        entry.parent = number_of(own, memory.slot()) + 1;
        self.entries[memory.slot() as usize].first_child = number_of(number, theirs.slot()) + 1;
        Child { environment, memory, theirs }
    }

    /// Hangs one of environment `own`'s entries below another one of them.
    fn hang(&mut self, own: u32, above: Handle, below: Handle) {
        if let Some(entry) = self.entries.get_mut(below.slot() as usize) {
            entry.depth = 1;
            entry.parent = number_of(own, above.slot()) + 1;
        }
        if let Some(entry) = self.entries.get_mut(above.slot() as usize) {
            entry.first_child = number_of(own, below.slot()) + 1;
        }
    }

    /// How many there are.
    pub(super) fn count(&self) -> u32 {
        self.entries.len() as u32
    }

    /// Writes the table of the environment with this number into those of all.
    pub(super) fn write(&self, memory: &Memory, all_gpa: u64, environment: u32) -> Result<(), MachineError> {
        let gpa = all_gpa + u64::from(number_of(environment, 0)) * size_of::<Capability>() as u64;
        Ok(memory.write_slice(self.entries.as_bytes(), GuestAddress(gpa))?)
    }
}
