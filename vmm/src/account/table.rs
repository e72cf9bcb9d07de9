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

/// Prints a difference of two snapshots: cycles by bucket, as a share of the time and per request.
pub fn print(account: &AccountSnapshot) -> String {
    let mut text = String::new();
    let elapsed = account.tsc.max(1);
    let seconds = elapsed as f64 / (account.tsc_khz.max(1) as f64 * 1000.0);
    let requests: u64 =
        account.sites.iter().filter(|site| site.name == REQUESTS).map(|site| site.total).sum();
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
    for thread in &account.threads {
        for bucket in thread.buckets.iter().filter(|bucket| bucket.cycles > 0 || bucket.entries > 0) {
            let name = format!("{}: {}", thread.name, bucket.name);
            if thread.name == "vcpu" && bucket.name == "guest" {
                row(&name, bucket.cycles, bucket.entries);
                let spans =
                    || account.sites.iter().filter(|site| site.kind == "span" && site.name != TURN_SPAN);
                for span in spans().filter(|span| span.total > 0) {
                    row(&format!("  ring 3: {}", named(span)), span.total, span.count);
                }
                let ring3: u64 = spans().map(|span| span.total).sum();
                row("  not in ring 3 (KVM, ring 0)", bucket.cycles.saturating_sub(ring3), 0);
            } else {
                row(&name, bucket.cycles, bucket.entries);
            }
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
