//! `exovm bench http`: Cheetah in its guest beside nginx, lighttpd and a bare responder, on one machine, taking turns.
//! `exovm bench tcp`: our stack beside Linux's and smoltcp, a connection at a time ([`tcp`]).
//! `exovm bench attack`: a guest under attack, and what honest clients get beside it ([`attack`]).
//!
//! Three processes' worth of rooms: [`run_http`], [`run_tcp`] and [`run_attack`] are the outer one, which the CLI calls; it starts the program again to
//! measure in a private network ([`run_role`]); there the servers, wrk and the bare responder ([`run_bare`]) run.
//! [`Report`] is what comes out, as text and as JSON. README.md argues the method and documents the JSON.

pub mod attack;
mod bare;
mod check;
mod cpu;
mod document;
mod error;
mod machine;
mod measure;
mod network;
mod options;
mod plain;
mod process;
mod promises;
mod report;
mod role;
mod servers;
mod supervise;
mod table;
pub mod tcp;
mod wrk;

pub use bare::run_bare;
pub use error::BenchError;
pub use machine::Machine;
pub use options::{Contender, HttpOptions, Mode, PIPELINE_DEPTH, Point, SizeName};
pub use promises::{Bar, Verdict};
pub use report::{PointReport, Ratio, Report, Round, SCHEMA, Series, Summary};
pub use role::run_role;
pub use supervise::{run_attack, run_http, run_tcp};
pub use wrk::ClientErrors;

/// The time, in seconds since 1970 UTC.
fn unix_time_s() -> u64 {
    use std::time::{SystemTime, UNIX_EPOCH};
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs())
}
