//! The host channel under control messages of every kind, bytes both ways, and clients that come and go: what the device says, whom
//! it believes, and which bytes arrive, is what ports as plain as possible say.

use super::channel::PORTS;
use super::driver::{Driver, Piece};
use super::guest::{Guest, OWN_GPA};
use super::ops::{BUFFERS, SIZE};
use crate::input::Input;
use exovm::device::virtio::QueueState;
use exovm::device::virtio::console::{AttachError, Begin, Console, PortKind, Session, TerminalSize};
use exovm::tables::DmaDomain;
use std::collections::VecDeque;

/// The control queues (VIRTIO 1.3 5.3.2).
const CONTROL_RECEIVE: u16 = 2;
const CONTROL_TRANSMIT: u16 = 3;
/// Bytes of a buffer, one for each entry of each queue.
const BUFFER_BYTES: u64 = 128;

/// What the driver knows of a port.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Known {
    #[default]
    Nothing,
    Added,
    Ready,
}

/// A port as it should be.
#[derive(Default)]
struct Port {
    known: Known,
    open: bool,
    /// What the driver is still to be told.
    due_add: bool,
    due_console: bool,
    due_name: bool,
    /// The client that the driver was told of, and the size of its terminal.
    told: Option<u64>,
    told_size: TerminalSize,
    /// The client, and the number and the terminal of the last one.
    session: Option<Session>,
    sessions: u64,
    size: TerminalSize,
    /// Bytes on their way.
    to_client: VecDeque<u8>,
    to_guest: VecDeque<u8>,
}

struct Model {
    driver: Driver<Console<DmaDomain>>,
    ports: [Port; PORTS.len()],
    ignored: u64,
    /// Buffers of each queue that the device has, first in, first out.
    posted: [VecDeque<(u16, u32)>; 2 * PORTS.len() + 2],
    next: [u16; 2 * PORTS.len() + 2],
    bytes: u8,
}

/// The queues of a port.
fn receive(port: usize) -> u16 {
    if port == 0 { 0 } else { 2 * port as u16 + 2 }
}

fn buffer_gpa(queue: u16, slot: u16) -> u64 {
    OWN_GPA + BUFFERS + (u64::from(queue) * u64::from(SIZE) + u64::from(slot)) * BUFFER_BYTES
}

pub(super) fn run(guest: Guest, device: Console<DmaDomain>, mut input: Input<'_>) {
    let driver = Driver::new(guest, device);
    let ports = Default::default();
    let mut model =
        Model { driver, ports, ignored: 0, posted: Default::default(), next: Default::default(), bytes: 0 };
    while !input.is_empty() {
        let port = usize::from(input.below(PORTS.len() as u8));
        match input.below(12) {
            0..=2 => model.say(&mut input),
            3 => model.post(CONTROL_RECEIVE, BUFFER_BYTES as u32, true),
            4 => model.attach(port, &mut input),
            5 => model.detach(port),
            6 => model.client_writes(port, &mut input),
            7 => model.client_reads(port, &mut input),
            8 | 9 => model.guest_writes(port, &mut input),
            10 => model.post(receive(port), 1 + u32::from(input.u8()) % (BUFFER_BYTES as u32), true),
            _ => model.begin(&mut input),
        }
        model.work();
    }
    model.driver.bench.guest.check();
}

impl Model {
    /// Makes a buffer available, unless the ring is full.
    fn post(&mut self, queue: u16, len: u32, writable: bool) {
        let posted = &mut self.posted[usize::from(queue)];
        if posted.len() == usize::from(SIZE) {
            return;
        }
        let next = &mut self.next[usize::from(queue)];
        let slot = *next;
        *next = (slot + 1) % SIZE;
        posted.push_back((slot, len));
        self.driver.post(queue, slot, &[Piece { gpa: buffer_gpa(queue, slot), len, writable }]);
    }

    /// The next buffer that the device gives back.
    fn used(&mut self, queue: u16) -> Option<Vec<u8>> {
        let (head, written) = self.driver.used(queue)?;
        let (slot, len) = self.posted[usize::from(queue)].pop_front().expect("only what it was given");
        assert!(head == u32::from(slot) && written <= len, "another buffer, or too much in it");
        Some(self.driver.read(buffer_gpa(queue, slot), written as usize))
    }

    fn stopped(&self, queue: u16) -> bool {
        let states = self.driver.bench.function.queue_states();
        matches!(states[usize::from(queue)], QueueState::Stopped(_))
    }

    fn reset(&mut self, queue: u16) {
        self.driver.reset(queue);
        self.posted[usize::from(queue)].clear();
        self.next[usize::from(queue)] = 0;
    }

    /// Mostly what a driver says in the beginning: that it is there, and ready for what it was told of.
    fn begin(&mut self, input: &mut Input<'_>) {
        self.message(0, 0, 1, 8);
        self.work();
        for port in 0..PORTS.len() as u32 {
            self.post(CONTROL_RECEIVE, BUFFER_BYTES as u32, true);
            self.work();
            self.message(port, 3, 1, 8);
            self.work();
            if input.below(4) != 0 {
                self.message(port, 6, 1, 8);
                self.work();
            }
        }
    }

    /// A control message with whatever in it.
    fn say(&mut self, input: &mut Input<'_>) {
        let port = match input.below(8) {
            0 => input.u32(),
            1 => u32::MAX,
            port => u32::from(port) % (PORTS.len() as u32 + 1),
        };
        let event = [0, 3, 3, 6, 6, 1, 4, 5, 7, input.u16()][usize::from(input.below(10))];
        let value = [1, 1, 1, 0, input.u16()][usize::from(input.below(5))];
        let len = if input.below(16) == 0 { 1 + input.below(32) } else { 8 };
        self.message(port, event, value, len.into());
    }

    fn message(&mut self, port: u32, event: u16, value: u16, len: u32) {
        let slot = self.next[usize::from(CONTROL_TRANSMIT)];
        let mut message = port.to_le_bytes().to_vec();
        message.extend(event.to_le_bytes());
        message.extend(value.to_le_bytes());
        self.driver.bench.guest.write(buffer_gpa(CONTROL_TRANSMIT, slot), &message);
        self.post(CONTROL_TRANSMIT, len, false);
        self.driver.bench.function.work(&self.driver.bench.ledger);
        if len < 8 {
            assert!(self.stopped(CONTROL_TRANSMIT), "half a message is none");
            self.reset(CONTROL_TRANSMIT);
            self.ports.iter_mut().for_each(Port::restart);
            return;
        }
        assert_eq!(self.used(CONTROL_TRANSMIT), Some(Vec::new()), "a message is taken at once");
        self.heed(port, event, value);
        let ignored = self.driver.bench.function.metrics().messages_ignored;
        assert_eq!(ignored, self.ignored, "port {port}, event {event}, value {value}");
    }

    /// What the message does, and whether it is one that counts (VIRTIO 1.3 5.3.6.2).
    fn heed(&mut self, port: u32, event: u16, value: u16) {
        if event == 0 && value < 2 {
            self.ports.iter_mut().for_each(|port| {
                port.restart();
                port.due_add = value == 1;
            });
            return;
        }
        let is_console = PORTS.get(port as usize).is_some_and(|port| port.kind == PortKind::Console);
        let port = self.ports.get_mut(port as usize).filter(|_| value < 2);
        let counts = match (port, event, value) {
            (Some(port), 3, 1) if port.known != Known::Nothing => {
                port.known = Known::Ready;
                (port.due_console, port.due_name) = (is_console, true);
                (port.told, port.told_size) = (None, TerminalSize::default());
                true
            }
            (Some(port), 3, 0) if port.known != Known::Nothing => {
                port.known = Known::Added;
                (port.told, port.open) = (None, false);
                true
            }
            (Some(port), 6, 1) if port.known == Known::Ready => {
                port.open = true;
                true
            }
            (Some(port), 6, 0) => {
                port.open = false;
                true
            }
            _ => false,
        };
        self.ignored += u64::from(!counts);
    }

    fn attach(&mut self, port: usize, input: &mut Input<'_>) {
        let size = TerminalSize { columns: input.below(3).into(), rows: 0 };
        let host = self.driver.bench.function.device().host_ports().swap_remove(port);
        let port = &mut self.ports[port];
        let expected = match () {
            () if port.session.is_some() => Some(AttachError::Taken),
            () if !port.open && port.to_client.is_empty() => Some(AttachError::NotOpen),
            () => None,
        };
        match host.attach(Begin::Unseen, size) {
            Ok(session) => {
                assert_eq!(expected, None);
                port.session = Some(session);
                port.sessions += 1;
                port.size = size;
            }
            Err(error) => assert_eq!(Some(error), expected),
        }
    }

    fn detach(&mut self, port: usize) {
        let port = &mut self.ports[port];
        if port.session.take().is_some() {
            port.to_guest.clear();
        }
    }

    fn client_writes(&mut self, port: usize, input: &mut Input<'_>) {
        let port = &mut self.ports[port];
        let len = input.below(200);
        let bytes = input.bytes(len.into());
        if let Some(session) = &port.session {
            let taken = session.write(bytes);
            port.to_guest.extend(&bytes[..taken]);
        }
    }

    fn client_reads(&mut self, port: usize, input: &mut Input<'_>) {
        let port = &mut self.ports[port];
        let mut bytes = vec![0; usize::from(input.u8())];
        if let Some(session) = &port.session {
            assert_eq!(session.status().unread_bytes, port.to_client.len());
            let count = session.peek(&mut bytes);
            assert_eq!(count, bytes.len().min(port.to_client.len()));
            assert!(port.to_client.drain(..count).eq(bytes[..count].iter().copied()), "other bytes");
            session.advance(count);
        }
    }

    /// Bytes of the guest; so few that there is always room.
    fn guest_writes(&mut self, port: usize, input: &mut Input<'_>) {
        let (queue, len) = (receive(port) + 1, 1 + input.u8() % BUFFER_BYTES as u8);
        if self.ports[port].to_client.len() > 32 << 10 {
            return;
        }
        let bytes: Vec<u8> = (0..len).map(|at| self.bytes.wrapping_add(at)).collect();
        self.bytes = self.bytes.wrapping_add(len);
        let slot = self.next[usize::from(queue)];
        self.driver.bench.guest.write(buffer_gpa(queue, slot), &bytes);
        self.post(queue, len.into(), false);
        self.ports[port].to_client.extend(&bytes);
        self.driver.bench.function.work(&self.driver.bench.ledger);
        assert_eq!(self.used(queue), Some(Vec::new()), "bytes of the guest are taken at once");
    }

    /// The device works, and what it says and gives is compared.
    fn work(&mut self) {
        while self.driver.bench.function.work(&self.driver.bench.ledger).more {}
        assert!(!self.stopped(CONTROL_RECEIVE));
        while let Some(message) = self.used(CONTROL_RECEIVE) {
            self.hear(&message);
        }
        for (number, port) in self.ports.iter_mut().enumerate() {
            let current = port.session.as_ref().map(|_| port.sessions);
            if let Some(session) = &port.session {
                assert_eq!(session.status().guest_open, port.open, "port {number}");
            }
            let queue = receive(number);
            while let Some((head, written)) = self.driver.used(queue) {
                let (slot, len) = self.posted[usize::from(queue)].pop_front().expect("what it was given");
                assert!(head == u32::from(slot) && written <= len && written > 0);
                assert!(port.told.is_some() && port.told == current, "bytes of a client that it knows not");
                let bytes = self.driver.read(buffer_gpa(queue, slot), written as usize);
                assert!(bytes.len() <= port.to_guest.len(), "bytes that nobody wrote");
                assert!(port.to_guest.drain(..bytes.len()).eq(bytes), "other bytes");
            }
            let waits = !self.posted[usize::from(queue)].is_empty() && !port.to_guest.is_empty();
            assert!(!waits || port.told != current, "port {number}: bytes and a buffer, and nothing happens");
            let silent = port.due_add
                || port.known == Known::Ready && (port.due_console || port.due_name || port.told != current);
            let heard = self.posted[usize::from(CONTROL_RECEIVE)].is_empty();
            assert!(!silent || heard, "port {number}: the driver is not told what it should know");
        }
    }

    /// The driver is told something.
    fn hear(&mut self, message: &[u8]) {
        let [p0, p1, p2, p3, e0, e1, v0, v1, more @ ..] = message else { panic!("half a message") };
        let number = u32::from_le_bytes([*p0, *p1, *p2, *p3]) as usize;
        let port = self.ports.get_mut(number).expect("a port that there is");
        let ready = port.known == Known::Ready && !port.due_add;
        match (u16::from_le_bytes([*e0, *e1]), u16::from_le_bytes([*v0, *v1])) {
            (1, _) => {
                assert!(port.due_add, "a port is added without having been asked for");
                port.due_add = false;
                port.known = Known::Added;
            }
            (4, 1) => {
                assert!(ready && port.due_console && PORTS[number].kind == PortKind::Console);
                port.due_console = false;
            }
            (7, 1) => {
                assert!(ready && port.due_name && more == PORTS[number].name.as_bytes());
                port.due_name = false;
            }
            (5, _) => {
                assert!(ready && port.told.is_none() && more.len() == 4);
                assert_eq!(more, [port.size.columns.to_le_bytes(), port.size.rows.to_le_bytes()].concat());
                port.told_size = port.size;
            }
            (6, 1) => {
                assert!(ready && port.told.is_none() && port.session.is_some(), "no client is there");
                assert_eq!(port.told_size, port.size);
                port.told = Some(port.sessions);
            }
            (6, 0) => {
                assert!(ready && port.told.is_some(), "the end of a client that it knows not");
                port.told = None;
            }
            other => panic!("{other:?} is no message to a driver"),
        }
    }
}

impl Port {
    /// The driver begins anew.
    fn restart(&mut self) {
        (self.known, self.open) = (Known::Nothing, false);
        (self.due_add, self.due_console, self.due_name) = (false, false, false);
        (self.told, self.told_size) = (None, TerminalSize::default());
    }
}
