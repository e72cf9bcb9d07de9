//! The kernel calls. Arguments come in registers only, so no call ever reads an environment's memory.
//! [`Call::Halt`] is in the entry stubs: it is on the way of an idle environment; sleeping is in [`crate::sleep`], yielding in [`schedule`].

mod capability;
mod environment;
mod extent;
mod flow;
mod memory;
pub(crate) mod message;
mod queue;
mod repossession;
pub(crate) mod revocation;
mod slice;

use crate::schedule::{self, GateFrame};
use abi::call::{CALLS, Call, Error};

/// What goes back in `rax` and `rdx`.
#[repr(C)]
pub(crate) struct Answer {
    status: u64,
    value: u64,
}

impl From<Result<u64, Error>> for Answer {
    #[inline(always)]
    fn from(result: Result<u64, Error>) -> Self {
        match result {
            Ok(value) => Self { status: 0, value },
            Err(error) => Self { status: error as u64, value: 0 },
        }
    }
}

impl From<Result<(), Error>> for Answer {
    #[inline(always)]
    fn from(result: Result<(), Error>) -> Self {
        Self::from(result.map(|()| 0))
    }
}

/// A call from ring 3 through the gate: its arguments, and where it came from.
pub(crate) type Entry = extern "sysv64" fn(u64, u64, u64, u64, u64, &GateFrame) -> Answer;

/// Makes a function of each call and puts it into the table by which the gate's stub finds it.
macro_rules! table {
    ($($call:ident: |$kernel:ident, $a:pat, $b:pat, $c:pat, $d:pat, $e:pat_param| $body:expr;)*) => {{
        let mut table: [Entry; CALLS] = [no_such_call; CALLS];
        $(table[Call::$call as usize] = {
            extern "sysv64" fn entry($a: u64, $b: u64, $c: u64, $d: u64, $e: u64, _: &GateFrame) -> Answer {
                // SAFETY: the gate has just been passed.
                let $kernel = unsafe { crate::kernel::enter() };
                Answer::from($body)
            }
            entry
        };)*
        table
    }};
}

// SAFETY: the name is the kernel's own; the gate's stub uses it.
#[unsafe(no_mangle)]
static XOK_CALLS: [Entry; CALLS] = {
    let mut table = table! {
        Version: |_kernel, _, _, _, _, _| Ok(u64::from(abi::VERSION));
        Exit: |kernel, status, _, _, _, _| kernel.exit(status);
        EnvironmentCreate: |kernel, places, number, _, _, _| kernel.environment_create(places, number);
        EnvironmentStart: |kernel, a, b, c, d, _| kernel.environment_start(a, b, c, d);
        EnvironmentDestroy: |kernel, environment, _, _, _, _| kernel.environment_destroy(environment);
        EnvironmentStatus: |kernel, environment, _, _, _, _| kernel.environment_status(environment);
        Wake: |kernel, environment, _, _, _, _| kernel.wake(environment);
        SliceBind: |kernel, a, b, c, d, _| kernel.slice_bind(a, b, c, d);
        SliceUnbind: |kernel, a, b, c, d, _| kernel.slice_unbind(a, b, c, d);
        MemoryMap: |kernel, a, b, c, d, e| kernel.memory_map(a, b, c, d, e);
        MemoryUnmap: |kernel, a, b, c, _, _| kernel.memory_unmap(a, b, c);
        DmaGrant: |kernel, a, b, c, d, e| kernel.dma_grant(a, b, c, d, e);
        QueueBind: |kernel, a, b, c, d, e| kernel.queue_bind(a, b, c, d, e);
        QueueUnbind: |kernel, a, b, c, _, _| kernel.queue_unbind(a, b, c);
        FlowCarve: |kernel, a, b, c, d, e| kernel.flow_carve(a, b, c, d, e);
        FlowDirect: |kernel, a, b, c, d, e| kernel.flow_direct(a, b, c, d, e);
        ExtentBind: |kernel, environment, extent, _, _, _| kernel.extent_bind(environment, extent);
        ExtentUnbind: |kernel, environment, extent, _, _, _| kernel.extent_unbind(environment, extent);
        MessageSend: |kernel, to, a, b, c, d| kernel.message_send(to, [a, b, c, d]);
        MessageReply: |kernel, sender, a, b, c, d| kernel.message_reply(sender, [a, b, c, d]);
        CapabilityDerive: |kernel, a, b, c, d, e| kernel.capability_derive(a, b, c, d, e);
        CapabilityGive: |kernel, a, b, c, d, _| kernel.capability_give(a, b, c, d);
        CapabilityRevoke: |kernel, environment, a, _, _, _| kernel.capability_revoke(environment, a);
        CapabilityDrop: |kernel, environment, a, _, _, _| kernel.capability_drop(environment, a);
        CapabilityTrim: |kernel, a, b, c, _, _| kernel.capability_trim(a, b, c);
        CapabilityAsk: |kernel, a, b, c, d, e| kernel.capability_ask(a, b, c, d, e);
    };
    // Those that give the CPU away remember where they came from.
    table[Call::Halt as usize] = crate::arch::entry::xok_call_halt;
    table[Call::Sleep as usize] = crate::sleep::sleep;
    table[Call::Yield as usize] = schedule::give_way;
    table[Call::MessageCall as usize] = message::call;
    table[Call::MessageReceive as usize] = message::receive;
    table[Call::MessageReplyReceive as usize] = message::reply_receive;
    table
};

extern "sysv64" fn no_such_call(_: u64, _: u64, _: u64, _: u64, _: u64, _: &GateFrame) -> Answer {
    Answer::from(Err::<u64, _>(Error::NoSuchCall))
}
