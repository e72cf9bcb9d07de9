//! MSI-X (PCI Local Bus 3.0, 6.8.2): the table, the pending bits, and what becomes of a vector when it is masked.

use std::sync::Arc;

use super::{Interrupt, MsiMessage, MsixRoutes};

/// Bytes of a table entry: address, data, control.
const ENTRY_BYTES: usize = 16;
/// Entry control: masked.
const MASKED: u32 = 1;

/// What message control in configuration space says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MsixState {
    /// MSI-X Enable.
    pub enabled: bool,
    /// Function Mask.
    pub masked: bool,
}

/// One vector.
struct Vector {
    /// The entry as the guest wrote it.
    words: [u32; 4],
    pending: bool,
    /// What was told to the routes.
    message: Option<MsiMessage>,
    interrupt: Arc<dyn Interrupt>,
}

/// Table and pending bits of a function.
pub struct Msix {
    state: MsixState,
    vectors: Vec<Vector>,
    routes: Arc<dyn MsixRoutes>,
}

impl Msix {
    /// A table with one entry for each interrupt, all masked.
    pub fn new(interrupts: Vec<Arc<dyn Interrupt>>, routes: Arc<dyn MsixRoutes>) -> Self {
        let vector =
            |interrupt| Vector { words: [0, 0, 0, MASKED], pending: false, message: None, interrupt };
        Self { state: MsixState::default(), vectors: interrupts.into_iter().map(vector).collect(), routes }
    }

    /// How many vectors there are.
    pub fn len(&self) -> usize {
        self.vectors.len()
    }

    /// Whether there is no vector.
    pub fn is_empty(&self) -> bool {
        self.vectors.is_empty()
    }

    /// What message control says.
    pub fn state(&self) -> MsixState {
        self.state
    }

    /// Message control was written.
    pub fn set_state(&mut self, state: MsixState) {
        self.state = state;
        for number in 0..self.vectors.len() {
            self.update(number);
        }
    }

    /// The guest reads the table; beyond its end is zero.
    pub fn read_table(&self, offset: usize, data: &mut [u8]) {
        for (at, byte) in (offset..).zip(data) {
            let vector = self.vectors.get(at / ENTRY_BYTES);
            *byte = vector.map_or(0, |vector| vector.words[at % ENTRY_BYTES / 4].to_le_bytes()[at % 4]);
        }
    }

    /// The guest writes the table, by aligned accesses of 4 or 8 bytes; others are undefined (6.8.2) and ignored.
    pub fn write_table(&mut self, offset: usize, data: &[u8]) {
        if !matches!(data.len(), 4 | 8) || !offset.is_multiple_of(data.len()) {
            return;
        }
        let number = offset / ENTRY_BYTES;
        let Some(vector) = self.vectors.get_mut(number) else { return };
        for (index, word) in data.chunks_exact(4).enumerate() {
            vector.words[offset % ENTRY_BYTES / 4 + index] =
                u32::from_le_bytes([word[0], word[1], word[2], word[3]]);
        }
        self.update(number);
    }

    /// The guest reads the pending bits.
    pub fn read_pending(&self, offset: usize, data: &mut [u8]) {
        for (at, byte) in (offset..).zip(data) {
            let bits = self.vectors.iter().skip(at * 8).take(8).enumerate();
            *byte = bits.fold(0, |byte, (bit, vector)| byte | u8::from(vector.pending) << bit);
        }
    }

    /// Raises a vector, or notes that it waits for its mask to go. One that does not exist, or MSI-X being off, is nothing.
    #[inline]
    pub fn signal(&mut self, number: u16) {
        let Some(vector) = self.vectors.get_mut(usize::from(number)) else { return };
        if vector.message.is_some() {
            vector.interrupt.signal();
        } else if self.state.enabled {
            vector.pending = true;
        }
    }

    /// As after power-on.
    pub fn reset(&mut self) {
        self.state = MsixState::default();
        for number in 0..self.vectors.len() {
            self.vectors[number].words = [0, 0, 0, MASKED];
            self.vectors[number].pending = false;
            self.update(number);
        }
    }

    /// Tells the routes what changed, and delivers what waited.
    fn update(&mut self, number: usize) {
        let vector = &mut self.vectors[number];
        let open = self.state.enabled && !self.state.masked && vector.words[3] & MASKED == 0;
        let message = open.then(|| MsiMessage {
            address: u64::from(vector.words[0]) | u64::from(vector.words[1]) << 32,
            data: vector.words[2],
        });
        if message != vector.message {
            vector.message = message;
            self.routes.set(number as u16, message);
        }
        if open && std::mem::take(&mut vector.pending) {
            vector.interrupt.signal();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::virtio::test_utils::{Counter, Routes};

    fn msix() -> (Msix, Arc<Counter>, Arc<Routes>) {
        let (counter, routes) = (Arc::new(Counter::default()), Arc::new(Routes::default()));
        (Msix::new(vec![counter.clone(), counter.clone()], routes.clone()), counter, routes)
    }

    const OPEN: MsixState = MsixState { enabled: true, masked: false };

    #[test]
    fn masked_vector_waits_and_is_delivered_once_when_unmasked() {
        let (mut msix, counter, routes) = msix();
        msix.set_state(OPEN);
        msix.signal(1);
        msix.signal(1);
        let mut pending = [0; 8];
        msix.read_pending(0, &mut pending);
        assert_eq!((pending[0], counter.count()), (2, 0));
        msix.write_table(16, &0xFEE0_0000u64.to_le_bytes());
        msix.write_table(24, &0x61u64.to_le_bytes());
        let message = MsiMessage { address: 0xFEE0_0000, data: 0x61 };
        assert_eq!(routes.take(), vec![(1, Some(message))], "one route, after the mask went");
        assert_eq!(counter.count(), 1);
        msix.signal(1);
        assert_eq!(counter.count(), 2);
        msix.read_pending(0, &mut pending);
        assert_eq!(pending[0], 0);
    }

    #[test]
    fn entry_that_is_changed_while_it_is_open_leads_elsewhere_from_then_on() {
        let (mut msix, counter, routes) = msix();
        msix.set_state(OPEN);
        msix.write_table(0, &0xFEE0_1000u32.to_le_bytes());
        msix.write_table(8, &0x300u64.to_le_bytes());
        msix.signal(0);
        // Another vCPU's APIC: bits 12 to 19 of the address are its id.
        msix.write_table(0, &0xFEE0_7000u32.to_le_bytes());
        msix.signal(0);
        let to = |address| (0, Some(MsiMessage { address, data: 0x300 }));
        assert_eq!(routes.take(), [to(0xFEE0_1000), to(0xFEE0_7000)]);
        assert_eq!(counter.count(), 2);
    }

    #[test]
    fn function_mask_masks_all_and_off_forgets() {
        let (mut msix, counter, routes) = msix();
        msix.set_state(OPEN);
        msix.write_table(8, &0x61u64.to_le_bytes());
        msix.set_state(MsixState { enabled: true, masked: true });
        assert_eq!(routes.take().last(), Some(&(0, None)));
        msix.signal(0);
        assert_eq!(counter.count(), 0);
        msix.set_state(OPEN);
        assert_eq!(counter.count(), 1);
        msix.set_state(MsixState::default());
        msix.signal(0);
        msix.set_state(OPEN);
        assert_eq!(counter.count(), 1, "without MSI-X nothing is pending");
        msix.signal(7);
    }

    #[test]
    fn write_table_misaligned_or_odd_size_is_ignored() {
        let (mut msix, _counter, _routes) = msix();
        msix.write_table(2, &[0xFF; 4]);
        msix.write_table(4, &[0xFF; 8]);
        msix.write_table(0, &[0xFF; 2]);
        msix.write_table(32, &[0xFF; 4]);
        let mut data = [0; 40];
        msix.read_table(0, &mut data);
        assert_eq!(data.iter().map(|&byte| u32::from(byte)).sum::<u32>(), 2, "only the two mask bits");
    }
}
