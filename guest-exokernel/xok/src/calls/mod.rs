//! The kernel calls. Arguments come in registers only, so no call ever reads an environment's memory.
//! [`abi::call::Call::Halt`] is in the entry stubs: it is on the way of an idle environment; sleeping and yielding are in
//! [`crate::schedule`].

mod capability;
mod environment;
mod extent;
mod flow;
mod memory;
mod queue;

use crate::kernel::Kernel;
use abi::call::{Call, Error};

/// What goes back in `rax` and `rdx`.
#[repr(C)]
pub(crate) struct Answer {
    status: u64,
    value: u64,
}

impl From<Result<u64, Error>> for Answer {
    #[inline]
    fn from(result: Result<u64, Error>) -> Self {
        match result {
            Ok(value) => Self { status: 0, value },
            Err(error) => Self { status: error as u64, value: 0 },
        }
    }
}

/// A call from ring 3 through the gate.
pub(crate) extern "sysv64" fn dispatch(a: u64, b: u64, c: u64, d: u64, e: u64, number: u64) -> Answer {
    // SAFETY: the gate has just been passed.
    let kernel = unsafe { crate::kernel::enter() };
    let result = call(kernel, [a, b, c, d, e], number);
    if kernel.ending & (1 << kernel.current) != 0 {
        // What it took back was what it lives by.
        kernel.schedule();
    }
    Answer::from(result)
}

fn call(kernel: &mut Kernel, arguments: [u64; 5], number: u64) -> Result<u64, Error> {
    let [a, b, c, d, e] = arguments;
    match Call::from_number(number).ok_or(Error::NoSuchCall)? {
        Call::Version => Ok(u64::from(abi::VERSION)),
        Call::Exit => {
            let current = kernel.current;
            kernel.end(current, a as u32);
            kernel.schedule()
        }
        // Allowed to who is alone, and then it does not come here.
        Call::Halt => Err(Error::NotPermitted),
        Call::Sleep | Call::Yield => Err(Error::NoSuchCall),
        Call::EnvironmentCreate => kernel.environment_create(a, b),
        Call::EnvironmentStart => kernel.environment_start(a, b, c, d),
        Call::EnvironmentDestroy => kernel.environment_destroy(a),
        Call::EnvironmentStatus => kernel.environment_status(a),
        Call::Wake => kernel.wake(a).map(|()| 0),
        Call::MemoryMap => kernel.memory_map(a, b, c, d, e),
        Call::MemoryUnmap => kernel.memory_unmap(a, b, c),
        Call::DmaGrant => kernel.dma_grant(a, b, c, d, e),
        Call::QueueBind => kernel.queue_bind(arguments).map(|()| 0),
        Call::QueueUnbind => kernel.queue_unbind(a, b, c).map(|()| 0),
        Call::FlowCarve => kernel.flow_carve(arguments),
        Call::FlowDirect => kernel.flow_direct(arguments).map(|()| 0),
        Call::ExtentBind => kernel.extent_bind(a, b).map(|()| 0),
        Call::ExtentUnbind => kernel.extent_unbind(a, b).map(|()| 0),
        Call::CapabilityDerive => kernel.capability_derive(arguments),
        Call::CapabilityGive => kernel.capability_give(a, b, c, d),
        Call::CapabilityRevoke => kernel.capability_revoke(a, b),
        Call::CapabilityDrop => kernel.capability_drop(a, b),
    }
}
