//! What is sent, as the stack wants it.

use exos_http::Piece;
use exos_net::Data;

/// A piece of a response.
#[derive(Clone)]
pub(crate) struct Page(pub(crate) Piece);

impl Data for Page {
    #[inline]
    fn len(&self) -> usize {
        self.0.len()
    }

    #[inline]
    fn bytes(&self) -> &[u8] {
        self.0.bytes()
    }
}
