//! Questions and answers over TCP (RFC 1035 4.2.2, RFC 7766 8): two bytes with the length of a message, then the message, cut
//! into pieces wherever the connection likes.

use core::net::SocketAddr;

use alloc::vec::Vec;

use crate::resolver::QueryId;

/// Bytes of a message's length.
const LENGTH_BYTES: usize = 2;

/// A query to be sent over a connection of its own.
#[derive(Clone, Debug)]
pub struct StreamQuery {
    /// To be said with the answer.
    pub id: QueryId,
    /// The server.
    pub to: SocketAddr,
    framed: Vec<u8>,
}

impl StreamQuery {
    /// `message` is no longer than `MAX_QUERY_BYTES`.
    pub(crate) fn new(id: QueryId, to: SocketAddr, message: &[u8]) -> Self {
        let framed = [&(message.len() as u16).to_be_bytes(), message].concat();
        Self { id, to, framed }
    }

    /// What is to be sent: the message behind its length.
    pub fn framed(&self) -> &[u8] {
        &self.framed
    }

    /// The message.
    pub fn bytes(&self) -> &[u8] {
        &self.framed[LENGTH_BYTES..]
    }
}

/// The answer to a [`StreamQuery`], as its pieces arrive. It takes no more memory than what has arrived of it, whatever its length
/// says; what follows it is not looked at.
#[derive(Clone, Debug, Default)]
pub struct StreamAnswer {
    framed: Vec<u8>,
}

impl StreamAnswer {
    /// The next bytes of the connection.
    pub fn push(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let missing = self.end().unwrap_or(LENGTH_BYTES) - self.framed.len();
            let Some((piece, rest)) = bytes.split_at_checked(missing) else {
                self.framed.extend_from_slice(bytes);
                return;
            };
            if missing == 0 {
                return;
            }
            self.framed.extend_from_slice(piece);
            bytes = rest;
        }
    }

    /// The message, once it is whole.
    pub fn message(&self) -> Option<&[u8]> {
        self.framed.get(LENGTH_BYTES..self.end()?)
    }

    /// Where the message ends, once its length is known.
    fn end(&self) -> Option<usize> {
        let length = self.framed.first_chunk::<LENGTH_BYTES>()?;
        Some(LENGTH_BYTES + usize::from(u16::from_be_bytes(*length)))
    }
}
