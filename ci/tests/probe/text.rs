//! The text of an image in a machine's memory, found by what the image's file says and nothing else.

use exovm::machine::Machine;
use exovm_image::container::Image;
use exovm_image::program::{Access, Program};
use vm_memory::{Bytes, GuestAddress};

/// A program's code in guest memory.
pub(crate) struct Text {
    expected: Vec<u8>,
    gpa: u64,
    va: u64,
}

impl Text {
    /// Finds it.
    pub(crate) fn find(machine: &Machine, program: &Program) -> Self {
        let code = program.segments.iter().find(|segment| segment.access == Access::Execute).expect("code");
        let mut page = vec![0; code.bytes.len()];
        let pages = (0..machine.memory_bytes()).step_by(4096);
        let found = pages.into_iter().find(|&gpa| {
            let first = machine.memory().read_obj::<[u8; 32]>(GuestAddress(gpa));
            first.is_ok_and(|first| first[..] == code.bytes[..32])
                && machine.memory().read_slice(&mut page, GuestAddress(gpa)).is_ok()
                && page == code.bytes
        });
        Self { expected: code.bytes.clone(), gpa: found.expect("the text as it was built"), va: code.va }
    }

    /// Of a built-in image.
    pub(crate) fn of_image(machine: &Machine, name: &str) -> Self {
        let image: Image = exovm::images::load(name).expect("built in");
        Self::find(machine, &image.program)
    }

    fn now(&self, machine: &Machine) -> Vec<u8> {
        let mut bytes = vec![0; self.expected.len()];
        machine.memory().read_slice(&mut bytes, GuestAddress(self.gpa)).expect("memory");
        bytes
    }

    /// Addresses of the bytes that are not as they were built.
    pub(crate) fn changed(&self, machine: &Machine) -> Vec<u64> {
        let now = self.now(machine);
        let changed = now.iter().zip(&self.expected).zip(self.va..).filter(|((now, was), _)| now != was);
        changed.map(|(_, va)| va).collect()
    }

    /// Byte for byte as it was built.
    pub(crate) fn assert_restored(&self, machine: &Machine) {
        assert_eq!(self.changed(machine), [0; 0]);
    }
}
