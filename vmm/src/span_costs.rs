//! What a span costs in the guest, in cycles, by who looks: a machine enters and leaves spans without end, and the VMM changes what it
//! wants meanwhile.

use crate::images;
use crate::machine::{Machine, MachineConfig, MachineError};
use crate::placement::IoMode;
use crate::trace::Records;
use abi::trace::mode;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How long one way of looking may take to be measured.
const PATIENCE: Duration = Duration::from_secs(20);
/// Lines that are enough for a figure.
const LINES: usize = 5;

/// Cycles to enter and to leave a span.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize)]
pub struct SpanCosts {
    /// Nobody looks.
    pub off: f64,
    /// Accounts go.
    pub accounts: f64,
    /// Records are written of what is followed, and this is: two records.
    pub records: f64,
}

/// Why it could not be measured.
#[derive(Debug, thiserror::Error)]
pub enum SpanCostError {
    /// The image.
    #[error(transparent)]
    Image(#[from] images::LoadError),
    /// The machine.
    #[error(transparent)]
    Machine(#[from] MachineError),
    /// The probe said nothing.
    #[error("the probe did not measure what a span costs: {0}")]
    Probe(String),
}

/// Measures.
pub fn measure() -> Result<SpanCosts, SpanCostError> {
    let log = Arc::new(Mutex::new(Vec::<String>::new()));
    let sink = Arc::clone(&log);
    let mut machine = Machine::start(MachineConfig {
        memory_bytes: Some(64 << 20),
        io: IoMode::Turn,
        vcpus: Some(1),
        arguments: vec!["spans".to_owned()],
        environments: Some(1),
        spare_environments: Some(0),
        log: Box::new(move |line| sink.lock().unwrap_or_else(PoisonError::into_inner).push(line.to_owned())),
        ..MachineConfig::new(images::load("probe")?)
    })?;
    let least = |flags: u32| {
        let begun = Instant::now();
        loop {
            let log = log.lock().unwrap_or_else(PoisonError::into_inner);
            let cycles: Vec<u64> = log.iter().filter_map(|line| cycles(line, flags)).collect();
            if cycles.len() >= LINES {
                return Ok(cycles.into_iter().min().unwrap_or(0) as f64 / 100.0);
            }
            if begun.elapsed() > PATIENCE {
                return Err(SpanCostError::Probe(log.join("\n")));
            }
            drop(log);
            std::thread::sleep(Duration::from_millis(10));
        }
    };
    let off = least(0)?;
    let accounts = machine.accounts();
    let with_accounts = least(mode::ACCOUNT)?;
    drop(accounts);
    let (_, listener) = machine.record(Records::OneIn(2));
    // The ring is written over and over: nobody has to read it for this.
    let with_records = least(mode::RECORD | mode::SAMPLE);
    drop(listener);
    machine.stop(Duration::from_secs(1));
    Ok(SpanCosts { off, accounts: with_accounts, records: with_records? })
}

/// What a line says of a mode: hundredths of a cycle.
fn cycles(line: &str, flags: u32) -> Option<u64> {
    let (mode, cycles) = line.split_once("probe: spans ")?.1.split_once(' ')?;
    (mode.parse() == Ok(flags)).then(|| cycles.parse().ok())?
}
