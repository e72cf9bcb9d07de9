//! An account as a table for people: where each vCPU's time went, dearest first; then who had the vCPUs, the other threads, and
//! what is not explained.

use super::AccountSnapshot;
use super::guest::{ASLEEP, NO_SPAN, WAITING};
use super::ledger::{Bucket, Ledger, now_tsc};
use super::snapshot::{BucketSum, SiteSum, ThreadSum};
use std::fmt::Write;

/// Name of the counter that cycles are divided by.
pub const REQUESTS: &str = "requests";
/// Of a whole.
const BAR_WIDTH: usize = 20;
/// Rows below this share of their whole are shown as one.
const SMALL: f64 = 0.0005;

/// One row.
#[derive(Clone, Debug, PartialEq)]
struct Row {
    name: String,
    cycles: u64,
    entries: u64,
}

/// What all rows are set against.
struct Frame {
    elapsed: u64,
    seconds: f64,
    requests: u64,
}

impl Frame {
    fn of(account: &AccountSnapshot) -> Self {
        let elapsed = account.tsc.max(1);
        let seconds = elapsed as f64 / (account.tsc_khz.max(1) as f64 * 1000.0);
        Self { elapsed, seconds, requests: requests(account) }
    }

    /// A whole, its parts by size, and the small ones as one.
    fn group(&self, text: &mut String, name: &str, whole: u64, mut rows: Vec<Row>) {
        let _ = writeln!(text, "\n{name}");
        rows.sort_by_key(|row| std::cmp::Reverse(row.cycles));
        let whole = whole.max(1);
        let is_small = |row: &Row| (row.cycles as f64) < SMALL * whole as f64;
        let (small, large): (Vec<_>, Vec<_>) =
            rows.into_iter().filter(|row| row.cycles > 0 || row.entries > 0).partition(is_small);
        large.iter().for_each(|row| self.row(text, row, whole));
        if let [only] = small.as_slice() {
            self.row(text, only, whole);
        } else if !small.is_empty() {
            let cycles = total(small.iter().map(|row| row.cycles));
            let entries = total(small.iter().map(|row| row.entries));
            let name = format!("{} more", small.len());
            self.row(text, &Row { name, cycles, entries }, whole);
        }
    }

    fn row(&self, text: &mut String, row: &Row, whole: u64) {
        let share = row.cycles as f64 / whole as f64;
        let filled = ((share * BAR_WIDTH as f64).round() as usize).min(BAR_WIDTH);
        let per_request = match self.requests {
            0 => "-".to_owned(),
            requests => format!("{:.0}", row.cycles as f64 / requests as f64),
        };
        let _ = writeln!(
            text,
            "  {:<32} {:>6.2}%  {:<BAR_WIDTH$} {:>11.0} {per_request:>12}",
            row.name,
            100.0 * share,
            "█".repeat(filled),
            row.entries as f64 / self.seconds
        );
    }
}

/// The guest may write what it likes into its account: a sum of it ends at the largest number.
fn total(numbers: impl Iterator<Item = u64>) -> u64 {
    numbers.fold(0, u64::saturating_add)
}

/// A bucket's name in the table.
fn bucket_name(bucket: &BucketSum, disks: usize) -> String {
    match bucket.device {
        Some(device) if disks > 1 => format!("{} (device {device})", bucket.name),
        _ => bucket.name.clone(),
    }
}

/// A site's name, and whose it is where there are several environments.
fn named(site: &SiteSum) -> String {
    match site.environment {
        Some(environment) => format!("[{environment}] {}", site.name),
        None => site.name.clone(),
    }
}

fn buckets(thread: &ThreadSum, disks: usize) -> Vec<Row> {
    let row = |bucket: &BucketSum| Row {
        name: bucket_name(bucket, disks),
        cycles: bucket.cycles,
        entries: bucket.entries,
    };
    thread.buckets.iter().map(row).collect()
}

/// What the time in the guest went to.
fn in_guest(account: &AccountSnapshot) -> Vec<Row> {
    let of_span = |site: &SiteSum| {
        let name = if site.name == NO_SPAN { "ring 3, in no span" } else { &site.name };
        let name = named(&SiteSum { name: name.to_owned(), ..site.clone() });
        Row { name, cycles: site.total, entries: site.count }
    };
    let mut rows: Vec<Row> = account.spans_in_guest().map(of_span).collect();
    let kernel = account.kernel_cycles().clamp(0, u64::MAX.into()) as u64;
    rows.push(Row { name: "kernel: choosing, halting".to_owned(), cycles: kernel, entries: 0 });
    if let Some(unattributed) = account.unattributed {
        let cycles = unattributed.in_guest_cycles.max(0) as u64;
        rows.push(Row { name: "unattributed".to_owned(), cycles, entries: 0 });
    }
    rows
}

/// Requests that the guest's counters tell of, in all environments.
pub fn requests(account: &AccountSnapshot) -> u64 {
    let counters = account.sites.iter().filter(|site| site.kind == "counter" && site.name == REQUESTS);
    total(counters.map(|site| site.total))
}

/// Prints a difference of two snapshots: cycles by bucket, as a share of the time and per request.
pub fn print(account: &AccountSnapshot) -> String {
    let mut text = String::new();
    let frame = Frame::of(account);
    let vcpus: Vec<_> = account.threads.iter().filter(|thread| thread.is_vcpu()).collect();
    let _ = writeln!(
        text,
        "{:.3} s, {:.0} requests/s, device work: {}",
        frame.seconds,
        frame.requests as f64 / frame.seconds,
        if account.io.is_empty() { "none" } else { &account.io }
    );
    let _ = writeln!(
        text,
        "\n  {:<32} {:>7}  {:<BAR_WIDTH$} {:>11} {:>12}",
        "", "share", "", "entries/s", "cycles/req"
    );
    let disks = account.disks.len();
    let guest = account.of_vcpus(Bucket::Guest.name());
    for vcpu in &vcpus {
        let mut rows = buckets(vcpu, disks);
        if let [_] = vcpus.as_slice() {
            // One tree: what was in the guest in its place.
            rows.retain(|row| row.name != Bucket::Guest.name());
            rows.extend(in_guest(account));
        }
        frame.group(&mut text, &format!("{}: where its time went", vcpu.name), frame.elapsed, rows);
    }
    if vcpus.len() > 1 {
        let name = format!("in the guest, all {} vCPUs (together {:.2}% of one)", vcpus.len(), {
            100.0 * guest.cycles as f64 / frame.elapsed as f64
        });
        frame.group(&mut text, &name, guest.cycles, in_guest(account));
    }
    environments(&mut text, &frame, account, vcpus.len());
    for thread in account.threads.iter().filter(|thread| !thread.is_vcpu()) {
        let sum: u64 = thread.buckets.iter().map(|bucket| bucket.cycles).sum();
        if sum > 0 {
            let name = format!("{}: where its time went", thread.name);
            frame.group(&mut text, &name, frame.elapsed, buckets(thread, disks));
        }
    }
    explanation(&mut text, &frame, account);
    counters(&mut text, &frame, account);
    text
}

/// Who had the vCPUs, where there is somebody to share them with.
fn environments(text: &mut String, frame: &Frame, account: &AccountSnapshot, vcpus: usize) {
    if account.environments.len() < 2 {
        return;
    }
    let share = |cycles: u64| 100.0 * cycles as f64 / frame.elapsed as f64;
    let _ = writeln!(text, "\nenvironments: share of the time");
    let _ = write!(text, "  {:<12}", "");
    for vcpu in 0..vcpus {
        let _ = write!(text, " {:>9}", format!("on vcpu{vcpu}"));
    }
    let _ = writeln!(text, " {:>9} {:>18}", ASLEEP, WAITING);
    for environment in &account.environments {
        let of = |name: &str| {
            let own = |site: &&SiteSum| {
                site.name == name && site.environment.is_none_or(|number| number == environment.number)
            };
            total(account.sites.iter().filter(own).map(|site| site.total))
        };
        let _ = write!(text, "  {:<12}", format!("[{}]", environment.number));
        for &ran in environment.ran_cycles.iter().take(vcpus) {
            let _ = write!(text, " {:>8.2}%", share(ran));
        }
        let _ = writeln!(text, " {:>8.2}% {:>17.2}%", share(of(ASLEEP)), share(of(WAITING)));
    }
}

/// What is not explained, and what the account itself costs.
fn explanation(text: &mut String, frame: &Frame, account: &AccountSnapshot) {
    let _ = writeln!(text);
    let vcpus = account.threads.iter().filter(|thread| thread.is_vcpu()).count().max(1);
    let whole = frame.elapsed as f64 * vcpus as f64 / 100.0;
    match account.unattributed {
        Some(unattributed) => {
            let _ = writeln!(
                text,
                "unattributed: {:.2}% of the vCPUs' time in the guest, {:.2}% in ring 3 in no span, {:.2}% in the VMM",
                unattributed.in_guest_cycles as f64 / whole,
                unattributed.in_no_span_cycles as f64 / whole,
                unattributed.in_vmm_cycles as f64 / whole
            );
        }
        None => {
            let _ = writeln!(
                text,
                "unattributed: not known, since the guest's spans were not accounted all the time"
            );
        }
    }
    let spans = total(account.spans_in_guest().map(|site| site.count.saturating_mul(2)));
    let of_threads = account.threads.iter().flat_map(|thread| &thread.buckets);
    let stamps = spans.saturating_add(total(of_threads.map(|bucket| bucket.entries)));
    let cycles = stamp_cycles();
    let _ = writeln!(
        text,
        "the account itself: {:.0} time stamps/s of some {cycles} cycles, {:.2}% of a CPU, in the rows above",
        stamps as f64 / frame.seconds,
        100.0 * stamps as f64 * cycles as f64 / frame.elapsed as f64
    );
    for thread in account.threads.iter().filter(|thread| !thread.buckets.is_empty()) {
        let began = thread.buckets.iter().any(|bucket| bucket.cycles > 0);
        if let (false, true, Some(cycles)) = (thread.switches, began, thread.waited_for_cpu_cycles) {
            let _ = writeln!(
                text,
                "{}: had no CPU for {:.2}% of the time (schedstat), in the rows above: the host does not show its context switches \
                 (kernel.perf_event_paranoid above 2)",
                thread.name,
                100.0 * cycles as f64 / frame.elapsed as f64
            );
        }
        if thread.lost_switches > 0 {
            let _ = writeln!(
                text,
                "{}: {} context switches were not read in time; what they took is in the rows above",
                thread.name, thread.lost_switches
            );
        }
    }
}

/// What a transition costs here, about.
fn stamp_cycles() -> u64 {
    const TRANSITIONS: u64 = 1000;
    let ledger = Ledger::default();
    let once = || {
        let start = now_tsc();
        for _ in 0..TRANSITIONS {
            ledger.enter(Bucket::Poll);
        }
        (now_tsc() - start) / TRANSITIONS
    };
    (0..5).map(|_| once()).min().unwrap_or(0)
}

fn counters(text: &mut String, frame: &Frame, account: &AccountSnapshot) {
    let seconds = frame.seconds;
    let counters: Vec<_> =
        account.sites.iter().filter(|site| site.kind != "span" && site.count > 0).collect();
    if !counters.is_empty() {
        let _ = writeln!(text, "\n{:<34} {:>12}", "guest counters and events", "per second");
        for site in counters {
            let value = if site.kind == "counter" { site.total } else { site.count };
            let _ = writeln!(text, "{:<34} {:>12.0}", named(site), value as f64 / seconds);
        }
    }
    let disks =
        account.disks.iter().enumerate().map(|(number, counters)| (format!("disk {number}"), counters));
    let nic = std::iter::once(("NIC, turns".to_owned(), &account.nic));
    let channel = std::iter::once(("host channel".to_owned(), &account.channel));
    for (device, counters) in nic.chain(disks).chain(channel) {
        let counters: Vec<_> = counters.iter().filter(|counter| counter.value > 0).collect();
        if !counters.is_empty() {
            let _ = writeln!(text, "\n{device:<34} {:>12}", "per second");
        }
        for counter in counters {
            let _ = writeln!(text, "{:<34} {:>12.0}", counter.name, counter.value as f64 / seconds);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::guest::EnvironmentSum;
    use super::super::snapshot::Unattributed;
    use super::*;

    fn bucket(name: &str, cycles: u64) -> BucketSum {
        BucketSum { name: name.to_owned(), device: None, cycles, entries: 1 }
    }

    fn thread(name: &str, buckets: Vec<BucketSum>) -> ThreadSum {
        ThreadSum { name: name.to_owned(), buckets, switches: true, ..ThreadSum::default() }
    }

    fn span(name: &str, total: u64) -> SiteSum {
        SiteSum { name: name.to_owned(), kind: "span".to_owned(), count: 1, total, environment: None }
    }

    /// 10,000 cycles.
    fn account(threads: Vec<ThreadSum>, sites: Vec<SiteSum>) -> AccountSnapshot {
        let earlier = AccountSnapshot::default();
        let account = AccountSnapshot {
            tsc: 10_000,
            accounted_tsc: 10_000,
            tsc_khz: 1,
            threads,
            sites,
            ..AccountSnapshot::default()
        };
        account.since(&earlier)
    }

    /// The rows' names and shares.
    fn rows(account: &AccountSnapshot) -> Vec<(String, String)> {
        let text = print(account);
        let rows = text.lines().filter(|line| line.starts_with("  ") && line.contains('%'));
        rows.map(|row| (row[2..34].trim_end().to_owned(), row[34..42].trim().to_owned())).collect()
    }

    #[test]
    fn only_vcpu_is_one_tree_by_size_with_turns_and_halts_told_by_those_who_had_them() {
        let buckets = vec![bucket("guest", 6000), bucket("wait", 3000), bucket("halted", 1000)];
        let sites = vec![
            span("serve", 3000),
            span("turn", 3000),
            span("halt", 1200),
            span("no span", 900),
            span("leaving the guest", 1890),
        ];
        let account = account(vec![thread("vcpu", buckets)], sites);
        let expected = [
            ("wait", "30.00%"),
            ("serve", "30.00%"),
            ("leaving the guest", "18.90%"),
            ("halted", "10.00%"),
            ("ring 3, in no span", "9.00%"),
            ("kernel: choosing, halting", "2.00%"),
            ("unattributed", "0.10%"),
        ];
        let rows = rows(&account);
        for (expected, row) in expected.iter().zip(&rows) {
            assert_eq!((row.0.as_str(), row.1.as_str()), *expected, "{rows:?}");
        }
        let unattributed = Unattributed { in_guest_cycles: 10, in_no_span_cycles: 900, in_vmm_cycles: 0 };
        assert_eq!(account.unattributed, Some(unattributed));
    }

    #[test]
    fn spans_of_several_vcpus_are_set_against_what_all_were_in_the_guest() {
        let threads = vec![
            thread("vcpu", vec![bucket("guest", 10_000)]),
            thread("vcpu1", vec![bucket("guest", 5000), bucket("off CPU", 5000)]),
        ];
        let mut account = account(threads, vec![span("serve", 12_000), span("asleep", 9000)]);
        account.environments =
            [7000, 5000].map(|ran| EnvironmentSum { number: 0, ran_cycles: vec![ran, 0] }).to_vec();
        let rows = rows(&account);
        let row = |name: &str| rows.iter().find(|row| row.0 == name).map(|row| row.1.as_str());
        assert_eq!(row("off CPU"), Some("50.00%"));
        assert_eq!(row("serve"), Some("80.00%"));
        assert_eq!(row("unattributed"), Some("20.00%"));
        assert_eq!(row("asleep"), None, "no part of the guest's time");
        assert!(print(&account).contains("environments: share of the time"));
    }

    #[test]
    fn what_the_host_does_not_show_is_said() {
        let mut vcpu = thread("vcpu", vec![bucket("guest", 10_000)]);
        (vcpu.switches, vcpu.waited_for_cpu_cycles) = (false, Some(2500));
        let text = print(&account(vec![vcpu], Vec::new()));
        assert!(text.contains("vcpu: had no CPU for 25.00% of the time (schedstat)"), "{text}");
    }

    #[test]
    fn nonsense_in_the_guests_account_is_a_table_all_the_same() {
        let sites =
            vec![span("a", u64::MAX), span("b", u64::MAX), span("halt", u64::MAX), span("no span", 7)];
        let mut nonsense = account(vec![thread("vcpu", vec![bucket("guest", 10_000)])], sites);
        for name in [REQUESTS, REQUESTS] {
            let counter = SiteSum { kind: "counter".to_owned(), ..span(name, u64::MAX) };
            nonsense.sites.push(counter);
        }
        nonsense.sites.iter_mut().for_each(|site| site.count = u64::MAX);
        assert!(print(&nonsense).contains("unattributed:"));
        let unattributed = nonsense.since(&AccountSnapshot::default()).unattributed;
        assert!(unattributed.is_some_and(|unattributed| unattributed.in_guest_cycles < 0));
    }

    #[test]
    fn small_rows_are_one() {
        let many = (0..9).map(|number| span(&format!("span {number}"), 1)).collect();
        let rows = rows(&account(vec![thread("vcpu", vec![bucket("guest", 10_000)])], many));
        assert!(rows.iter().any(|(name, _)| name.ends_with(" more")), "{rows:?}");
        assert!(!rows.iter().any(|(name, _)| name == "span 3"), "{rows:?}");
    }
}
