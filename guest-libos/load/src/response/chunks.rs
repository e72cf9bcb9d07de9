//! A chunked body (RFC 9112 7.1), byte by byte where it is framing and at once where it is data. Nothing is kept but where it is.

use super::BadResponse;

/// What may come in a row that is not data: a line with a chunk's size, or all trailer fields together.
const MAX_FRAMING_BYTES: u32 = 16 << 10;

/// Where in a chunked body a connection is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Chunks {
    at: At,
    /// Of a size that is being read, or of the data still to come.
    size: u64,
    /// Bytes of framing since the last data.
    framing_bytes: u32,
}

/// States that end in `Feed` wait for the LF of a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum At {
    SizeStart,
    Size,
    Extension,
    SizeFeed,
    Data,
    DataReturn,
    DataFeed,
    /// At the beginning of a line behind the last chunk.
    TrailerStart,
    Trailer,
    TrailerFeed,
    EndFeed,
}

/// What came of some bytes.
pub(super) struct Read {
    /// So many are done with.
    pub(super) bytes: usize,
    /// Of these, data.
    pub(super) data_bytes: u64,
    /// The body ended there.
    pub(super) ended: bool,
}

impl Default for Chunks {
    fn default() -> Self {
        Self { at: At::SizeStart, size: 0, framing_bytes: 0 }
    }
}

impl Chunks {
    /// Reads on.
    pub(super) fn input(&mut self, bytes: &[u8]) -> Result<Read, BadResponse> {
        let (mut at, mut data_bytes) = (0, 0);
        while let Some(&byte) = bytes.get(at) {
            if self.at == At::Data {
                let rest = bytes.len() - at;
                let taken = usize::try_from(self.size).map_or(rest, |size| size.min(rest));
                at += taken;
                data_bytes += taken as u64;
                self.size -= taken as u64;
                if self.size == 0 {
                    self.at = At::DataReturn;
                }
                continue;
            }
            self.framing_bytes += 1;
            if self.framing_bytes > MAX_FRAMING_BYTES {
                return Err(BadResponse::Chunk);
            }
            at += 1;
            if self.step(byte)? {
                return Ok(Read { bytes: at, data_bytes, ended: true });
            }
        }
        Ok(Read { bytes: at, data_bytes, ended: false })
    }

    /// One byte that is not data; whether the body ends with it.
    fn step(&mut self, byte: u8) -> Result<bool, BadResponse> {
        self.at = match (self.at, byte) {
            (At::SizeStart | At::Size, b'0'..=b'9' | b'a'..=b'f' | b'A'..=b'F') => {
                let digit = char::from(byte).to_digit(16).unwrap_or(0);
                let size = self.size.checked_mul(16).ok_or(BadResponse::Chunk)?;
                self.size = size | u64::from(digit);
                At::Size
            }
            (At::Size, b';' | b' ' | b'\t') => At::Extension,
            (At::Size | At::Extension, b'\r') => At::SizeFeed,
            (At::Extension, byte) if byte != b'\n' => At::Extension,
            (At::SizeFeed, b'\n') if self.size == 0 => At::TrailerStart,
            (At::SizeFeed, b'\n') => {
                self.framing_bytes = 0;
                At::Data
            }
            (At::DataReturn, b'\r') => At::DataFeed,
            (At::DataFeed, b'\n') => At::SizeStart,
            (At::TrailerStart, b'\r') => At::EndFeed,
            (At::EndFeed, b'\n') => return Ok(true),
            (At::Trailer, b'\r') => At::TrailerFeed,
            (At::TrailerFeed, b'\n') => At::TrailerStart,
            (At::TrailerStart | At::Trailer, byte) if byte != b'\n' => At::Trailer,
            _ => return Err(BadResponse::Chunk),
        };
        Ok(false)
    }
}
