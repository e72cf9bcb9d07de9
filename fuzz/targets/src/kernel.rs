//! The kernel's tables under arbitrary calls: the tree of capabilities over the tables of some environments, page tables, and both
//! where ranges are given back. What they should be is kept beside them, as plainly as possible.

mod capabilities;
mod giving_back;
mod page_tables;

use crate::input::Input;

/// All three; the first byte says which.
pub fn kernel(bytes: &[u8]) {
    let mut input = Input(bytes);
    match input.u8() {
        first if first >> 4 == 4 => giving_back::giving_back(input),
        first if first % 2 == 0 => capabilities::capabilities(input),
        _ => page_tables::page_tables(input),
    }
}
