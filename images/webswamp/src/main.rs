//! webswamp, the HTTP load generator: [`exos_load`]'s closed loop on the event loop. Data that comes in is counted where the NIC put
//! it; the request is one piece of memory that every connection refers to, and leaves with the acknowledgment that completes the
//! handshake.
//!
//! Exit status: 0 every request was answered with 2xx; 1 some were not, or it could not start; 2 the words make no plan.
#![no_std]
#![no_main]

extern crate alloc;

mod swamp;

use alloc::string::String;
use exos_load::plan::Output;
use exos_load::{Generator, Plan, Report};
use exos_runtime::{pages, say};
use swamp::Swamp;

exos_runtime::entry!(main);

/// What a server may send ahead on one connection.
const RECEIVE_WINDOW_BYTES: u32 = 256 << 10;

const GOOD: u32 = 0;
const BAD: u32 = 1;
const USAGE: u32 = 2;

fn main() -> u32 {
    let plan = match Plan::from_words(
        pages::arguments().filter(|word| !exos_event_loop::is_option_of_stack(word)),
    ) {
        Ok(plan) => plan,
        Err(error) => {
            log::error!("webswamp: {error}; `exovm run webswamp --help` says more");
            return USAGE;
        }
    };
    let output = plan.output;
    if output == Output::Text {
        say!("asking {}: {} connections", plan.target, plan.connections);
    }
    let places = Generator::<exos_net::ConnId>::places_for(&plan);
    let mut swamp = Swamp::new(plan, places);
    if let Err(error) = exos_event_loop::run_client(&mut swamp, places, RECEIVE_WINDOW_BYTES) {
        log::error!("webswamp: {error}");
        return BAD;
    }
    if let Some(failure) = swamp.failure() {
        log::error!("webswamp: {}: {failure}", swamp.report().plan.target);
        return BAD;
    }
    let report = swamp.report();
    match output {
        Output::Text => report.write_lines(|line| say!("{line}")),
        Output::Json => say_json(&report),
    }
    if report.is_good() { GOOD } else { BAD }
}

fn say_json(report: &Report<'_>) {
    let mut json = String::new();
    // A string takes everything.
    let _ = report.write_json(&mut json);
    say!("{json}");
}
