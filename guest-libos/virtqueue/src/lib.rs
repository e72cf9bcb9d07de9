//! Split virtqueues from the driver's side (VIRTIO 1.3 2.7): what the drivers of the library OS share. A driver decides what
//! its chains mean and keeps what they point at; rings, indices, event suppression and the memory under them are here.
//!
//! **What is not trusted.** The device may write anything to the used rings at any time. Its index is checked against shadow
//! state here; the ids and lengths of its entries are checked by the driver, which knows what it gave away.
//!
//! | module | what |
//! | --- | --- |
//! | [`hal`] | what a driver asks of the machine and the kernel: a trait |
//! | [`ring`] | a queue: rings, indices, event suppression, sleeping without losing a wake-up |
//! | [`memory`] | page-aligned memory that the device sees; the unsafe edge |
//! | [`fault`] | what can go wrong when opening, and what a device can do wrong |
//! | `guest` | the machine under a driver in ring 3 (feature `guest`) |
//! | `fake` | the device's side, for host tests (feature `fake`) |
#![no_std]

extern crate alloc;
#[cfg(feature = "fake")]
extern crate std;

#[cfg(feature = "fake")]
pub mod fake;
pub mod fault;
#[cfg(feature = "guest")]
pub mod guest;
pub mod hal;
pub mod memory;
pub mod ring;

pub use fault::{OpenError, RingFault};
pub use hal::Hal;
pub use memory::{Block, Contents};
pub use ring::{Arming, Notice, Place, Ring, Used};
