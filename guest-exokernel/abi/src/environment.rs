//! Places for environments: what the VMM prepares of each before boot, so that making one is a few stores for the kernel.
//!
//! Each place has page tables that hold the kernel, the fixed pages and themselves; a DMA domain that allows nothing; a
//! table of capabilities. In the first places the VMM has also loaded the image's program and given out the machine's memory,
//! queues, flows and extents; the others wait for [`crate::call::Call::EnvironmentCreate`].

use crate::boot::MemoryRange;
use crate::revocation::{ASKS, Ask, LOSSES, Loss};
use core::sync::atomic::{AtomicU32, AtomicU64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Generation of the environments that run from the start: each is the first in its place.
pub const FIRST_GENERATION: u32 = 1;

/// What the kernel needs to know of a place. An array of them lies at [`crate::boot::BootPage::places_gpa`].
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Place {
    /// Root of its page tables.
    pub root_gpa: u64,
    /// The last-level page table of the doorbell pages ([`crate::layout::DOORBELL_VA`]): one entry a queue.
    pub doorbells_gpa: u64,
    /// Entry of the turn register in its last-level page table.
    pub turn_entry_gpa: u64,
    /// [`KernelPage`].
    pub kernel_page_gpa: u64,
    /// [`crate::upcall::UpcallPage`].
    pub upcall_gpa: u64,
    /// The fixed pages that it writes, one behind the other: cleared before the next environment gets the place. The first
    /// is its [`crate::boot::StatusPage`].
    pub own: MemoryRange,
    /// First instruction; 0: the place is free at boot.
    pub entry_va: u64,
    /// Initial stack pointer.
    pub stack_va: u64,
    /// Page-table pages that it may have besides those made at boot.
    pub tables_max: u32,
    /// Slots of its table of capabilities that are in use, from slot 0 on.
    pub capabilities: u32,
    /// The vCPU on which its environment begins, if one runs there from the start: they are dealt out in turn.
    pub vcpu: u32,
    /// Nodes of the flow table that it may carve.
    pub flows_max: u32,
}

/// What the kernel tells an environment while it runs, at [`crate::layout::KERNEL_PAGE_VA`].
#[derive(Debug, Default)]
#[repr(C)]
pub struct KernelPage {
    /// 1: nobody else runs on its vCPU, so it may take turns by itself; 0: it sleeps by [`crate::call::Call::Sleep`].
    pub alone: AtomicU32,
    /// What became of the message that it sent without waiting: a value of [`crate::message::sent`].
    pub sent: AtomicU32,
    /// Where it goes on, for the resume page's code: `rip`, `rsp`, `rax`, `rdx`, `rdi`, `rsi`, `r10`, `r8`.
    pub resume: [AtomicU64; 8],
    /// Whose messages it has not received yet, a bit for each environment's number.
    pub waiting: AtomicU64,
    /// A bit for each of [`Self::asks`] that stands.
    pub asked: AtomicU32,
    /// The vCPU on which it runs, or ran last.
    pub vcpu: AtomicU32,
    /// What it is asked to give back.
    pub asks: [Ask; ASKS],
    /// How often something was taken from it.
    pub lost: AtomicU64,
    /// What, the last times.
    pub losses: [Loss; LOSSES],
    /// TSC when it left its vCPU last, but for one that gave it to the next at once by a message.
    pub left_tsc: AtomicU64,
    /// [`crate::vcpu::VcpuTime::steal_ns`] of that vCPU then.
    pub left_steal_ns: AtomicU64,
    /// [`crate::vcpu::VcpuTime::outside_cycles`] then.
    pub left_outside_cycles: AtomicU64,
    /// TSC when its last sleep ended: from then on it waited for a vCPU.
    pub roused_tsc: AtomicU64,
}

const _: () = assert!(size_of::<KernelPage>() <= 4096);

/// The code by which ring 3 gets the CPU back after somebody else had it, at [`crate::layout::RESUME_VA`]. It brings the data
/// selectors, with them the bases of `fs` and `gs`, and all extended registers (x87, SSE, AVX and what else the host has) into
/// their initial state, since ring 0 cannot do that on every host; it clears the others, since where ring 0 is interpreted each
/// instruction less counts; and it goes on where [`KernelPage::resume`] says. The kernel enters an environment through it, so
/// it is not skipped.
pub mod resume {
    use crate::layout::KERNEL_PAGE_VA;

    /// Where the area for XRSTOR lies in the page: a legacy region with the initial control words, an empty header.
    pub const AREA_OFFSET: usize = 0x400;
    /// Bytes of that area (SDM 13.4): 512 and 64.
    pub const AREA_BYTES: usize = 576;
    /// Address of [`super::KernelPage::resume`].
    const WORDS_VA: u64 = KERNEL_PAGE_VA + 8;

    /// The page, for the state components in `mask`.
    pub const fn page(mask: u64) -> [u8; 4096] {
        let mut page = [0u8; 4096];
        let mut at = 0;
        at = put(&mut page, at, &[0xB8]); // mov eax, the selector
        at = put(&mut page, at, &(crate::layout::USER_DATA_SELECTOR as u32).to_le_bytes());
        at = put(&mut page, at, &[0x8E, 0xD8, 0x8E, 0xC0, 0x8E, 0xE0, 0x8E, 0xE8]); // mov ds, eax; es; fs; gs
        at = put(&mut page, at, &[0xB8]); // mov eax, the mask's lower half
        at = put(&mut page, at, &(mask as u32).to_le_bytes());
        at = put(&mut page, at, &[0xBA]); // mov edx, its upper half
        at = put(&mut page, at, &((mask >> 32) as u32).to_le_bytes());
        at = put(&mut page, at, &[0x0F, 0xAE, 0x2D]); // xrstor [rip + area]
        at = put(&mut page, at, &((AREA_OFFSET - at - 4) as u32).to_le_bytes());
        // mov of 0, which leaves the flags alone, to the registers that no word is for: rbx, rbp, rcx, r9, r11 to r15.
        at = put(&mut page, at, &[0xBB, 0, 0, 0, 0, 0xBD, 0, 0, 0, 0, 0xB9, 0, 0, 0, 0]);
        let mut number = 9;
        while number < 16 {
            if number != 10 {
                at = put(&mut page, at, &[0x41, 0xB8 + number - 8, 0, 0, 0, 0]);
            }
            number += 1;
        }
        at = put(&mut page, at, &[0x48, 0xBF]); // mov rdi, the words
        at = put(&mut page, at, &WORDS_VA.to_le_bytes());
        at = put(&mut page, at, &[0x48, 0x8B, 0x67, 8]); // mov rsp, [rdi + 8]
        at = put(&mut page, at, &[0x48, 0x8B, 0x47, 16]); // mov rax, [rdi + 16]
        at = put(&mut page, at, &[0x48, 0x8B, 0x57, 24]); // mov rdx, [rdi + 24]
        at = put(&mut page, at, &[0x48, 0x8B, 0x77, 40]); // mov rsi, [rdi + 40]
        at = put(&mut page, at, &[0x4C, 0x8B, 0x57, 48]); // mov r10, [rdi + 48]
        at = put(&mut page, at, &[0x4C, 0x8B, 0x47, 56]); // mov r8, [rdi + 56]
        at = put(&mut page, at, &[0x48, 0x8B, 0x7F, 32]); // mov rdi, [rdi + 32]
        at = put(&mut page, at, &[0xFF, 0x25]); // jmp [rip + the first word]
        let end = crate::layout::RESUME_VA + at as u64 + 4;
        put(&mut page, at, &(WORDS_VA.wrapping_sub(end) as u32).to_le_bytes());
        // FCW 0x37F, MXCSR 0x1F80: as a processor and the ABI start.
        put(&mut page, AREA_OFFSET, &0x37Fu16.to_le_bytes());
        put(&mut page, AREA_OFFSET + 24, &0x1F80u32.to_le_bytes());
        page
    }

    const fn put(page: &mut [u8; 4096], at: usize, bytes: &[u8]) -> usize {
        let mut i = 0;
        while i < bytes.len() {
            page[at + i] = bytes[i];
            i += 1;
        }
        at + bytes.len()
    }

    const _: () = assert!(AREA_OFFSET.is_multiple_of(64) && AREA_OFFSET + AREA_BYTES <= 4096);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resume_words_lie_behind_the_flags() {
        assert_eq!(core::mem::offset_of!(KernelPage, resume), 8);
    }

    #[test]
    fn resume_page_holds_the_mask_and_the_initial_control_words() {
        let page = resume::page(0x2_0000_00E7);
        let loads = [[0xB8, 0xE7, 0, 0, 0], [0xBA, 2, 0, 0, 0]].concat();
        assert!(page.windows(loads.len()).any(|window| window == loads));
        let area = &page[resume::AREA_OFFSET..];
        assert_eq!(area[..2], 0x37Fu16.to_le_bytes());
        assert_eq!(area[24..28], 0x1F80u32.to_le_bytes());
        assert!(area[512..576].iter().all(|&byte| byte == 0), "no component: each gets its initial state");
    }
}
