//! `exovm bench attack`: a guest's TCP/IP under attack from the wire, and what an honest load of a fixed rate gets beside it.
//!
//! [`Attack`] is what adversaries do, with frames made by hand ([`Victim`] says whom); [`serve`] measures the honest load with and
//! without one, on any guest that serves two documents; the rest starts such a guest in a private network and reports.

mod adversary;
mod honest;
mod measure;
mod options;
mod raw;
mod report;

pub use adversary::Attack;
pub use honest::{Count, Latencies, Outcome, Span, Subject, serve};
pub(crate) use measure::measure;
pub use options::AttackOptions;
pub use raw::Victim;
pub use report::{AttackReport, Load, Report, SCHEMA};
