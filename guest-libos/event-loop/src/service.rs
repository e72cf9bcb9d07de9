//! What a service is to the loop, and what the loop lets it do.

use crate::NameFailure;
use crate::disk::Disk;
use abi::statistics::StatisticsArea;
use alloc::string::String;
use alloc::vec::Vec;
use core::net::{IpAddr, SocketAddr};
use exos_net::{
    ConnId, ConnectError, ControlFrame, Counters, Data, End, Instant, SendError, Stack, StaleConnection,
};
use exos_runtime::clock::{self, Scale};

/// What runs on the loop.
pub trait Service {
    /// What is sent: references to bytes that stay put.
    type Data: Data;

    /// Name in the prompt of the console that the loop opens for this service on the host channel (`exovm console`); `None`:
    /// it opens none.
    const CONSOLE: Option<&'static str> = None;

    /// Whether the service asks for names ([`Io::resolve`]).
    const ASKS_NAMES: bool = false;

    /// Gives each of the service's own counters with its name, for whoever asks at the console.
    fn counters(&self, each: &mut dyn FnMut(&'static str, u64)) {
        let _ = each;
    }

    /// Copies what the service has counted to where the VMM reads it. Called before the loop waits, and now and then when it does not.
    fn publish(&self, area: &StatisticsArea) {
        let _ = area;
    }

    /// A connection is open. Its number is reused after [`Service::ended`].
    fn opened(&mut self, connection: ConnId);

    /// Bytes arrived in order. Returns how many are done with; the rest comes again, with what arrives later.
    fn input(&mut self, io: &mut Io<'_, Self::Data>, connection: ConnId, bytes: &[u8]) -> usize;

    /// The peer sends no more.
    fn peer_closed(&mut self, io: &mut Io<'_, Self::Data>, connection: ConnId);

    /// There is room: what is queued and not acknowledged fell to the connection's low-water mark ([`Io::set_low_water`]),
    /// which is zero at first. Or the service itself asked to be called back ([`Io::resume`]). Returns whether bytes kept
    /// earlier should be offered again.
    fn resume(&mut self, io: &mut Io<'_, Self::Data>, connection: ConnId) -> bool {
        let _ = (io, connection);
        false
    }

    /// Between what came in and what goes out, for a service with a disk: to take what has been read ([`Io::disk`]) and to
    /// ask for more. Connections for which it calls [`Io::resume`] go on before the next call.
    fn round(&mut self, io: &mut Io<'_, Self::Data>) {
        let _ = io;
    }

    /// When [`Self::expired`] is to be called at the latest, on the clock of [`Io::now`]; `None`: not because of the time.
    fn next_deadline(&self) -> Option<Instant> {
        None
    }

    /// The deadline has passed.
    fn expired(&mut self, io: &mut Io<'_, Self::Data>) {
        let _ = io;
    }

    /// What came of the name that was asked for last: its first address, of IPv6 if it has one of either family
    /// ([`exos_dns::merge`]), or why it has none.
    fn resolved(&mut self, io: &mut Io<'_, Self::Data>, result: Result<IpAddr, NameFailure>) {
        let _ = (io, result);
    }

    /// A question to a name server as data, to be sent over TCP where the answer does not fit a datagram. `None`: such an answer is a
    /// failure. Of the name that is asked for now, each server is asked a few times at most.
    fn message(&mut self, bytes: &[u8]) -> Option<Self::Data> {
        let _ = bytes;
        None
    }

    /// Memory of the heap is asked back, from an address on, with `frames` frames of [`exos_runtime::heap::FRAME_BYTES`] left before
    /// it: lets go of what it has there and can do without. Called again until nothing is left.
    fn give_up(&mut self, start_va: usize, frames: usize) {
        let _ = (start_va, frames);
    }

    /// The connection is gone. Not told for one that the service aborted itself.
    fn ended(&mut self, connection: ConnId, how: End);
}

/// A connection that the service wants to go on with.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Resumed {
    pub(crate) connection: ConnId,
    /// The disk request that is why, as trace records name it, or 0.
    pub(crate) cause: u64,
}

/// What a service has asked the loop for, and the loop has not done yet.
pub(crate) struct Asked {
    /// Connections that the service wants to be called for.
    pub(crate) resumed: Vec<Resumed>,
    /// Connections that it began, and of which nothing has been sent.
    pub(crate) connected: Vec<ConnId>,
    /// Last frames of connections that it aborted.
    pub(crate) resets: Vec<ControlFrame<'static>>,
    /// A name that is to be asked for.
    pub(crate) name: Option<String>,
    /// Somebody wants the machine to end.
    pub(crate) quit: bool,
}

impl Asked {
    pub(crate) fn new() -> Self {
        Self { resumed: Vec::new(), connected: Vec::new(), resets: Vec::new(), name: None, quit: false }
    }
}

/// Has [`Service::resume`] called.
#[derive(Debug)]
pub struct Resumes<'a>(&'a mut Vec<Resumed>);

impl Resumes<'_> {
    /// As [`Io::resume`], because of a disk request as trace records name it, or 0.
    pub fn resume(&mut self, connection: ConnId, cause: u64) {
        self.0.push(Resumed { connection, cause });
    }
}

/// What a service may do with its connections.
pub struct Io<'a, D: Data> {
    pub(crate) stack: &'a mut Stack<D>,
    disk: Option<&'a mut Disk>,
    asked: &'a mut Asked,
    scale: Scale,
    unix_seconds: u64,
}

impl<'a, D: Data> Io<'a, D> {
    pub(crate) fn new(
        stack: &'a mut Stack<D>,
        disk: Option<&'a mut Disk>,
        asked: &'a mut Asked,
        scale: Scale,
        unix_seconds: u64,
    ) -> Self {
        Self { stack, disk, asked, scale, unix_seconds }
    }

    /// The disk, if the service was started with one.
    pub fn disk(&mut self) -> Option<&mut Disk> {
        self.disk.as_deref_mut()
    }

    /// The disk, and beside it whom to tell of connections that go on because of what it has read.
    pub fn disk_and_resumes(&mut self) -> Option<(&mut Disk, Resumes<'_>)> {
        Some((self.disk.as_deref_mut()?, Resumes(&mut self.asked.resumed)))
    }

    /// UTC, for the Date of a response.
    pub fn unix_seconds(&self) -> u64 {
        self.unix_seconds
    }

    /// The time, on the clock of [`Service::next_deadline`].
    pub fn now(&self) -> Instant {
        Instant::from_nanos(self.scale.ns(clock::tsc()))
    }

    /// Begins a connection. What is queued on it now ([`Self::send`], [`Self::close`]) follows with the acknowledgment that
    /// completes the handshake. [`Service::opened`] or [`Service::ended`] says what came of it.
    pub fn connect(&mut self, remote: SocketAddr) -> Result<ConnId, ConnectError> {
        let connection = self.stack.connect(self.now(), remote)?;
        self.asked.connected.push(connection);
        Ok(connection)
    }

    /// Asks name servers for the addresses of a name, those of the families that we have an address of. [`Service::resolved`] says
    /// what came of it, where [`Service::ASKS_NAMES`]. One name is asked for at a time; the one before is given up.
    pub fn resolve(&mut self, name: &str) {
        self.asked.name = Some(name.into());
    }

    /// What the stack has seen and done.
    pub fn counters(&self) -> &Counters {
        self.stack.counters()
    }

    /// Ends the loop, after what is queued has been handed to the NIC.
    pub fn quit(&mut self) {
        self.asked.quit = true;
    }

    /// Queues a reference; the bytes are read when they are sent, and again should they have to be repeated.
    pub fn send(&mut self, connection: ConnId, data: D) -> Result<(), SendError> {
        self.stack.send(connection, data)
    }

    /// Sends FIN behind what is queued.
    pub fn close(&mut self, connection: ConnId) -> Result<(), StaleConnection> {
        self.stack.close(connection)
    }

    /// Sets how few bytes may be queued on a connection before [`Service::resume`] is called.
    pub fn set_low_water(&mut self, connection: ConnId, bytes: usize) -> Result<(), StaleConnection> {
        self.stack.set_low_water(connection, bytes)
    }

    /// Ends a connection at once, with a reset: the peer sees that what it got is not all.
    pub fn abort(&mut self, connection: ConnId) {
        self.asked.resets.extend(self.stack.abort(connection));
    }

    /// Has [`Service::resume`] called for a connection, soon and once for each call, if it has not ended by then.
    pub fn resume(&mut self, connection: ConnId) {
        let cause = self.disk.as_ref().map_or(0, |disk| disk.last_done());
        self.asked.resumed.push(Resumed { connection, cause });
    }

    /// Bytes queued and not yet acknowledged.
    pub fn unacknowledged_bytes(&self, connection: ConnId) -> usize {
        self.stack.unacked_bytes(connection)
    }
}
