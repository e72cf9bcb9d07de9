//! What the kernel decides, without a machine: so that the same code runs in ring 0 and under a test that tries every order
//! of things.
//!
//! Every function does bounded work. Nothing here trusts a handle, an address or a number that it is given.
#![no_std]
#![forbid(unsafe_code)]

use abi::call::Error;

pub mod capability;
pub mod flow;
pub mod paging;

/// A refusal. Said apart, so that the compiler keeps what success does not need out of its way: where ring 0 is interpreted, an
/// instruction costs a microsecond.
#[inline(always)]
pub fn refuse<T>(error: Error) -> Result<T, Error> {
    core::hint::cold_path();
    Err(error)
}
