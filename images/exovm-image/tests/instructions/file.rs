//! What the ELF files of guests may not contain: anything that somebody would have to set up before the first instruction,
//! because nobody here does, and anything that could be written and executed.

use crate::guests;
use exovm_image::program::{Program, ProgramError};
use object::elf::*;
use object::read::elf::{ElfFile64, FileHeader, ProgramHeader, SectionHeader};
use object::{LittleEndian, Object, ObjectSymbol};

type Header = FileHeader64<LittleEndian>;

/// What is wrong with a file.
fn findings(file: &[u8]) -> Vec<String> {
    let header = Header::parse(file).expect("an ELF file");
    let endian = header.endian().expect("little endian");
    let mut findings = Vec::new();
    for segment in header.program_headers(endian, file).expect("program headers") {
        let flags = segment.p_flags(endian);
        if (flags & PF_W).0 != 0 && (flags & PF_X).0 != 0 {
            findings
                .push(format!("the segment at {:#x} is writable and executable", segment.p_vaddr(endian)));
        }
        let what = match segment.p_type(endian) {
            PT_TLS => "thread locals",
            PT_DYNAMIC => "dynamic linking",
            PT_INTERP => "an interpreter",
            PT_GNU_RELRO => "data that is to become read-only",
            _ => continue,
        };
        findings.push(format!("a segment for {what}"));
    }
    let sections = header.sections(endian, file).expect("section headers");
    for section in sections.iter() {
        let name = String::from_utf8_lossy(sections.section_name(endian, section).unwrap_or_default());
        let (kind, flags) = (section.sh_type(endian), section.sh_flags(endian));
        let has = |flag: SectionFlags| (flags & flag).0 != 0;
        if has(SHF_TLS) {
            findings.push(format!("section {name} holds thread locals"));
        }
        if has(SHF_WRITE) && has(SHF_EXECINSTR) {
            findings.push(format!("section {name} is writable and executable"));
        }
        let what = match kind {
            SHT_REL | SHT_RELA | SHT_RELR => "relocations that nobody applies",
            SHT_DYNAMIC | SHT_DYNSYM => "dynamic linking",
            SHT_INIT_ARRAY | SHT_FINI_ARRAY | SHT_PREINIT_ARRAY => "functions that nobody calls",
            _ => continue,
        };
        findings.push(format!("section {name} holds {what}"));
    }
    let elf = ElfFile64::<LittleEndian>::parse(file).expect("an ELF file");
    for symbol in elf.symbols().filter(|symbol| symbol.is_undefined()) {
        findings.push(format!("{} is defined nowhere", symbol.name().unwrap_or("a symbol")));
    }
    findings
}

#[test]
fn guests_need_no_loader() {
    for guest in guests::all() {
        let none: [String; 0] = [];
        assert_eq!(findings(&guest.kernel_file), none, "kernel");
        assert_eq!(findings(&guest.program_file), none, "image {}", guest.image.manifest.name);
    }
}

/// Section headers of a file: where each begins.
fn section_offsets(file: &[u8]) -> Vec<usize> {
    let header = Header::parse(file).expect("an ELF file");
    let endian = header.endian().expect("little endian");
    let first = header.e_shoff(endian) as usize;
    let count = header.section_headers(endian, file).expect("section headers").len();
    (0..count).map(|index| first + index * size_of::<SectionHeader64<LittleEndian>>()).collect()
}

const SECTION_TYPE: usize = 4;
const SECTION_FLAGS: usize = 8;
const PROGRAM_HEADERS: usize = 64;
const SEGMENT_FLAGS: usize = 4;

#[test]
fn findings_section_of_each_forbidden_kind_is_found() {
    for (kind, expected) in [
        (SHT_RELA, "relocations"),
        (SHT_REL, "relocations"),
        (SHT_DYNAMIC, "dynamic linking"),
        (SHT_INIT_ARRAY, "nobody calls"),
    ] {
        let mut file = guests::named("hello").program_file.clone();
        let at = section_offsets(&file)[2] + SECTION_TYPE;
        file[at..at + 4].copy_from_slice(&kind.0.to_le_bytes());
        let findings = findings(&file);
        assert!(findings.iter().any(|finding| finding.contains(expected)), "{expected}: {findings:?}");
    }
}

#[test]
fn findings_section_with_each_forbidden_flag_is_found() {
    for (flags, expected) in [
        (SHF_ALLOC | SHF_WRITE | SHF_TLS, "thread locals"),
        (SHF_ALLOC | SHF_WRITE | SHF_EXECINSTR, "writable and executable"),
    ] {
        let mut file = guests::named("hello").program_file.clone();
        let at = section_offsets(&file)[2] + SECTION_FLAGS;
        file[at..at + 8].copy_from_slice(&flags.0.to_le_bytes());
        let findings = findings(&file);
        assert!(findings.iter().any(|finding| finding.contains(expected)), "{expected}: {findings:?}");
    }
}

/// Such a file is not even packed.
#[test]
fn findings_writable_code_is_found_and_refused() {
    let mut file = guests::named("hello").program_file.clone();
    file[PROGRAM_HEADERS + SEGMENT_FLAGS] = (PF_R | PF_W | PF_X).0 as u8;
    assert_eq!(findings(&file).len(), 1, "{:?}", findings(&file));
    assert!(matches!(Program::parse(&file), Err(ProgramError::WritableCode { .. })));
}

#[test]
fn findings_segment_of_each_forbidden_kind_is_found_and_refused() {
    for kind in [PT_TLS, PT_DYNAMIC, PT_INTERP] {
        let mut file = guests::named("hello").program_file.clone();
        file[PROGRAM_HEADERS..PROGRAM_HEADERS + 4].copy_from_slice(&kind.0.to_le_bytes());
        assert_eq!(findings(&file).len(), 1, "{:?}", findings(&file));
        assert!(matches!(Program::parse(&file), Err(ProgramError::NotStatic(_))));
    }
}
