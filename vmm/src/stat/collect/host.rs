//! What the VMM takes of the host: its process, and its threads by name. Read from proc(5); several machines in one process are not told
//! apart here.

use crate::machine::Shared;
use crate::stat::family::{Family, Kind};
use std::collections::BTreeMap;
use std::fs;

/// Of threads of one name.
#[derive(Default)]
struct ThreadUse {
    threads: u64,
    cpu_ns: u64,
    run_delay_ns: u64,
    minor_faults: u64,
    major_faults: u64,
}

pub(super) fn process(_: &Shared) -> Vec<Family> {
    let counter = |name, unit, help| Family::new("host", name, Kind::Counter, unit, help);
    let mut cpu = counter("thread_cpu", "nanoseconds", "Time that threads were on a CPU (schedstat).");
    let mut delay = counter(
        "thread_run_delay",
        "nanoseconds",
        "Time that threads could have run and had no CPU (schedstat).",
    );
    let mut minor = counter("thread_minor_faults", "faults", "Page faults that needed no disk.");
    let mut major = counter("thread_major_faults", "faults", "Page faults that had to read from a disk.");
    let mut threads = Family::new("host", "threads", Kind::Gauge, "threads", "Threads.");
    for (name, used) in by_name() {
        let own = [("thread", name.as_str())];
        cpu.push(&own, used.cpu_ns);
        delay.push(&own, used.run_delay_ns);
        minor.push(&own, used.minor_faults);
        major.push(&own, used.major_faults);
        threads.push(&own, used.threads);
    }
    // Threads end, and what they took goes with them; the process's only grows.
    let own = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    let own_ns = (own.tv_sec as u64).saturating_mul(1_000_000_000).saturating_add(own.tv_nsec as u64);
    let process =
        counter("process_cpu", "nanoseconds", "Time that the process was on a CPU.").with(&[], own_ns);
    let mut families = vec![process, cpu, delay, minor, major, threads];
    if let Some((all, resident)) = memory() {
        let gauge =
            |name, help, value| Family::new("host", name, Kind::Gauge, "bytes", help).with(&[], value);
        families.push(gauge("resident", "Memory of the process that is backed (RSS).", resident));
        families.push(gauge("address_space", "Address space of the process.", all));
    }
    families
}

/// All threads of the process.
fn by_name() -> BTreeMap<String, ThreadUse> {
    let mut all: BTreeMap<String, ThreadUse> = BTreeMap::new();
    // A thread may end while it is read.
    for entry in fs::read_dir("/proc/self/task").into_iter().flatten().flatten() {
        let dir = entry.path();
        let read = |name: &str| fs::read_to_string(dir.join(name)).unwrap_or_default();
        let stat = read("stat");
        let Some((name, fields)) = parse_stat(&stat) else { continue };
        let used = all.entry(name.to_owned()).or_default();
        let number = |at: usize| fields.get(at).and_then(|text| text.parse().ok()).unwrap_or(0u64);
        used.threads += 1;
        // proc(5): minflt is field 10, majflt field 12; the first one behind the name is field 3.
        used.minor_faults += number(7);
        used.major_faults += number(9);
        let schedstat = read("schedstat");
        let mut words = schedstat.split_whitespace().map(|word| word.parse().unwrap_or(0u64));
        used.cpu_ns += words.next().unwrap_or(0);
        used.run_delay_ns += words.next().unwrap_or(0);
    }
    all
}

/// The name in a `stat` file, which may hold anything, and the fields behind it.
fn parse_stat(stat: &str) -> Option<(&str, Vec<&str>)> {
    let (front, fields) = stat.rsplit_once(')')?;
    let (_, name) = front.split_once('(')?;
    Some((name, fields.split_whitespace().collect()))
}

/// Bytes of address space, and of it what is in memory.
fn memory() -> Option<(u64, u64)> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let bytes = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name))?;
        line.split_whitespace().next()?.parse::<u64>().ok().map(|kib| kib << 10)
    };
    Some((bytes("VmSize:")?, bytes("VmRSS:")?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn name_of_a_thread_may_hold_parentheses() {
        let (name, fields) = parse_stat("77 (a) (b) S 1 77 77 0 -1 4194560 123 0 4 0").expect("a line");
        assert_eq!((name, fields[0], fields[7], fields[9]), ("a) (b", "S", "123", "4"));
    }

    #[test]
    fn cpu_time_of_a_thread_that_works_grows() {
        // By its name, since other tests' threads come and go.
        let own = || by_name().remove("burns").expect("this thread").cpu_ns;
        let burn = move || {
            let before = own();
            let start = std::time::Instant::now();
            while start.elapsed().as_millis() < 60 {
                std::hint::spin_loop();
            }
            own() - before
        };
        let thread = std::thread::Builder::new().name("burns".to_owned()).spawn(burn).expect("a thread");
        let more = thread.join().expect("no panic");
        assert!((3_000_000..2_000_000_000).contains(&more), "{more} ns");
        assert!(memory().is_some_and(|(all, resident)| all > resident && resident > 0));
    }
}
