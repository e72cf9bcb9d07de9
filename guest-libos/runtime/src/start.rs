//! From the first instruction in ring 3 to `main`, and the end of the environment.

use crate::{heap, kernel, logger, pages};
use abi::boot::{ENVIRONMENT_MAGIC, phase};
use abi::header::ImageHeader;
use core::arch::global_asm;

#[used]
// SAFETY: the section is read by the VMM from the file; nothing else lies in it.
#[unsafe(link_section = ".exovm.image")]
static HEADER: ImageHeader = ImageHeader::CURRENT;

global_asm!(
    ".globl exos_start",
    "exos_start:", // rsp: top of the stack, a page boundary
    "xor ebp, ebp",
    "call exos_main",
    "ud2",
);

/// Exit status of a panic, as Rust programs have it.
const PANIC_STATUS: u32 = 101;

/// Sets the library OS up, calls `main` and ends the environment with what it returns.
pub fn run(main: fn() -> u32) -> ! {
    exos_trace::start();
    logger::init();
    let environment = pages::environment();
    if environment.magic != ENVIRONMENT_MAGIC || environment.abi_version != abi::VERSION {
        log::error!("the VMM speaks another version than this image; rebuild both");
        kernel::exit(PANIC_STATUS);
    }
    crate::upcall::init();
    heap::init(environment);
    pages::stamp(phase::RUNTIME);
    kernel::exit(main())
}

#[panic_handler]
fn panic(info: &core::panic::PanicInfo<'_>) -> ! {
    log::error!("{info}");
    kernel::exit(PANIC_STATUS)
}
