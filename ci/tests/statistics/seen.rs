//! A second pair of eyes: counts the frames and TCP segments that pass a guest's backend, by reading them, and can lose or spoil some.

use exovm::backend::iovec::{gather, scatter};
use exovm::backend::{
    Backend, BackendError, FRAME_BYTES_MAX, HEADER_BYTES, IoVec, IoVecMut, Offloads, Written,
};
use exovm::stat::Metric;
use std::collections::HashMap;
use std::os::fd::RawFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// What passed in one direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) frames: u64,
    pub(crate) bytes: u64,
    /// TCP segments, each that the device cuts out of a longer one counted.
    pub(crate) segments: u64,
    /// Frames with TCP in them.
    pub(crate) tcp_frames: u64,
    pub(crate) data_segments: u64,
    pub(crate) data_bytes: u64,
    pub(crate) resets: u64,
    /// Segments whose sequence numbers were there before.
    pub(crate) repeated_segments: u64,
    pub(crate) repeated_bytes: u64,
    pub(crate) pure_acks: u64,
}

/// What is done to a frame, by its number in its direction among those with TCP data, from 1 on.
pub(crate) type Harm = fn(u64) -> bool;

struct State {
    of_the_guest: Seen,
    to_guest: Seen,
    /// Highest sequence number behind each connection's segments.
    highest: HashMap<(bool, u16, u16), u32>,
    data_frames: [u64; 2],
}

/// What the eyes have seen so far.
#[derive(Clone)]
pub(crate) struct Eyes(Arc<Mutex<State>>);

impl Eyes {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn of_the_guest(&self) -> Seen {
        self.state().of_the_guest
    }

    pub(crate) fn to_guest(&self) -> Seen {
        self.state().to_guest
    }

    /// The sequence number behind all that the guest has sent from port 80 to this one.
    pub(crate) fn sequence_of_the_guest(&self, port: u16) -> Option<u32> {
        self.state().highest.get(&(true, 80, port)).copied()
    }
}

/// The backend with eyes.
pub(crate) struct Watched {
    inner: Box<dyn Backend>,
    eyes: Eyes,
    frame: Vec<u8>,
    /// Frames from the guest that are lost behind the eyes.
    lost: Harm,
    /// Frames to the guest that come a place later.
    late: Harm,
    held: Option<Vec<u8>>,
}

/// Nothing is done to any frame.
pub(crate) fn none(_: u64) -> bool {
    false
}

/// Puts eyes around a backend.
pub(crate) fn watched(lost: Harm, late: Harm) -> (Eyes, impl FnOnce(Box<dyn Backend>) -> Box<dyn Backend>) {
    let state = State {
        of_the_guest: Seen::default(),
        to_guest: Seen::default(),
        highest: HashMap::new(),
        data_frames: [0; 2],
    };
    let eyes = Eyes(Arc::new(Mutex::new(state)));
    let own = eyes.clone();
    let wrap = move |inner| {
        Box::new(Watched { inner, eyes: own, frame: vec![0; FRAME_BYTES_MAX], lost, late, held: None })
            as Box<dyn Backend>
    };
    (eyes, wrap)
}

/// A TCP segment in an IPv4 packet without options, in an Ethernet frame.
struct Tcp {
    ports: (u16, u16),
    sequence: u32,
    flags: u8,
    payload_bytes: u32,
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from(u16_at(bytes, at)) << 16 | u32::from(u16_at(bytes, at + 2))
}

impl Tcp {
    fn parse(frame: &[u8]) -> Option<Self> {
        let is_tcp = frame.len() >= 54 && frame[12..14] == [8, 0] && frame[14] == 0x45 && frame[23] == 6;
        let header_bytes = is_tcp.then(|| u32::from(frame[46] >> 4) * 4)?;
        Some(Self {
            ports: (u16_at(frame, 34), u16_at(frame, 36)),
            sequence: u32_at(frame, 38),
            flags: frame[47],
            payload_bytes: u32::from(u16_at(frame, 16)) - 20 - header_bytes,
        })
    }
}

const FIN: u8 = 1;
const SYN: u8 = 2;
const RST: u8 = 4;

impl State {
    /// Reads a frame with its virtio header. Gives the number of a frame with data.
    fn look(&mut self, of_the_guest: bool, bytes: &[u8]) -> Option<u64> {
        let (header, frame) = bytes.split_at(HEADER_BYTES);
        let seen = if of_the_guest { &mut self.of_the_guest } else { &mut self.to_guest };
        seen.frames += 1;
        seen.bytes += frame.len() as u64;
        let tcp = Tcp::parse(frame)?;
        let gso_bytes = u32::from(u16::from_le_bytes([header[4], header[5]]));
        let segments = if gso_bytes > 0 { tcp.payload_bytes.div_ceil(gso_bytes) } else { 1 };
        seen.tcp_frames += 1;
        seen.segments += u64::from(segments);
        seen.resets += u64::from(tcp.flags & RST != 0);
        seen.pure_acks += u64::from(tcp.payload_bytes == 0 && tcp.flags & (FIN | SYN | RST) == 0);
        let len = tcp.payload_bytes + u32::from(tcp.flags & SYN != 0) + u32::from(tcp.flags & FIN != 0);
        if tcp.payload_bytes > 0 {
            seen.data_segments += u64::from(segments);
            seen.data_bytes += u64::from(tcp.payload_bytes);
        }
        let end = tcp.sequence.wrapping_add(len);
        let highest = self.highest.entry((of_the_guest, tcp.ports.0, tcp.ports.1)).or_insert(tcp.sequence);
        if len > 0 && tcp.flags & RST == 0 {
            let before = highest.wrapping_sub(tcp.sequence);
            if before as i32 > 0 {
                let bytes = before.min(tcp.payload_bytes);
                seen.repeated_segments +=
                    u64::from(if gso_bytes > 0 { bytes.div_ceil(gso_bytes) } else { 1 });
                seen.repeated_bytes += u64::from(bytes);
            }
            if end.wrapping_sub(*highest) as i32 > 0 {
                *highest = end;
            }
        }
        let number = &mut self.data_frames[usize::from(of_the_guest)];
        *number += u64::from(tcp.payload_bytes > 0);
        (tcp.payload_bytes > 0).then_some(*number)
    }
}

impl Backend for Watched {
    fn write_frame(&mut self, frame: &[IoVec<'_>]) -> Written {
        let len = gather(frame, 0, &mut self.frame);
        // Looked at once only: a frame without room comes again.
        let mut state = self.eyes.state();
        let next = state.data_frames[1] + 1;
        if (self.lost)(next)
            && Tcp::parse(&self.frame[HEADER_BYTES..len]).is_some_and(|tcp| tcp.payload_bytes > 0)
        {
            state.look(true, &self.frame[..len]);
            return Written::Sent;
        }
        let written = self.inner.write_frame(frame);
        if written == Written::Sent {
            state.look(true, &self.frame[..len]);
        }
        written
    }

    fn read_frame(&mut self, buffers: &[IoVecMut<'_>]) -> Result<Option<usize>, BackendError> {
        if let Some(held) = self.held.take_if(|_| true) {
            return Ok(Some(scatter(buffers, 0, &held)));
        }
        let Some(len) = self.inner.read_frame(buffers)? else { return Ok(None) };
        let mut at = 0;
        for buffer in buffers {
            at += buffer.copy_to(&mut self.frame[at..len.min(FRAME_BYTES_MAX)]);
        }
        let number = self.eyes.state().look(false, &self.frame[..at]);
        if number.is_some_and(self.late) {
            let held = self.frame[..at].to_vec();
            // The next one with data first, if there is one by then; the host's own chatter in between is lost.
            for _ in 0..1000 {
                if let Some(len) = self.inner.read_frame(buffers)? {
                    let mut at = 0;
                    for buffer in buffers {
                        at += buffer.copy_to(&mut self.frame[at..len.min(FRAME_BYTES_MAX)]);
                    }
                    if self.eyes.state().look(false, &self.frame[..at]).is_some() {
                        self.held = Some(held);
                        return Ok(Some(len));
                    }
                }
                std::thread::sleep(std::time::Duration::from_micros(100));
            }
            return Ok(Some(scatter(buffers, 0, &held)));
        }
        Ok(Some(len))
    }

    fn set_offloads(&mut self, offloads: Offloads) -> Result<(), BackendError> {
        self.inner.set_offloads(offloads)
    }

    fn event_fd(&self) -> Option<RawFd> {
        self.inner.event_fd()
    }

    fn counters(&self) -> Vec<Metric> {
        self.inner.counters()
    }
}
