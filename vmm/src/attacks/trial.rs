//! Boots the image for one trial, and reads off what each attack got.

use super::machine::{Disk, Wire, lock};
use super::{Attack, Outcome, Reading, Trial, Without};
use crate::images;
use crate::machine::{DiskSetup, End, Machine, MachineConfig, MachineError, NetSetup};
use crate::placement::IoMode;
use abi::layout::PAGE_BYTES;
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// How long one machine may take, on an emulated host.
const PATIENCE: Duration = Duration::from_secs(120);
/// Its memory. Addresses in the list are those of a machine of this size.
pub(super) const MEMORY_BYTES: u64 = 64 << 20;
/// Places for children: more than any case fills, but the one that fills all.
const CHILDREN: u32 = 5;

/// Why it could not be tried.
#[derive(Debug, thiserror::Error)]
pub enum AttackError {
    /// The image.
    #[error(transparent)]
    Image(#[from] images::LoadError),
    /// The machine.
    #[error(transparent)]
    Machine(#[from] MachineError),
}

/// Tries one, in a machine with so many vCPUs. With several, device work is a thread's. What the machine did besides what the list says is an outcome, too, and one that is not refused.
pub fn run(trial: &Trial, vcpus: u32) -> Result<Vec<Outcome>, AttackError> {
    let log = Arc::new(Mutex::new(Vec::<String>::new()));
    let sink = Arc::clone(&log);
    let equipment = trial.equipment;
    let wire = Wire { frames_come: equipment.frames_come, ..Wire::default() };
    let disk = equipment.disk.then(|| Arc::new(Disk::new(equipment.disk_is_slow)));
    let mut machine = Machine::start(MachineConfig {
        memory_bytes: Some(MEMORY_BYTES),
        net: equipment.nic.then(|| NetSetup {
            backend: Box::new(wire.clone()),
            ipv4: abi::boot::Ipv4Config::default(),
            ipv6: abi::boot::Ipv6Config::default(),
            name_servers: abi::boot::NameServers::default(),
            mac: [2, 0, 0, 0, 0, 1],
            mtu_bytes: 1500,
            queue_pairs: 4,
        }),
        disks: disk.iter().map(|disk| DiskSetup { store: Arc::clone(disk) as _ }).collect(),
        io: if vcpus > 1 { IoMode::Thread } else { IoMode::Turn },
        vcpus: Some(vcpus),
        arguments: trial.arguments.clone(),
        environments: Some(1),
        spare_environments: Some(if equipment.children { CHILDREN } else { 0 }),
        log: Box::new(move |line| lock(&sink).push(line.to_owned())),
        ..MachineConfig::new(images::load("probe")?)
    })?;
    let end = machine.wait(Some(PATIENCE));
    let account = machine.account();
    let stopped = if equipment.nic {
        account.nic_counter("queues stopped")
    } else {
        account.disk_counter(0, "queues stopped")
    };
    machine.stop(Duration::ZERO);
    let log = lock(&log).clone();
    // Who holds up the machine has got what it wanted.
    let end = end.unwrap_or(End::Stopped);
    let said: Vec<&str> = log.iter().filter_map(|line| Some(line.split_once("probe: ")?.1)).collect();
    let mut outcomes = match trial.reading {
        Reading::Lines => lines(trial, &said, &end, &wire),
        Reading::Fault => vec![outcome(trial, &trial.attacks[0], fault(&end, &log, &said))],
        Reading::Status => vec![outcome(trial, &trial.attacks[0], status(&end))],
        Reading::Stop => vec![outcome(trial, &trial.attacks[0], stop(&said, &end, stopped))],
    };
    if disk.is_some_and(|disk| !disk.is_unchanged()) {
        outcomes.push(unknown(trial, "the disk's blocks", "changed"));
    }
    Ok(outcomes)
}

fn outcome(trial: &Trial, attack: &Attack, got: String) -> Outcome {
    Outcome {
        against: trial.against,
        arguments: trial.arguments.join(" "),
        what: attack.what.to_owned(),
        got,
        expected: attack.refused,
        without: attack.without,
    }
}

/// Something that is not in the list.
fn unknown(trial: &Trial, what: &str, got: &str) -> Outcome {
    let attack = Attack { what: "", refused: "", without: Without::NotTried };
    Outcome { what: what.to_owned(), ..outcome(trial, &attack, got.to_owned()) }
}

/// A line for each attack, in the list's order.
fn lines(trial: &Trial, said: &[&str], end: &End, wire: &Wire) -> Vec<Outcome> {
    let mut outcomes = Vec::new();
    let mut attacks = trial.attacks.iter().peekable();
    for line in said {
        let (what, got) = line.rsplit_once(": ").unwrap_or((line, ""));
        let Some(attack) = attacks.next_if(|attack| attack.what == what) else {
            outcomes.push(unknown(trial, what, got));
            continue;
        };
        let got = if got == "offered" { on_the_wire(wire, what) } else { got };
        outcomes.push(outcome(trial, attack, got.to_owned()));
    }
    // Those that were not tried, because the machine ended before.
    outcomes.extend(attacks.map(|attack| outcome(trial, attack, "not tried".to_owned())));
    if *end != (End::PowerOff { status: 0 }) {
        outcomes.push(unknown(trial, "the machine", &format!("{end:?}")));
    }
    outcomes
}

/// Whether a frame with this name in it was sent.
fn on_the_wire(wire: &Wire, what: &str) -> &'static str {
    let name = format!("attack:{what}\0");
    let sent = lock(&wire.sent);
    let is_sent = |frame: &Vec<u8>| frame.windows(name.len()).any(|window| window == name.as_bytes());
    if sent.iter().any(is_sent) { "on the wire" } else { "dropped" }
}

/// The vector of the exception that ended the first environment. A page fault counts if it is where the image meant to be: who was let
/// and fell over something else afterwards was not refused.
fn fault(end: &End, log: &[String], said: &[&str]) -> String {
    let End::Fault { report } = end else { return format!("{end:?}: {}", log.join("; ")) };
    let first = report.lines().next().unwrap_or_default();
    let Some(first) = first.strip_prefix("environment 0: ") else { return first.to_owned() };
    if first.starts_with("page fault ") {
        let meant = said.last().and_then(|line| line.rsplit_once("0x")).map(|(_, at)| page(at));
        let faulted = first.split_once("0x").map(|(_, at)| page(at));
        return if meant == faulted { "vector 14".to_owned() } else { format!("elsewhere: {first}") };
    }
    if first.starts_with("a gate instruction outside the gate page") {
        return "stray gate".to_owned();
    }
    let vector = first.split("(vector ").nth(1).and_then(|rest| rest.split([',', ')']).next());
    vector.map_or(first.to_owned(), |vector| format!("vector {vector}"))
}

/// The page of the address with which a text begins.
fn page(text: &str) -> Option<u64> {
    let digits = text.split(|letter: char| !letter.is_ascii_hexdigit()).next().unwrap_or_default();
    u64::from_str_radix(digits, 16).ok().map(|va| va / PAGE_BYTES)
}

fn status(end: &End) -> String {
    match end {
        End::PowerOff { status } => format!("status {status}"),
        other => format!("{other:?}"),
    }
}

/// Whether the queue stopped at the bad descriptor, and the next one works.
fn stop(said: &[&str], end: &End, stopped: Option<u64>) -> String {
    let (bindings, used): (Vec<&str>, Vec<&str>) =
        said.iter().partition(|line| line.starts_with("bind") || line.starts_with("unbind"));
    let bound = bindings.iter().all(|line| line.ends_with(": Ok(())"));
    let nothing_then_one = match used.as_slice() {
        [first, second] => first.contains("used 0 chains") && second.contains("used 1 chains"),
        _ => false,
    };
    if bound && nothing_then_one && stopped == Some(1) && *end == (End::PowerOff { status: 0 }) {
        return "queue stopped".to_owned();
    }
    format!("{stopped:?} queues stopped; {}; {end:?}", said.join("; "))
}
