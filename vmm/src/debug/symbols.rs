//! Symbol files as gdb can use them: functions called as people write them, without the hash that the compiler puts behind each
//! name. gdb would take that for the function's own name and know none by another.

/// ELF-64 header (System V ABI, figure 4-3): offset of the section headers, their size and number.
const SECTIONS_OFFSET: usize = 0x28;
const SECTION_BYTES: usize = 0x3A;
const SECTIONS: usize = 0x3C;
/// Section header: type, offset and size in the file, the string table of a symbol table.
const TYPE: usize = 4;
const OFFSET: usize = 0x18;
const SIZE: usize = 0x20;
const LINK: usize = 0x28;
const SYMBOL_TABLE: u32 = 2;
/// A symbol begins with the offset of its name.
const SYMBOL_BYTES: usize = 24;

/// The same file with readable names; `None` if it is not as ELF files of ours are.
pub fn readable(file: &[u8]) -> Option<Vec<u8>> {
    let sections = usize::try_from(u64_at(file, SECTIONS_OFFSET)?).ok()?;
    let (size, count) = (u16_at(file, SECTION_BYTES)?, u16_at(file, SECTIONS)?);
    let header = |index: u32| sections.checked_add(usize::from(size).checked_mul(index as usize)?);
    let table = (0..u32::from(count)).find_map(|index| {
        let at = header(index)?;
        (u32_at(file, at.checked_add(TYPE)?)? == SYMBOL_TABLE).then_some(at)
    })?;
    let names_header = header(u32_at(file, table + LINK)?)?;
    let place = |header: usize| {
        let offset = usize::try_from(u64_at(file, header.checked_add(OFFSET)?)?).ok()?;
        let end = offset.checked_add(usize::try_from(u64_at(file, header.checked_add(SIZE)?)?).ok()?)?;
        file.get(offset..end).map(|bytes| (offset, bytes))
    };
    let (symbols_offset, symbols) = place(table)?;
    let (_, names) = place(names_header)?;
    let mut readable = file.to_vec();
    let mut readable_names = vec![0];
    for (index, symbol) in symbols.chunks_exact(SYMBOL_BYTES).enumerate() {
        let name = names.get(u32_at(symbol, 0)? as usize..)?.split(|&byte| byte == 0).next()?;
        let at = symbols_offset + index * SYMBOL_BYTES;
        let new_name = u32::try_from(readable_names.len()).ok()?;
        readable[at..at + 4].copy_from_slice(&new_name.to_le_bytes());
        let name = String::from_utf8_lossy(name);
        readable_names.extend(format!("{:#}\0", rustc_demangle::demangle(&name)).bytes());
    }
    // Behind everything else.
    let offset = (readable.len() as u64).to_le_bytes();
    let len = (readable_names.len() as u64).to_le_bytes();
    readable[names_header + OFFSET..names_header + OFFSET + 8].copy_from_slice(&offset);
    readable[names_header + SIZE..names_header + SIZE + 8].copy_from_slice(&len);
    readable.extend(readable_names);
    Some(readable)
}

fn bytes<const LEN: usize>(file: &[u8], at: usize) -> Option<[u8; LEN]> {
    file.get(at..at.checked_add(LEN)?)?.try_into().ok()
}

fn u16_at(file: &[u8], at: usize) -> Option<u16> {
    bytes(file, at).map(u16::from_le_bytes)
}

fn u32_at(file: &[u8], at: usize) -> Option<u32> {
    bytes(file, at).map(u32::from_le_bytes)
}

fn u64_at(file: &[u8], at: usize) -> Option<u64> {
    bytes(file, at).map(u64::from_le_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use exovm_image::program::Program;

    #[test]
    fn functions_are_where_they_were_and_have_readable_names() {
        let image = crate::images::load("cheetah").expect("built in");
        for (file, before) in [(&image.files.kernel, &image.kernel), (&image.files.program, &image.program)] {
            let after = Program::parse(&readable(file).expect("ELF")).expect("as good as before");
            assert_eq!(after.segments, before.segments);
            assert_eq!(after.symbols.len(), before.symbols.len());
            for (before, after) in before.symbols.iter().zip(&after.symbols) {
                assert_eq!((after.va, after.len_bytes), (before.va, before.len_bytes));
                assert!(!after.name.starts_with("_ZN") && !after.name.contains("17h"), "{}", after.name);
            }
        }
        let file = readable(&image.files.program).expect("ELF");
        let names = Program::parse(&file).expect("ELF").symbols;
        assert!(names.iter().any(|symbol| symbol.name == "exos_http::serve::respond_with_file"));
    }

    proptest::proptest! {
        #[test]
        fn readable_never_panics(mut file in proptest::collection::vec(proptest::num::u8::ANY, 0..400), sections in 0u8..255) {
            let _ = readable(&file);
            if file.len() > 0x40 {
                // Section headers inside the file, of which one may be a symbol table.
                file[SECTIONS_OFFSET..SECTIONS_OFFSET + 8].copy_from_slice(&u64::from(sections).to_le_bytes());
                file[SECTION_BYTES..SECTION_BYTES + 4].copy_from_slice(&[0x40, 0, 3, 0]);
                let at = usize::from(sections) + TYPE;
                if at + 4 <= file.len() {
                    file[at..at + 4].copy_from_slice(&SYMBOL_TABLE.to_le_bytes());
                }
                let _ = readable(&file);
            }
        }
    }
}
