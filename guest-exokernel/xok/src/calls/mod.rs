//! The kernel calls. Arguments come in registers only, so no call ever reads an environment's memory.
//! [`abi::call::Call::Halt`] is in the entry stubs: it is on the way of an idle environment.

mod queue;

use crate::machine::Machine;
use abi::boot::control;
use abi::call::{Call, Error};

/// What goes back in `rax` and `rdx`.
#[repr(C)]
pub(crate) struct Answer {
    status: u64,
    value: u64,
}

/// The environment that runs. There is one until environments can be created.
const CURRENT: u32 = 0;

/// A call from ring 3 through the gate.
pub(crate) extern "sysv64" fn dispatch(a: u64, b: u64, c: u64, d: u64, number: u64) -> Answer {
    let machine = Machine::get();
    let result = match Call::from_number(number) {
        Some(Call::Version) => Ok(u64::from(abi::VERSION)),
        Some(Call::Exit) => {
            machine.control(control::POWER_OFF, a as u32);
            Err(Error::DeviceFailed)
        }
        Some(Call::QueueBind) => queue::bind(machine, CURRENT, a, b, c, d).map(|()| 0),
        Some(Call::QueueUnbind) => queue::unbind(machine, CURRENT, a, b).map(|()| 0),
        Some(Call::Halt) | None => Err(Error::NoSuchCall),
    };
    match result {
        Ok(value) => Answer { status: 0, value },
        Err(error) => Answer { status: error as u64, value: 0 },
    }
}
