//! What the cache has counted, where the VMM reads it.

use abi::statistics::{StatisticsArea, set};
use exos_cache::Counters;

/// Copies the cache's counters to the statistics area.
pub fn publish(counters: &Counters, area: &StatisticsArea) {
    set(&area.cache.hits, counters.hits);
    set(&area.cache.misses, counters.misses);
    set(&area.cache.joined, counters.joined);
    set(&area.cache.read_ahead, counters.read_ahead);
    set(&area.cache.evictions, counters.evictions);
    set(&area.cache.given_back, counters.given_back);
    set(&area.cache.room_waits, counters.room_waits);
    set(&area.cache.name_hits, counters.name_hits);
    set(&area.cache.name_misses, counters.name_misses);
    set(&area.cache.reads, counters.reads);
    set(&area.cache.read, counters.bytes_read);
    set(&area.cache.read_errors, counters.read_errors);
    set(&area.cache.bad_blocks, counters.bad_blocks);
}
