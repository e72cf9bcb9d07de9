//! A connection of the server: where its requests are, and the file that is on its way to it.

use exos_cache::{Next, Stream};
use exos_event_loop::Io;
use exos_http::{Content, HttpConnection, Response, Responses};
use exos_net::ConnId;

use crate::files::{DiskFiles, File};
use crate::page::Page;

/// Bytes queued on a connection above which nothing more is queued. What a client does not take stays in the cache, in
/// use, so this is also what a client can hold on to.
pub(crate) const QUEUED_BYTES: usize = 1 << 20;

/// What the server knows of a connection.
#[derive(Clone, Default)]
pub(crate) struct Connection {
    /// Whose state this is; nobody's if the place is free.
    pub(crate) id: Option<ConnId>,
    pub(crate) http: HttpConnection<File>,
    /// The file that is being sent. Nothing else is queued before all of it is.
    pub(crate) stream: Option<Stream>,
    /// A ticket has not completed; until then there is nothing to do.
    pub(crate) waits_for_files: bool,
    /// Requests stay unread until something has happened.
    pub(crate) requests_wait: bool,
    /// The client sends no more; what it sent is still answered.
    pub(crate) half_closed: bool,
    /// The last response has been made.
    pub(crate) closing: bool,
}

/// What came of sending a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pumped {
    /// All of it is queued, or as much as there can be for now.
    Queued,
    /// The rest cannot be read: the connection is gone.
    Aborted,
}

/// Queues what there is of the file that is being sent, as far as there is room.
#[inline]
pub(crate) fn pump(
    stream: &mut Option<Stream>,
    waits_for_files: &mut bool,
    io: &mut Io<'_, Page>,
    connection: ConnId,
    files: &mut DiskFiles,
) -> Pumped {
    let Some(reader) = stream else { return Pumped::Queued };
    loop {
        match reader.next(&mut files.store) {
            Next::Slice(slice) => {
                if io.send(connection, Page::File(slice)).is_err() {
                    // The connection ended meanwhile; nobody waits for the rest.
                    *stream = None;
                    return Pumped::Queued;
                }
                if reader.is_at_end() {
                    *stream = None;
                    return Pumped::Queued;
                }
                if io.unacknowledged_bytes(connection) >= QUEUED_BYTES {
                    // Stale only if it ended.
                    let _ = io.set_low_water(connection, QUEUED_BYTES / 2);
                    return Pumped::Queued;
                }
            }
            Next::End => {
                *stream = None;
                return Pumped::Queued;
            }
            Next::Wait(ticket) => {
                match files.store.cache().wait(ticket, connection) {
                    Ok(()) => *waits_for_files = true,
                    Err(connection) => io.resume(connection),
                }
                return Pumped::Queued;
            }
            Next::Broken(broken) => {
                // Its header has promised more: only the end of the connection can tell the client.
                files.report(reader.file().path(), broken);
                io.abort(connection);
                *stream = None;
                return Pumped::Aborted;
            }
        }
    }
}

/// Takes responses for one connection.
pub(crate) struct Queue<'a, 'io> {
    pub(crate) io: &'a mut Io<'io, Page>,
    pub(crate) connection: ConnId,
    pub(crate) stream: &'a mut Option<Stream>,
    pub(crate) waits_for_files: &'a mut bool,
    pub(crate) room: usize,
    pub(crate) queued: u64,
    pub(crate) pumped: Pumped,
}

impl Responses<DiskFiles> for Queue<'_, '_> {
    #[inline]
    fn room(&self) -> usize {
        self.room
    }

    #[inline]
    fn push(&mut self, response: Response<File>, files: &mut DiskFiles) {
        self.room -= 1;
        self.queued += 1;
        files.counters.requests += 1;
        files.counters.body_bytes += response.body.len_bytes();
        let sent = self.io.send(self.connection, Page::Piece(response.header));
        let sent = match response.body {
            Content::Piece(piece) if piece.is_empty() => sent,
            Content::Piece(piece) => sent.and_then(|()| self.io.send(self.connection, Page::Piece(piece))),
            Content::File(file) => {
                *self.stream = Some(Stream::new(file.0));
                self.pumped = pump(self.stream, self.waits_for_files, self.io, self.connection, files);
                sent
            }
        };
        if sent.is_err() || self.stream.is_some() || self.pumped == Pumped::Aborted {
            // The connection ended meanwhile, or nothing can be queued before the rest of the file.
            self.room = 0;
        }
    }
}
