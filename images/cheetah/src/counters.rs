//! What the server has done, for its own page of counters and for the machine's statistics.

use alloc::rc::Rc;
use alloc::string::String;
use core::fmt::Write;

use abi::statistics::{StatisticsArea, set};
use exos_http::{Site, Status};
use exos_runtime::clock::{self, Scale};

use crate::files::DiskFiles;

/// Where the page of counters is. No file can have this path.
pub(crate) const PATH: &[u8] = b"/.exovm/counters.json";

/// The server's own numbers.
pub(crate) struct Counters {
    scale: Scale,
    started_tsc: u64,
    pub(crate) requests: u64,
    pub(crate) body_bytes: u64,
    pub(crate) connections: u64,
    pub(crate) connections_opened: u64,
    pub(crate) files_broken: u64,
}

impl Counters {
    pub(crate) fn new() -> Self {
        Self {
            scale: Scale::new(),
            started_tsc: clock::tsc(),
            requests: 0,
            body_bytes: 0,
            connections: 0,
            connections_opened: 0,
            files_broken: 0,
        }
    }

    /// The page: one object of numbers, that only grow but for `connections`.
    pub(crate) fn page(&self, cache: &exos_cache::Counters) -> Rc<[u8]> {
        let uptime_ms = self.scale.ns(clock::tsc() - self.started_tsc) / 1_000_000;
        let mut text = String::new();
        let mut separator = '{';
        let own = [
            ("uptime_ms", uptime_ms),
            ("requests", self.requests),
            ("body_bytes", self.body_bytes),
            ("connections", self.connections),
            ("connections_opened", self.connections_opened),
            ("files_broken", self.files_broken),
        ];
        let cache = cache.iter().map(|(name, value)| ("cache_", name, value));
        for (prefix, name, value) in own.into_iter().map(|(name, value)| ("", name, value)).chain(cache) {
            // A string takes everything.
            let _ = write!(text, "{separator}\"{prefix}{name}\":{value}");
            separator = ',';
        }
        text.push_str("}\n");
        text.into_bytes().into()
    }
}

/// Copies everything to where the VMM reads it.
pub(crate) fn publish(area: &StatisticsArea, site: &Site<DiskFiles>) {
    let files = site.files();
    let classes = Status::ALL.into_iter().fold([0; 4], |mut classes, status| {
        classes[usize::from(status.code() / 100).clamp(2, 5) - 2] += site.counters().responses(status);
        classes
    });
    set(&area.http.responses_2xx, classes[0]);
    set(&area.http.responses_3xx, classes[1]);
    set(&area.http.responses_4xx, classes[2]);
    set(&area.http.responses_5xx, classes[3]);
    set(&area.http.body, site.counters().body_bytes());
    set(&area.http.connections, files.counters.connections);
    set(&area.http.connections_opened, files.counters.connections_opened);
    set(&area.http.files_broken, files.counters.files_broken);
    exos_files::publish(files.store.counters(), area);
}
