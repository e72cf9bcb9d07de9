//! What the server has besides its tasks: its disk, and its counters for whoever asks.

use abi::statistics::{StatisticsArea, set};
use alloc::rc::Rc;
use exos_event_loop::disk::Disk;
use exos_event_loop::sockets::Program;
use exos_files::Shared;
use exos_plain::Counters;
use exos_runtime::pages;

pub(crate) struct Plain {
    store: Shared,
    counters: Rc<Counters>,
    port: u16,
    /// Requests that the image's own counter has heard of.
    told: u64,
}

impl Plain {
    pub(crate) fn new(store: Shared, counters: Rc<Counters>, port: u16) -> Self {
        Self { store, counters, port, told: 0 }
    }

    /// `exovm account` divides by this counter.
    #[inline]
    fn tell_requests(&mut self) {
        let requests = self.counters.requests();
        if requests != self.told {
            if self.told == 0 {
                pages::stamp_first_response();
            }
            exos_trace::counter!("requests", requests - self.told);
            self.told = requests;
        }
    }
}

impl Program for Plain {
    fn console(&self) -> Option<&'static str> {
        Some("plain")
    }

    fn port(&self) -> Option<u16> {
        Some(self.port)
    }

    #[inline]
    fn disk(&mut self, disk: &mut Disk) {
        self.tell_requests();
        self.store.exchange(disk);
    }

    fn give_up(&mut self, start_va: usize, frames: usize) {
        self.store.shrink(frames, start_va);
    }

    fn counters(&self, each: &mut dyn FnMut(&'static str, u64)) {
        each("requests", self.counters.requests());
    }

    fn publish(&self, area: &StatisticsArea) {
        let counters = &self.counters;
        set(&area.http.responses_2xx, counters.responses(2));
        set(&area.http.responses_4xx, counters.responses(4));
        set(&area.http.responses_5xx, counters.responses(5));
        set(&area.http.body, counters.body_bytes.get());
        set(&area.http.connections, counters.connections.get());
        set(&area.http.connections_opened, counters.connections_opened.get());
        self.store.counters(|counters| exos_files::publish(counters, area));
    }
}
