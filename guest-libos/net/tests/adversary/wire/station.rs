//! A stack with an application: it sends a stream on every connection and compares what it receives, at a pace and in
//! pieces that choices say, and half-closes when it has sent all.

use std::net::SocketAddr;
use std::sync::OnceLock;

use exos_net::{
    AckPolicy, Config, ConnId, ConnectError, ControlFrame, End, Full, Input, Instant, MacAddress, Numbers,
    RxMeta, Stack, TimerEvent, Transmit, TxSegment,
};

use super::choices::Choices;
use super::frames::is_about_neighbours;
use super::hosts::{is_of, mac};

pub(crate) const PORT: u16 = 80;
/// The streams repeat themselves after so many bytes, a prime.
const PERIOD: usize = 65_521;
/// Bytes that an application keeps queued.
const QUEUED: usize = 20_000;
/// Most bytes of one `send`.
const PIECE: usize = 4_096;

/// What station `number` sends on a connection that its opener calls by `port`, from `at` on.
pub(crate) fn stream(number: usize, port: u16, at: usize, len: usize) -> &'static [u8] {
    static STREAM: OnceLock<Vec<u8>> = OnceLock::new();
    let stream = STREAM.get_or_init(|| {
        let byte = |place: usize| ((place % PERIOD) as u32).wrapping_mul(2_654_435_761) >> 24;
        (0..2 * PERIOD).map(|place| byte(place) as u8).collect()
    });
    let place = (at + usize::from(port) * 7_919 + number * 31_337) % PERIOD;
    &stream[place..place + len.min(PERIOD)]
}

/// A device that keeps what it is given, while it has room.
#[derive(Default)]
pub(crate) struct Nic {
    pub(crate) frames: Vec<Vec<u8>>,
    pub(crate) is_full: bool,
    /// It has room for what is said about neighbours at any time: who does not answer three questions counts as not there.
    spares_neighbours: bool,
}

impl Nic {
    fn take(&mut self, frame: Vec<u8>) -> Result<(), Full> {
        if self.is_full && !(self.spares_neighbours && is_about_neighbours(&frame)) {
            return Err(Full);
        }
        self.frames.push(frame);
        Ok(())
    }
}

impl Transmit<&'static [u8]> for Nic {
    fn transmit(&mut self, segment: TxSegment<'_, &'static [u8]>) -> Result<(), Full> {
        let mut frame = segment.header.to_vec();
        let header_len = frame.len();
        frame.resize(segment.len(), 0);
        assert_eq!(
            segment.payload.copy_to(&mut frame[header_len..]),
            Some(segment.payload.len()),
            "what is sent is there"
        );
        assert!(segment.checksum.is_none() && segment.gso.is_none());
        self.take(frame)
    }

    fn transmit_control(&mut self, frame: &ControlFrame<'_>) -> Result<(), Full> {
        self.take([frame.head(), frame.body()].concat())
    }
}

/// One connection as its application knows it.
#[derive(Debug)]
pub(crate) struct Talk {
    pub(crate) conn: ConnId,
    /// The opener's port.
    port: u16,
    to_send: usize,
    sent: usize,
    pub(crate) received: usize,
    pub(crate) peer_closed: bool,
    closed: bool,
    pub(crate) opened: bool,
    pub(crate) ended: Option<End>,
    /// Where it stood when it was looked at last.
    numbers: Option<Numbers>,
}

impl Talk {
    fn new(conn: ConnId, port: u16, to_send: usize) -> Self {
        Self {
            conn,
            port,
            to_send,
            sent: 0,
            received: 0,
            peer_closed: false,
            closed: false,
            opened: false,
            ended: None,
            numbers: None,
        }
    }

    /// All was sent, all the peer had was received, and the connection has ended in good order.
    pub(crate) fn is_complete(&self) -> bool {
        self.ended == Some(End::Closed) && self.sent == self.to_send && self.closed && self.peer_closed
    }
}

pub(crate) struct Station {
    number: usize,
    pub(crate) stack: Stack<&'static [u8]>,
    pub(crate) nic: Nic,
    pub(crate) talks: Vec<Talk>,
    /// Connections that wait for an address to be opened from: to whom, and how much is sent on each.
    opening: Vec<(SocketAddr, usize)>,
    /// Whether what arrives must be what the other application sent.
    honest_wire: bool,
}

impl Station {
    pub(crate) fn new(number: usize, config: Config, honest_wire: bool, now: Instant) -> Self {
        let config = Config { mac: MacAddress(mac(number)), ..config };
        let mut stack = Stack::new(config, now).expect("a good configuration");
        stack.listen(PORT).expect("a free port");
        let nic = Nic { spares_neighbours: honest_wire, ..Nic::default() };
        Self { number, stack, nic, talks: Vec::new(), opening: Vec::new(), honest_wire }
    }

    /// Opens a connection to the other station, on which it will send `to_send` bytes, as soon as there is an address.
    pub(crate) fn connect(&mut self, to: SocketAddr, to_send: usize) {
        self.opening.push((to, to_send));
    }

    /// Whether connections wait for an address.
    pub(crate) fn is_opening(&self) -> bool {
        !self.opening.is_empty()
    }

    /// Opens what can be opened.
    pub(crate) fn open(&mut self, now: Instant) {
        // Who has no address by now will have none.
        let is_settled = self.stack.ipv6_is_settled();
        for (to, to_send) in std::mem::take(&mut self.opening) {
            match self.stack.connect(now, to) {
                Ok(conn) => {
                    let opener = self.stack.local(conn).expect("it was just opened");
                    assert!(is_of(self.number, opener.ip()), "from {opener}");
                    self.talks.push(Talk::new(conn, opener.port(), to_send));
                }
                Err(ConnectError::NoAddress | ConnectError::NoRoute) if !is_settled => {
                    self.opening.push((to, to_send));
                }
                Err(_) => {}
            }
        }
    }

    /// Whether asking again a few times brings the next deadline into the future.
    pub(crate) fn settles(&mut self, now: Instant) -> bool {
        (0..8).any(|_| {
            self.expire(now);
            self.stack.next_deadline().is_none_or(|deadline| deadline > now)
        })
    }

    fn talk(&mut self, conn: ConnId) -> &mut Talk {
        let talk = self.talks.iter_mut().find(|talk| talk.conn == conn && talk.ended.is_none());
        talk.expect("events are of connections that are known and have not ended")
    }

    /// A frame arrives.
    pub(crate) fn take(&mut self, now: Instant, frame: &[u8], choices: &mut Choices<'_>) {
        let events = match self.stack.input(now, frame, RxMeta::default()) {
            Input::Nothing | Input::Datagram(_) | Input::DatagramError(_) => return,
            Input::Reply(reply) => {
                let _ = Transmit::<&[u8]>::transmit_control(&mut self.nic, &reply);
                return;
            }
            Input::Segment(events) => events,
        };
        let conn = events.conn;
        if events.opened && !self.talks.iter().any(|talk| talk.conn == conn) {
            let peer = self.stack.peer(conn).expect("it has just opened");
            let to_send = usize::from(choices.u16()) / 2;
            self.talks.push(Talk::new(conn, peer.port(), to_send));
        }
        let (from, honest) = (1 - self.number, self.honest_wire);
        let talk = self.talk(conn);
        assert!(!(events.opened && talk.opened), "opened twice");
        talk.opened |= events.opened;
        assert!(!(events.peer_closed && talk.peer_closed), "the peer closes once");
        talk.peer_closed |= events.peer_closed;
        if honest {
            let expected = stream(from, talk.port, talk.received, events.data.len());
            assert!(events.data == expected, "wrong bytes at {}", talk.received);
        }
        talk.ended = events.ended;
        talk.received += events.data.len();
        if let Some(ack) = &events.last_ack {
            let _ = Transmit::<&[u8]>::transmit_control(&mut self.nic, ack);
        }
        if events.ended.is_none() && !events.data.is_empty() && choices.once_in(4) {
            let rest = choices.below(256).min(events.data.len());
            if self.stack.keep(conn, &events.data[events.data.len() - rest..]).is_ok() {
                self.talk(conn).received -= rest;
            }
        }
        if !self.stack.is_alive(conn) {
            assert!(
                self.talks.iter().all(|talk| talk.conn != conn || talk.ended.is_some()),
                "gone without an event"
            );
        }
    }

    /// Time passes.
    pub(crate) fn expire(&mut self, now: Instant) {
        self.stack.retry_blocked(now, &mut self.nic);
        let mut ended = Vec::new();
        self.stack.expire(now, &mut self.nic, |conn, event| {
            if let TimerEvent::Ended(end) = event {
                ended.push((conn, end));
            }
        });
        for (conn, end) in ended {
            self.talk(conn).ended = Some(end);
        }
    }

    /// The applications go on: they read, write and close.
    pub(crate) fn work(&mut self, now: Instant, choices: &mut Choices<'_>) {
        for talk in self.talks.iter_mut().filter(|talk| talk.ended.is_none()) {
            let (stack, conn) = (&mut self.stack, talk.conn);
            let pending = stack.pending(conn);
            if self.honest_wire {
                let expected = stream(1 - self.number, talk.port, talk.received, pending.len());
                assert!(pending == expected, "wrong bytes kept at {}", talk.received);
            }
            let read = if choices.once_in(8) { choices.below(200).min(pending.len()) } else { pending.len() };
            if read > 0 {
                stack.consume(conn, read).expect("it is alive");
                talk.received += read;
            }
            let mut pieces = 0;
            while talk.sent < talk.to_send && stack.unacked_bytes(conn) < QUEUED && pieces < 16 {
                let most = if choices.once_in(4) { 1 + choices.below(256) } else { PIECE };
                let piece = stream(self.number, talk.port, talk.sent, most.min(talk.to_send - talk.sent));
                if stack.send(conn, piece).is_err() {
                    break;
                }
                talk.sent += piece.len();
                pieces += 1;
            }
            if talk.sent == talk.to_send && !talk.closed && talk.opened {
                stack.close(conn).expect("it is alive");
                // Who closes before it has opened has none.
                talk.closed = true;
            }
            let policy = choices.of(&[AckPolicy::IfDue, AckPolicy::Merge, AckPolicy::Now, AckPolicy::IfDue]);
            stack.output(conn, now, &mut self.nic, policy).expect("it is alive");
        }
    }

    /// Looks at the stack, and whether any connection went back.
    pub(crate) fn check(&mut self) {
        self.stack.check();
        for talk in self.talks.iter_mut().filter(|talk| talk.ended.is_none() && talk.opened) {
            let now = self.stack.numbers(talk.conn).expect("it has not ended");
            if let Some(before) = talk.numbers.replace(now) {
                assert!(before.una.is_at_or_before(now.una), "SND.UNA went back: {before:?} {now:?}");
                assert!(before.max.is_at_or_before(now.max), "SND.MAX went back: {before:?} {now:?}");
                assert!(
                    before.receive_next.is_at_or_before(now.receive_next),
                    "RCV.NXT went back: {before:?} {now:?}"
                );
                assert!(
                    before.receive_edge.is_at_or_before(now.receive_edge),
                    "the window shrank: {before:?} {now:?}"
                );
            }
        }
    }

    /// Ends all connections.
    pub(crate) fn abort_all(&mut self) {
        for talk in self.talks.iter_mut().filter(|talk| talk.ended.is_none()) {
            let _ = self.stack.abort(talk.conn);
            talk.ended = Some(End::Reset);
        }
        self.opening.clear();
    }
}
