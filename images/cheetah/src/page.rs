//! What is sent, as the stack wants it.

use exos_cache::Slice;
use exos_http::Piece;
use exos_net::Data;

/// A piece of a response.
#[derive(Clone)]
pub(crate) enum Page {
    /// A header, or a text of the server's own.
    Piece(Piece),
    /// A part of a file, where it lies in the cache.
    File(Slice),
}

impl Data for Page {
    #[inline]
    fn len(&self) -> usize {
        match self {
            Page::Piece(piece) => piece.len(),
            Page::File(slice) => slice.len(),
        }
    }

    #[inline]
    fn bytes(&self) -> &[u8] {
        match self {
            Page::Piece(piece) => piece.bytes(),
            Page::File(slice) => slice.bytes(),
        }
    }
}
