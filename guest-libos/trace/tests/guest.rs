//! The macros with the feature `guest`, in a process that maps the areas where an environment has them. A crate that
//! forbids unsafe code uses them (`service`), and the linker lays out the section.

use abi::boot::{EnvironmentPage, HostPage};
use abi::layout::{ACCOUNT_VA, ENVIRONMENT_VA, HOST_VA, KERNEL_PAGE_VA, TRACE_VA, VCPUS_VA};
use abi::trace::{
    AccountArea, KIND_COUNTER, KIND_EVENT, KIND_SPAN, RECORD_ENTER, Site, TraceRing, mode, unpack_what,
};
use exos_trace::abi;
use std::sync::atomic::Ordering::Relaxed;

mod service {
    #![forbid(unsafe_code)]

    pub(super) fn serve(packet: u64) {
        let _span = exos_trace::span!("serve", packet);
        exos_trace::counter!("bytes", 100);
        {
            let _span = exos_trace::span!("parse");
            exos_trace::event!("bad request", packet, 400);
        }
    }
}

unsafe extern "C" {
    #[link_name = "__start_exovm_sites"]
    static SITES_START: Site;
    #[link_name = "__stop_exovm_sites"]
    static SITES_STOP: Site;
}

fn map(va: u64, len_bytes: usize) {
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED_NOREPLACE;
    // SAFETY: a new anonymous mapping that replaces nothing.
    let at = unsafe {
        libc::mmap(va as *mut libc::c_void, len_bytes, libc::PROT_READ | libc::PROT_WRITE, flags, -1, 0)
    };
    assert_eq!(at as u64, va, "the test process already has something at {va:#x}");
}

#[test]
fn macros_account_to_their_sites_in_the_section() {
    map(ACCOUNT_VA, size_of::<AccountArea>());
    map(TRACE_VA, size_of::<TraceRing>());
    map(ENVIRONMENT_VA, size_of::<EnvironmentPage>());
    map(HOST_VA, size_of::<HostPage>());
    map(KERNEL_PAGE_VA, 4096);
    map(VCPUS_VA, 4096);
    // SAFETY: just mapped, zero, and zero is a valid value of both.
    let (account, ring) = unsafe { (&*(ACCOUNT_VA as *const AccountArea), &*(TRACE_VA as *const TraceRing)) };
    // SAFETY: as above.
    let host = unsafe { &*(HOST_VA as *const HostPage) };
    // SAFETY: the linker's symbols enclose the section, which holds `Site`s only.
    let sites = unsafe {
        let (start, stop) = (&raw const SITES_START, &raw const SITES_STOP);
        std::slice::from_raw_parts(start, stop.offset_from(start) as usize)
    };
    let find = |name: &str| {
        let k = sites
            .iter()
            .position(|s| s.name.starts_with(name.as_bytes()))
            .expect("the site is in the section");
        (k + 1, sites[k].kind)
    };

    exos_trace::start();
    host.trace.mode.store(mode::ACCOUNT | mode::RECORD, Relaxed);
    let start_tsc = account.last_tsc.load(Relaxed);
    for packet in 0..10 {
        service::serve(packet);
    }

    assert_eq!(sites.len(), 4);
    let (serve, parse) = (find("serve"), find("parse"));
    let (bytes, bad) = (find("bytes"), find("bad request"));
    assert_eq!([serve.1, parse.1, bytes.1, bad.1], [KIND_SPAN, KIND_SPAN, KIND_COUNTER, KIND_EVENT]);
    let count = |id: usize| account.sites[id].count.load(Relaxed);
    let total = |id: usize| account.sites[id].total.load(Relaxed);
    assert_eq!([count(serve.0), count(parse.0), count(bytes.0), count(bad.0)], [10; 4]);
    assert_eq!(total(bytes.0), 1000);
    assert!(total(serve.0) > 0 && total(parse.0) > 0);
    assert_eq!(total(0) + total(serve.0) + total(parse.0), account.last_tsc.load(Relaxed) - start_tsc);
    assert_eq!(ring.written.load(Relaxed), 60);
    let last_serve = &ring.records[54];
    assert_eq!(unpack_what(last_serve.what.load(Relaxed)), (serve.0 as u32, RECORD_ENTER, 0));
    assert_eq!(last_serve.subject.load(Relaxed), 9);
}
