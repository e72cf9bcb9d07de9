//! One place for an environment: its page tables with everything in them that is the same whatever runs there.

use super::TURN_GPA;
use super::pages::{CommonPages, OwnPages};
use super::paging::{Access, Mapping, PageTables};
use crate::machine::MachineError;
use crate::machine::memory::Placer;
use crate::tables::Memory;
use abi::boot::Device;
use abi::layout::*;
use abi::log::LogRing;
use abi::paging::PRESENT;
use abi::queue::QUEUE_OWNERS;
use abi::statistics::StatisticsArea;
use abi::trace::{AccountArea, TraceRing};
use vm_memory::{Bytes, GuestAddress};

/// Page tables that a place takes at most, besides those of a program and its heap.
pub(super) const TABLES: u64 = 16;

/// A place under construction.
pub(super) struct Place<'m> {
    pub(super) tables: PageTables<'m>,
    pub(super) pages: OwnPages,
    /// Entry of the turn register.
    pub(super) turn_entry_gpa: u64,
    /// Entry of the first doorbell; the others follow.
    pub(super) doorbells_gpa: u64,
}

impl<'m> Place<'m> {
    /// Makes page tables that hold the kernel's half, the fixed pages and themselves. Neither the turn register nor a
    /// doorbell can be reached yet.
    pub(super) fn make(
        memory: &'m Memory,
        kernel_half: &PageTables<'_>,
        common: &CommonPages,
        low: &mut Placer,
        table_pages: &mut Placer,
    ) -> Result<Self, MachineError> {
        let pages = OwnPages::place(low)?;
        let tables = PageTables::new(memory, table_pages)?;
        tables.share_upper_half(kernel_half)?;
        tables.show_to_owner()?;
        for (va, gpa, len, access) in [
            (GATE_VA, common.gate_gpa, PAGE_BYTES, Access::Execute),
            (TIME_VA, common.time_gpa, PAGE_BYTES, Access::Read),
            (ENVIRONMENT_VA, pages.environment_gpa, PAGE_BYTES, Access::Read),
            (HOST_VA, common.host_gpa, PAGE_BYTES, Access::Read),
            (STATUS_VA, pages.status_gpa, PAGE_BYTES, Access::Write),
            (UPCALL_VA, pages.upcall_gpa, PAGE_BYTES, Access::Write),
            (KERNEL_PAGE_VA, pages.kernel_page_gpa, PAGE_BYTES, Access::Read),
            (RESUME_VA, common.resume_gpa, PAGE_BYTES, Access::Execute),
            (VCPUS_VA, common.vcpu_times_gpa, PAGE_BYTES, Access::Read),
            (ACCOUNT_VA, pages.account_gpa, size_of::<AccountArea>() as u64, Access::Write),
            (STATISTICS_VA, pages.statistics_gpa, size_of::<StatisticsArea>() as u64, Access::Write),
            (LOG_VA, pages.log_gpa, size_of::<LogRing>() as u64, Access::Write),
            (TRACE_VA, pages.trace_gpa, size_of::<TraceRing>() as u64, Access::Write),
        ] {
            tables.map(table_pages, va, gpa, len, Mapping::fixed(access))?;
        }
        let registers = Mapping::fixed(Access::Write);
        let turn_entry_gpa = tables.prepare(table_pages, TURN_VA, TURN_GPA, registers)?;
        // One table holds them all, so the first entry says where the others are.
        const { assert!(DOORBELL_VA.is_multiple_of(LARGE_PAGE_BYTES) && QUEUE_OWNERS <= 512) };
        let doorbells_gpa = tables.prepare(table_pages, DOORBELL_VA, 0, registers)?;
        memory.write_obj(0u64, GuestAddress(doorbells_gpa))?;
        Ok(Self { tables, pages, turn_entry_gpa, doorbells_gpa })
    }

    /// Makes the entries of a device's doorbells, all but present.
    pub(super) fn add_doorbells(
        &self,
        table_pages: &mut Placer,
        device: u32,
        entry: &Device,
    ) -> Result<(), MachineError> {
        for queue in 0..entry.first_queue + entry.queues {
            let va = doorbell_va(device, queue);
            let va = va.ok_or(MachineError::Internal("a queue without a place for its doorbell"))?;
            let gpa = entry.doorbell_gpa + u64::from(queue) * u64::from(entry.doorbell_stride_bytes);
            self.tables.prepare(table_pages, va, gpa, Mapping::fixed(Access::Write))?;
        }
        Ok(())
    }

    /// Lets the environment take turns from the start.
    pub(super) fn allow_turns(&self, memory: &Memory) -> Result<(), MachineError> {
        let entry: u64 = memory.read_obj(GuestAddress(self.turn_entry_gpa))?;
        Ok(memory.write_obj(entry | PRESENT, GuestAddress(self.turn_entry_gpa))?)
    }
}
