//! What the kernel decides, without a machine: so that the same code runs in ring 0 and under a test that tries every order
//! of things.
//!
//! Every function does bounded work. Nothing here trusts a handle, an address or a number that it is given.
#![no_std]
#![forbid(unsafe_code)]

pub mod capability;
pub mod flow;
pub mod paging;
