//! Small finished frames: answers that no application has a say in. A fixed head is owned; the body of an echo reply is
//! lent from the request.

use crate::driver::MAX_HEADER_BYTES;

/// A complete frame to be sent as it is, checksums included.
#[derive(Clone, Debug)]
pub struct ControlFrame<'f> {
    head: [u8; MAX_HEADER_BYTES],
    head_len: u8,
    body: &'f [u8],
}

impl<'f> ControlFrame<'f> {
    /// A frame whose head `fill` writes; it returns the head's length.
    pub(crate) fn build(body: &'f [u8], fill: impl FnOnce(&mut [u8; MAX_HEADER_BYTES]) -> usize) -> Self {
        let mut head = [0; MAX_HEADER_BYTES];
        let head_len = fill(&mut head).min(MAX_HEADER_BYTES) as u8;
        Self { head, head_len, body }
    }

    /// The first bytes of the frame.
    pub fn head(&self) -> &[u8] {
        &self.head[..usize::from(self.head_len)]
    }

    /// The rest of the frame, lent from the frame that is answered; usually empty.
    pub fn body(&self) -> &'f [u8] {
        self.body
    }

    /// Length of the frame in bytes.
    pub fn len(&self) -> usize {
        usize::from(self.head_len) + self.body.len()
    }

    /// Whether the frame is empty; it never is.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Copies the frame to the beginning of `out` and returns its length, or `None` when it does not fit.
    pub fn copy_to(&self, out: &mut [u8]) -> Option<usize> {
        let len = self.len();
        let (head, body) = out.get_mut(..len)?.split_at_mut(usize::from(self.head_len));
        head.copy_from_slice(self.head());
        body.copy_from_slice(self.body);
        Some(len)
    }
}
