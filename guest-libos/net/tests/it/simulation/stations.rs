//! Both ends of a flow: a sender that always has something to send, and a receiver that reads at once and compares.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::OnceLock;

use exos_net::{
    AckPolicy, Config, ConnId, ControlFrame, Data, Duration, Full, Input, Instant, MacAddress, RxMeta, Stack,
    Transmit, TxSegment,
};
use exos_net::{RxChecksum, TxChecksum};

use super::Station;

pub(crate) const PORT: u16 = 80;
pub(crate) const RECEIVER_MAC: MacAddress = MacAddress([2, 0, 0, 0, 0, 1]);
pub(crate) const RECEIVER_IP: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
/// The stream repeats itself after so many bytes, a prime.
pub(crate) const PERIOD: usize = 1_048_573;
/// Nothing on the way damages a frame, so nobody sums.
const META: RxMeta = RxMeta { checksum: RxChecksum::AllValid };

pub(crate) fn mac(number: usize) -> MacAddress {
    MacAddress([2, 0, 0, 0, 1, number as u8])
}

/// The sender that a frame of the receiver's is for.
pub(crate) fn number_of(frame: &[u8]) -> usize {
    usize::from(frame[5])
}

/// The usual configuration, with addresses that `Sender` and `Receiver` replace.
pub(crate) fn config() -> Config {
    let mut config = Config::new(RECEIVER_MAC, RECEIVER_IP, 24, *b"0123456789abcdef");
    config.tx_checksum = TxChecksum::Offload;
    // A sender gives up only what has been lost many times over.
    config.user_timeout = Duration::from_secs(3_600);
    config
}

/// The bytes that every sender sends.
pub(crate) fn stream() -> &'static [u8] {
    static STREAM: OnceLock<Vec<u8>> = OnceLock::new();
    STREAM.get_or_init(|| {
        (0..PERIOD as u32).map(|place| (place.wrapping_mul(2_654_435_761) >> 24) as u8).collect()
    })
}

/// A device that keeps what it is given.
#[derive(Default)]
pub(crate) struct Nic {
    pub(crate) frames: Vec<Vec<u8>>,
}

impl<D: Data> Transmit<D> for Nic {
    fn transmit(&mut self, segment: TxSegment<'_, D>) -> Result<(), Full> {
        let mut frame = segment.header.to_vec();
        for piece in segment.payload {
            frame.extend_from_slice(piece.bytes());
        }
        self.frames.push(frame);
        Ok(())
    }

    fn transmit_control(&mut self, frame: &ControlFrame<'_>) -> Result<(), Full> {
        self.frames.push([frame.head(), frame.body()].concat());
        Ok(())
    }
}

pub(crate) struct Sender {
    pub(crate) stack: Stack<&'static [u8]>,
    pub(crate) nic: Nic,
    pub(crate) conn: ConnId,
    /// Bytes queued so far.
    queued: u64,
}

impl Sender {
    pub(crate) fn new(number: usize, config: &Config, buffer_bytes: usize, now: Instant) -> Self {
        let ip = Ipv4Addr::new(10, 0, 0, 2 + number as u8);
        let mut stack = Stack::new(Config { mac: mac(number), ip, ..config.clone() }, now).unwrap();
        stack.set_neighbour(RECEIVER_IP, RECEIVER_MAC);
        let conn = stack.connect(now, SocketAddrV4::new(RECEIVER_IP, PORT)).unwrap();
        let mut sender = Self { stack, nic: Nic::default(), conn, queued: 0 };
        sender.queue(buffer_bytes);
        sender.output(now);
        sender
    }

    fn queue(&mut self, mut bytes: usize) {
        while bytes > 0 {
            let place = (self.queued % PERIOD as u64) as usize;
            let piece = &stream()[place..PERIOD.min(place + bytes)];
            self.stack.send(self.conn, piece).unwrap();
            self.queued += piece.len() as u64;
            bytes -= piece.len();
        }
    }

    fn output(&mut self, now: Instant) {
        self.stack.output(self.conn, now, &mut self.nic, AckPolicy::IfDue).unwrap();
    }
}

impl Station for Sender {
    fn take(&mut self, now: Instant, frame: &[u8]) {
        match self.stack.input(now, frame, META) {
            Input::Nothing | Input::Datagram(_) | Input::DatagramError(_) => {}
            Input::Reply(reply) => Transmit::<&[u8]>::transmit_control(&mut self.nic, &reply).unwrap(),
            Input::Segment(events) => {
                assert_eq!(events.ended, None);
                self.queue(events.acked_bytes as usize);
                self.output(now);
            }
        }
    }

    fn next_deadline(&mut self) -> Option<Instant> {
        self.stack.next_deadline()
    }

    fn expire(&mut self, now: Instant) {
        self.stack.expire(now, &mut self.nic, |_, _| {});
    }

    fn frames(&mut self) -> &mut Vec<Vec<u8>> {
        &mut self.nic.frames
    }
}

/// What has arrived of one sender's stream.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Flow {
    conn: Option<ConnId>,
    pub(crate) received: u64,
}

impl Flow {
    pub(crate) fn check(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let place = (self.received % PERIOD as u64) as usize;
            let len = bytes.len().min(PERIOD - place);
            assert!(bytes[..len] == stream()[place..place + len], "wrong bytes at {}", self.received);
            self.received += len as u64;
            bytes = &bytes[len..];
        }
    }
}

pub(crate) struct Receiver {
    pub(crate) stack: Stack<&'static [u8]>,
    pub(crate) nic: Nic,
    pub(crate) flows: Vec<Flow>,
}

impl Receiver {
    pub(crate) fn new(config: &Config, flows: usize, now: Instant) -> Self {
        let config = Config { mac: RECEIVER_MAC, ip: RECEIVER_IP, ..config.clone() };
        let mut stack = Stack::new(config, now).unwrap();
        stack.listen(PORT).unwrap();
        Self { stack, nic: Nic::default(), flows: vec![Flow::default(); flows] }
    }
}

impl AsRef<[Flow]> for Receiver {
    fn as_ref(&self) -> &[Flow] {
        &self.flows
    }
}

impl Station for Receiver {
    fn take(&mut self, now: Instant, frame: &[u8]) {
        let number = usize::from(frame[11]);
        let conn = match self.stack.input(now, frame, META) {
            Input::Nothing | Input::Datagram(_) | Input::DatagramError(_) => return,
            Input::Reply(reply) => {
                return Transmit::<&[u8]>::transmit_control(&mut self.nic, &reply).unwrap();
            }
            Input::Segment(events) => {
                assert_eq!(events.ended, None);
                let flow = &mut self.flows[number];
                if events.opened {
                    assert!(flow.conn.replace(events.conn).is_none());
                }
                flow.check(events.data);
                events.conn
            }
        };
        let pending = self.stack.pending(conn);
        let len = pending.len();
        self.flows[number].check(pending);
        self.stack.consume(conn, len).unwrap();
        self.stack.output(conn, now, &mut self.nic, AckPolicy::IfDue).unwrap();
    }

    fn next_deadline(&mut self) -> Option<Instant> {
        self.stack.next_deadline()
    }

    fn expire(&mut self, now: Instant) {
        self.stack.expire(now, &mut self.nic, |_, _| {});
    }

    fn frames(&mut self) -> &mut Vec<Vec<u8>> {
        &mut self.nic.frames
    }
}
