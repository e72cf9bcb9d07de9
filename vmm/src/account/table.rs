//! An account as a table for people.

use super::AccountSnapshot;
use super::snapshot::SiteSum;
use std::fmt::Write;

/// Name of the guest's span around its turns: time that the VMM's own buckets explain.
const TURN_SPAN: &str = "turn";
/// Name of the counter that cycles are divided by.
pub const REQUESTS: &str = "requests";

/// A site's name, and whose it is where there are several environments.
fn named(site: &SiteSum) -> String {
    match site.environment {
        Some(environment) => format!("[{environment}] {}", site.name),
        None => site.name.clone(),
    }
}

/// The rows of the guest's spans, and of what is left of `guest_cycles` besides them.
fn spans(account: &AccountSnapshot, guest_cycles: u64, row: &mut impl FnMut(&str, u64, u64)) {
    let spans = || account.sites.iter().filter(|site| site.kind == "span" && site.name != TURN_SPAN);
    for span in spans().filter(|span| span.total > 0) {
        row(&format!("  ring 3: {}", named(span)), span.total, span.count);
    }
    // The guest's numbers: they may be anything.
    let ring3 = spans().map(|span| span.total).fold(0, u64::saturating_add);
    row("  not in ring 3 (KVM, ring 0)", guest_cycles.saturating_sub(ring3), 0);
}

/// Requests that the guest's counters tell of, in all environments.
pub fn requests(account: &AccountSnapshot) -> u64 {
    let counters = account.sites.iter().filter(|site| site.kind == "counter" && site.name == REQUESTS);
    counters.map(|site| site.total).fold(0, u64::saturating_add)
}

/// Prints a difference of two snapshots: cycles by bucket, as a share of the time and per request.
pub fn print(account: &AccountSnapshot) -> String {
    let mut text = String::new();
    let elapsed = account.tsc.max(1);
    let seconds = elapsed as f64 / (account.tsc_khz.max(1) as f64 * 1000.0);
    let requests = requests(account);
    let _ = writeln!(
        text,
        "{seconds:.3} s, {:.0} requests/s, device work: {}",
        requests as f64 / seconds,
        if account.io.is_empty() { "none" } else { &account.io }
    );
    let _ = writeln!(text, "\n{:<34} {:>8} {:>12} {:>14}", "bucket", "share", "entries/s", "cycles/request");
    let mut row = |name: &str, cycles: u64, entries: u64| {
        let per_request =
            if requests == 0 { "-".to_owned() } else { format!("{:.0}", cycles as f64 / requests as f64) };
        let _ = writeln!(
            text,
            "{name:<34} {:>7.2}% {:>12.0} {per_request:>14}",
            100.0 * cycles as f64 / elapsed as f64,
            entries as f64 / seconds
        );
    };
    let vcpus = account.threads.iter().take_while(|thread| thread.is_vcpu()).count();
    for (number, thread) in account.threads.iter().enumerate() {
        for bucket in thread.buckets.iter().filter(|bucket| bucket.cycles > 0 || bucket.entries > 0) {
            row(&format!("{}: {}", thread.name, bucket.name), bucket.cycles, bucket.entries);
            if vcpus == 1 && number == 0 && bucket.name == "guest" {
                spans(account, bucket.cycles, &mut row);
            }
        }
        // An environment's spans are its own, on whichever vCPU it was.
        if vcpus > 1 && number == vcpus - 1 {
            let guest = account.threads[..vcpus].iter().flat_map(|thread| &thread.buckets);
            let guest: Vec<_> = guest.filter(|bucket| bucket.name == "guest").collect();
            let cycles = guest.iter().map(|bucket| bucket.cycles).sum();
            row(
                &format!("guest, all {vcpus} vCPUs"),
                cycles,
                guest.iter().map(|bucket| bucket.entries).sum(),
            );
            spans(account, cycles, &mut row);
        }
    }
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
    text
}

#[cfg(test)]
mod tests {
    use super::super::snapshot::{BucketSum, ThreadSum};
    use super::*;

    fn thread(name: &str, guest_cycles: u64) -> ThreadSum {
        let bucket = BucketSum { name: "guest".to_owned(), cycles: guest_cycles, entries: 1 };
        ThreadSum { name: name.to_owned(), buckets: vec![bucket] }
    }

    fn account(threads: Vec<ThreadSum>) -> AccountSnapshot {
        let span = |name: &str, total| SiteSum {
            name: name.to_owned(),
            kind: "span".to_owned(),
            count: 1,
            total,
            environment: None,
        };
        let sites = vec![span("serve", 300), span("turn", 90)];
        AccountSnapshot { tsc: 1000, tsc_khz: 1, threads, sites, ..AccountSnapshot::default() }
    }

    /// The rows' names and shares.
    fn rows(account: &AccountSnapshot) -> Vec<(String, String)> {
        let text = print(account);
        let rows = text.lines().filter(|line| line.contains('%'));
        rows.map(|row| (row[..34].trim_end().to_owned(), row[34..43].trim().to_owned())).collect()
    }

    #[test]
    fn spans_are_part_of_what_the_only_vcpu_was_in_the_guest() {
        let rows = rows(&account(vec![thread("vcpu", 1000), thread("io", 0)]));
        let expected = [
            ("vcpu: guest", "100.00%"),
            ("  ring 3: serve", "30.00%"),
            ("  not in ring 3 (KVM, ring 0)", "70.00%"),
        ];
        let expected = expected.map(|(name, share)| (name.to_owned(), share.to_owned()));
        assert_eq!(rows[..3], expected);
    }

    #[test]
    fn spans_are_part_of_what_all_vcpus_were_in_the_guest() {
        let rows = rows(&account(vec![thread("vcpu", 1000), thread("vcpu1", 500), thread("io", 0)]));
        let expected = [
            ("vcpu: guest", "100.00%"),
            ("vcpu1: guest", "50.00%"),
            ("guest, all 2 vCPUs", "150.00%"),
            ("  ring 3: serve", "30.00%"),
            ("  not in ring 3 (KVM, ring 0)", "120.00%"),
        ];
        let expected = expected.map(|(name, share)| (name.to_owned(), share.to_owned()));
        assert_eq!(rows[..5], expected);
    }
}
