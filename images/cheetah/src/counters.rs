//! What the server has done, for its own page of counters and for the account of the machine.

use alloc::rc::Rc;
use alloc::string::String;
use core::fmt::Write;

use exos_runtime::clock::{self, Scale};

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
    /// The cache's, as they were last charged to the account.
    charged: exos_cache::Counters,
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
            charged: exos_cache::Counters::default(),
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

    /// Brings the machine's account up to date with what the cache has done.
    #[inline]
    pub(crate) fn charge(&mut self, cache: &exos_cache::Counters) {
        if *cache == self.charged {
            return;
        }
        let before = core::mem::replace(&mut self.charged, *cache);
        exos_trace::counter!("cache hits", cache.hits - before.hits);
        exos_trace::counter!("cache misses", cache.misses - before.misses);
        exos_trace::counter!("cache reads joined", cache.joined - before.joined);
        exos_trace::counter!("cache evictions", cache.evictions - before.evictions);
        exos_trace::counter!("cache waits for room", cache.room_waits - before.room_waits);
        exos_trace::counter!("cache name hits", cache.name_hits - before.name_hits);
        exos_trace::counter!("cache name misses", cache.name_misses - before.name_misses);
        exos_trace::counter!("disk reads", cache.reads - before.reads);
        exos_trace::counter!("disk bytes read", cache.bytes_read - before.bytes_read);
        exos_trace::counter!("disk read errors", cache.read_errors - before.read_errors);
        exos_trace::counter!("disk bad blocks", cache.bad_blocks - before.bad_blocks);
    }
}
