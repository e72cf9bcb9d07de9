//! A stack with a fake clock and a fake device, and a client made of scripted segments. Frames are built and read by
//! smoltcp's wire module, so that a mistake in ours cannot hide itself.

use std::collections::VecDeque;
use std::net::Ipv4Addr;

use exos_net::{
    AckDue, AckPolicy, Config, ConnId, ControlFrame, Data, Datagram, DatagramError, Duration, End, Full,
    GsoKind, Input, Instant, MacAddress, RxMeta, Sent, Stack, TimerEvent, Transmit, TxSegment,
};
use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{
    EthernetAddress, EthernetFrame, EthernetProtocol, EthernetRepr, IpAddress, IpProtocol, Ipv4Packet,
    Ipv4Repr, Ipv6Packet, TcpControl, TcpOption, TcpPacket, TcpRepr, TcpSeqNumber, TcpTimestampRepr,
};

pub(crate) const SERVER_MAC: MacAddress = MacAddress([2, 0, 0, 0, 0, 1]);
pub(crate) const SERVER_IP: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
pub(crate) const CLIENT_MAC: MacAddress = MacAddress([2, 0, 0, 0, 0, 2]);
pub(crate) const CLIENT_IP: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);
pub(crate) const PORT: u16 = 80;
pub(crate) const MSS: usize = 1460;

pub(crate) fn config() -> Config {
    Config::new(SERVER_MAC, SERVER_IP, 24, *b"0123456789abcdef")
}

/// A device that keeps what it is given. It does what hardware would: finishes checksums, cuts segments.
#[derive(Default)]
pub(crate) struct Nic {
    pub(crate) frames: VecDeque<Vec<u8>>,
    /// Frames it still takes; unlimited if `None`.
    pub(crate) room: Option<usize>,
    /// Number of frames that were cut.
    pub(crate) gso_frames: usize,
}

impl Nic {
    fn take_room(&mut self) -> Result<(), Full> {
        match &mut self.room {
            None => Ok(()),
            Some(0) => Err(Full),
            Some(room) => {
                *room -= 1;
                Ok(())
            }
        }
    }
}

impl<D: Data> Transmit<D> for Nic {
    fn transmit(&mut self, segment: TxSegment<'_, D>) -> Result<(), Full> {
        self.take_room()?;
        let mut payload = vec![0; segment.payload.len()];
        assert_eq!(segment.payload.copy_to(&mut payload), Some(payload.len()));
        assert_eq!(segment.payload.clone().map(|piece| piece.len).sum::<usize>(), payload.len());
        let Some(gso) = segment.gso else {
            let mut frame = [segment.header, &payload].concat();
            if let Some(request) = segment.checksum {
                finish_checksum(&mut frame, usize::from(request.start), usize::from(request.offset));
            }
            self.frames.push_back(frame);
            return Ok(());
        };
        self.gso_frames += 1;
        assert!(segment.checksum.is_some() && payload.len() > usize::from(gso.mss));
        let count = payload.len().div_ceil(usize::from(gso.mss));
        let (cut, length_at, before): (fn(_, _, _, _) -> _, _, _) = match gso.kind {
            GsoKind::TcpIpv4 => (cut, 16, 14),
            GsoKind::TcpIpv6 => (cut_v6, 18, 54),
        };
        let length = u16::from_be_bytes([segment.header[length_at], segment.header[length_at + 1]]);
        assert_eq!(usize::from(length), segment.header.len() - before + payload.len(), "what IP says of it");
        for (index, part) in payload.chunks(usize::from(gso.mss)).enumerate() {
            self.frames.push_back(cut(
                segment.header,
                part,
                index * usize::from(gso.mss),
                index + 1 == count,
            ));
        }
        Ok(())
    }

    fn transmit_control(&mut self, frame: &ControlFrame<'_>) -> Result<(), Full> {
        self.take_room()?;
        let mut bytes = vec![0; frame.len()];
        assert_eq!(frame.copy_to(&mut bytes), Some(bytes.len()));
        self.frames.push_back(bytes);
        Ok(())
    }
}

/// VIRTIO 5.1.6.2: sum from `start` on, the field's content included, and store at `start + offset`.
fn finish_checksum(frame: &mut [u8], start: usize, offset: usize) {
    let mut sum = 0u32;
    for pair in frame[start..].chunks(2) {
        sum += u32::from(u16::from_be_bytes([pair[0], pair.get(1).copied().unwrap_or(0)]));
    }
    while sum > 0xffff {
        sum = (sum >> 16) + (sum & 0xffff);
    }
    frame[start + offset..start + offset + 2].copy_from_slice(&(!(sum as u16)).to_be_bytes());
}

/// One segment of a segmentation-offload frame, as a device makes it.
fn cut(header: &[u8], part: &[u8], offset: usize, last: bool) -> Vec<u8> {
    let mut frame = [header, part].concat();
    let mut ip = Ipv4Packet::new_unchecked(&mut frame[14..]);
    ip.set_total_len((header.len() - 14 + part.len()) as u16);
    ip.fill_checksum();
    let (source, destination) = (IpAddress::from(ip.src_addr()), IpAddress::from(ip.dst_addr()));
    finish_segment(&mut TcpPacket::new_unchecked(ip.payload_mut()), &source, &destination, offset, last);
    frame
}

/// The same over IPv6.
fn cut_v6(header: &[u8], part: &[u8], offset: usize, last: bool) -> Vec<u8> {
    let mut frame = [header, part].concat();
    let mut ip = Ipv6Packet::new_unchecked(&mut frame[14..]);
    ip.set_payload_len((header.len() - 14 - 40 + part.len()) as u16);
    let (source, destination) = (IpAddress::from(ip.src_addr()), IpAddress::from(ip.dst_addr()));
    finish_segment(&mut TcpPacket::new_unchecked(ip.payload_mut()), &source, &destination, offset, last);
    frame
}

fn finish_segment(
    tcp: &mut TcpPacket<&mut [u8]>,
    source: &IpAddress,
    destination: &IpAddress,
    offset: usize,
    last: bool,
) {
    tcp.set_seq_number(tcp.seq_number() + offset);
    if !last {
        tcp.set_fin(false);
        tcp.set_psh(false);
    }
    tcp.fill_checksum(source, destination);
}

/// A segment of ours as the client sees it, with sequence numbers relative to both initial ones.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) flags: String,
    pub(crate) seq: u32,
    pub(crate) ack: u32,
    pub(crate) window: u16,
    pub(crate) payload: Vec<u8>,
    /// TSval and TSecr.
    pub(crate) timestamps: Option<(u32, u32)>,
    /// SACK blocks, relative.
    pub(crate) blocks: Vec<(u32, u32)>,
}

/// What one frame did to the stack.
#[derive(Debug)]
pub(crate) enum Outcome {
    Nothing,
    Reply(Vec<u8>),
    Events(Events),
    Datagram(Datagram<'static>),
    DatagramError(DatagramError),
}

impl Outcome {
    pub(crate) fn reply(self) -> Vec<u8> {
        match self {
            Self::Reply(frame) => frame,
            other => panic!("expected a reply, got {other:?}"),
        }
    }

    pub(crate) fn events(self) -> Events {
        match self {
            Self::Events(events) => events,
            other => panic!("expected events, got {other:?}"),
        }
    }

    pub(crate) fn datagram(self) -> Datagram<'static> {
        match self {
            Self::Datagram(datagram) => datagram,
            other => panic!("expected a datagram, got {other:?}"),
        }
    }

    pub(crate) fn assert_nothing(&self) {
        assert!(matches!(self, Self::Nothing), "expected nothing, got {self:?}");
    }
}

/// `SegmentEvents`, owned.
#[derive(Debug)]
pub(crate) struct Events {
    pub(crate) conn: ConnId,
    pub(crate) opened: bool,
    pub(crate) acked_bytes: u32,
    pub(crate) low_water: bool,
    pub(crate) data: Vec<u8>,
    pub(crate) readable: bool,
    pub(crate) peer_closed: bool,
    pub(crate) ended: Option<End>,
    pub(crate) last_ack: Option<Vec<u8>>,
    pub(crate) reply: AckDue,
    pub(crate) output_due: bool,
}

fn owned(frame: &ControlFrame<'_>) -> Vec<u8> {
    [frame.head(), frame.body()].concat()
}

/// The stack with its clock and device.
pub(crate) struct Host<D: Data = &'static [u8]> {
    pub(crate) stack: Stack<D>,
    pub(crate) now: Instant,
    pub(crate) nic: Nic,
    /// What timers told.
    pub(crate) ended: Vec<(ConnId, End)>,
}

impl<D: Data> Host<D> {
    pub(crate) fn with(config: Config) -> Self {
        let now = Instant::from_millis(1_000);
        let mut stack = Stack::new(config, now).unwrap();
        stack.listen(PORT).unwrap();
        Self { stack, now, nic: Nic::default(), ended: Vec::new() }
    }

    pub(crate) fn input(&mut self, frame: &[u8]) -> Outcome {
        match self.stack.input(self.now, frame, RxMeta::default()) {
            Input::Nothing => Outcome::Nothing,
            Input::Reply(frame) => Outcome::Reply(owned(&frame)),
            Input::Datagram(Datagram { from, to, payload }) => {
                Outcome::Datagram(Datagram { from, to, payload: payload.into_owned().into() })
            }
            Input::DatagramError(error) => Outcome::DatagramError(error),
            Input::Segment(events) => Outcome::Events(Events {
                conn: events.conn,
                opened: events.opened,
                acked_bytes: events.acked_bytes,
                low_water: events.low_water,
                data: events.data.to_vec(),
                readable: events.readable,
                peer_closed: events.peer_closed,
                ended: events.ended,
                last_ack: events.last_ack.as_ref().map(owned),
                reply: events.reply,
                output_due: events.output_due,
            }),
        }
    }

    pub(crate) fn output(&mut self, conn: ConnId, policy: AckPolicy) -> Sent {
        self.stack.output(conn, self.now, &mut self.nic, policy).unwrap()
    }

    /// Lets time pass in millisecond steps.
    pub(crate) fn wait_ms(&mut self, ms: u64) {
        for _ in 0..ms {
            self.now += Duration::from_millis(1);
            let ended = &mut self.ended;
            self.stack.expire(self.now, &mut self.nic, |conn, event| match event {
                TimerEvent::Ended(end) => ended.push((conn, end)),
                TimerEvent::Retransmitting => {}
                other => panic!("unknown event {other:?}"),
            });
        }
    }

    /// Lets much time pass, from deadline to deadline.
    pub(crate) fn wait_secs(&mut self, secs: u64) {
        let end = self.now + Duration::from_secs(secs);
        while let Some(deadline) = self.stack.next_deadline().filter(|&deadline| deadline <= end) {
            self.now = deadline.max(self.now + Duration::from_micros(1));
            self.wait_ms(1);
        }
        self.now = self.now.max(end);
    }
}

/// A segment to us in a frame, checksums included.
pub(crate) fn frame_of(mac: MacAddress, from: Ipv4Addr, tcp: &TcpRepr) -> Vec<u8> {
    let ip = Ipv4Repr {
        src_addr: from,
        dst_addr: SERVER_IP,
        next_header: IpProtocol::Tcp,
        payload_len: tcp.buffer_len(),
        hop_limit: 64,
    };
    let capabilities = ChecksumCapabilities::default();
    let mut bytes = vec![0; 14 + ip.buffer_len() + tcp.buffer_len()];
    EthernetRepr {
        src_addr: EthernetAddress(mac.0),
        dst_addr: EthernetAddress(SERVER_MAC.0),
        ethertype: EthernetProtocol::Ipv4,
    }
    .emit(&mut EthernetFrame::new_unchecked(&mut bytes));
    let mut packet = Ipv4Packet::new_unchecked(&mut bytes[14..]);
    ip.emit(&mut packet, &capabilities);
    tcp.emit(
        &mut TcpPacket::new_unchecked(packet.payload_mut()),
        &from.into(),
        &SERVER_IP.into(),
        &capabilities,
    );
    bytes
}

/// A client made of scripted segments. Its initial sequence number is `isn`; all numbers in calls are relative: its own
/// first byte is 1, and so is ours.
#[derive(Clone, Debug)]
pub(crate) struct Client {
    pub(crate) mac: MacAddress,
    pub(crate) ip: Ipv4Addr,
    pub(crate) port: u16,
    pub(crate) isn: u32,
    pub(crate) server_isn: u32,
    pub(crate) window: u16,
    pub(crate) mss: Option<u16>,
    pub(crate) window_scale: Option<u8>,
    /// Whether the SYN permits SACK.
    pub(crate) sack: bool,
    /// The blocks that segments carry, relative as all numbers are.
    pub(crate) blocks: Vec<(u32, u32)>,
    /// TSval and TSecr of the segments, if there are timestamps.
    pub(crate) timestamps: Option<(u32, u32)>,
}

impl Default for Client {
    fn default() -> Self {
        Self {
            mac: CLIENT_MAC,
            ip: CLIENT_IP,
            port: 40_000,
            // Both directions wrap soon: every test is a wrap test.
            isn: 0xffff_ff00,
            server_isn: 0,
            window: 65_535,
            mss: Some(MSS as u16),
            window_scale: None,
            sack: false,
            blocks: Vec::new(),
            timestamps: None,
        }
    }
}

impl Client {
    pub(crate) fn on_port(port: u16) -> Self {
        Self { port, ..Self::default() }
    }

    pub(crate) fn frame(&self, control: TcpControl, seq: u32, ack: Option<u32>, payload: &[u8]) -> Vec<u8> {
        let syn = control == TcpControl::Syn;
        let tcp = TcpRepr {
            src_port: self.port,
            dst_port: PORT,
            control,
            seq_number: TcpSeqNumber(self.isn.wrapping_add(seq) as i32),
            ack_number: ack.map(|ack| TcpSeqNumber(self.server_isn.wrapping_add(ack) as i32)),
            window_len: self.window,
            window_scale: self.window_scale.filter(|_| syn),
            max_seg_size: self.mss.filter(|_| syn),
            sack_permitted: syn && self.sack,
            sack_ranges: std::array::from_fn(|place| {
                let absolute = |edge: u32| self.server_isn.wrapping_add(edge);
                self.blocks.get(place).filter(|_| !syn).map(|&(start, end)| (absolute(start), absolute(end)))
            }),
            timestamp: self.timestamps.map(|(value, echo)| TcpTimestampRepr::new(value, echo)),
            payload,
        };
        frame_of(self.mac, self.ip, &tcp)
    }

    pub(crate) fn syn(&self) -> Vec<u8> {
        self.frame(TcpControl::Syn, 0, None, &[])
    }

    pub(crate) fn ack(&self, seq: u32, ack: u32) -> Vec<u8> {
        self.frame(TcpControl::None, seq, Some(ack), &[])
    }

    pub(crate) fn data(&self, seq: u32, ack: u32, payload: &[u8]) -> Vec<u8> {
        self.frame(TcpControl::Psh, seq, Some(ack), payload)
    }

    /// Data with an urgent pointer.
    pub(crate) fn urgent(&self, seq: u32, ack: u32, payload: &[u8], pointer: u16) -> Vec<u8> {
        let mut frame = self.data(seq, ack, payload);
        let mut packet = Ipv4Packet::new_unchecked(&mut frame[14..]);
        let mut tcp = TcpPacket::new_unchecked(packet.payload_mut());
        tcp.set_urg(true);
        tcp.set_urgent_at(pointer);
        tcp.fill_checksum(&self.ip.into(), &SERVER_IP.into());
        frame
    }

    pub(crate) fn fin(&self, seq: u32, ack: u32) -> Vec<u8> {
        self.frame(TcpControl::Fin, seq, Some(ack), &[])
    }

    pub(crate) fn rst(&self, seq: u32) -> Vec<u8> {
        self.frame(TcpControl::Rst, seq, None, &[])
    }

    /// Reads a frame of ours, checksums included.
    pub(crate) fn see(&self, frame: &[u8]) -> Seen {
        let ethernet = EthernetFrame::new_checked(frame).unwrap();
        assert_eq!(ethernet.dst_addr(), EthernetAddress(self.mac.0));
        assert_eq!(ethernet.src_addr(), EthernetAddress(SERVER_MAC.0));
        let ip = Ipv4Packet::new_checked(ethernet.payload()).unwrap();
        assert!(ip.verify_checksum());
        assert_eq!((ip.src_addr(), ip.dst_addr()), (SERVER_IP, self.ip));
        let tcp = TcpPacket::new_checked(ip.payload()).unwrap();
        assert!(tcp.verify_checksum(&SERVER_IP.into(), &self.ip.into()), "bad TCP checksum");
        assert_eq!((tcp.src_port(), tcp.dst_port()), (PORT, self.port));
        let mut flags = String::new();
        for (set, letter) in
            [(tcp.syn(), 'S'), (tcp.fin(), 'F'), (tcp.rst(), 'R'), (tcp.psh(), 'P'), (tcp.ack(), 'A')]
        {
            if set {
                flags.push(letter);
            }
        }
        let (mut timestamps, mut blocks) = (None, Vec::new());
        let mut bytes = tcp.options();
        while !bytes.is_empty() {
            let (rest, option) = TcpOption::parse(bytes).unwrap();
            match option {
                TcpOption::TimeStamp { tsval, tsecr } => timestamps = Some((tsval, tsecr)),
                // Of which smoltcp reads three.
                TcpOption::SackRange(_) => {
                    let edge = |at: usize| u32::from_be_bytes(bytes[at..at + 4].try_into().unwrap());
                    let relative = |at| edge(at).wrapping_sub(self.isn);
                    let starts = (2..usize::from(bytes[1])).step_by(8);
                    blocks.extend(starts.map(|at| (relative(at), relative(at + 4))));
                }
                _ => {}
            }
            bytes = rest;
        }
        Seen {
            timestamps,
            blocks,
            flags,
            seq: (tcp.seq_number().0 as u32).wrapping_sub(self.server_isn),
            ack: (tcp.ack_number().0 as u32).wrapping_sub(self.isn),
            window: tcp.window_len(),
            payload: tcp.payload().to_vec(),
        }
    }

    /// Everything that the device has been given since the last time.
    pub(crate) fn seen<D: Data>(&self, host: &mut Host<D>) -> Vec<Seen> {
        host.nic.frames.drain(..).map(|frame| self.see(&frame)).collect()
    }

    /// The one segment that the device was given since the last time.
    pub(crate) fn seen_one<D: Data>(&self, host: &mut Host<D>) -> Seen {
        let mut seen = self.seen(host);
        assert_eq!(seen.len(), 1, "{seen:?}");
        seen.remove(0)
    }

    /// Sends the SYN and learns our initial sequence number from the answer, which is returned as a frame.
    pub(crate) fn handshake_begin<D: Data>(&mut self, host: &mut Host<D>) -> Vec<u8> {
        let frame = host.input(&self.syn()).reply();
        let packet = Ipv4Packet::new_checked(&frame[14..]).unwrap();
        self.server_isn = TcpPacket::new_checked(packet.payload()).unwrap().seq_number().0 as u32;
        frame
    }

    /// Opens a connection.
    pub(crate) fn connect<D: Data>(&mut self, host: &mut Host<D>) -> ConnId {
        self.handshake_begin(host);
        let events = host.input(&self.ack(1, 1)).events();
        assert!(events.opened);
        events.conn
    }
}

/// Bytes with a pattern that shows where they belong.
pub(crate) fn pattern(len: usize) -> &'static [u8] {
    let bytes: Vec<u8> = (0..len as u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    Vec::leak(bytes)
}
