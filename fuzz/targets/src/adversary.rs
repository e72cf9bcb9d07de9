//! Somebody who owns the wire between two stacks of exos-net. The adversary and what is asserted are that crate's own test
//! (`tests/adversary`), which takes its decisions from seeds; here they are the bytes.

#[path = "../../../guest-libos/net/tests/adversary/wire/mod.rs"]
mod stacks;

pub(crate) use stacks::frames;
use stacks::{Adversary, run};

/// Two stacks and an adversary, who forges or does not.
pub fn wire(bytes: &[u8]) {
    let Some((first, rest)) = bytes.split_first() else { return };
    run(if first & 1 == 0 { Adversary::Forging } else { Adversary::Unreliable }, rest);
}
