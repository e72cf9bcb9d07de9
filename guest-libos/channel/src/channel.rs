//! The channel: its control queues, and the ports that are asked for by name.

use crate::fault::{Fault, OpenError};
use crate::inbox::Inbox;
use crate::message::{FromDevice, ToDevice};
use crate::outbox::Outbox;
use abi::boot::{DEVICE_CONSOLE, Device};
use alloc::boxed::Box;
use alloc::vec;
use alloc::vec::Vec;
use exos_virtqueue::{Arming, Hal, Place};

/// VIRTIO_CONSOLE_F_MULTIPORT.
const MULTIPORT: u32 = 1;
/// Numbers of the control queues: from the device, and to it.
const CONTROL_RECEIVE: u32 = 2;
const CONTROL_TRANSMIT: u32 = 3;
/// Buffers of each control queue.
const MESSAGES: u16 = 16;
/// Bytes of one: a message with a name.
const MESSAGE_BUFFER_BYTES: usize = 256;

/// Sizes of a port's queues.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Config {
    /// Buffers each way, a power of two.
    pub buffers: u16,
    /// Bytes of a buffer.
    pub buffer_bytes: usize,
}

impl Default for Config {
    /// 64 KiB each way: as much as the host's end holds.
    fn default() -> Self {
        Self { buffers: 16, buffer_bytes: 4096 }
    }
}

/// A port that was asked for: its place in the list of names.
pub type PortId = usize;

/// The terminal at the host's end; zero for both: there is none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Terminal {
    /// Characters of a line.
    pub columns: u16,
    /// Lines.
    pub rows: u16,
}

/// Who is at the other end of a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Host {
    /// Nobody, or the port is not open.
    Absent,
    /// A client.
    Attached {
        /// Counts the clients of this port: another number is another client.
        client: u32,
        /// Its terminal, if it is one.
        terminal: Option<Terminal>,
    },
}

/// What the device said of a port, by its number.
#[derive(Clone, Copy, Debug, Default)]
struct Known {
    added: bool,
    /// Which of the ports asked for it is.
    port: Option<PortId>,
    attached: bool,
    clients: u32,
    terminal: Terminal,
}

#[derive(Debug)]
enum State<H: Hal> {
    /// The device did not say yet that it has such a port.
    Awaited,
    /// Its queues are bound.
    Bound(Box<Bound<H>>),
    /// Its queues could not be bound.
    Failed(OpenError),
}

/// A port whose queues are bound.
#[derive(Debug)]
struct Bound<H: Hal> {
    number: u32,
    open: bool,
    inbox: Inbox<H>,
    outbox: Outbox<H>,
}

/// The channel.
#[derive(Debug)]
pub struct Channel<H: Hal> {
    hal: H,
    index: u32,
    device: Device,
    config: Config,
    names: &'static [&'static str],
    // In this order they are unbound: what a port has written is taken before the device hears that all is over, and no
    // message is left that it would not understand then.
    ports: Vec<State<H>>,
    control_out: Outbox<H>,
    control_in: Inbox<H>,
    known: Vec<Known>,
    /// Messages that this driver does not know.
    unknown: u64,
    fault: Option<Fault>,
}

impl<H: Hal> Channel<H> {
    /// Binds the control queues of device number `index`, which the device table describes as `device`, and asks for ports of
    /// these names. They are open once the device has answered; see [`Self::is_open`]. Dropping the channel unbinds all.
    pub fn open(
        hal: H,
        index: u32,
        device: &Device,
        config: Config,
        names: &'static [&'static str],
    ) -> Result<Self, OpenError> {
        if device.kind != DEVICE_CONSOLE {
            return Err(OpenError::NotAConsole);
        }
        if device.features >> MULTIPORT & 1 == 0 {
            return Err(OpenError::OnePort);
        }
        let place = |queue| Place { device: index, queue };
        let size = MESSAGES.min(device.queue_size_max.try_into().unwrap_or(u16::MAX));
        let inbox = Inbox::open(hal.clone(), place(CONTROL_RECEIVE), device, size, MESSAGE_BUFFER_BYTES)?;
        let outbox = Outbox::open(hal.clone(), place(CONTROL_TRANSMIT), device, size, MESSAGE_BUFFER_BYTES)?;
        let ports = (device.queues / 2).saturating_sub(1);
        let mut channel = Self {
            hal,
            index,
            device: *device,
            config,
            names,
            control_in: inbox,
            control_out: outbox,
            known: vec![Known::default(); ports as usize],
            ports: names.iter().map(|_| State::Awaited).collect(),
            unknown: 0,
            fault: None,
        };
        channel.say(ToDevice::Ready);
        channel.control_out.publish();
        Ok(channel)
    }

    /// Hears what the device has to say of its ports, and shows it what was written. Cheap when there is nothing.
    pub fn poll(&mut self) {
        self.hear();
        for port in &mut self.ports {
            if let State::Bound(bound) = port {
                bound.inbox.publish();
                bound.outbox.publish();
            }
        }
        self.control_out.publish();
    }

    /// Copies out bytes of a port; returns how many. None: nothing is there now, and whatever comes interrupts.
    pub fn read(&mut self, port: PortId, into: &mut [u8]) -> usize {
        let Some(State::Bound(bound)) = self.ports.get_mut(port) else { return 0 };
        let mut filled = 0;
        while filled < into.len() {
            let bytes = bound.inbox.peek();
            let count = bytes.len().min(into.len() - filled);
            if count == 0 {
                break;
            }
            into[filled..filled + count].copy_from_slice(&bytes[..count]);
            bound.inbox.consume(count);
            filled += count;
        }
        filled
    }

    /// Takes bytes for a port; returns how many there was room for, none if it is not open. They go out with the next
    /// [`Self::poll`]. If there was not room for all, room interrupts when it comes.
    pub fn write(&mut self, port: PortId, bytes: &[u8]) -> usize {
        match self.ports.get_mut(port) {
            Some(State::Bound(bound)) if bound.open => bound.outbox.write(bytes),
            _ => 0,
        }
    }

    /// Whether the port was found and is open.
    pub fn is_open(&self, port: PortId) -> bool {
        matches!(self.ports.get(port), Some(State::Bound(bound)) if bound.open)
    }

    /// Closes a port, behind what was written. What arrives can still be read. False: too many messages are on their way; poll
    /// and try again.
    pub fn close_port(&mut self, port: PortId) -> bool {
        self.set_open(port, false)
    }

    /// Opens a port again. False: as for [`Self::close_port`].
    pub fn reopen_port(&mut self, port: PortId) -> bool {
        self.set_open(port, true)
    }

    fn set_open(&mut self, port: PortId, wanted: bool) -> bool {
        let Some(State::Bound(bound)) = self.ports.get_mut(port) else { return true };
        if bound.open == wanted {
            return true;
        }
        if !self.control_out.has_room() {
            return false;
        }
        // What was written comes first.
        bound.outbox.publish();
        bound.open = wanted;
        let port = bound.number;
        self.say(if wanted { ToDevice::PortOpen { port } } else { ToDevice::PortClosed { port } });
        self.control_out.publish();
        true
    }

    /// Who is at the other end.
    pub fn host(&self, port: PortId) -> Host {
        let known = match self.ports.get(port) {
            Some(State::Bound(bound)) => self.known.get(bound.number as usize),
            _ => None,
        };
        match known {
            Some(known) if known.attached => Host::Attached {
                client: known.clients,
                terminal: Some(known.terminal).filter(|terminal| *terminal != Terminal::default()),
            },
            _ => Host::Absent,
        }
    }

    /// Whether there is something to hear or read, or room for a write that had none.
    #[inline]
    pub fn is_ready(&mut self) -> bool {
        self.fault.is_none()
            && (self.control_in.is_ready()
                || self.control_out.is_ready()
                || self.ports.iter_mut().any(|port| match port {
                    State::Bound(bound) => bound.inbox.is_ready() || bound.outbox.is_ready(),
                    _ => false,
                }))
    }

    /// Asks for interrupts before a sleep: for messages, for what arrives, and for room where a write had none. They stay
    /// asked for until they come, so asking again costs next to nothing.
    pub fn request_interrupts(&mut self) -> Arming {
        if self.fault.is_some() {
            return Arming::Sleep;
        }
        let mut arming = self.control_in.request_interrupt();
        for port in &mut self.ports {
            if let State::Bound(bound) = port {
                arming = arming.and(bound.inbox.request_interrupt());
            }
        }
        if self.is_ready() { Arming::WorkArrived } else { arming }
    }

    /// Like [`Self::is_ready`] for who has bytes to write and no use for more of them: what has arrived at ports does not
    /// count.
    #[inline]
    pub fn is_ready_to_write(&mut self) -> bool {
        self.fault.is_none()
            && (self.control_in.is_ready()
                || self.control_out.is_ready()
                || self.ports.iter_mut().any(|port| match port {
                    State::Bound(bound) => bound.outbox.is_ready(),
                    _ => false,
                }))
    }

    /// Like [`Self::request_interrupts`] for who has bytes to write and no use for more of them.
    pub fn request_write_interrupts(&mut self) -> Arming {
        if self.fault.is_some() {
            return Arming::Sleep;
        }
        let arming = self.control_in.request_interrupt();
        if self.is_ready_to_write() { Arming::WorkArrived } else { arming }
    }

    /// What the device did wrong, if the channel is stopped, or else one of its ports.
    pub fn fault(&self) -> Option<Fault> {
        let of_port = |port: &State<H>| match port {
            State::Bound(bound) => bound.inbox.fault().or(bound.outbox.fault()),
            _ => None,
        };
        self.fault
            .or(self.control_in.fault())
            .or(self.control_out.fault())
            .or_else(|| self.ports.iter().find_map(of_port))
    }

    /// Why a port's queues could not be bound.
    pub fn failure(&self, port: PortId) -> Option<OpenError> {
        match self.ports.get(port) {
            Some(State::Failed(error)) => Some(*error),
            _ => None,
        }
    }

    /// Messages of the device that this driver does not know.
    pub fn unknown_messages(&self) -> u64 {
        self.unknown
    }

    fn say(&mut self, message: ToDevice) {
        self.control_out.write_message(&message.encode());
    }

    /// Heeds messages for as long as their answers have room.
    fn hear(&mut self) {
        while self.fault.is_none() && self.control_out.has_room() {
            let mut copy = [0; MESSAGE_BUFFER_BYTES];
            let bytes = self.control_in.peek();
            let len_bytes = bytes.len().min(MESSAGE_BUFFER_BYTES);
            if len_bytes == 0 {
                break;
            }
            // The device could change it while it is being read.
            copy[..len_bytes].copy_from_slice(&bytes[..len_bytes]);
            self.control_in.consume(len_bytes);
            match FromDevice::parse(&copy[..len_bytes]) {
                Some((port, message)) => self.heed(port, message),
                None => self.fault = Some(Fault::ShortMessage { len_bytes }),
            }
        }
        self.control_in.publish();
    }

    fn heed(&mut self, number: u32, message: FromDevice<'_>) {
        let Some(known) = self.known.get_mut(number as usize) else {
            self.fault = Some(Fault::NoSuchPort { port: number });
            return;
        };
        match message {
            FromDevice::Add => {
                known.added = true;
                self.say(ToDevice::PortReady { port: number });
            }
            FromDevice::Remove => {
                // Its queues are unbound.
                if let Some(port) = core::mem::take(known).port
                    && let Some(state) = self.ports.get_mut(port)
                {
                    *state = State::Awaited;
                }
            }
            // A console is text for people by its name already. VIRTIO 1.3 5.3.6.2.2 wants PORT_OPEN as an answer: it comes
            // when the name is known to be wanted.
            FromDevice::Console => {}
            FromDevice::Resize(terminal) => known.terminal = terminal,
            FromDevice::Open => {
                known.attached = true;
                known.clients = known.clients.wrapping_add(1);
            }
            FromDevice::Closed => known.attached = false,
            FromDevice::Name(name) => self.named(number, name),
            FromDevice::Unknown => self.unknown += 1,
        }
    }

    /// A port says its name: if it is asked for, its queues are bound and it is opened.
    fn named(&mut self, number: u32, name: &[u8]) {
        let Some(port) = self.names.iter().position(|wanted| wanted.as_bytes() == name) else { return };
        let (Some(known), Some(state @ State::Awaited)) =
            (self.known.get_mut(number as usize), self.ports.get_mut(port))
        else {
            return;
        };
        if !known.added {
            return;
        }
        let first = if number == 0 { 0 } else { 2 * number + 2 };
        let Config { buffers, buffer_bytes } = self.config;
        let place = |queue| Place { device: self.index, queue };
        let bind = || {
            let inbox = Inbox::open(self.hal.clone(), place(first), &self.device, buffers, buffer_bytes)?;
            let outbox =
                Outbox::open(self.hal.clone(), place(first + 1), &self.device, buffers, buffer_bytes)?;
            Ok((inbox, outbox))
        };
        match bind() {
            Ok((inbox, outbox)) => {
                known.port = Some(port);
                *state = State::Bound(Box::new(Bound { number, open: true, inbox, outbox }));
                self.say(ToDevice::PortOpen { port: number });
            }
            Err(error) => *state = State::Failed(error),
        }
    }
}
