//! HTTP on the event loop: bytes of a connection in, responses queued on it, files fetched from the disk meanwhile.

use abi::statistics::StatisticsArea;
use alloc::vec::Vec;

use exos_cache::Ticket;
use exos_event_loop::{Io, Service};
use exos_http::{Next, Site};
use exos_net::{ConnId, End};
use exos_runtime::pages;

use crate::connection::{Connection, Pumped, QUEUED_BYTES, Queue, pump};
use crate::counters;
use crate::files::DiskFiles;
use crate::page::Page;

/// Responses that one batch of input may queue. More requests wait in the receive buffer, whose window holds the client
/// back.
const RESPONSES_A_BATCH: usize = 64;

/// The server.
pub(crate) struct Cheetah {
    site: Site<DiskFiles>,
    /// By [`ConnId::index`].
    connections: Vec<Connection>,
    /// Requests answered.
    requests: u64,
}

impl Cheetah {
    pub(crate) fn new(site: Site<DiskFiles>, connections: u32) -> Self {
        let connections = (0..connections).map(|_| Connection::default()).collect();
        Self { site, connections, requests: 0 }
    }

    fn forget(&mut self, connection: ConnId) {
        self.connections[connection.index()] = Connection::default();
        self.site.files_mut().counters.connections -= 1;
    }
}

impl Service for Cheetah {
    type Data = Page;

    const CONSOLE: Option<&'static str> = Some("cheetah");

    fn counters(&self, each: &mut dyn FnMut(&'static str, u64)) {
        each("requests", self.requests);
    }

    fn publish(&self, area: &StatisticsArea) {
        counters::publish(area, &self.site);
    }

    fn opened(&mut self, connection: ConnId) {
        self.connections[connection.index()] = Connection { id: Some(connection), ..Connection::default() };
        let counters = &mut self.site.files_mut().counters;
        counters.connections += 1;
        counters.connections_opened += 1;
    }

    fn input(&mut self, io: &mut Io<'_, Page>, connection: ConnId, bytes: &[u8]) -> usize {
        let state = &mut self.connections[connection.index()];
        if state.id != Some(connection) {
            // Aborted a moment ago.
            return bytes.len();
        }
        if state.waits_for_files && state.stream.is_none() {
            // The first of the requests does; those behind it keep their order.
            return 0;
        }
        let room = if state.stream.is_none() && io.unacknowledged_bytes(connection) < QUEUED_BYTES {
            RESPONSES_A_BATCH
        } else {
            0
        };
        let now = io.unix_seconds();
        let Connection { http, stream, waits_for_files, .. } = state;
        let mut queue = Queue {
            io: &mut *io,
            connection,
            stream,
            waits_for_files,
            room,
            queued: 0,
            pumped: Pumped::Queued,
        };
        let consumed = http.input(bytes, &mut self.site, now, &mut queue);
        let (queued, pumped) = (queue.queued, queue.pumped);
        if queued > 0 {
            exos_trace::counter!("requests", queued);
            if self.requests == 0 {
                pages::stamp_first_response();
            }
            self.requests += queued;
        }
        if pumped == Pumped::Aborted {
            self.forget(connection);
            return bytes.len();
        }
        state.requests_wait = matches!(consumed.next, Next::Room | Next::Files(_));
        match consumed.next {
            Next::Input | Next::Room => {}
            Next::Close => state.closing = true,
            Next::Files(ticket) => {
                let ticket = Ticket::from_number(ticket.0);
                match self.site.files_mut().store.cache().wait(ticket, connection) {
                    Ok(()) => state.waits_for_files = true,
                    Err(connection) => io.resume(connection),
                }
            }
        }
        state.close_if_done(io, connection);
        consumed.bytes
    }

    fn peer_closed(&mut self, io: &mut Io<'_, Page>, connection: ConnId) {
        let state = &mut self.connections[connection.index()];
        if state.id == Some(connection) {
            state.half_closed = true;
            state.close_if_done(io, connection);
        }
    }

    fn resume(&mut self, io: &mut Io<'_, Page>, connection: ConnId) -> bool {
        let state = &mut self.connections[connection.index()];
        if state.id != Some(connection) || state.waits_for_files {
            return false;
        }
        if state.stream.is_some() {
            let Connection { stream, waits_for_files, .. } = state;
            if pump(stream, waits_for_files, io, connection, self.site.files_mut()) == Pumped::Aborted {
                self.forget(connection);
                return false;
            }
            if state.stream.is_some() {
                return false;
            }
            // What comes next waits until everything has arrived. Stale only if it ended.
            let _ = io.set_low_water(connection, 0);
            state.close_if_done(io, connection);
        }
        state.requests_wait
    }

    fn give_up(&mut self, start_va: usize, frames: usize) {
        self.site.files_mut().store.cache().shrink(frames, start_va);
    }

    fn ended(&mut self, connection: ConnId, _: End) {
        if self.connections[connection.index()].id == Some(connection) {
            self.forget(connection);
        }
    }

    #[inline]
    fn round(&mut self, io: &mut Io<'_, Page>) {
        let Some((disk, mut resumes)) = io.disk_and_resumes() else { return };
        let connections = &mut self.connections;
        exos_files::exchange(self.site.files_mut().store.cache(), disk, |waiter: ConnId, cause| {
            // A ticket has completed.
            let state = &mut connections[waiter.index()];
            if state.id == Some(waiter) {
                state.waits_for_files = false;
                resumes.resume(waiter, cause);
            }
        });
    }
}

impl Connection {
    /// Closes the connection if everything that will be sent is queued.
    fn close_if_done(&self, io: &mut Io<'_, Page>, connection: ConnId) {
        let all_answered = self.closing || (self.half_closed && !self.requests_wait);
        if all_answered && self.stream.is_none() {
            // Stale only if the connection ended meanwhile, which is what we want.
            let _ = io.close(connection);
        }
    }
}
