//! What every image starts with: the entry, kernel calls, the clock, the heap, the log, and the turn.
//!
//! An image is a `no_std` program with a `main`:
//!
//! ```ignore
//! #![no_std]
//! #![no_main]
//! exos_runtime::entry!(main);
//! fn main() -> u32 { log::info!("hello"); 0 }
//! ```
//!
//! `unsafe` for ring 3 lives here: the fixed pages, the gate, the allocator. Everything above works with references.
#![no_std]

extern crate alloc;

pub mod clock;
pub mod dma;
mod frames;
pub mod heap;
pub mod kernel;
mod logger;
mod memory;
pub mod message;
pub mod pages;
pub mod revocation;
pub mod shared;
pub mod sleep;
mod start;
pub mod turn;
pub mod upcall;

pub use logger::print_line;
pub use start::run;

/// Writes a line of the program's own to the log, without a level: results, which people and programs read as they are.
#[macro_export]
macro_rules! say {
    ($($text:tt)*) => { $crate::print_line(format_args!($($text)*)) };
}

/// Declares `main`, a `fn() -> u32` that returns the machine's exit status, as the image's entry.
#[macro_export]
macro_rules! entry {
    ($main:path) => {
        #[unsafe(no_mangle)]
        extern "sysv64" fn exos_main() -> ! {
            $crate::run($main)
        }
    };
}
