//! Connections to name servers, on a stack and against a server made of scripted segments: how they are told apart, and how they end.

use std::net::{IpAddr, Ipv4Addr};

use exos_dns::{Config, Event, Family, Lookup, Outcome, QueryId, Resolver, StreamQuery, Streams};
use exos_net::{
    Config as StackConfig, ConnId, ControlFrame, Duration, Full, Input, Instant, MacAddress, RxChecksum,
    RxMeta, Stack, TimerEvent, Transmit, TxChecksum, TxSegment,
};

const OURS: (MacAddress, Ipv4Addr) = (MacAddress([2, 0, 0, 0, 0, 1]), Ipv4Addr::new(10, 0, 0, 1));
const SERVER: (MacAddress, Ipv4Addr) = (MacAddress([2, 0, 0, 0, 0, 2]), Ipv4Addr::new(10, 0, 0, 2));
const META: RxMeta = RxMeta { checksum: RxChecksum::AllValid };
const CLOSE_TIME: Duration = Duration::from_secs(3);
const FIN: u8 = 1;
const SYN: u8 = 2;
const RST: u8 = 4;
const ACK: u8 = 16;
const WINDOW: u16 = 0xffff;

/// Frames of ours.
#[derive(Default)]
struct Wire(Vec<Vec<u8>>);

impl Transmit<&'static [u8]> for Wire {
    fn transmit(&mut self, segment: TxSegment<'_, &'static [u8]>) -> Result<(), Full> {
        let mut payload = vec![0; segment.payload.len()];
        segment.payload.copy_to(&mut payload).unwrap();
        self.0.push([segment.header, &payload].concat());
        Ok(())
    }

    fn transmit_control(&mut self, frame: &ControlFrame<'_>) -> Result<(), Full> {
        let mut bytes = vec![0; frame.len()];
        frame.copy_to(&mut bytes).unwrap();
        self.0.push(bytes);
        Ok(())
    }
}

/// The server's end of a connection.
#[derive(Clone, Copy)]
struct Peer {
    port: [u8; 2],
    seq: u32,
    ack: u32,
}

struct Test {
    resolver: Resolver,
    streams: Streams,
    stack: Stack<&'static [u8]>,
    wire: Wire,
    now: Instant,
}

impl Test {
    fn new() -> Self {
        let mut config = StackConfig::new(OURS.0, OURS.1, 24, [7; 16]);
        config.tx_checksum = TxChecksum::Offload;
        let now = Instant::from_millis(1);
        Self {
            resolver: Resolver::new(Config { streams: true, ..Config::new([IpAddr::V4(SERVER.1)]) }),
            streams: Streams::default(),
            stack: Stack::new(config, now).unwrap(),
            wire: Wire::default(),
            now,
        }
    }

    /// A question whose answer does not fit a datagram.
    fn cut(&mut self, family: Family) -> StreamQuery {
        let Ok(Lookup::Asked(_)) = self.resolver.lookup(self.now, "a.test", family) else { panic!("known") };
        for random in 0x1_0000.. {
            match self.resolver.poll(self.now, random) {
                Some(Event::Send(query)) => {
                    let mut answer = query.bytes().to_vec();
                    answer[2..4].copy_from_slice(&[0x83, 0x80]);
                    self.resolver.receive(self.now, query.to, query.from_port, &answer);
                }
                Some(Event::Stream(query)) => return *query,
                Some(Event::Unbind(_)) => {}
                other => panic!("{other:?}"),
            }
        }
        unreachable!()
    }

    fn ask(&mut self, query: &StreamQuery) {
        let question: &'static [u8] = Box::leak(query.framed().into());
        assert!(self.streams.ask(self.now, query, Some(question), &mut self.stack, &mut self.wire));
    }

    /// Asks over a connection that the server accepts, and whose question it acknowledges with this window.
    fn open(&mut self, query: &StreamQuery, window: u16) -> Peer {
        self.ask(query);
        self.resolve_server();
        let syn = self.wire.0.pop().expect("a SYN");
        assert_eq!(syn[47], SYN);
        let port = [syn[34], syn[35]];
        let ack = u32::from_be_bytes(syn[38..42].try_into().unwrap()).wrapping_add(1);
        let mut peer = Peer { port, seq: 1_000, ack };
        assert!(self.segment(peer, SYN | ACK, WINDOW, &[]).is_none());
        peer.seq += 1;
        peer.ack = peer.ack.wrapping_add(query.framed().len() as u32);
        let asked = self.wire.0.pop().expect("the question");
        assert!(asked.ends_with(query.framed()));
        assert!(self.segment(peer, ACK, window, &[]).is_none());
        self.wire.0.clear();
        peer
    }

    /// Says who has the server's address.
    fn resolve_server(&mut self) {
        let mut frame = [&OURS.0.0[..], &SERVER.0.0, &[8, 6, 0, 1, 8, 0, 6, 4, 0, 2]].concat();
        frame.extend([&SERVER.0.0[..], &SERVER.1.octets(), &OURS.0.0, &OURS.1.octets()].concat());
        let _ = self.stack.input(self.now, &frame, META);
        self.work();
    }

    /// Has a segment come from the server.
    fn segment(&mut self, peer: Peer, flags: u8, window: u16, payload: &[u8]) -> Option<Outcome> {
        let mut frame = [&OURS.0.0[..], &SERVER.0.0, &[8, 0, 0x45, 0]].concat();
        frame.extend((40 + payload.len() as u16).to_be_bytes());
        frame.extend([0, 0, 0, 0, 64, 6, 0, 0]);
        frame.extend([SERVER.1.octets(), OURS.1.octets()].concat());
        frame.extend([0, 53]);
        frame.extend(peer.port);
        frame.extend(peer.seq.to_be_bytes());
        frame.extend(peer.ack.to_be_bytes());
        frame.extend([0x50, flags]);
        frame.extend(window.to_be_bytes());
        frame.extend([0, 0, 0, 0]);
        frame.extend(payload);
        let Input::Segment(events) = self.stack.input(self.now, &frame, META) else { return None };
        assert!(self.streams.contains(events.conn));
        let outcome = self.streams.segment(self.now, &events, &mut self.stack, &mut self.wire);
        self.work();
        outcome
    }

    /// What the loop does in each of its rounds; gives back whom timers ended.
    fn work(&mut self) -> Vec<ConnId> {
        self.streams.expire(self.now, &mut self.stack, &mut self.wire);
        self.stack.retry_blocked(self.now, &mut self.wire);
        let mut ended = Vec::new();
        self.stack.expire(self.now, &mut self.wire, |connection, event| {
            if let TimerEvent::Ended(_) = event {
                ended.push(connection);
            }
        });
        ended
    }

    /// The flags of what we have sent on a connection.
    fn sent(&mut self, peer: Peer) -> Vec<u8> {
        let is_its = |frame: &&Vec<u8>| frame[12..14] == [8, 0] && frame[34..36] == peer.port;
        let flags = self.wire.0.iter().filter(is_its).map(|frame| frame[47]).collect();
        self.wire.0.clear();
        flags
    }
}

/// An answer behind its length. What it says is the resolver's business.
const ANSWER: &[u8] = b"\0\x03abc";

#[track_caller]
fn assert_answers(outcome: Option<Outcome>, query: &StreamQuery) {
    match outcome {
        Some(Outcome::Answered(id, answer)) => {
            assert_eq!((id, answer.message()), (query.id, Some(&b"abc"[..])))
        }
        other => panic!("{other:?}"),
    }
}

fn failed(outcome: Option<Outcome>) -> Option<QueryId> {
    match outcome {
        Some(Outcome::Failed(id)) => Some(id),
        other => panic!("{other:?}"),
    }
}

/// An answer ends a connection in order, and nothing of ours ends it otherwise while its time runs.
#[test]
fn connection_with_an_answer_is_closed_and_not_reset() {
    let mut test = Test::new();
    let query = test.cut(Family::V4);
    let mut peer = test.open(&query, WINDOW);
    assert!(test.segment(peer, ACK, WINDOW, &ANSWER[..3]).is_none());
    peer.seq += 3;
    assert_answers(test.segment(peer, ACK, WINDOW, &ANSWER[3..]), &query);
    let flags = test.sent(peer);
    assert!(flags.iter().any(|flags| flags & FIN != 0), "{flags:?}");
    // The resolver says that it waits no more.
    test.streams.hang_up(query.id, &mut test.stack, &mut test.wire);
    test.now += Duration::from_millis(2_999);
    test.work();
    (peer.seq, peer.ack) = (peer.seq + 2, peer.ack.wrapping_add(1));
    assert!(test.segment(peer, ACK | FIN, WINDOW, &[]).is_none());
    let flags = test.sent(peer);
    assert!(flags.iter().all(|flags| flags & RST == 0), "{flags:?}");
    assert_eq!((test.stack.connections(), test.streams.next_deadline()), (0, None));
}

/// RFC 2525 2.17. What comes with the answer is not looked at, and no reason.
#[test]
fn connection_is_reset_where_more_comes_after_its_answer() {
    for is_lost in [false, true] {
        let mut test = Test::new();
        let query = test.cut(Family::V4);
        let mut peer = test.open(&query, WINDOW);
        assert_answers(test.segment(peer, ACK, WINDOW, &[ANSWER, b"more"].concat()), &query);
        peer.seq += ANSWER.len() as u32 + 4;
        let flags = test.sent(peer);
        assert!(flags.iter().all(|flags| flags & RST == 0), "{flags:?}");
        if is_lost {
            // What waits for an earlier piece is not there yet.
            assert!(test.segment(Peer { seq: peer.seq + 1, ..peer }, ACK, WINDOW, b"x").is_none());
            let flags = test.sent(peer);
            assert!(flags.iter().all(|flags| flags & RST == 0), "{flags:?}");
        }
        assert!(test.segment(peer, ACK, WINDOW, b"x").is_none());
        assert!(test.sent(peer).iter().any(|flags| flags & RST != 0));
        assert_eq!((test.stack.connections(), test.streams.next_deadline()), (0, None));
    }
}

/// Whatever holds it: a server that does not close its side, that has gone, or that has no window for our FIN.
#[test]
fn connection_that_has_been_closed_and_does_not_end_is_reset() {
    for (window, is_acknowledged) in [(WINDOW, true), (WINDOW, false), (0, false)] {
        let mut test = Test::new();
        let query = test.cut(Family::V4);
        let mut peer = test.open(&query, window);
        assert_answers(test.segment(peer, ACK, window, ANSWER), &query);
        peer.seq += ANSWER.len() as u32;
        if is_acknowledged {
            peer.ack = peer.ack.wrapping_add(1);
            assert!(test.segment(peer, ACK, window, &[]).is_none());
        }
        let until = test.now + CLOSE_TIME;
        test.sent(peer);
        assert_eq!(test.streams.next_deadline(), Some(until));
        test.now = Instant::from_nanos(until.as_nanos() - 1);
        test.work();
        assert!(test.sent(peer).iter().all(|flags| flags & RST == 0));
        test.now = until;
        test.work();
        assert!(test.sent(peer).iter().any(|flags| flags & RST != 0), "{window} {is_acknowledged}");
        assert_eq!((test.stack.connections(), test.streams.next_deadline()), (0, None));
    }
}

#[test]
fn connection_that_ends_before_its_answer_is_a_failure_and_is_closed() {
    for flags in [ACK | FIN, ACK | RST] {
        let mut test = Test::new();
        let query = test.cut(Family::V4);
        let peer = test.open(&query, WINDOW);
        assert_eq!(failed(test.segment(peer, flags, WINDOW, &[])), Some(query.id));
        assert_eq!(test.stack.connections(), usize::from(flags & FIN != 0));
        test.now += CLOSE_TIME;
        test.work();
        assert_eq!((test.stack.connections(), test.streams.next_deadline()), (0, None));
    }
}

/// The questions of both families are asked at the same time.
#[test]
fn two_connections_are_told_apart() {
    let mut test = Test::new();
    let (ipv6, ipv4) = (test.cut(Family::V6), test.cut(Family::V4));
    let (first, mut second) = (test.open(&ipv6, WINDOW), test.open(&ipv4, WINDOW));
    assert!(test.segment(first, ACK, WINDOW, &ANSWER[..3]).is_none());
    assert_answers(test.segment(second, ACK, WINDOW, ANSWER), &ipv4);
    second.seq += ANSWER.len() as u32;
    assert!(test.sent(first).is_empty());
    // The first is not waited for any more; the second closes in order.
    test.streams.hang_up(ipv6.id, &mut test.stack, &mut test.wire);
    let resets: Vec<_> = test.wire.0.iter().filter(|frame| frame[47] & RST != 0).collect();
    assert!(resets.len() == 1 && resets[0][34..36] == first.port);
    test.wire.0.clear();
    second.ack = second.ack.wrapping_add(1);
    assert!(test.segment(second, ACK | FIN, WINDOW, &[]).is_none());
    assert!(test.sent(second).iter().all(|flags| flags & RST == 0));
    assert_eq!((test.stack.connections(), test.streams.next_deadline()), (0, None));
}

#[test]
fn second_of_two_connections_ends_and_the_first_is_answered() {
    let mut test = Test::new();
    let (ipv6, ipv4) = (test.cut(Family::V6), test.cut(Family::V4));
    let (first, second) = (test.open(&ipv6, WINDOW), test.open(&ipv4, WINDOW));
    assert_eq!(failed(test.segment(second, ACK | RST, WINDOW, &[])), Some(ipv4.id));
    assert_answers(test.segment(first, ACK, WINDOW, ANSWER), &ipv6);
}

#[test]
fn question_that_is_not_waited_for_is_reset_and_the_other_answered() {
    let mut test = Test::new();
    let (ipv6, ipv4) = (test.cut(Family::V6), test.cut(Family::V4));
    let (first, second) = (test.open(&ipv6, WINDOW), test.open(&ipv4, WINDOW));
    test.streams.hang_up(ipv4.id, &mut test.stack, &mut test.wire);
    assert!(test.sent(second).iter().any(|flags| flags & RST != 0));
    assert_answers(test.segment(first, ACK, WINDOW, ANSWER), &ipv6);
}

/// The pieces of an answer overtake each other.
#[test]
fn answer_is_read_in_its_order() {
    let mut test = Test::new();
    let query = test.cut(Family::V4);
    let peer = test.open(&query, WINDOW);
    assert!(test.segment(Peer { seq: peer.seq + 3, ..peer }, ACK, WINDOW, &ANSWER[3..]).is_none());
    assert_answers(test.segment(peer, ACK, WINDOW, &ANSWER[..3]), &query);
}

/// The server is nowhere on the link: the stack gives up the connection, here the second of two, long after the first was opened.
#[test]
fn question_of_a_connection_that_a_timer_ends_has_failed() {
    let mut test = Test::new();
    let (ipv6, ipv4) = (test.cut(Family::V6), test.cut(Family::V4));
    test.open(&ipv6, WINDOW);
    test.ask(&ipv4);
    let mut ended = Vec::new();
    while ended.is_empty() {
        let deadline = test.stack.next_deadline().expect("it ends");
        test.now = test.now.max(deadline);
        ended = test.work();
    }
    let &[connection] = &ended[..] else { panic!("{ended:?}") };
    let outcome = test.streams.ended(connection).expect("it is one of these");
    assert_eq!(failed(outcome), Some(ipv4.id));
    assert!(!test.streams.contains(connection) && test.streams.ended(connection).is_none());
}
