//! Where probes lie in a guest: the page of code that is mapped once for everybody, and the data that the code writes, one
//! area for each environment and one for the kernel. The VMM makes the code, so what lies where in the data is its own affair;
//! what it reads there a guest may have written, and is believed as a number and never as an address or a length.

use abi::boot::VCPUS_MAX;
use abi::header::KernelHeader;
use abi::layout::{KERNEL_PROBE_VA, PROBE_VA, STACK_BYTES, STACK_TOP_VA};

/// Probes of ring 3, and as many of ring 0, at a time.
pub(crate) const SLOTS: usize = 4;

/// Bytes of code: all trampolines that a machine ever has, since none is overwritten while somebody may be in it.
pub(crate) const CODE_BYTES: u64 = 64 << 10;

/// What a probe counts.
pub(crate) mod slot {
    /// Entries into the function.
    pub(crate) const COUNT: u64 = 0;
    /// Entries whose return is not measured: the shadow stack was full.
    pub(crate) const MISSED: u64 = 8;
    /// Returns that were measured.
    pub(crate) const RETURNS: u64 = 16;
    /// The cycles of all of them.
    pub(crate) const CYCLES: u64 = 24;
    /// Calls that were written to the ring.
    pub(crate) const CALLS: u64 = 32;
    /// The histogram of cycles.
    pub(crate) const HISTOGRAM: u64 = 64;
    /// The last calls, [`CALL_BYTES`] each.
    pub(crate) const RING: u64 = HISTOGRAM + 8 * crate::probe::histogram::BUCKETS as u64;
    /// Calls that the ring holds, a power of two.
    pub(crate) const RING_CALLS: u64 = 16;
    /// A call: its number from 1 on (0: being written), six registers, the TSC.
    pub(crate) const CALL_BYTES: u64 = 64;
    /// Bytes of all that.
    pub(crate) const BYTES: u64 = 3072;
    const _: () = assert!(RING + RING_CALLS * CALL_BYTES <= BYTES);
}

/// A shadow stack: where the calls that are being measured return to.
pub(crate) mod shadow {
    /// How many calls it holds now, 32 bits.
    pub(crate) const DEPTH: u64 = 0;
    /// The first entry.
    pub(crate) const ENTRIES: u64 = 32;
    /// Bytes of an entry.
    pub(crate) const ENTRY_BYTES: u64 = 32;
    /// In an entry: where the call returns to ...
    pub(crate) const RETURN: u64 = 0;
    /// ... where that stood on the stack (0: not yet known, [`FREED`]: this one has returned before one above it) ...
    pub(crate) const AT: u64 = 8;
    /// ... the TSC at the entry ...
    pub(crate) const TSC: u64 = 16;
    /// ... and the address of the probe's slot; 0: the probe is gone.
    pub(crate) const SLOT: u64 = 24;
    /// See [`AT`].
    pub(crate) const FREED: u64 = 1;
}

/// Offset of the shadow stacks in the data.
pub(crate) const SHADOWS: u64 = SLOTS as u64 * slot::BYTES;
/// Bytes of the shadow stack of an environment ...
const USER_SHADOW_BYTES: u64 = 4096;
/// ... and of that of each vCPU in ring 0.
const KERNEL_SHADOW_BYTES: u64 = 1024;

/// Bytes of an environment's data.
pub(crate) const USER_DATA_BYTES: u64 = SHADOWS + USER_SHADOW_BYTES;
/// Bytes of the kernel's.
pub(crate) const KERNEL_DATA_BYTES: u64 = SHADOWS + VCPUS_MAX as u64 * KERNEL_SHADOW_BYTES;

/// On what stacks the probed functions run, and so how a shadow stack is found and what of it is stale.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stacks {
    /// Ring 3: one shadow stack. Of the stacks that a program may have, it is only certain of this one that what lies below is gone.
    One {
        /// Number of the block, of the stack's size, that is the stack.
        block: u32,
        /// Bits of that size.
        shift: u32,
    },
    /// Ring 0: a stack and a shadow stack for each vCPU.
    EachVcpu {
        /// The lowest address of vCPU 0's.
        lowest_va: u64,
        /// Bits of the size of each.
        shift: u32,
    },
}

/// One of the two rings that a probe can be in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Region {
    /// Where the code lies.
    pub(crate) code_va: u64,
    /// Where the data lies.
    pub(crate) data_va: u64,
    pub(crate) stacks: Stacks,
}

impl Region {
    /// Ring 3.
    pub(crate) fn user() -> Self {
        const { assert!(STACK_BYTES.is_power_of_two() && STACK_TOP_VA.is_multiple_of(STACK_BYTES)) };
        let shift = STACK_BYTES.trailing_zeros();
        let block = ((STACK_TOP_VA - 1) >> shift) as u32;
        Self { code_va: PROBE_VA, data_va: PROBE_VA + CODE_BYTES, stacks: Stacks::One { block, shift } }
    }

    /// Ring 0.
    pub(crate) fn kernel(header: &KernelHeader) -> Self {
        let lowest_va = header.stack_top_va.wrapping_sub(header.stack_stride_bytes);
        let shift = header.stack_stride_bytes.trailing_zeros();
        let stacks = Stacks::EachVcpu { lowest_va, shift };
        Self { code_va: KERNEL_PROBE_VA, data_va: KERNEL_PROBE_VA + CODE_BYTES, stacks }
    }

    /// Bytes of the data.
    pub(crate) fn data_bytes(&self) -> u64 {
        match self.stacks {
            Stacks::One { .. } => USER_DATA_BYTES,
            Stacks::EachVcpu { .. } => KERNEL_DATA_BYTES,
        }
    }

    /// Whether several vCPUs write at once.
    pub(crate) fn is_shared(&self) -> bool {
        matches!(self.stacks, Stacks::EachVcpu { .. })
    }

    /// Bytes of a shadow stack.
    pub(crate) fn shadow_bytes(&self) -> u64 {
        if self.is_shared() { KERNEL_SHADOW_BYTES } else { USER_SHADOW_BYTES }
    }

    /// Calls that a shadow stack holds.
    pub(crate) fn shadow_entries(&self) -> u64 {
        (self.shadow_bytes() - shadow::ENTRIES) / shadow::ENTRY_BYTES
    }

    /// Where the shadow stacks lie in the data.
    pub(crate) fn shadows(&self) -> impl Iterator<Item = u64> + use<> {
        let bytes = self.shadow_bytes();
        (SHADOWS..self.data_bytes()).step_by(bytes as usize)
    }

    /// Where a probe's numbers lie.
    pub(crate) fn slot_va(&self, slot: usize) -> u64 {
        self.data_va + slot as u64 * slot::BYTES
    }
}
