//! Numbers that nobody outside can guess, for what strangers must not forge an answer to: a keyed hash of a counter and the clock.
//! The key is the interface's secret, fresh at every boot.

use crate::Interface;
use core::hash::Hasher;
use exos_runtime::clock;
use siphasher::sip::SipHasher24;

/// Makes random numbers.
#[derive(Debug)]
pub(crate) struct Random {
    secret: [u8; 16],
    count: u64,
}

impl Random {
    pub(crate) fn new(interface: &Interface) -> Self {
        Self { secret: interface.secret, count: 0 }
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.count += 1;
        let mut hasher = SipHasher24::new_with_key(&self.secret);
        hasher.write(b"event loop");
        hasher.write_u64(self.count);
        hasher.write_u64(clock::tsc());
        hasher.finish()
    }
}
