//! Pages for probes ([`crate::probe`]): code and data in reach of the text, mapped where the text is. All of them are empty
//! until somebody probes.

use super::paging::{Access, Mapping, PageTables};
use crate::machine::MachineError;
use crate::machine::memory::Placer;
use crate::probe::layout::{CODE_BYTES, KERNEL_DATA_BYTES, USER_DATA_BYTES};
use abi::layout::{KERNEL_PROBE_VA, PROBE_VA};
use exovm_image::program::Segment;

/// A run of text in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Text {
    pub(crate) va: u64,
    pub(crate) gpa: u64,
    pub(crate) len_bytes: u64,
}

/// Where a machine's pages for probes are, and the text that can be probed.
#[derive(Clone, Debug, Default)]
pub(crate) struct ProbePages {
    /// Code for the image, the same for all environments that run it.
    pub(crate) code_gpa: u64,
    /// Data of each of them.
    pub(crate) data_gpa: Vec<u64>,
    /// Code for the kernel ...
    pub(crate) kernel_code_gpa: u64,
    /// ... and its data.
    pub(crate) kernel_data_gpa: u64,
    /// Of kernel and image.
    pub(crate) text: Vec<Text>,
}

impl ProbePages {
    /// Places what is there once, and maps the kernel's part.
    pub(super) fn place(
        low: &mut Placer,
        kernel_half: &PageTables<'_>,
        table_pages: &mut Placer,
    ) -> Result<Self, MachineError> {
        let pages = Self {
            code_gpa: low.pages(CODE_BYTES)?,
            kernel_code_gpa: low.pages(CODE_BYTES)?,
            kernel_data_gpa: low.pages(KERNEL_DATA_BYTES)?,
            ..Self::default()
        };
        for (va, gpa, len, access) in [
            (KERNEL_PROBE_VA, pages.kernel_code_gpa, CODE_BYTES, Access::Execute),
            (KERNEL_PROBE_VA + CODE_BYTES, pages.kernel_data_gpa, KERNEL_DATA_BYTES, Access::Write),
        ] {
            kernel_half.map(table_pages, va, gpa, len, Mapping::kernel(access))?;
        }
        Ok(pages)
    }

    /// Maps the part of an environment that runs the image's program, the next one.
    pub(super) fn map(
        &mut self,
        low: &mut Placer,
        tables: &PageTables<'_>,
        table_pages: &mut Placer,
    ) -> Result<(), MachineError> {
        let data_gpa = low.pages(USER_DATA_BYTES)?;
        for (va, gpa, len, access) in [
            (PROBE_VA, self.code_gpa, CODE_BYTES, Access::Execute),
            (PROBE_VA + CODE_BYTES, data_gpa, USER_DATA_BYTES, Access::Write),
        ] {
            tables.map(table_pages, va, gpa, len, Mapping::fixed(access))?;
        }
        self.data_gpa.push(data_gpa);
        Ok(())
    }

    /// This segment was placed there; text is kept in mind.
    pub(super) fn remember(&mut self, segment: &Segment, gpa: u64) {
        let text = Text { va: segment.va, gpa, len_bytes: segment.len_bytes };
        if segment.access == Access::Execute && !self.text.contains(&text) {
            self.text.push(text);
        }
    }
}
