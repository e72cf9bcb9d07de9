//! Accounts and traces, seen from outside a running machine: what happened is found where it belongs.

use abi::trace::mode::RECORD;
use abi::trace::{RECORD_COUNTER, RECORD_ENTER, RECORD_EVENT, RECORD_LEAVE, RECORDS, unpack_what};
use exovm::account::ledger::now_tsc;
use exovm::placement::IoMode;
use exovm_ci::{Guest, Site};
use exovm_netns::in_namespace;
use std::sync::atomic::Ordering;

const REQUESTS: u64 = 500;

fn serve(guest: &Guest, requests: u64) {
    let mut client = guest.connect();
    for _ in 0..requests {
        assert_eq!(client.get("/a.txt").unwrap().status(), 200);
    }
}

#[test]
fn account_counts_each_request_in_each_layer() {
    in_namespace!(|| {
        let guest = Guest::image("cheetah").site(&Site::new().file("a.txt", "a")).io(IoMode::Turn).start();
        let account = guest.account_of(|| serve(&guest, REQUESTS));
        let counter = account.site("requests").expect("a counter of cheetah");
        assert_eq!((counter.kind.as_str(), counter.total), ("counter", REQUESTS));
        for span in ["tcp input", "service", "tcp output", "nic transmit"] {
            let site = account.site(span).unwrap_or_else(|| panic!("no span {span}: {:?}", account.sites));
            assert!(site.count >= REQUESTS && site.total > 0, "{site:?}");
        }
        assert!(account.nic_counter("sent frames").unwrap() >= REQUESTS);
        assert!(account.nic_counter("received frames").unwrap() >= REQUESTS);
        assert!(account.nic_counter("turns").unwrap() > 0, "device work was asked for in turns");
        guest.stop();
    });
}

#[test]
fn buckets_of_each_thread_add_up_to_the_time() {
    in_namespace!(|| {
        for io in [IoMode::Turn, IoMode::Thread] {
            let site = Site::new().file("a.txt", "a");
            let guest = Guest::image("cheetah").site(&site).io(io).start();
            let account = guest.account_of(|| serve(&guest, REQUESTS));
            for thread in &account.threads {
                let sum: u64 = thread.buckets.iter().map(|bucket| bucket.cycles).sum();
                let ratio = sum as f64 / account.tsc as f64;
                // The threads of a disk start when they are first needed.
                let least = if thread.name.starts_with("disk") { 0.0 } else { 0.99 };
                assert!((least..1.01).contains(&ratio), "{io:?} {}: {ratio}", thread.name);
            }
            let spans: u64 =
                account.sites.iter().filter(|site| site.kind == "span").map(|site| site.total).sum();
            let ratio = spans as f64 / account.tsc as f64;
            assert!((0.99..1.01).contains(&ratio), "{io:?}: the guest's spans cover {ratio} of the time");
            guest.stop();
        }
    });
}

#[test]
fn spans_have_cycles_only_while_somebody_looks() {
    in_namespace!(|| {
        let site = Site::new().file("a.txt", "a");
        let guest = Guest::image("cheetah").site(&site).io(IoMode::Turn).start();
        let machine = guest.machine();
        serve(&guest, 10);
        let off = machine.account();
        let spans = || off.sites.iter().filter(|site| site.kind == "span");
        assert_eq!((spans().map(|span| span.total).sum::<u64>(), off.accounted_tsc), (0, 0));
        assert!(spans().any(|span| span.name == "service" && span.count >= 10), "counts go on");

        // It begins in the middle of whatever the guest does, and nothing of it is missing.
        // Long enough that the tenth of a millisecond which an account takes to read is nothing.
        for _ in 0..10 {
            let accounts = machine.accounts();
            let before = machine.account();
            serve(&guest, 1000);
            let on = machine.account().since(&before);
            let spans: u64 = on.sites.iter().filter(|site| site.kind == "span").map(|site| site.total).sum();
            let ratio = spans as f64 / on.tsc as f64;
            assert!((0.99..1.01).contains(&ratio), "spans cover {ratio}");
            drop(accounts);
            let end = machine.account();
            serve(&guest, 10);
            let after = machine.account();
            assert_eq!(end.accounted_tsc, after.accounted_tsc);
            let total = |account: &exovm::account::AccountSnapshot| account.site("service").unwrap().total;
            assert_eq!(total(&end), total(&after));
        }
        guest.stop();
    });
}

#[test]
fn trace_ring_holds_records_only_while_enabled() {
    in_namespace!(|| {
        let site = Site::new().file("a.txt", "a");
        let guest = Guest::image("cheetah").site(&site).io(IoMode::Turn).start();
        let ring = &guest.machine().pages().trace;
        let mode = &guest.machine().pages().host.trace.mode;
        serve(&guest, 10);
        assert_eq!(ring.written.load(Ordering::Acquire), 0, "nobody asked for records");

        let start_tsc = now_tsc();
        mode.store(RECORD, Ordering::Release);
        serve(&guest, 10);
        mode.store(0, Ordering::Release);
        serve(&guest, 1); // the guest has seen the flag
        let written = ring.written.load(Ordering::Acquire);
        serve(&guest, 10);
        assert_eq!(ring.written.load(Ordering::Acquire), written, "records after the end");

        let end_tsc = now_tsc();
        let (mut last_tsc, mut enters, mut leaves) = (start_tsc, 0, 0);
        for number in written.saturating_sub(RECORDS as u64 - 1)..written {
            let record = &ring.records[(number % RECORDS as u64) as usize];
            let tsc = record.tsc.load(Ordering::Relaxed);
            assert!((last_tsc..end_tsc).contains(&tsc), "record {number} lies on the time line of the host");
            last_tsc = tsc;
            let (site, kind, environment) = unpack_what(record.what.load(Ordering::Relaxed));
            assert!(site > 0 && environment == 0, "record {number}: site {site}, environment {environment}");
            match kind {
                RECORD_ENTER => enters += 1,
                RECORD_LEAVE => leaves += 1,
                RECORD_EVENT | RECORD_COUNTER => {}
                other => panic!("record {number} is of kind {other}"),
            }
        }
        assert!(
            enters >= 10 * 4 && leaves >= 10 * 4,
            "{enters} enters, {leaves} leaves of spans for ten requests"
        );
        guest.stop();
    });
}
