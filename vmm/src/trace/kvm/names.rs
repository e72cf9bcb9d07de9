//! What is drawn is called by a number; here are the names. Those of exits are the host's kernel's own words.

use super::points::{Points, What};
use std::collections::HashMap;

/// What the words of KVM_RUN's returns have in front.
const USER_SPACE_PREFIX: &str = "KVM_EXIT_";

/// Those that do not depend on the host, in the order of [`FIXED`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub(super) enum Fixed {
    Exit,
    Emulated,
    Slept,
    Polled,
    PageFault,
    Interrupt,
    Exception,
    Message,
    Accepted,
    Interrupted,
    Failed,
    UserSpace,
}

const FIXED: [&str; 12] = [
    "exit",
    "emulated instructions",
    "halted",
    "halted, polling",
    "guest page fault",
    "interrupt delivered",
    "exception delivered",
    "message-signalled interrupt",
    "interrupt accepted",
    "to the VMM: a signal",
    "to the VMM: an error",
    "to the VMM",
];

/// All names, and which one a reason has.
#[derive(Debug)]
pub(super) struct Names {
    all: Vec<String>,
    user_space: HashMap<u64, u32>,
    /// By the tables of the tracepoint: VMX's, SVM's.
    exits: [HashMap<u64, u32>; 2],
}

impl Names {
    /// As the tracepoints' formats say.
    pub(super) fn new(points: &Points) -> Self {
        let mut names = Self {
            all: FIXED.map(str::to_owned).to_vec(),
            user_space: HashMap::new(),
            exits: [HashMap::new(), HashMap::new()],
        };
        for (value, word) in points.words(What::UserSpace).iter().flatten() {
            let word = word.strip_prefix(USER_SPACE_PREFIX).unwrap_or(word);
            let site = names.add(format!("{}: {word}", FIXED[Fixed::UserSpace as usize]));
            names.user_space.insert(*value as u64, site);
        }
        for (isa, table) in points.words(What::Exit).iter().take(2).enumerate() {
            for (value, word) in table {
                let site = names.add(word.clone());
                names.exits[isa].insert(*value as u32 as u64, site);
            }
        }
        names
    }

    fn add(&mut self, name: String) -> u32 {
        self.all.push(name);
        self.all.len() as u32 - 1
    }

    /// By number.
    pub(super) fn all(&self) -> &[String] {
        &self.all
    }

    /// What an exit is called, by the tables of VMX (1) or SVM (2).
    pub(super) fn exit(&self, isa: u64, reason: u64) -> u32 {
        const VMX: u64 = 1;
        // The upper half says that it failed in entering.
        let (table, reason) = if isa == VMX { (0, reason & 0xFFFF) } else { (1, reason) };
        self.exits[table].get(&reason).copied().unwrap_or(Fixed::Exit as u32)
    }

    /// What a return of KVM_RUN is called.
    pub(super) fn user_space(&self, reason: u64, errno: i32) -> u32 {
        match -errno {
            libc::EINTR => Fixed::Interrupted as u32,
            1.. => Fixed::Failed as u32,
            _ => self.user_space.get(&reason).copied().unwrap_or(Fixed::UserSpace as u32),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_are_called_as_the_kernel_calls_them() {
        let points = Points::described(&[
            (
                What::Exit,
                "ID: 1\nprint fmt: x ? __print_symbolic(y, { 12, \"HLT\" }) : __print_symbolic(y, { 0x78, \"hlt\" }, { -1, \"bad\" })",
            ),
            (What::UserSpace, "ID: 2\nprint fmt: __print_symbolic(y, { 6, \"KVM_EXIT_\" \"MMIO\" })"),
        ]);
        let names = Names::new(&points);
        let name = |site: u32| names.all()[site as usize].as_str();
        assert_eq!(name(names.exit(1, 12)), "HLT");
        assert_eq!(name(names.exit(1, 0x8000_000C)), "HLT");
        assert_eq!(name(names.exit(2, 0x78)), "hlt");
        assert_eq!(name(names.exit(2, 0xFFFF_FFFF)), "bad");
        assert_eq!((name(names.exit(1, 0x78)), name(names.exit(7, 999))), ("exit", "exit"));
        assert_eq!(name(names.user_space(6, 0)), "to the VMM: MMIO");
        assert_eq!(name(names.user_space(99, 0)), "to the VMM");
        assert_eq!(name(names.user_space(6, -libc::EINTR)), "to the VMM: a signal");
        assert_eq!(name(names.user_space(6, -libc::EFAULT)), "to the VMM: an error");
    }

    #[test]
    fn every_fixed_name_has_its_number() {
        assert_eq!(FIXED[Fixed::Interrupted as usize], "to the VMM: a signal");
        assert_eq!(FIXED[Fixed::UserSpace as usize], "to the VMM");
        assert_eq!(Fixed::UserSpace as usize, FIXED.len() - 1);
    }
}
