//! The NIC: virtio-net with many queue pairs over one backend (VIRTIO 1.3 5.1).
//!
//! All device work is [`Net::work`]: transmit, then receive, within a budget, without blocking and without a thread of its
//! own, so that a vCPU's turn, an I/O thread and a polling thread can all call it. Queues belong to environments: what a queue
//! may touch says its DMA domain, what it receives and may send say the flows. A queue is enabled and reset alone, while the
//! others run.
//!
//! Queue numbers: receive `2p`, transmit `2p + 1`, control `2 * pairs` (5.1.2). VIRTIO_NET_F_MQ requires a control queue
//! (5.1.3.1), so there is one; which pair gets a frame is the flow table's business all the same.

use std::os::fd::RawFd;
use std::sync::Arc;

use super::features as bits;
use super::queue::{Publication, QueueError, Virtqueue};
use super::slot::{Binding, Clock, Doorbells, QueueState, Slot};
use super::{Binder, QueueInterrupt};
use crate::account::ledger::Ledger;
use crate::backend::{Awaited, Backend, FRAME_BYTES_MAX, PinnedMemory};
use crate::tables::Flows;

mod control;
mod device;
mod function;
mod header;
mod lend;
mod metrics;
mod receive;
mod transmit;
mod window;

#[cfg(test)]
mod tests;

pub use metrics::{FlowCounters, FlowMetrics, NetMetrics, PairMetrics};

use receive::{ReceiveQueue, Receiver};
use transmit::Sender;

/// Most queue pairs: two queues each and the control queue must fit into the owner table.
pub const QUEUE_PAIRS_MAX: u16 = ((abi::queue::QUEUES_PER_DEVICE - 1) / 2) as u16;
/// Largest queue: a chain may then not have more pieces than a system call takes.
pub const QUEUE_SIZE_MAX: u16 = 1024;

/// What a NIC is like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NetConfig {
    /// Its number in the queue owner table.
    pub device_index: u32,
    /// Queue pairs, 1 to [`QUEUE_PAIRS_MAX`].
    pub queue_pairs: u16,
    /// Largest size of a queue, a power of two up to [`QUEUE_SIZE_MAX`].
    pub queue_size_max: u16,
    /// Hardware address.
    pub mac: [u8; 6],
    /// Largest IP packet that is sent or received without segmentation offload.
    pub mtu_bytes: u16,
}

/// Why a NIC cannot be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NetError {
    /// Pairs.
    #[error("{queue_pairs} queue pairs are not possible; use 1 to {QUEUE_PAIRS_MAX}")]
    QueuePairs {
        /// What was asked for.
        queue_pairs: u16,
    },
    /// Size.
    #[error("queues of {size} entries are not possible; use a power of two from 2 to {QUEUE_SIZE_MAX}")]
    QueueSize {
        /// What was asked for.
        size: u16,
    },
    /// VIRTIO 1.3 5.1.4.1: between 68 and 65535.
    #[error("an MTU of {mtu_bytes} bytes is not possible; use 68 to 65535")]
    Mtu {
        /// What was asked for.
        mtu_bytes: u16,
    },
}

/// How much one call of [`Net::work`] may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budget {
    /// Frames to send.
    pub send_frames: u32,
    /// Frames to receive.
    pub receive_frames: u32,
}

impl Default for Budget {
    fn default() -> Self {
        Self { send_frames: 256, receive_frames: 256 }
    }
}

/// What one call of [`Net::work`] did, and what is left.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Worked {
    /// Frames taken from the guest.
    pub sent: u32,
    /// Frames given to the guest.
    pub received: u32,
    /// The budget ended before the transmit queues did: call again.
    pub more_to_send: bool,
    /// The budget ended before the backend did: call again.
    pub more_to_receive: bool,
    /// The backend has no room: frames wait in their queue. Call again later.
    pub backend_full: bool,
    /// Frames wait, or may wait, in the backend until the guest gives buffers: no use to poll the backend before its
    /// doorbell.
    pub receive_starved: bool,
    /// A queue stopped for an error during this call.
    pub stopped: bool,
}

impl Worked {
    /// Whether the same call would do more at once.
    pub fn is_more(&self) -> bool {
        self.more_to_send || self.more_to_receive
    }
}

/// The NIC.
#[derive(Debug)]
pub struct Net<M: PinnedMemory, B> {
    config: NetConfig,
    binder: Binding<M>,
    backend: B,
    flows: Flows,
    features: u64,
    receive: Vec<Slot<ReceiveQueue<M>>>,
    transmit: Vec<Slot<Virtqueue<M>>>,
    control: Slot<Virtqueue<M>>,
    receiver: Receiver,
    sender: Sender,
    metrics: NetMetrics,
    pairs: Vec<PairMetrics>,
    flow_metrics: FlowMetrics,
    /// The transmit queue that is served first next time.
    first_pair: usize,
    /// The last call of [`Net::work`] ended with frames that the backend had no room for.
    backend_full: bool,
    doorbells: Doorbells,
}

impl<M: PinnedMemory, B: Backend> Net<M, B> {
    /// A NIC whose queues are all off.
    pub fn new(
        config: NetConfig,
        binder: Arc<dyn Binder<M>>,
        mut flows: Flows,
        backend: B,
    ) -> Result<Self, NetError> {
        let NetConfig { queue_pairs, queue_size_max: size, mtu_bytes, .. } = config;
        if !(1..=QUEUE_PAIRS_MAX).contains(&queue_pairs) {
            return Err(NetError::QueuePairs { queue_pairs });
        }
        if !size.is_power_of_two() || !(2..=QUEUE_SIZE_MAX).contains(&size) {
            return Err(NetError::QueueSize { size });
        }
        if mtu_bytes < 68 {
            return Err(NetError::Mtu { mtu_bytes });
        }
        flows.set_hardware_address(config.mac);
        Ok(Self {
            config,
            binder: Binding::new(binder),
            backend,
            flows,
            features: 0,
            receive: (0..queue_pairs).map(|_| Slot::Off).collect(),
            transmit: (0..queue_pairs).map(|_| Slot::Off).collect(),
            control: Slot::Off,
            receiver: Receiver::new(),
            sender: Sender::new(),
            metrics: NetMetrics::default(),
            pairs: vec![PairMetrics::default(); usize::from(queue_pairs)],
            flow_metrics: FlowMetrics::default(),
            first_pair: 0,
            backend_full: false,
            doorbells: Doorbells::Wanted,
        })
    }

    /// What it is like.
    pub fn config(&self) -> &NetConfig {
        &self.config
    }

    /// Where frames go.
    pub fn backend(&self) -> &B {
        &self.backend
    }

    /// Where frames go.
    pub fn backend_mut(&mut self) -> &mut B {
        &mut self.backend
    }

    /// Readable when frames wait in the backend.
    pub fn event_fd(&self) -> Option<RawFd> {
        self.backend.event_fd()
    }

    /// The counters now.
    pub fn metrics(&self) -> NetMetrics {
        NetMetrics { flow_table_stuck: self.flows.stuck_lookups(), ..self.metrics }
    }

    /// The counters of each queue pair now.
    pub fn pair_metrics(&self) -> &[PairMetrics] {
        &self.pairs
    }

    /// What was looked up in the flow table so far.
    pub fn flow_metrics(&self) -> &FlowMetrics {
        &self.flow_metrics
    }

    /// The state of each queue, by its number.
    pub fn queue_states(&self) -> Vec<QueueState> {
        let mut states = Vec::new();
        for (receive, transmit) in self.receive.iter().zip(&self.transmit) {
            states.push(receive.state(|queue| queue.ring.environment()));
            states.push(transmit.state(Virtqueue::environment));
        }
        states.push(self.control.state(Virtqueue::environment));
        states
    }

    /// The device work: sends what the guest made available, then receives what the backend has, within the budget. Shows
    /// each queue's completions by one store and raises at most one interrupt a queue.
    pub fn work(&mut self, ledger: &Ledger, budget: Budget, interrupt: &mut impl QueueInterrupt) -> Worked {
        let mut worked = Worked::default();
        let mut clock = Clock::new(ledger);
        let stopped_before = self.metrics.queues_stopped;
        self.transmit_all(&mut clock, budget.send_frames, interrupt, &mut worked);
        if self.control.is_running() {
            self.control(interrupt);
        }
        self.backend.pump();
        self.receive_all(&mut clock, budget.receive_frames, interrupt, &mut worked);
        self.backend_full = worked.backend_full;
        worked.stopped = self.metrics.queues_stopped != stopped_before;
        clock.end();
        worked
    }

    /// Asks for the doorbells of all queues that wait for their driver. `true`: there is work already, do not sleep. Receive
    /// queues are asked only when the last [`Self::work`] lacked buffers. Frames that wait for the backend's room
    /// ([`Worked::backend_full`]) are no reason to stay awake: wait for the backend to become writable besides.
    pub fn arm(&mut self) -> bool {
        self.doorbells = Doorbells::Wanted;
        let mut work = false;
        for queue in self.transmit.iter_mut().filter_map(Slot::running) {
            work |= queue.arm() && !self.backend_full;
        }
        work |= self.control.running().is_some_and(Virtqueue::arm);
        let starved = self.receiver.starved();
        for queue in self.receive.iter_mut().filter_map(Slot::running) {
            if starved {
                work |= queue.ring.arm();
            } else {
                queue.ring.disarm();
            }
        }
        work
    }

    /// Says to the backend that the caller is about to sleep on [`Self::event_fd`], after the last [`Self::work`]. `true`: there
    /// is something already.
    pub fn arm_backend(&mut self) -> bool {
        self.backend.arm(Awaited { frames: !self.receiver.starved(), room: self.backend_full })
    }

    /// The caller is awake again.
    pub fn disarm_backend(&mut self) {
        self.backend.disarm();
    }

    /// Asks for no doorbells: somebody polls.
    pub fn disarm(&mut self) {
        self.doorbells = Doorbells::Suppressed;
        for queue in self.transmit.iter_mut().chain([&mut self.control]).filter_map(Slot::running) {
            queue.disarm();
        }
        for queue in self.receive.iter_mut().filter_map(Slot::running) {
            queue.ring.disarm();
        }
    }

    /// The longest frame that the guest can be given, header included.
    fn receive_bytes_max(&self) -> usize {
        if self.features & (bits::NET_GUEST_TSO4 | bits::NET_GUEST_TSO6) != 0 {
            FRAME_BYTES_MAX
        } else {
            crate::backend::HEADER_BYTES + 18 + usize::from(self.config.mtu_bytes)
        }
    }
}

/// Raises the interrupt that a publication asks for, and counts.
#[inline]
fn notify(
    publication: Publication,
    queue: usize,
    interrupt: &mut impl QueueInterrupt,
    metrics: &mut NetMetrics,
) {
    match publication {
        Publication::Nothing => {}
        Publication::Notify => {
            metrics.notifications_sent += 1;
            interrupt.raise(queue as u16);
        }
        Publication::Quiet => metrics.notifications_suppressed += 1,
    }
}

/// Takes a queue out of service. The one line that the log gets of it.
#[cold]
fn stop<Q>(slot: &mut Slot<Q>, queue: usize, environment: u32, error: QueueError, metrics: &mut NetMetrics) {
    tracing::error!(queue, environment, "network queue stopped: {error}; it works again after a queue reset");
    metrics.queues_stopped += 1;
    metrics.dma_refusals += u64::from(error.is_dma_refusal());
    *slot = Slot::Stopped(error);
}
