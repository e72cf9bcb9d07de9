//! Others around the one who makes calls, so that there is somebody to talk to: one who answers every call, one who calls it, twice
//! each time that it is woken, and one who ends when it is called.

use super::exhaust::give_back;
use crate::child::{Child, Code, DATA_VA, derive, give};
use abi::call::{Call, Error};
use abi::capability::{Handle, rights};
use abi::slice::SLICES;
use exos_runtime::kernel;

pub(super) struct Companions {
    children: [Child; 3],
    /// The handles that it has of them, and of itself, and its rights.
    handles: [(u64, u16); 4],
}

/// What it may do with them, and with itself.
const RIGHTS: u16 = rights::CALL | rights::YIELD | rights::WAKE;
const OWN_RIGHTS: u16 = rights::CALL | rights::RECEIVE;

/// Calls whom the first word of its data page names.
fn caller() -> Code {
    let call = || {
        Code::new()
            .load([0x48, 0xBF], DATA_VA) // mov rdi, data
            .bytes(&[0x48, 0x8B, 0x3F]) // mov rdi, [rdi]
            .gate(Call::MessageCall)
    };
    call().bytes(&call().0).call(Call::Sleep, [0; 5]).for_ever()
}

impl Companions {
    /// They do not run yet.
    pub(super) fn new(with: &Child) -> Option<Self> {
        let new = |code| Child::new(code, rights::WRITE).ok();
        let once = Code::new().call(Call::MessageReceive, [0; 5]).exit(0);
        let children = [new(Code::serve())?, new(caller())?, new(once)?];
        let to_caller = give(with.environment, &children[1], rights::CALL).ok()?;
        children[1].set_word(to_caller.0);
        let own = give(with.environment, with, OWN_RIGHTS).ok()?.0;
        let mut handles = [(own, OWN_RIGHTS); 4];
        for (handle, child) in handles.iter_mut().zip(&children) {
            *handle = (give(child.environment, with, RIGHTS).ok()?.0, RIGHTS);
        }
        Some(Self { children, handles })
    }

    pub(super) fn handles(&self) -> [(u64, u16); 4] {
        self.handles
    }

    pub(super) fn start(&self) -> Option<()> {
        self.children.iter().try_for_each(|child| child.start(0)).ok()
    }

    /// Ends them, and takes everything back.
    pub(super) fn end(self) -> Option<()> {
        for child in self.children {
            give_back(child.environment.0)?;
            child.release_memory().ok()?;
        }
        Some(())
    }
}

/// Two slices of one's own that are nobody's for a while.
pub(super) struct Slices {
    own: Handle,
    pub(super) part: Handle,
    pub(super) range: (u64, u64),
}

impl Slices {
    /// The last two of a range.
    pub(super) fn new(own: Handle) -> Option<Self> {
        let last = (1..SLICES as u64)
            .rev()
            .find(|&slice| derive(own, slice, 1, 0).is_ok_and(|part| give_back(part.0).is_some()))?;
        let range = (last - 1, 2);
        let part = derive(own, range.0, range.1, rights::BIND | rights::GIVE).ok()?;
        kernel::raw(Call::SliceUnbind, [0, own.0, range.0, range.1, 0]).ok()?;
        Some(Self { own, part, range })
    }

    /// They are one's own again.
    pub(super) fn end(self) -> Option<()> {
        give_back(self.part.0)?;
        let bind = |first: u64| kernel::raw(Call::SliceBind, [0, self.own.0, first, 1, 0]);
        (self.range.0..self.range.0 + self.range.1).try_for_each(|slice| match bind(slice) {
            Ok(_) | Err(Error::Busy) => Some(()),
            Err(_) => None,
        })
    }
}
