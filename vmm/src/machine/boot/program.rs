//! Programs in memory: the kernel once, the image's program for each environment that runs it.

use super::paging::{Access, Mapping, PageTables};
use super::probes::ProbePages;
use crate::machine::MachineError;
use crate::machine::memory::Placer;
use crate::tables::Memory;
use abi::layout::{LARGE_PAGE_BYTES, PAGE_BYTES, STACK_BYTES, STACK_TOP_VA};
use exovm_image::program::{Program, Segment};
use vm_memory::{Bytes, GuestAddress};

/// Page tables that an environment takes at most for its program, stack and heap, besides what grows with memory.
pub(super) fn tables(program: &Program) -> u64 {
    let of_segments = program.segments.iter().map(|segment| segment.len_bytes / LARGE_PAGE_BYTES + 2);
    16 + of_segments.sum::<u64>()
}

fn place(memory: &Memory, low: &mut Placer, segment: &Segment) -> Result<u64, MachineError> {
    let gpa = low.pages(segment.len_bytes)?;
    memory.write_slice(&segment.bytes, GuestAddress(gpa))?;
    Ok(gpa)
}

/// Places the kernel's segments and maps each with its own rights.
pub(super) fn load_kernel(
    memory: &Memory,
    low: &mut Placer,
    kernel: &Program,
    tables: &PageTables<'_>,
    table_pages: &mut Placer,
    probes: &mut ProbePages,
) -> Result<(), MachineError> {
    for segment in &kernel.segments {
        let gpa = place(memory, low, segment)?;
        probes.remember(segment, gpa);
        let len = segment.len_bytes.next_multiple_of(PAGE_BYTES);
        tables.map(table_pages, segment.va, gpa, len, Mapping::kernel(segment.access))?;
    }
    Ok(())
}

/// Loads a program into several environments. What none of them can write is there once.
pub(super) struct Loader<'a> {
    memory: &'a Memory,
    program: &'a Program,
    /// Where each segment that nobody writes lies, once it was loaded.
    shared_gpa: Vec<Option<u64>>,
}

impl<'a> Loader<'a> {
    pub(super) fn new(memory: &'a Memory, program: &'a Program) -> Self {
        Self { memory, program, shared_gpa: vec![None; program.segments.len()] }
    }

    /// Loads it into one more, with a stack of its own.
    pub(super) fn load(
        &mut self,
        low: &mut Placer,
        tables: &PageTables<'_>,
        table_pages: &mut Placer,
        probes: &mut ProbePages,
    ) -> Result<(), MachineError> {
        for (segment, shared_gpa) in self.program.segments.iter().zip(&mut self.shared_gpa) {
            let gpa = match *shared_gpa {
                Some(gpa) => gpa,
                None => place(self.memory, low, segment)?,
            };
            if segment.access != Access::Write {
                *shared_gpa = Some(gpa);
            }
            probes.remember(segment, gpa);
            let len = segment.len_bytes.next_multiple_of(PAGE_BYTES);
            tables.map(table_pages, segment.va, gpa, len, Mapping::fixed(segment.access))?;
        }
        let stack_gpa = low.pages(STACK_BYTES)?;
        let stack_va = STACK_TOP_VA - STACK_BYTES;
        tables.map(table_pages, stack_va, stack_gpa, STACK_BYTES, Mapping::fixed(Access::Write))?;
        Ok(())
    }
}
