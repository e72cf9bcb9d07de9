//! The bytes of a response, by reference: whoever sends them again later reads them where they are.

use alloc::rc::Rc;

/// A stretch of bytes that stays as it is for as long as someone holds it. Cloning copies no bytes.
#[derive(Clone, Debug)]
pub enum Piece {
    /// Bytes that are always there: the content of a file, the text of an error.
    Static(&'static [u8]),
    /// A header, shared by all responses that have the same one.
    Shared(Rc<[u8]>),
}

impl Piece {
    /// No bytes.
    pub const EMPTY: Piece = Piece::Static(&[]);

    /// How many bytes there are.
    #[inline]
    pub fn len(&self) -> usize {
        self.bytes().len()
    }

    /// Whether there are none.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.bytes().is_empty()
    }

    /// The bytes.
    #[inline]
    pub fn bytes(&self) -> &[u8] {
        match self {
            Piece::Static(bytes) => bytes,
            Piece::Shared(bytes) => bytes,
        }
    }
}
