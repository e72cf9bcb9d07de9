//! Our stack in a process of the host: the same sockets that guests have, with the kernel's TCP on the other side of a TAP. For
//! tests and benchmarks that compare the two without a VM.
//!
//! - [`run`]: carries frames between a TAP and an `Endpoint` until the program on it has ended, with [`Faults`] if wanted;
//! - [`header`]: the virtio-net header before each frame, for other stacks on the same kind of TAP.

#![forbid(unsafe_code)]

mod ecn;
mod faults;
pub mod header;
mod port;
mod run;

pub use faults::{Bottleneck, Faults, Tally};
pub use run::{Left, RunError, Wire, run};

/// The largest frame: what segmentation offload gives, with its headers.
pub const FRAME_BYTES_MAX: usize = exovm_netns::tap::VNET_HEADER_BYTES + 14 + 65_535;
