//! Slices: the time of a vCPU, divided. A vCPU goes round its [`SLICES`] slices; each is one environment's, or nobody's. Whose
//! slice comes gets the CPU for [`SLICE_MS`], if it wants it; what nobody wants goes to whoever can run, one after the other.
//!
//! So who has a quarter of a vCPU's slices has a quarter of its time, whatever others start, and runs on those vCPUs where it
//! has slices. Who has none shares those of whoever started it, one after the other, on the vCPU on which it was started.

/// Slices of a vCPU. Slice `s` of vCPU `v` has the number `v * SLICES + s`.
pub const SLICES: usize = 32;

/// How long one is.
pub const SLICE_MS: u64 = 10;

/// When a slice comes: the position in the round, for its number on its vCPU, and the reverse. Bits are reversed, so that those
/// of a range lie far from each other.
pub const fn position(slice: u32) -> u32 {
    slice.reverse_bits() >> (u32::BITS - SLICES.trailing_zeros())
}

const _: () = assert!(SLICES.is_power_of_two() && SLICES <= 64);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slices_of_half_a_vcpu_come_every_other_time() {
        let positions = (0..SLICES as u32 / 2).fold(0u64, |set, slice| set | 1 << position(slice));
        assert_eq!(positions, 0x5555_5555);
    }

    #[test]
    fn position_is_its_own_inverse() {
        assert!((0..SLICES as u32).all(|slice| position(position(slice)) == slice));
    }
}
