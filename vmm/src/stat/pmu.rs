//! The processor's own counters, of the guest alone: what its code does in the caches and pipelines. They go while somebody looks who
//! asks for them, and where the host has none it is said why.

use super::family::{Family, Kind};
use super::snapshot::{Absent, StatSnapshot};
use crate::account::ledger::Ledger;
use crate::perf_events::Unavailable;
use crate::perf_events::attributes;
use crate::perf_events::counter::{Counter, Sum, Whose};
use std::io::{Error, ErrorKind};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The layer of all of it.
pub(crate) const LAYER: &str = "pmu";

/// One of the processor's events.
#[derive(Clone, Copy, Debug)]
struct Event {
    name: &'static str,
    unit: &'static str,
    help: &'static str,
    kind: attributes::Kind,
    config: u64,
}

const EVENTS: [Event; 5] = {
    const fn general(name: &'static str, unit: &'static str, help: &'static str, config: u64) -> Event {
        Event { name, unit, help, kind: attributes::Kind::Hardware, config }
    }
    [
        general("cycles", "cycles", "Cycles of the processor's own clock that the guest ran.", 0),
        general("instructions", "", "Instructions that the guest completed.", 1),
        general("cache_misses", "", "Accesses of the guest that no cache had.", 3),
        general("branch_misses", "", "Branches of the guest that went another way than predicted.", 5),
        Event {
            name: "dtlb_load_misses",
            unit: "",
            help: "Loads of the guest whose translation the data TLB did not have.",
            kind: attributes::Kind::HardwareCache,
            // The data TLB, reads, misses.
            config: 3 | 1 << 16,
        },
    ]
};

/// The counters of a machine's vCPUs.
#[derive(Debug)]
pub(crate) struct Pmu {
    /// Whose threads are the vCPUs.
    vcpus: Vec<Arc<Ledger>>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    holders: usize,
    /// By vCPU and event.
    open: Vec<[Option<Counter>; EVENTS.len()]>,
    /// What was counted for those that do not look any more, by the same.
    before: Vec<[Sum; EVENTS.len()]>,
    /// In ring 3 only: all that the host lets us have.
    ring_3_only: bool,
    absent: Option<Absent>,
}

/// While it is there, they count.
#[derive(Debug)]
pub(crate) struct Counting(Arc<Pmu>);

impl Pmu {
    /// Nobody looks.
    pub(crate) fn new(vcpus: Vec<Arc<Ledger>>) -> Arc<Self> {
        Arc::new(Self { vcpus, state: Mutex::default() })
    }

    /// Has them count for as long as the guard lives, if the host lets us.
    pub(crate) fn hold(self: &Arc<Self>) -> Counting {
        let mut state = self.state();
        state.holders += 1;
        if state.holders == 1 {
            state.before.resize(self.vcpus.len(), Default::default());
            let absent = self.open(&mut state).err();
            state.absent = absent.map(|error| Absent {
                layer: LAYER.to_owned(),
                why: error.to_string(),
                todo: error.todo(),
            });
        }
        Counting(Arc::clone(self))
    }

    fn open(&self, state: &mut State) -> Result<(), Unavailable> {
        let threads: Vec<_> = self.vcpus.iter().map(|ledger| ledger.recorder().thread()).collect();
        let open = |whose| {
            threads.iter().map(|&thread| open_all(&EVENTS, thread, whose)).collect::<Result<Vec<_>, _>>()
        };
        let (opened, ring_3_only) = match open(Whose::Guest) {
            Err(error) if error.kind() == ErrorKind::PermissionDenied => (open(Whose::GuestRing3), true),
            opened => (opened, false),
        };
        state.open = opened.map_err(Unavailable::counter)?;
        state.ring_3_only = ring_3_only;
        Ok(())
    }

    /// What was counted, or why nothing is.
    pub(crate) fn tell(&self, snapshot: &mut StatSnapshot) {
        let mut state = self.state();
        snapshot.absent.extend(state.absent.clone());
        if !state.open.is_empty() {
            snapshot.families.extend(state.families());
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Opens all events of a thread. One that this processor does not have is left out; all of them are an error.
fn open_all<const N: usize>(
    events: &[Event; N],
    thread: Option<libc::pid_t>,
    whose: Whose,
) -> Result<[Option<Counter>; N], Error> {
    let mut counters = [const { None }; N];
    // It has not begun, or has ended.
    let Some(thread) = thread else { return Ok(counters) };
    let mut error = None;
    for (counter, event) in counters.iter_mut().zip(events) {
        match Counter::open(event.kind, event.config, thread, whose) {
            Ok(opened) => *counter = Some(opened),
            Err(other) if other.raw_os_error() == Some(libc::ESRCH) => return Ok([const { None }; N]),
            Err(other) => error = error.or(Some(other)),
        }
    }
    match error {
        Some(error) if counters.iter().all(Option::is_none) => Err(error),
        _ => Ok(counters),
    }
}

impl State {
    /// Up to now, with what was counted for others before.
    fn sum(&mut self, vcpu: usize, event: usize) -> Option<Sum> {
        let now = self.open.get_mut(vcpu)?[event].as_mut()?.read().ok()?;
        Some(self.before.get(vcpu).map_or(now, |before| before[event].plus(now)))
    }

    fn families(&mut self) -> Vec<Family> {
        let mut families = described();
        let ring_0 = u64::from(!self.ring_3_only);
        for vcpu in 0..self.open.len() {
            let number = vcpu.to_string();
            for (event, Event { name, .. }) in EVENTS.iter().enumerate() {
                let Some(sum) = self.sum(vcpu, event) else { continue };
                families[event].push(&[("vcpu", &number)], sum.value);
                for (family, ns) in families[EVENTS.len()..].iter_mut().zip([sum.enabled_ns, sum.running_ns])
                {
                    family.push(&[("event", name), ("vcpu", &number)], ns);
                }
            }
        }
        if let Some(family) = families.last_mut() {
            family.push(&[], ring_0);
        }
        families.retain(|family| !family.samples.is_empty());
        families
    }
}

/// All there can be, without samples.
pub fn described() -> Vec<Family> {
    let counter = |name, unit, help| Family::new(LAYER, name, Kind::Counter, unit, help);
    let events = EVENTS.iter().map(|event| counter(event.name, event.unit, event.help));
    let wanted = "Time in which the event was to be counted, of the vCPU's thread.";
    let counted = "Time in which it was counted. Where that is less, events took turns, and what was counted is scaled up.";
    let ring_0 = "1 if ring 0 of the guest is counted, too; else the host lets this user have ring 3 only.";
    events
        .chain([
            counter("wanted", "nanoseconds", wanted),
            counter("counted", "nanoseconds", counted),
            Family::new(LAYER, "ring_0", Kind::Gauge, "", ring_0),
        ])
        .collect()
}

impl Drop for Counting {
    fn drop(&mut self) {
        let mut state = self.0.state();
        state.holders -= 1;
        if state.holders > 0 {
            return;
        }
        for vcpu in 0..state.open.len() {
            for event in 0..EVENTS.len() {
                if let Some(sum) = state.sum(vcpu, event) {
                    state.before[vcpu][event] = sum;
                }
            }
        }
        state.open.clear();
        state.absent = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::perf_events::attributes::TASK_CLOCK;
    use std::time::{Duration, Instant};

    /// A counter that every host has, in the place of the first event, and none in that of the others.
    fn counters() -> [Option<Counter>; EVENTS.len()] {
        let mut counters = [const { None }; EVENTS.len()];
        let task_clock = Event { kind: attributes::Kind::Software, config: TASK_CLOCK, ..EVENTS[0] };
        // SAFETY: no arguments, no memory.
        let own = unsafe { libc::gettid() };
        let [opened] = open_all(&[task_clock], Some(own), Whose::Ring3).expect("software events");
        counters[0] = opened;
        counters
    }

    fn burn() {
        let start = Instant::now();
        while start.elapsed() < Duration::from_millis(30) {
            std::hint::spin_loop();
        }
    }

    fn told(pmu: &Pmu) -> StatSnapshot {
        let mut snapshot = StatSnapshot::default();
        pmu.tell(&mut snapshot);
        snapshot
    }

    #[test]
    fn they_count_while_somebody_looks_and_go_on_from_there_for_the_next() {
        let pmu = Pmu::new(vec![Arc::default()]);
        let look = || {
            let counting = pmu.hold();
            // The vCPU's thread has not begun: it is this one.
            pmu.state().open = vec![counters()];
            counting
        };
        assert!(told(&pmu).families.is_empty(), "nobody looks");
        let counting = look();
        burn();
        let first = told(&pmu);
        let counted = first.labelled(LAYER, "cycles", &[("vcpu", "0")]).expect("it counts");
        assert!(counted > 3_000_000, "{counted}");
        let [wanted, running] = ["wanted", "counted"].map(|name| first.value(LAYER, name).expect("told"));
        assert!(wanted >= running && running > 3_000_000, "{wanted} {running}");
        assert!(first.family(LAYER, "instructions").is_none(), "this host does not have it");
        let other = pmu.hold();
        drop(counting);
        burn();
        assert!(told(&pmu).value(LAYER, "cycles") > Some(counted + 3_000_000), "another one looks still");
        drop(other);
        assert!(told(&pmu).families.is_empty(), "nobody looks");
        assert!(pmu.state().open.is_empty(), "closed");
        let before = pmu.state().before[0][0].value;
        let _counting = look();
        assert!(told(&pmu).value(LAYER, "cycles") >= Some(before), "it only grows");
    }

    #[test]
    fn events_that_a_processor_lacks_are_left_out_and_none_at_all_is_an_error() {
        let there = Event { kind: attributes::Kind::Software, config: TASK_CLOCK, ..EVENTS[0] };
        let lacks = Event { kind: attributes::Kind::Software, config: 1 << 40, ..EVENTS[1] };
        let [first, second] = open_all(&[lacks, there], Some(0), Whose::Ring3).expect("one of them");
        assert!(first.is_none() && second.is_some());
        assert!(open_all(&[lacks], Some(0), Whose::Ring3).is_err());
        let [none] = open_all(&[lacks], None, Whose::Ring3).expect("no thread, no counters");
        assert!(none.is_none());
    }
}
