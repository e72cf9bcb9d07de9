//! HTTP on the event loop: bytes of a connection in, responses queued on it.

use crate::files::{Docroot, File};
use crate::page::Page;
use alloc::vec::Vec;
use exos_event_loop::{Io, Service};
use exos_http::{Content, HttpConnection, Next, Piece, Response, Responses, Site};
use exos_net::{ConnId, End};
use exos_runtime::pages;

/// Responses that one batch of input may queue. More requests wait in the receive buffer, whose window holds the client
/// back.
const RESPONSES_A_BATCH: usize = 64;
/// Bytes queued on a connection above which no further request is read.
const QUEUED_BYTES: usize = 4 << 20;

/// The server.
pub(crate) struct Cheetah {
    site: Site<Docroot>,
    /// By [`ConnId::index`].
    connections: Vec<Connection>,
    answered: bool,
}

#[derive(Clone, Default)]
struct Connection {
    http: HttpConnection<File>,
    /// A request waits until there is room for its response.
    waits_for_room: bool,
    /// The client sends no more; what it sent is still answered.
    half_closed: bool,
}

impl Cheetah {
    pub(crate) fn new(site: Site<Docroot>, connections: u32) -> Self {
        let connections = (0..connections).map(|_| Connection::default()).collect();
        Self { site, connections, answered: false }
    }
}

impl Service for Cheetah {
    type Data = Page;

    fn opened(&mut self, connection: ConnId) {
        self.connections[connection.index()] = Connection::default();
    }

    fn input(&mut self, io: &mut Io<'_, Page>, connection: ConnId, bytes: &[u8]) -> usize {
        let state = &mut self.connections[connection.index()];
        let room = if io.unacknowledged_bytes(connection) < QUEUED_BYTES { RESPONSES_A_BATCH } else { 0 };
        let now = io.unix_seconds();
        let mut queue = Queue { io, connection, room, queued: 0 };
        let consumed = state.http.input(bytes, &mut self.site, now, &mut queue);
        let queued = queue.queued;
        state.waits_for_room = consumed.next == Next::Room;
        if consumed.next == Next::Close || (state.half_closed && !state.waits_for_room) {
            // Stale only if the connection ended meanwhile, which is what we want.
            let _ = io.close(connection);
        }
        if queued > 0 {
            exos_trace::counter!("requests", queued);
            if !self.answered {
                self.answered = true;
                pages::stamp_first_response();
            }
        }
        consumed.bytes
    }

    fn peer_closed(&mut self, io: &mut Io<'_, Page>, connection: ConnId) {
        let state = &mut self.connections[connection.index()];
        state.half_closed = true;
        if !state.waits_for_room {
            let _ = io.close(connection);
        }
    }

    fn resume(&mut self, _: &mut Io<'_, Page>, connection: ConnId) -> bool {
        self.connections[connection.index()].waits_for_room
    }

    fn ended(&mut self, connection: ConnId, _: End) {
        self.connections[connection.index()] = Connection::default();
    }
}

/// Takes responses for one connection.
struct Queue<'a, 'io> {
    io: &'a mut Io<'io, Page>,
    connection: ConnId,
    room: usize,
    queued: u64,
}

impl Responses<Docroot> for Queue<'_, '_> {
    fn room(&self) -> usize {
        self.room
    }

    fn push(&mut self, response: Response<File>, _: &mut Docroot) {
        self.room -= 1;
        self.queued += 1;
        let body = match response.body {
            Content::Piece(piece) => piece,
            Content::File(file) => Piece::Static(file.0.data()),
        };
        for piece in [response.header, body] {
            if !piece.is_empty() && self.io.send(self.connection, Page(piece)).is_err() {
                // The connection ended meanwhile; nobody waits for the rest.
                self.room = 0;
                return;
            }
        }
    }
}
