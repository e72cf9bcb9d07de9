//! What `exovm run` says once a machine is ready: where it serves, what it is, how its start went.

use super::net::{EnvironmentPort, Reach};
use crate::machine::{End, Machine, PhaseStamp};
use exovm_image::manifest::Serves;
use std::fmt::Write;
use std::time::{Duration, Instant};

/// How long a guest may take until it serves, before a line says that it does not.
const READY_PATIENCE: Duration = Duration::from_secs(10);
/// Waiting longer than this shows that it goes on ...
const PROGRESS_AFTER: Duration = Duration::from_secs(1);
/// ... and than this where the guest first asks the link about its IPv6 addresses, which takes two seconds (RFC 4862 5.4).
const PROGRESS_AFTER_ASKING: Duration = Duration::from_secs(8);
/// How often it is looked whether anybody still waits.
const SLICE: Duration = Duration::from_millis(100);

/// What there is to say besides what the machine knows.
pub(super) struct Announcement {
    /// The machine's name.
    pub(super) name: String,
    /// How the host reaches the guest.
    pub(super) reach: Reach,
    /// What is spoken where it serves.
    pub(super) serves: Serves,
    /// It asks the link about its addresses first.
    pub(super) asks_link: bool,
    /// What it serves; if several, one an environment.
    pub(super) served: Vec<String>,
    /// When the command was started, on the TSC.
    pub(super) start_tsc: u64,
    /// What the command did before the machine's own phases.
    pub(super) phases: Vec<PhaseStamp>,
    /// How it is ended and looked at.
    pub(super) hint: String,
}

impl Announcement {
    /// Waits until the guest serves (or for too long, or nobody waits any more), and says how that went; `None` if it
    /// has ended with a fault, whose report says it all.
    pub(super) fn wait(&self, machine: &Machine, nobody_waits: impl Fn() -> bool) -> Option<String> {
        let started = Instant::now();
        let progress_after = if self.asks_link { PROGRESS_AFTER_ASKING } else { PROGRESS_AFTER };
        let mut said = false;
        while !machine.is_ready(SLICE) && started.elapsed() < READY_PATIENCE && !nobody_waits() {
            if started.elapsed() > progress_after && !std::mem::replace(&mut said, true) {
                complain!("exovm: waiting for the guest to be ready, {} s at most", READY_PATIENCE.as_secs());
            }
        }
        let ready = machine.is_ready(Duration::ZERO);
        let ports = if ready { ports(machine, self.serves) } else { Vec::new() };
        let ended = machine.wait(Some(Duration::ZERO));
        if matches!(ended, Some(End::Fault { .. })) {
            return None;
        }
        let mut text = String::new();
        match &self.reach {
            _ if ended.is_some() => {}
            Reach::Nothing => {}
            // What serves nothing and is ready all the same goes out by itself.
            _ if ready && ports.is_empty() => {}
            _ if ports.is_empty() => {
                let patience = READY_PATIENCE.as_secs();
                text.push_str(&format!("the guest does not serve yet, after {patience} s\n"));
            }
            reach => text.push_str(&reach.describe(&ports)),
        }
        let several = self.served.len() > 1;
        // A guardian comes first, and serves nothing.
        let first = machine.environments().saturating_sub(self.served.len());
        for (environment, served) in (first..).zip(&self.served) {
            let whose = if several { format!(" of environment {environment}") } else { String::new() };
            text.push_str(&format!("  document root{whose}: {served}\n"));
        }
        let io = format!("{:?}", machine.placement().mode()).to_lowercase();
        let mib = machine.memory_bytes() >> 20;
        let vcpus = match machine.vcpus() {
            1 => String::new(),
            several => format!("{several} vCPUs, "),
        };
        text.push_str(&format!("  machine: {}, {vcpus}{mib} MiB, device work: {io}\n", self.name));
        text.push_str(&format!("  kernel calls: {}\n\n", gate(machine)));
        self.write_phases(machine, &mut text);
        if ended.is_none() {
            text.push_str(&format!("\n{}", self.hint));
        }
        text.truncate(text.trim_end().len());
        Some(text)
    }

    /// How long each phase of the start took.
    fn write_phases(&self, machine: &Machine, text: &mut String) {
        let _ = writeln!(text, "  {:<16} {:>10} {:>10}", "boot phase", "ms", "since start");
        let mut last = self.start_tsc;
        for phase in self.phases.iter().chain(&machine.phases()) {
            let ms = |ticks: u64| ticks as f64 / machine.tsc_khz() as f64;
            let (step, total) = (phase.tsc.saturating_sub(last), phase.tsc.saturating_sub(self.start_tsc));
            let _ = writeln!(text, "  {:<16} {:>10.3} {:>10.3}", phase.name, ms(step), ms(total));
            last = phase.tsc;
        }
    }
}

/// The ports that the environments serve.
fn ports(machine: &Machine, serves: Serves) -> Vec<EnvironmentPort> {
    let several = machine.environments() > 1;
    let of = |number: usize| {
        let environment = several.then_some(number);
        let (leased, ipv6) = (machine.leased_address(number), machine.ipv6_addresses(number));
        let given_ipv4 = machine.serves_given_ipv4(number);
        machine.port(number).map(|port| EnvironmentPort {
            port,
            serves,
            environment,
            given_ipv4,
            leased,
            ipv6,
        })
    };
    (0..machine.environments()).filter_map(of).collect()
}

/// What the kernel found out about the host.
fn gate(machine: &Machine) -> &'static str {
    use abi::call::gate::{KIND_INT3, KIND_SYSCALL};
    match machine.pages().status.gate.load(std::sync::atomic::Ordering::Relaxed) {
        KIND_INT3 => "by int3 (SYSCALL does not raise the privilege here)",
        KIND_SYSCALL => "by syscall",
        _ => "not yet",
    }
}
