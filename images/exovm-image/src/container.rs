//! The image file: what travels as one unit, embedded in the VMM or on disk.
//!
//! ```text
//! magic "EXOVMIMG" | format u32 | abi u32 | 3 × length u64 | manifest (TOML) | kernel (ELF) | program (ELF)
//! ```

use crate::manifest::{Manifest, ManifestError};
use crate::program::{Header, Program, ProgramError};
use std::sync::Arc;

const MAGIC: &[u8; 8] = b"EXOVMIMG";
const FORMAT: u32 = 1;
const HEADER_BYTES: usize = 16 + 3 * 8;

/// An image, ready to boot.
#[derive(Clone, Debug)]
pub struct Image {
    /// What it is.
    pub manifest: Manifest,
    /// Ring 0.
    pub kernel: Program,
    /// Ring 3.
    pub program: Program,
    /// The ELF files of both, for debuggers.
    pub files: Files,
}

/// What an image was packed of.
#[derive(Clone)]
pub struct Files {
    /// The kernel's ELF file.
    pub kernel: Arc<[u8]>,
    /// The program's.
    pub program: Arc<[u8]>,
}

impl std::fmt::Debug for Files {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{} and {} bytes", self.kernel.len(), self.program.len())
    }
}

/// Why a file is not an image that can be booted.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// Something else.
    #[error(
        "this is not an exovm image (build one with `exovm build`, list the built-in ones with `exovm run --help`)"
    )]
    NotAnImage,
    /// Cut short, or lengths that do not add up.
    #[error("the image is truncated or damaged; build it again")]
    Damaged,
    /// Another version of file format or ABI.
    #[error(
        "the image is for ABI version {abi} (format {format}), this exovm speaks {expected} (format {FORMAT}); \
         build the image and exovm from the same sources",
        expected = abi::VERSION
    )]
    Version {
        /// Its ABI version.
        abi: u32,
        /// Its file format.
        format: u32,
    },
    /// The manifest inside.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// The kernel inside.
    #[error("kernel: {0}")]
    Kernel(ProgramError),
    /// The program inside.
    #[error("program: {0}")]
    Program(ProgramError),
}

/// Packs an image, and checks it by reading it back.
pub fn pack(manifest: &str, kernel: &[u8], program: &[u8]) -> Result<Vec<u8>, ImageError> {
    let mut file = Vec::with_capacity(HEADER_BYTES + manifest.len() + kernel.len() + program.len());
    file.extend_from_slice(MAGIC);
    file.extend_from_slice(&FORMAT.to_le_bytes());
    file.extend_from_slice(&abi::VERSION.to_le_bytes());
    for part in [manifest.as_bytes(), kernel, program] {
        file.extend_from_slice(&(part.len() as u64).to_le_bytes());
    }
    for part in [manifest.as_bytes(), kernel, program] {
        file.extend_from_slice(part);
    }
    Image::parse(&file)?;
    Ok(file)
}

impl Image {
    /// Reads and checks an image file.
    pub fn parse(file: &[u8]) -> Result<Self, ImageError> {
        let manifest = manifest(file)?;
        let [_, kernel, program] = parts(file)?;
        let files = Files { kernel: kernel.into(), program: program.into() };
        let kernel = Program::parse(kernel).map_err(ImageError::Kernel)?;
        let program = Program::parse(program).map_err(ImageError::Program)?;
        match (&kernel.header, &program.header) {
            (Header::Kernel(_), Header::Image(_)) => Ok(Self { manifest, kernel, program, files }),
            _ => Err(ImageError::Damaged),
        }
    }
}

/// The manifest alone, of an image whose programs are not looked at.
pub fn manifest(file: &[u8]) -> Result<Manifest, ImageError> {
    let [manifest, _, _] = parts(file)?;
    Ok(Manifest::parse(std::str::from_utf8(manifest).map_err(|_| ImageError::Damaged)?)?)
}

/// The kernel's ELF file, as it was packed.
pub fn kernel_file(file: &[u8]) -> Result<&[u8], ImageError> {
    let [_, kernel, _] = parts(file)?;
    Ok(kernel)
}

/// Manifest, kernel and program.
fn parts(file: &[u8]) -> Result<[&[u8]; 3], ImageError> {
    let (header, mut rest) = file.split_at_checked(HEADER_BYTES).ok_or(ImageError::NotAnImage)?;
    if &header[..8] != MAGIC {
        return Err(ImageError::NotAnImage);
    }
    let word = |at: usize| u32::from_le_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
    let (format, abi) = (word(8), word(12));
    if format != FORMAT || abi != abi::VERSION {
        return Err(ImageError::Version { abi, format });
    }
    let mut parts = [&[][..]; 3];
    for (index, part) in parts.iter_mut().enumerate() {
        let at = 16 + 8 * index;
        let len = u64::from(word(at)) | u64::from(word(at + 4)) << 32;
        let len = usize::try_from(len).map_err(|_| ImageError::Damaged)?;
        (*part, rest) = rest.split_at_checked(len).ok_or(ImageError::Damaged)?;
    }
    if rest.is_empty() { Ok(parts) } else { Err(ImageError::Damaged) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(format: u32, abi: u32, lens: [u64; 3]) -> Vec<u8> {
        let mut file = MAGIC.to_vec();
        file.extend_from_slice(&format.to_le_bytes());
        file.extend_from_slice(&abi.to_le_bytes());
        lens.iter().for_each(|len| file.extend_from_slice(&len.to_le_bytes()));
        file
    }

    #[test]
    fn parse_other_file_returns_not_an_image() {
        assert!(matches!(Image::parse(b"\x7fELF"), Err(ImageError::NotAnImage)));
        assert!(matches!(Image::parse(&[0; 100]), Err(ImageError::NotAnImage)));
    }

    #[test]
    fn parse_other_abi_version_says_both_versions() {
        let error = Image::parse(&file(FORMAT, abi::VERSION + 1, [0; 3])).expect_err("refused");
        assert!(error.to_string().contains(&format!("ABI version {}", abi::VERSION + 1)), "{error}");
        assert!(error.to_string().contains("build"), "{error}");
    }

    #[test]
    fn parse_lengths_beyond_the_file_returns_damaged() {
        for lens in [[1, 0, 0], [u64::MAX, 0, 0], [0, u64::MAX, 1]] {
            assert!(matches!(Image::parse(&file(FORMAT, abi::VERSION, lens)), Err(ImageError::Damaged)));
        }
    }

    proptest::proptest! {
        #[test]
        fn parse_never_panics(tail in proptest::collection::vec(proptest::num::u8::ANY, 0..256), a: u8, b: u8) {
            let mut bytes = file(FORMAT, abi::VERSION, [u64::from(a), u64::from(b), 3]);
            bytes.extend(tail);
            let _ = Image::parse(&bytes);
        }
    }
}
