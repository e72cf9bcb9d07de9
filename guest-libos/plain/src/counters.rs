//! What the server has done.

use core::cell::Cell;

/// Totals, which only grow but for `connections`.
#[derive(Debug, Default)]
pub struct Counters {
    /// Connections that are open.
    pub connections: Cell<u64>,
    /// Connections accepted.
    pub connections_opened: Cell<u64>,
    /// Responses, by the first digit of their status.
    responses: [Cell<u64>; 6],
    /// Bytes of bodies, without headers.
    pub body_bytes: Cell<u64>,
}

impl Counters {
    /// Responses whose status begins with `digit`.
    pub fn responses(&self, digit: usize) -> u64 {
        self.responses.get(digit).map_or(0, Cell::get)
    }

    /// All responses.
    pub fn requests(&self) -> u64 {
        self.responses.iter().map(Cell::get).sum()
    }

    pub(crate) fn count(&self, status: u16, body_bytes: u64) {
        add(&self.responses[usize::from(status / 100) % 6], 1);
        add(&self.body_bytes, body_bytes);
    }
}

pub(crate) fn add(counter: &Cell<u64>, count: u64) {
    counter.set(counter.get() + count);
}
