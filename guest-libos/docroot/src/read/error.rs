//! What can be wrong with an archive.

use core::fmt;

/// Why bytes are not a usable archive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ArchiveError {
    /// Fewer bytes than a header or than the header says.
    Truncated {
        /// What there should be.
        needed_bytes: u64,
        /// What there is.
        found_bytes: u64,
    },
    /// The first bytes are not those of an archive.
    WrongMagic,
    /// An archive of another version of the format.
    WrongVersion {
        /// The version in the header.
        found: u32,
    },
    /// The header contradicts itself.
    WrongHeader {
        /// The field that does not fit the others.
        field: &'static str,
    },
    /// The index was changed after it was written.
    WrongChecksum,
    /// An entry is out of bounds, out of order or of an unknown kind.
    WrongEntry {
        /// The number of the entry.
        number: u32,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// A media type is out of bounds or not fit for a header field.
    WrongMediaType {
        /// The number of the type.
        number: u32,
    },
    /// The hash table does not lead to its entries.
    WrongHashTable {
        /// The first slot or entry that shows it.
        number: u32,
        /// What is wrong.
        reason: &'static str,
    },
}

impl fmt::Display for ArchiveError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ArchiveError::Truncated { needed_bytes, found_bytes } => write!(
                f,
                "the packed document root has {found_bytes} bytes and needs {needed_bytes}: give the guest all of it"
            ),
            ArchiveError::WrongMagic => {
                f.write_str("there is no packed document root at this address: check where it was loaded")
            }
            ArchiveError::WrongVersion { found } => write!(
                f,
                "the packed document root has format version {found} and this reader knows {}: build VMM and image \
                 from the same sources",
                crate::format::VERSION
            ),
            ArchiveError::WrongHeader { field } => {
                write!(f, "the packed document root's header contradicts itself in {field}: pack it again")
            }
            ArchiveError::WrongChecksum => {
                f.write_str("the packed document root's index has been overwritten (checksum): pack it again")
            }
            ArchiveError::WrongEntry { number, reason } => {
                write!(f, "entry {number} of the packed document root: {reason}: pack it again")
            }
            ArchiveError::WrongMediaType { number } => {
                write!(f, "media type {number} of the packed document root is unusable: pack it again")
            }
            ArchiveError::WrongHashTable { number, reason } => {
                write!(f, "hash table of the packed document root at {number}: {reason}: pack it again")
            }
        }
    }
}

impl core::error::Error for ArchiveError {}
