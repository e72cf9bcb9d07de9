//! The loop: frames from the NIC to the forwarder and back to the NIC, whatever their size without a copy of their data. It is sent
//! from the buffer that it was received in; that buffer goes back to the device when the frame is out.

use crate::{StartError, waiting};
use core::time::Duration;
use exos_event_loop::console::{Answers, Console, Next};
use exos_forward::{Forwarder, HEAD_BYTES, Meta, Offload, Outgoing, REQUEST_BYTES, Reason, Verdict};
use exos_nic::{Checksum, ChecksumAt, Frame, Kept, Piece, QueuePair, SLOT_BYTES, SegmentKind, TransmitQueue};
use exos_runtime::clock::{self, Scale};
use exos_runtime::{pages, turn};
use exos_virtqueue::guest::GuestHal;

/// Frames handled before others have their turn.
const BATCH: usize = 64;
/// Descriptors of the transmit queue, and how many must be free for another frame: it takes two.
const TRANSMIT_SIZE: u16 = 1024;
const FRAME_DESCRIPTORS: usize = 2;
/// Descriptors that are to be free before a loop that never waits goes on.
const TRANSMIT_ROOM: usize = 256;
/// Data of so many bytes goes into the transmit queue's slot, with one descriptor for all of the frame.
const COPY_BYTES_MAX: usize = SLOT_BYTES - exos_nic::header::HEADER_BYTES - HEAD_BYTES;

/// Its forwarder and its devices.
pub(crate) struct Forwarding {
    forwarder: Forwarder,
    pub(crate) nic: QueuePair<GuestHal, Option<Kept>>,
    pub(crate) console: Option<Console>,
    pub(crate) scale: Scale,
    /// Frames that were not sent because the NIC did not take them.
    refused: u64,
    /// Somebody at the console wants the machine to end.
    quit: bool,
}

impl Forwarding {
    /// Binds the queues of network device `index`.
    pub(crate) fn open(forwarder: Forwarder, index: usize) -> Result<Self, StartError> {
        let device = &pages::environment().devices[index];
        let config = exos_nic::Config { transmit_size: TRANSMIT_SIZE, ..exos_nic::Config::bulk() };
        let nic = QueuePair::open(GuestHal, index as u32, device, 0, &config).map_err(StartError::Nic)?;
        pages::stamp(abi::boot::phase::NETWORK);
        let console = Console::open("forwarder").map_err(StartError::Console)?;
        Ok(Self { forwarder, nic, console, scale: Scale::new(), refused: 0, quit: false })
    }

    pub(crate) fn forwarder(&self) -> &Forwarder {
        &self.forwarder
    }

    /// Forwards until the user wants the machine to end.
    pub(crate) fn run(&mut self) {
        while !turn::stop_wanted() && !self.quit {
            let received = self.receive();
            self.timers();
            self.nic.transmit.reclaim();
            self.nic.transmit.publish();
            if self.console.as_mut().is_some_and(Console::is_ready) {
                self.answer_console();
            }
            if received == 0 {
                let deadline = self.forwarder.deadline();
                waiting::idle(self, deadline);
            } else if self.nic.transmit.room() < TRANSMIT_ROOM && turn::wanted() {
                // Frames pile up: let the device send them before more are asked for. A deadline in the past: come back at once.
                turn::take(1);
            }
        }
    }

    /// Handles up to [`BATCH`] frames, and none for which there is no room: those wait where they are.
    fn receive(&mut self) -> usize {
        let _span = exos_trace::span!("forward");
        let now = self.now();
        let mut head = [0; HEAD_BYTES];
        let mut frames = 0;
        while frames < BATCH && self.nic.transmit.room() >= FRAME_DESCRIPTORS {
            let Some(frame) = self.nic.receive.poll() else { break };
            frames += 1;
            let _following = exos_trace::follow(frame.subject());
            let meta = Meta {
                is_partial: frame.checksum() == Checksum::Partial,
                segment_bytes: frame.segment_bytes(),
            };
            if let Verdict::Send(outgoing) = self.forwarder.forward(now, frame.bytes(), &mut head, meta)
                && send(&mut self.nic.transmit, &frame, &head, outgoing).is_none()
            {
                self.refused += 1;
            }
        }
        frames
    }

    fn timers(&mut self) {
        let now = self.now();
        let mut request = [0; REQUEST_BYTES];
        while now >= self.forwarder.deadline() && self.nic.transmit.room() >= FRAME_DESCRIPTORS {
            if !self.forwarder.poll(now, &mut request) {
                break;
            }
            if self.nic.transmit.transmit(&request, &[], exos_nic::Offload::None, None).is_err() {
                self.refused += 1;
            }
        }
    }

    fn now(&self) -> Duration {
        Duration::from_nanos(self.scale.ns(clock::tsc()))
    }

    /// Answers what was typed at the console.
    #[cold]
    fn answer_console(&mut self) {
        let Some(console) = &mut self.console else { return };
        let numbers = Numbers { forwarder: &self.forwarder, refused: self.refused };
        self.quit |= console.work(&numbers) == Next::Quit;
        if console.is_broken() {
            self.console = None;
        }
    }
}

/// Sends a frame on; `None`: the NIC did not take it.
#[inline(always)]
fn send(
    transmit: &mut TransmitQueue<GuestHal, Option<Kept>>,
    frame: &Frame<'_>,
    head: &[u8; HEAD_BYTES],
    outgoing: Outgoing,
) -> Option<()> {
    let Outgoing { headers_bytes, len_bytes, offload } = outgoing;
    let data = frame.bytes().get(headers_bytes..len_bytes).unwrap_or_default();
    let (piece, kept) = if data.len() <= COPY_BYTES_MAX {
        (Piece::Copy(data), None)
    } else {
        (Piece::Lend(data), Some(frame.keep()?))
    };
    let offload = match offload {
        Offload::None => exos_nic::Offload::None,
        Offload::Checksum { start, offset } => exos_nic::Offload::Checksum(ChecksumAt { start, offset }),
        Offload::Segment { start, offset, mss } => exos_nic::Offload::Segment {
            checksum: ChecksumAt { start, offset },
            kind: SegmentKind::TcpIpv4,
            mss,
        },
    };
    transmit.transmit(&head[..headers_bytes], &[piece], offload, kept).ok()
}

/// What the console's commands ask for.
struct Numbers<'a> {
    forwarder: &'a Forwarder,
    refused: u64,
}

impl Answers for Numbers<'_> {
    fn counters(&self, each: &mut dyn FnMut(&'static str, u64)) {
        let counters = self.forwarder.counters();
        counters.iter().for_each(|(name, value)| each(name, value));
        Reason::ALL.iter().for_each(|&(reason, name)| each(name, counters.dropped(reason)));
        each("nic_refused", self.refused);
        for (name, count) in
            ["half_open_now", "established_now", "closing_now"].into_iter().zip(self.forwarder.connections())
        {
            each(name, count.into());
        }
    }

    fn connections(&self) -> (usize, usize) {
        (self.forwarder.connections().iter().sum::<u32>() as usize, self.forwarder.connections_max() as usize)
    }
}
