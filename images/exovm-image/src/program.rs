//! A statically linked ELF file of ours, read once into what the VMM needs: segments to place, the header section,
//! symbols for reports, the names of trace sites. Everything is checked here, so nobody checks again.

use abi::boot::VCPUS_MAX;
use abi::header::{
    IMAGE_MAGIC, IMAGE_SECTION, ImageHeader, KERNEL_MAGIC, KERNEL_SECTION, KernelHeader, SITES_SECTION,
};
use abi::layout::{IMAGE_VA, KERNEL_PROBE_VA, KERNEL_VA, PAGE_BYTES, PROBE_VA};
use object::elf::{PF_W, PF_X, PT_DYNAMIC, PT_INTERP, PT_LOAD, PT_TLS};
use object::read::elf::{ElfFile64, FileHeader, ProgramHeader};
use object::{LittleEndian, Object, ObjectSection, ObjectSymbol, SymbolKind};
use zerocopy::FromBytes;

/// What ring 3 or ring 0 may do with a segment, besides reading it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Constants.
    Read,
    /// Data.
    Write,
    /// Code.
    Execute,
}

/// A run of pages to place in memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Segment {
    /// First address, a page boundary.
    pub va: u64,
    /// Bytes in memory; what [`Self::bytes`] does not cover is zero.
    pub len_bytes: u64,
    /// Bytes from the file.
    pub bytes: Vec<u8>,
    /// Rights.
    pub access: Access,
}

/// A function.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Symbol {
    /// First address.
    pub va: u64,
    /// Bytes of code; 0 for labels of assembly.
    pub len_bytes: u64,
    /// Name, demangled by whoever prints it.
    pub name: String,
}

/// What kind of header the file has.
#[derive(Clone, Debug)]
pub enum Header {
    /// The kernel.
    Kernel(Box<KernelHeader>),
    /// A program for ring 3.
    Image(ImageHeader),
}

/// A checked file.
#[derive(Clone, Debug)]
pub struct Program {
    /// First instruction.
    pub entry_va: u64,
    /// What to place, in ascending order, disjoint.
    pub segments: Vec<Segment>,
    /// Functions, in ascending order.
    pub symbols: Vec<Symbol>,
    /// Names and kinds of trace sites: site id minus one is the index.
    pub sites: Vec<Site>,
    /// The header section.
    pub header: Header,
}

/// A trace site's description.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Site {
    /// `abi::trace::KIND_…`.
    pub kind: u32,
    /// Name.
    pub name: String,
}

/// Why a file was refused.
#[derive(Debug, thiserror::Error)]
pub enum ProgramError {
    /// Not an ELF file.
    #[error("not an ELF file for x86-64: {0}")]
    NotElf(#[from] object::Error),
    /// Has a kind of segment that nobody here would set up.
    #[error("the file is not statically linked without thread locals (it has a {0} segment)")]
    NotStatic(&'static str),
    /// Writable code.
    #[error("the segment at {va:#x} is writable and executable")]
    WritableCode {
        /// Its address.
        va: u64,
    },
    /// Outside the part of the address space that it is linked for, or overlapping.
    #[error("the segment at {va:#x} lies outside its place in the address space")]
    Misplaced {
        /// Its address.
        va: u64,
    },
    /// No header section, or a broken one.
    #[error("the file has no section {KERNEL_SECTION} or {IMAGE_SECTION}; link it with exovm-image's flags")]
    NoHeader,
    /// Stacks that the VMM cannot lay out.
    #[error(
        "the kernel's stacks are not as its header must say: a power of two of whole pages long, each at a multiple of that, \
         inside the kernel"
    )]
    Stacks,
    /// Built against other shapes.
    #[error(
        "the {what} was built for ABI version {found}, this exovm speaks {expected}; rebuild it with `cargo build`",
        expected = abi::VERSION
    )]
    Version {
        /// "kernel" or "image".
        what: &'static str,
        /// Its version.
        found: u32,
    },
}

impl Program {
    /// Reads and checks a file.
    pub fn parse(file: &[u8]) -> Result<Self, ProgramError> {
        let elf = ElfFile64::<LittleEndian>::parse(file)?;
        let header = read_header(&elf)?;
        let segments = read_segments(&elf, file, &header)?;
        if let Header::Kernel(kernel) = &header {
            check_stacks(kernel, &segments)?;
        }
        let code: Vec<_> = segments
            .iter()
            .filter(|segment| segment.access == Access::Execute)
            .map(|segment| segment.va..segment.va + segment.len_bytes)
            .collect();
        let mut symbols: Vec<Symbol> = elf
            .symbols()
            .filter(|symbol| {
                matches!(symbol.kind(), SymbolKind::Text | SymbolKind::Unknown | SymbolKind::Label)
            })
            .filter(|symbol| code.iter().any(|range| range.contains(&symbol.address())))
            .filter_map(|symbol| {
                let name = symbol.name().ok()?.to_owned();
                Some(Symbol { va: symbol.address(), len_bytes: symbol.size(), name })
            })
            .collect();
        symbols.sort_by_key(|symbol| symbol.va);
        Ok(Self { entry_va: elf.entry(), segments, symbols, sites: read_sites(&elf), header })
    }

    /// The function that covers an address, and how far into it.
    pub fn symbol(&self, va: u64) -> Option<(&Symbol, u64)> {
        let is_code = |segment: &&Segment| {
            segment.access == Access::Execute && (segment.va..segment.va + segment.len_bytes).contains(&va)
        };
        self.segments.iter().find(is_code)?;
        let last = self.symbols.partition_point(|symbol| symbol.va <= va).checked_sub(1)?;
        let symbol = &self.symbols[last];
        let offset = va - symbol.va;
        (symbol.len_bytes == 0 || offset < symbol.len_bytes).then_some((symbol, offset))
    }
}

type Elf<'a> = ElfFile64<'a, LittleEndian>;

fn read_header(elf: &Elf<'_>) -> Result<Header, ProgramError> {
    let section = |name| elf.section_by_name(name).and_then(|section| section.data().ok());
    let (what, found, header) = if let Some(data) = section(KERNEL_SECTION) {
        let (header, _) = KernelHeader::read_from_prefix(data).map_err(|_| ProgramError::NoHeader)?;
        if header.magic != KERNEL_MAGIC {
            return Err(ProgramError::NoHeader);
        }
        ("kernel", header.abi_version, Header::Kernel(Box::new(header)))
    } else if let Some(data) = section(IMAGE_SECTION) {
        let (header, _) = ImageHeader::read_from_prefix(data).map_err(|_| ProgramError::NoHeader)?;
        if header.magic != IMAGE_MAGIC {
            return Err(ProgramError::NoHeader);
        }
        ("image", header.abi_version, Header::Image(header))
    } else {
        return Err(ProgramError::NoHeader);
    };
    if found != abi::VERSION {
        return Err(ProgramError::Version { what, found });
    }
    Ok(header)
}

fn read_segments(elf: &Elf<'_>, file: &[u8], header: &Header) -> Result<Vec<Segment>, ProgramError> {
    let place = match header {
        Header::Kernel(_) => KERNEL_VA..KERNEL_PROBE_VA,
        Header::Image(_) => IMAGE_VA..PROBE_VA,
    };
    let endian = elf.endian();
    let mut segments = Vec::new();
    let mut next_va = place.start;
    for program_header in elf.elf_header().program_headers(endian, file)? {
        match program_header.p_type(endian) {
            PT_LOAD => {}
            PT_INTERP => return Err(ProgramError::NotStatic("PT_INTERP")),
            PT_DYNAMIC => return Err(ProgramError::NotStatic("PT_DYNAMIC")),
            PT_TLS => return Err(ProgramError::NotStatic("PT_TLS")),
            _ => continue,
        }
        let va = program_header.p_vaddr(endian);
        let len_bytes = program_header.p_memsz(endian);
        if len_bytes == 0 {
            continue;
        }
        let end = va.checked_add(len_bytes).filter(|&end| end <= place.end);
        let (Some(end), true) = (end, va >= next_va && va % PAGE_BYTES == 0) else {
            return Err(ProgramError::Misplaced { va });
        };
        next_va = end.next_multiple_of(PAGE_BYTES);
        let flags = program_header.p_flags(endian);
        let access = match ((flags & PF_W).0 != 0, (flags & PF_X).0 != 0) {
            (true, true) => return Err(ProgramError::WritableCode { va }),
            (true, false) => Access::Write,
            (false, true) => Access::Execute,
            (false, false) => Access::Read,
        };
        let bytes = program_header.data(endian, file).map_err(|()| ProgramError::Misplaced { va })?.to_vec();
        if bytes.len() as u64 > len_bytes {
            return Err(ProgramError::Misplaced { va });
        }
        segments.push(Segment { va, len_bytes, bytes, access });
    }
    let entry = elf.entry();
    let covers = |segment: &Segment| {
        segment.access == Access::Execute && (segment.va..segment.va + segment.len_bytes).contains(&entry)
    };
    if !segments.iter().any(covers) {
        return Err(ProgramError::Misplaced { va: entry });
    }
    Ok(segments)
}

/// Every vCPU's stacks are memory of the kernel's, and masking leads to their lowest addresses.
fn check_stacks(kernel: &KernelHeader, segments: &[Segment]) -> Result<(), ProgramError> {
    let stride = kernel.stack_stride_bytes;
    let writable = |start: u64, end: u64| {
        let covers = |segment: &&Segment| segment.va <= start && end <= segment.va + segment.len_bytes;
        segments.iter().find(covers).is_some_and(|segment| segment.access == Access::Write)
    };
    let good = |top: u64| {
        let start = top.checked_sub(stride);
        let end = stride.checked_mul(VCPUS_MAX as u64 - 1).and_then(|rest| top.checked_add(rest));
        top.is_multiple_of(stride) && start.zip(end).is_some_and(|(start, end)| writable(start, end))
    };
    let sized = stride.is_power_of_two() && stride >= PAGE_BYTES;
    match sized && good(kernel.stack_top_va) && good(kernel.fault_stack_top_va) {
        true => Ok(()),
        false => Err(ProgramError::Stacks),
    }
}

fn read_sites(elf: &Elf<'_>) -> Vec<Site> {
    const SITE_BYTES: usize = size_of::<abi::trace::Site>();
    let Some(data) = elf.section_by_name(SITES_SECTION).and_then(|section| section.data().ok()) else {
        return Vec::new();
    };
    data.chunks_exact(SITE_BYTES)
        .map(|site| {
            let name = &site[8..];
            let len = name.iter().position(|&byte| byte == 0).unwrap_or(name.len());
            Site {
                kind: u32::from_le_bytes([site[0], site[1], site[2], site[3]]),
                name: String::from_utf8_lossy(&name[..len]).into_owned(),
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use abi::header::{VECTORS, Vector};

    #[test]
    fn parse_garbage_returns_not_elf() {
        assert!(matches!(Program::parse(b"#!/bin/sh\n"), Err(ProgramError::NotElf(_))));
        assert!(matches!(Program::parse(&[]), Err(ProgramError::NotElf(_))));
    }

    fn stacks(top: u64, fault_top: u64, stride: u64) -> Result<(), ProgramError> {
        let none = Vector { handler_va: 0, vector: 0, dpl: 0, ist: 0, reserved: [0; 5] };
        let kernel = KernelHeader {
            magic: KERNEL_MAGIC,
            abi_version: abi::VERSION,
            reserved: 0,
            entry_va: KERNEL_VA,
            stack_top_va: top,
            fault_stack_top_va: fault_top,
            stack_stride_bytes: stride,
            syscall_va: 0,
            vectors: [none; VECTORS],
        };
        let segment = |va, access| Segment { va, len_bytes: 0x10_0000, bytes: Vec::new(), access };
        let segments = [
            segment(KERNEL_VA, Access::Execute),
            segment(KERNEL_VA + 0x10_0000, Access::Read),
            segment(KERNEL_VA + 0x20_0000, Access::Write),
        ];
        check_stacks(&kernel, &segments)
    }

    #[test]
    fn stacks_of_all_vcpus_that_lie_in_writable_memory_are_good() {
        let first = KERNEL_VA + 0x20_4000;
        assert!(stacks(first, first + 8 * 0x4000, 0x4000).is_ok());
        // The last that fit.
        assert!(stacks(first, KERNEL_VA + 0x30_0000 - 7 * 0x4000, 0x4000).is_ok());
    }

    #[test]
    fn stacks_that_are_not_as_they_must_be_return_stacks() {
        let good = KERNEL_VA + 0x20_4000;
        for (what, top, fault_top, stride) in [
            ("no size", good, good, 0),
            ("no power of two", good, good, 0x6000),
            ("less than a page", good, good, 0x800),
            ("begins anywhere", good + 0x1000, good, 0x4000),
            ("fault stack begins anywhere", good, good + 0x1000, 0x4000),
            ("before the memory", KERNEL_VA + 0x20_0000, good, 0x4000),
            ("the last one behind it", good, KERNEL_VA + 0x30_0000 - 6 * 0x4000, 0x4000),
            ("constants", KERNEL_VA + 0x10_4000, good, 0x4000),
            ("code", KERNEL_VA + 0x4000, good, 0x4000),
            ("nowhere", 0x4000, good, 0x4000),
            ("at the end of all addresses", 0u64.wrapping_sub(0x4000), good, 0x4000),
            ("larger than everything", 1 << 63, good, 1 << 63),
        ] {
            assert!(matches!(stacks(top, fault_top, stride), Err(ProgramError::Stacks)), "{what}");
        }
    }

    #[test]
    fn parse_host_program_returns_no_header() {
        let own = std::fs::read(std::env::current_exe().expect("path")).expect("readable");
        assert!(matches!(Program::parse(&own), Err(ProgramError::NoHeader)));
    }

    proptest::proptest! {
        #[test]
        fn parse_never_panics(mut bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..512)) {
            let _ = Program::parse(&bytes);
            if bytes.len() >= 4 {
                bytes[..4].copy_from_slice(b"\x7fELF");
            }
            let _ = Program::parse(&bytes);
        }
    }
}
