//! The host channel: virtio-console with many ports, one named byte stream each (VIRTIO 1.3 5.3).
//!
//! All device work is [`Console::work`], within a budget, without blocking and without a thread of its own. It moves bytes
//! between the guest's rings and the bounded buffers of the ports' host ends ([`HostPort`]), where clients attach. What there
//! is no room for stays where it is: a guest that floods fills its own ring, a client that floods its own socket.
//!
//! Queue numbers (5.3.2): receive and transmit of port 0 are 0 and 1, control receive and transmit 2 and 3, receive and
//! transmit of port `p > 0` are `2p + 2` and `2p + 3`. Each queue works in the memory of its own owner, so ports can belong
//! to different environments; the two control queues have one owner, who hears of all of them.

use std::sync::Arc;

use super::Binder;
use super::QueueInterrupt;
use super::queue::{Publication, QueueError, Virtqueue};
use super::slot::{Binding, Clock, QueueState, Slot};
use crate::account::ledger::{Bucket, Ledger};
use crate::backend::{Gather, PinnedMemory, Scatter};
use vmm_sys_util::eventfd::EventFd;

mod control;
mod device;
mod function;
mod host;
mod message;
mod metrics;
mod port;

#[cfg(test)]
mod tests;

pub use host::{
    AttachError, BUFFER_BYTES, Begin, Discarded, HostBell, HostPort, PortConfig, PortKind, RECENT_BYTES,
    Session, SessionStatus, TerminalSize,
};
pub use metrics::ConsoleMetrics;

use port::{LIMITS, Left, Port};

/// Most ports: two queues each and the control queues must fit into the owner table.
pub const PORTS_MAX: usize = abi::queue::QUEUES_PER_DEVICE / 2 - 1;
/// Longest name of a port.
pub const NAME_BYTES_MAX: usize = 32;
/// Largest queue.
pub const QUEUE_SIZE_MAX: u16 = 256;
/// Queues of the control messages: to the driver, and from it.
const CONTROL_RECEIVE: u16 = 2;
const CONTROL_TRANSMIT: u16 = 3;

/// Why a console cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum ConsoleError {
    /// Ports.
    #[error("{ports} ports are not possible; use 1 to {PORTS_MAX}")]
    Ports {
        /// What was asked for.
        ports: usize,
    },
    /// A name.
    #[error("a port cannot be called {name:?}; use 1 to {NAME_BYTES_MAX} bytes, each name once")]
    Name {
        /// What was asked for.
        name: &'static str,
    },
    /// The host.
    #[error("event descriptor: {0}")]
    Host(#[from] std::io::Error),
}

/// What one call of [`Console::work`] did, and what is left.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Worked {
    /// Bytes taken from the guest.
    pub taken_bytes: usize,
    /// Bytes given to the guest.
    pub given_bytes: usize,
    /// Control messages, either way.
    pub messages: u32,
    /// The guest has something to look at: input, a message, or buffers that it wanted back.
    pub reached_guest: bool,
    /// The budget ended before the work did: call again.
    pub more: bool,
    /// A queue stopped for an error during this call.
    pub stopped: bool,
}

impl Worked {
    /// Whether anything was done.
    pub fn is_busy(&self) -> bool {
        self.taken_bytes > 0 || self.given_bytes > 0 || self.messages > 0
    }
}

/// Which queue of the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    ControlReceive,
    ControlTransmit,
    Receive { port: usize },
    Transmit { port: usize },
}

impl Role {
    /// Of a queue of a device with so many ports.
    fn of(queue: u16, ports: usize) -> Option<Self> {
        let role = match queue {
            0 => Self::Receive { port: 0 },
            1 => Self::Transmit { port: 0 },
            CONTROL_RECEIVE => Self::ControlReceive,
            CONTROL_TRANSMIT => Self::ControlTransmit,
            _ if queue.is_multiple_of(2) => Self::Receive { port: usize::from(queue / 2) - 1 },
            _ => Self::Transmit { port: usize::from(queue / 2) - 1 },
        };
        match role {
            Self::Receive { port } | Self::Transmit { port } if port >= ports => None,
            _ => Some(role),
        }
    }

    /// Number of the queue.
    fn queue(self) -> u16 {
        let first = |port: usize| if port == 0 { 0 } else { 2 * port as u16 + 2 };
        match self {
            Self::ControlReceive => CONTROL_RECEIVE,
            Self::ControlTransmit => CONTROL_TRANSMIT,
            Self::Receive { port } => first(port),
            Self::Transmit { port } => first(port) + 1,
        }
    }
}

/// The console.
#[derive(Debug)]
pub struct Console<M: PinnedMemory> {
    device_index: u32,
    binder: Binding<M>,
    bell: Arc<HostBell>,
    features: u64,
    ports: Vec<Port<M>>,
    control_receive: Slot<Virtqueue<M>>,
    control_transmit: Slot<Virtqueue<M>>,
    /// A port may have something to tell the driver.
    messages_due: bool,
    /// One has, and there was no buffer for it.
    messages_starved: bool,
    readable: Gather,
    writable: Scatter,
    metrics: ConsoleMetrics,
}

impl<M: PinnedMemory> Console<M> {
    /// A console whose queues are all off. `event` becomes readable when a client has something for the device work.
    pub fn new(
        device_index: u32,
        ports: &[PortConfig],
        binder: Arc<dyn Binder<M>>,
        event: EventFd,
    ) -> Result<Self, ConsoleError> {
        if !(1..=PORTS_MAX).contains(&ports.len()) {
            return Err(ConsoleError::Ports { ports: ports.len() });
        }
        for (at, &PortConfig { name, .. }) in ports.iter().enumerate() {
            let repeated = ports[..at].iter().any(|earlier| earlier.name == name);
            if !(1..=NAME_BYTES_MAX).contains(&name.len()) || repeated {
                return Err(ConsoleError::Name { name });
            }
        }
        let bell = Arc::new(HostBell::new(event));
        let ports = ports
            .iter()
            .map(|&config| Ok(Port::new(Arc::new(HostPort::new(config, Arc::clone(&bell))?))))
            .collect::<Result<_, std::io::Error>>()?;
        Ok(Self {
            device_index,
            binder: Binding::new(binder),
            bell,
            features: 0,
            ports,
            control_receive: Slot::Off,
            control_transmit: Slot::Off,
            messages_due: false,
            messages_starved: false,
            readable: Gather::with_capacity(LIMITS.segments),
            writable: Scatter::with_capacity(LIMITS.segments),
            metrics: ConsoleMetrics::default(),
        })
    }

    /// The hosts' ends of the ports.
    pub fn host_ports(&self) -> Vec<Arc<HostPort>> {
        self.ports.iter().map(|port| Arc::clone(&port.host)).collect()
    }

    /// The counters now.
    pub fn metrics(&self) -> ConsoleMetrics {
        let mut metrics = self.metrics;
        for discarded in self.ports.iter().map(|port| port.host.discarded()) {
            metrics.discarded_output_bytes += discarded.output_bytes;
            metrics.discarded_input_bytes += discarded.input_bytes;
        }
        metrics
    }

    /// The state of each queue, by its number.
    pub fn queue_states(&self) -> Vec<QueueState> {
        let of = |slot: &Slot<Virtqueue<M>>| slot.state(Virtqueue::environment);
        let roles = (0..).map_while(|queue| Role::of(queue, self.ports.len()));
        roles
            .map(|role| match role {
                Role::ControlReceive => of(&self.control_receive),
                Role::ControlTransmit => of(&self.control_transmit),
                Role::Receive { port } => of(&self.ports[port].receive),
                Role::Transmit { port } => of(&self.ports[port].transmit),
            })
            .collect()
    }

    fn slot(&mut self, role: Role) -> &mut Slot<Virtqueue<M>> {
        match role {
            Role::ControlReceive => &mut self.control_receive,
            Role::ControlTransmit => &mut self.control_transmit,
            Role::Receive { port } => &mut self.ports[port].receive,
            Role::Transmit { port } => &mut self.ports[port].transmit,
        }
    }

    /// The device work: takes what the guest wrote, gives it what clients wrote, and says each side what the other did. Shows
    /// each queue's completions by one store and raises at most one interrupt a queue. Its doorbells are always asked for, so
    /// whoever calls it may sleep when it says that there is no more.
    #[inline]
    pub fn work(&mut self, ledger: &Ledger, interrupt: &mut impl QueueInterrupt) -> Worked {
        let mut worked = Worked::default();
        let mut clock = Clock::new(ledger);
        let heard = self.bell.take();
        if heard {
            clock.enter(Bucket::Channel);
            self.listen();
        }
        let stopped_before = self.metrics.queues_stopped;
        if is_waiting(&self.control_transmit) {
            clock.enter(Bucket::Channel);
            self.take_messages(interrupt, &mut worked);
        }
        for port in 0..self.ports.len() {
            if self.ports[port].has_output_waiting() {
                clock.enter(Bucket::Channel);
                self.take_output(port, interrupt, &mut worked);
            }
        }
        if self.messages_due || (self.messages_starved && is_waiting(&self.control_receive)) {
            clock.enter(Bucket::Channel);
            self.give_messages(interrupt, &mut worked);
        }
        for port in 0..self.ports.len() {
            if self.ports[port].has_input() {
                clock.enter(Bucket::Channel);
                self.give_input(port, interrupt, &mut worked);
            }
        }
        worked.stopped = self.metrics.queues_stopped != stopped_before;
        clock.end();
        worked
    }

    /// Clients came, went, wrote or read.
    fn listen(&mut self) {
        for port in &mut self.ports {
            port.view = port.host.view();
            port.blocked = false;
            port.starved = false;
        }
        self.messages_due = true;
    }

    fn take_output(&mut self, port: usize, interrupt: &mut impl QueueInterrupt, worked: &mut Worked) {
        let (taken, result) = self.ports[port].take_output(&mut self.readable);
        worked.taken_bytes += taken;
        self.metrics.taken_bytes += taken as u64;
        self.metrics.blocked += u64::from(result == Ok(Left::Host));
        let end = self.end(Role::Transmit { port }, result, interrupt);
        worked.reached_guest |= end.notified;
        worked.more |= end.more;
    }

    fn give_input(&mut self, port: usize, interrupt: &mut impl QueueInterrupt, worked: &mut Worked) {
        let (given, result) = self.ports[port].give_input(&mut self.writable);
        worked.given_bytes += given;
        self.metrics.given_bytes += given as u64;
        self.metrics.starved += u64::from(result == Ok(Left::Empty));
        let end = self.end(Role::Receive { port }, result, interrupt);
        worked.reached_guest |= given > 0;
        worked.more |= end.more;
    }

    /// Ends the work on a queue: publishes, notifies, asks for the next doorbell, or takes it out of service.
    fn end(
        &mut self,
        role: Role,
        result: Result<Left, QueueError>,
        interrupt: &mut impl QueueInterrupt,
    ) -> End {
        let mut end = End { notified: false, more: result == Ok(Left::Budget) };
        let Slot::Running(queue) = self.slot(role) else { return end };
        let environment = queue.environment();
        let publication = queue.publish();
        if result == Ok(Left::Empty) {
            // The driver has to do something first, and its doorbell says that it did; it may have been faster.
            end.more |= queue.arm();
        } else if matches!(role, Role::Receive { .. } | Role::ControlReceive) {
            // New buffers are news only when something waits for them.
            queue.disarm();
        }
        match publication {
            Publication::Nothing => {}
            Publication::Quiet => self.metrics.notifications_suppressed += 1,
            Publication::Notify => {
                end.notified = true;
                self.metrics.notifications_sent += 1;
                interrupt.raise(role.queue());
            }
        }
        if let Err(error) = result {
            let queue = role.queue();
            tracing::error!(
                queue,
                environment,
                "console queue stopped: {error}; it works again after a queue reset"
            );
            self.metrics.queues_stopped += 1;
            self.metrics.dma_refusals += u64::from(error.is_dma_refusal());
            *self.slot(role) = Slot::Stopped(error);
        }
        end
    }
}

/// How the work on a queue ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct End {
    /// The driver wanted to hear of it, and does.
    notified: bool,
    /// The next call would do more at once.
    more: bool,
}

/// Whether a queue has something for the device.
#[inline]
fn is_waiting<M: PinnedMemory>(slot: &Slot<Virtqueue<M>>) -> bool {
    matches!(slot, Slot::Running(queue) if queue.is_waiting())
}
