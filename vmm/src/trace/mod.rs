//! Looking at a running machine: who wants its accounts and records, and how those get out.
//!
//! | module | what |
//! | --- | --- |
//! | [`looking`] | switches accounts and records on while somebody looks |

mod looking;

pub use looking::{Accounts, Looking};
