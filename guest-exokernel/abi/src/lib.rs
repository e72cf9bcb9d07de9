//! What the VMM, the kernel `xok` and the library OS `exos` agree on: addresses, pages, tables, kernel calls, trace
//! records. Only shapes and the arithmetic on them live here; no code that touches a machine.
//!
//! Everything is `repr(C)`, little endian and of fixed size. [`VERSION`] changes with every change of a shape; the VMM
//! refuses a kernel or an image that was built for another one.
//!
//! | module | what |
//! | --- | --- |
//! | [`layout`] | guest-virtual and guest-physical addresses |
//! | [`boot`] | boot page (kernel), environment page, status page, host page, device table |
//! | [`header`] | what the kernel and an image carry in their ELF files for the VMM |
//! | [`environment`] | places for environments, what the kernel tells them, how they get the CPU back |
//! | [`capability`] | what an environment may do |
//! | [`paging`] | page-table entries |
//! | [`call`] | kernel calls: numbers, registers, errors |
//! | [`message`] | messages between environments |
//! | [`options`] | how the options of an image reach it |
//! | [`queue`] | the shape of a virtqueue in memory and who owns it |
//! | [`domain`] | DMA domains: two bits a page |
//! | [`flow`] | the flow tree: which frames a queue pair gets and may send |
//! | [`extent`] | disk extents |
//! | [`upcall`] | how the kernel tells an environment of a fault or the end of its slice |
//! | [`revocation`] | what an environment is asked to give back, and what was taken from it |
//! | [`vcpu`] | what a vCPU's time went to while no environment had it |
//! | [`time`] | the page that maps TSC to UTC |
//! | [`fault`] | what the kernel reports of a fatal fault |
//! | [`trace`] | spans, events, counters: sites, accumulators, records |
//! | [`log`] | the log ring |
#![no_std]
#![forbid(unsafe_code)]

pub mod boot;
pub mod call;
pub mod capability;
pub mod domain;
pub mod environment;
pub mod extent;
pub mod fault;
pub mod flow;
pub mod header;
pub mod layout;
pub mod log;
pub mod message;
pub mod options;
pub mod paging;
pub mod queue;
pub mod revocation;
pub mod slice;
pub mod statistics;
pub mod time;
pub mod trace;
pub mod upcall;
pub mod vcpu;

/// Version of every shape in this crate. The VMM, the kernel and each image carry it; all three must be equal.
pub const VERSION: u32 = 15;
