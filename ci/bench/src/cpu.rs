//! Processor time: of one process, and of each CPU of the machine.

use crate::BenchError;
use rustix::process::Pid;
use std::io;
use std::time::Duration;

/// USER_HZ: the unit of /proc/stat on every Linux we run on (proc(5), `sysconf(_SC_CLK_TCK)`).
const TICKS_PER_SECOND: f64 = 100.0;

/// Time that a CPU was idle or taken away by a hypervisor since boot, in ticks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct CpuTicks {
    idle: u64,
    steal: u64,
}

/// The state of all CPUs at one moment; index is the CPU's number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CpuSnapshot(Vec<Option<CpuTicks>>);

impl CpuSnapshot {
    pub(crate) fn now() -> Result<Self, BenchError> {
        let text = std::fs::read_to_string("/proc/stat")
            .map_err(|source| BenchError::system("read /proc/stat", source))?;
        Self::parse(&text).ok_or_else(|| {
            BenchError::system("understand /proc/stat", io::Error::from(io::ErrorKind::InvalidData))
        })
    }

    /// Lines `cpuN user nice system idle iowait irq softirq steal ...` (proc(5)).
    fn parse(text: &str) -> Option<Self> {
        let mut cpus = Vec::new();
        for line in text.lines() {
            let Some((number, fields)) = line.strip_prefix("cpu").and_then(|rest| rest.split_once(' '))
            else {
                continue;
            };
            let Ok(number) = number.parse::<usize>() else { continue }; // the line `cpu` sums all
            let fields: Vec<u64> = fields.split_whitespace().map_while(|field| field.parse().ok()).collect();
            let ticks = CpuTicks { idle: fields.get(3)? + fields.get(4)?, steal: *fields.get(7)? };
            cpus.resize(cpus.len().max(number + 1), None);
            cpus[number] = Some(ticks);
        }
        (!cpus.is_empty()).then_some(CpuSnapshot(cpus))
    }

    /// How long each CPU worked between `earlier` and this moment, `wall` apart.
    ///
    /// Wall time minus idle time, not the sum of the busy fields: those are sampled by the timer tick and miss what
    /// always runs between two ticks, while idle time is clocked on entry and exit.
    pub(crate) fn busy_since(&self, earlier: &CpuSnapshot, wall: Duration) -> Vec<Duration> {
        let difference = |(now, before): (&Option<CpuTicks>, &Option<CpuTicks>)| match (now, before) {
            (Some(now), Some(before)) => {
                let away = now.idle.saturating_sub(before.idle) + now.steal.saturating_sub(before.steal);
                wall.saturating_sub(Duration::from_secs_f64(away as f64 / TICKS_PER_SECOND))
            }
            // Came or went in between: nothing can be said, and nothing of ours ran there.
            _ => Duration::ZERO,
        };
        self.0.iter().zip(&earlier.0).map(difference).collect()
    }
}

/// Processor time of all threads of process `pid`, ended ones included.
pub(crate) fn process_time(pid: Pid) -> Result<Duration, BenchError> {
    let failed =
        |error: io::Error| BenchError::system(format!("read the processor time of process {pid:?}"), error);
    let mut clock: libc::clockid_t = 0;
    // SAFETY: `clock` is valid for writing.
    let result = unsafe { libc::clock_getcpuclockid(pid.as_raw_nonzero().get(), &mut clock) };
    if result != 0 {
        return Err(failed(io::Error::from_raw_os_error(result)));
    }
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is valid for writing.
    if unsafe { libc::clock_gettime(clock, &mut time) } != 0 {
        return Err(failed(io::Error::last_os_error()));
    }
    Ok(Duration::new(time.tv_sec as u64, time.tv_nsec as u32))
}

/// Processor time of all children of this process that were waited for, to a hundredth of a second.
pub(crate) fn ended_children_time() -> Result<Duration, BenchError> {
    let text = std::fs::read_to_string("/proc/self/stat")
        .map_err(|source| BenchError::system("read /proc/self/stat", source))?;
    children_time(&text).ok_or_else(|| {
        BenchError::system("understand /proc/self/stat", io::Error::from(io::ErrorKind::InvalidData))
    })
}

/// Fields cutime and cstime, the 16th and 17th (proc(5)); the second, in parentheses, may hold anything.
fn children_time(stat: &str) -> Option<Duration> {
    let mut fields = stat.rsplit_once(") ")?.1.split_whitespace().skip(16 - 3);
    let mut ticks = || fields.next()?.parse::<u64>().ok();
    Some(Duration::from_secs_f64((ticks()? + ticks()?) as f64 / TICKS_PER_SECOND))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn children_time_sums_cutime_and_cstime() {
        let stat = "77 (a ) b) S 1 77 77 0 -1 4194560 1 2 3 4 11 12 250 50 20 0 1 0 9 0 0";
        assert_eq!(children_time(stat), Some(Duration::from_secs(3)));
        assert_eq!(children_time("77 (a) S 1 2"), None);
    }

    const BEFORE: &str =
        "cpu  3 0 3 1500 7 0 0 0 0 0\ncpu0 1 0 1 1000 5 0 0 0 0 0\ncpu1 2 0 2 500 2 0 0 10 0 0\nintr 5 6\n";
    const AFTER: &str =
        "cpu  3 0 3 1600 7 0 0 0 0 0\ncpu0 9 0 1 1050 5 0 0 0 0 0\ncpu1 2 0 2 575 7 0 0 20 0 0\nintr 9 9\n";

    #[test]
    fn busy_since_is_wall_without_idle_iowait_and_steal() {
        let (before, after) = (CpuSnapshot::parse(BEFORE).unwrap(), CpuSnapshot::parse(AFTER).unwrap());
        let busy = after.busy_since(&before, Duration::from_secs(2));
        assert_eq!(busy, [Duration::from_millis(1500), Duration::from_millis(1100)]);
    }

    #[test]
    fn busy_since_more_idle_than_wall_is_zero() {
        let (before, after) = (CpuSnapshot::parse(BEFORE).unwrap(), CpuSnapshot::parse(AFTER).unwrap());
        assert_eq!(after.busy_since(&before, Duration::from_millis(100)), [Duration::ZERO; 2]);
    }

    #[test]
    fn parse_missing_cpu_leaves_a_gap() {
        let snapshot = CpuSnapshot::parse("cpu0 0 0 0 1 0 0 0 0\ncpu2 0 0 0 1 0 0 0 0\n").unwrap();
        assert_eq!(snapshot.busy_since(&snapshot, Duration::from_secs(1))[1], Duration::ZERO);
    }

    #[test]
    fn parse_garbage_returns_none() {
        for text in ["", "cpu0 1 2 3\n", "nothing\n"] {
            assert_eq!(CpuSnapshot::parse(text), None, "{text:?}");
        }
    }

    #[test]
    fn process_time_counts_ended_threads() {
        let own = rustix::process::getpid();
        let before = process_time(own).unwrap();
        std::thread::spawn(|| {
            let start = std::time::Instant::now();
            while start.elapsed() < Duration::from_millis(40) {}
        })
        .join()
        .unwrap();
        assert!(process_time(own).unwrap() - before >= Duration::from_millis(10));
    }
}
