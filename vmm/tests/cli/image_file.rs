//! Image files for tests: hello, cut out of the `exovm` binary that it is embedded in.

use exovm_image::container::Image;

const MAGIC: &[u8] = b"EXOVMIMG";
/// Magic, format, ABI version, and three lengths.
const HEADER_BYTES: usize = 40;

/// The file of the built-in image called hello.
pub(crate) fn hello_image() -> Vec<u8> {
    let exovm = std::fs::read(env!("CARGO_BIN_EXE_exovm")).expect("the binary under test");
    let places = (0..exovm.len() - HEADER_BYTES).filter(|&at| exovm[at..].starts_with(MAGIC));
    places
        .filter_map(|at| image_at(&exovm[at..]))
        .find(|file| Image::parse(file).is_ok_and(|image| image.manifest.name == "hello"))
        .expect("hello is embedded in the binary")
        .to_vec()
}

fn image_at(bytes: &[u8]) -> Option<&[u8]> {
    let length = |index: usize| {
        let at = 16 + 8 * index;
        let length = u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"));
        usize::try_from(length).ok()
    };
    let len = (0..3).try_fold(HEADER_BYTES, |sum, index| sum.checked_add(length(index)?))?;
    bytes.get(..len)
}

/// The same image with other instructions at its program's entry.
pub(crate) fn with_entry_code(mut file: Vec<u8>, code: &[u8]) -> Vec<u8> {
    let program = Image::parse(&file).expect("a good image").program;
    let entry = program.entry_va;
    let segment = program
        .segments
        .iter()
        .find(|segment| (segment.va..segment.va + segment.bytes.len() as u64).contains(&entry))
        .expect("the entry lies in a segment");
    let at = file
        .windows(segment.bytes.len())
        .position(|window| window == segment.bytes)
        .expect("a segment's bytes lie in the file as they are");
    let at = at + (entry - segment.va) as usize;
    file[at..at + code.len()].copy_from_slice(code);
    file
}
