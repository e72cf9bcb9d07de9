//! A script against a stack: a clock that jumps from deadline to deadline, a device that keeps frames with the time they
//! left at, and an application that does what the script says.

use std::collections::{BTreeSet, VecDeque};
use std::net::IpAddr;
use std::sync::Arc;

use exos_net::{ConnId, ControlFrame, Full, Input, Instant, RxMeta, Stack, TimerEvent, Transmit, TxSegment};

use crate::ip::{self, Asks, Family, PEER_MAC};
use crate::packet::{self, ACK, Endpoints, SYN, Seen, Tcp};
use crate::parse::{Action, Peer, Script, Step, When};

pub(crate) type Bytes = Arc<[u8]>;

/// The stack's clock at the script's begin.
const BEGIN: u64 = 1_000_000_000;

#[derive(Default)]
pub(crate) struct Device {
    pub(crate) frames: VecDeque<Vec<u8>>,
}

impl Transmit<Bytes> for Device {
    fn transmit(&mut self, segment: TxSegment<'_, Bytes>) -> Result<(), Full> {
        assert!(segment.checksum.is_none() && segment.gso.is_none(), "scripts have no offloads");
        let payload: Vec<u8> = segment.payload.flat_map(|piece| piece.bytes().to_vec()).collect();
        self.frames.push_back([segment.header, &payload].concat());
        Ok(())
    }

    fn transmit_control(&mut self, frame: &ControlFrame<'_>) -> Result<(), Full> {
        self.frames.push_back(owned(frame));
        Ok(())
    }
}

pub(crate) fn owned(frame: &ControlFrame<'_>) -> Vec<u8> {
    [frame.head(), frame.body()].concat()
}

/// One peer and what the application has of the connection with it.
pub(crate) struct PeerState {
    pub(crate) isn: u32,
    /// Learned from the host's SYN; until then numbers are absolute.
    pub(crate) host_isn: Option<u32>,
    pub(crate) local_port: u16,
    pub(crate) window: u16,
    pub(crate) conn: Option<ConnId>,
    /// The connection that it had before, if it has none any more.
    pub(crate) gone: Option<ConnId>,
    /// Position of the next byte to send.
    pub(crate) send_at: u32,
    /// Position of the first byte that the application has not taken.
    pub(crate) taken_to: u32,
    /// Bytes after it that it has seen and left in the stack's buffer.
    pub(crate) kept: u32,
    pub(crate) keeps: bool,
}

/// What left, or what the application was told.
struct Happened<T> {
    at: u64,
    peer: usize,
    what: T,
}

pub(crate) struct Run<'s> {
    pub(crate) script: &'s Script,
    pub(crate) stack: Stack<Bytes>,
    pub(crate) device: Device,
    /// Nanoseconds since the script's begin.
    now: u64,
    pub(crate) peers: Vec<PeerState>,
    outputs: VecDeque<Happened<Tcp>>,
    events: VecDeque<Happened<String>>,
    trace: Vec<String>,
    pub(crate) called: Called,
    /// Ports that are listened on.
    pub(crate) listens: BTreeSet<u16>,
}

/// Which calls were made in which states, both as RFC 9293 3.10 and 3.3.2 name them.
pub(crate) type Called = BTreeSet<(&'static str, &'static str)>;

/// Runs a script and returns what it called. The error names file, line, what was expected, what was there, and all packets
/// until then.
pub(crate) fn run(script: &Script) -> Result<Called, String> {
    let stack = Stack::new(script.config.clone(), Instant::from_nanos(BEGIN))
        .map_err(|error| format!("{}: the configuration is refused: {error}", script.path))?;
    let peer = |_| PeerState {
        // Both directions wrap soon: every script is a wrap test.
        isn: 0xffff_ff00,
        host_isn: None,
        local_port: 80,
        window: 65_535,
        conn: None,
        gone: None,
        send_at: 1,
        taken_to: 1,
        kept: 0,
        keeps: false,
    };
    let peers = script.peers.iter().map(peer).collect();
    let mut run = Run {
        script,
        stack,
        device: Device::default(),
        now: 0,
        peers,
        outputs: VecDeque::new(),
        events: VecDeque::new(),
        trace: Vec::new(),
        called: Called::new(),
        listens: BTreeSet::new(),
    };
    for step in &script.steps {
        run.step(step).map_err(|error| {
            let trace = run.trace.join("\n    ");
            format!("{}:{}: {error}\n  in: {}\n  so far:\n    {trace}", script.path, step.line, step.text)
        })?;
    }
    run.nothing_is_left().map_err(|error| {
        format!("{}: at the end: {error}\n  so far:\n    {}", script.path, run.trace.join("\n    "))
    })?;
    Ok(run.called)
}

fn seconds(nanos: u64) -> String {
    format!("{:.6}s", nanos as f64 / 1e9)
}

/// `End::TimedOut` as scripts write it.
pub(crate) fn snake(debug: &str) -> String {
    let mut text = String::new();
    for letter in debug.chars() {
        if letter.is_uppercase() && !text.is_empty() && !text.ends_with(['(', ' ']) {
            text.push('_');
        }
        text.extend(letter.to_lowercase());
    }
    text.replace(['(', ')'], " ").trim().into()
}

impl Run<'_> {
    pub(crate) fn instant(&self) -> Instant {
        Instant::from_nanos(BEGIN + self.now)
    }

    fn ends(&self, peer: usize) -> Endpoints {
        let (named, state) = (&self.script.peers[peer], &self.peers[peer]);
        Endpoints {
            host_ip: named.host,
            peer_ip: named.ip,
            peer_port: named.port,
            local_port: state.local_port,
            peer_isn: state.isn,
            host_isn: state.host_isn.unwrap_or(0),
        }
    }

    fn name(&self, peer: usize) -> String {
        let name = &self.script.peers[peer].name;
        if name.is_empty() { String::new() } else { format!("@{name} ") }
    }

    fn note(&mut self, peer: usize, what: &str) {
        let line = format!("{:>14} {}{what}", seconds(self.now), self.name(peer));
        self.trace.push(line);
    }

    fn step(&mut self, step: &Step) -> Result<(), String> {
        let (from, to) = match step.when {
            When::Same => (self.now, self.now),
            When::At(at) => (at, at),
            When::After(after) => (self.now + after, self.now + after),
            When::Between(from, to) => (from, to),
        };
        if to < self.now {
            return Err(format!("it is {} already", seconds(self.now)));
        }
        match &step.action {
            Action::Out(expected) => {
                return self.expect_output(step.peer, expected, from, self.latest(step, to));
            }
            Action::Event(expected) => {
                return self.expect_event(step.peer, expected, from, self.latest(step, to));
            }
            _ => {}
        }
        self.advance(to, |_| false)?;
        if !matches!(step.action, Action::Check(..) | Action::State(_)) {
            self.nothing_is_left()?;
        }
        match &step.action {
            Action::In(tcp) => {
                self.note(step.peer, &format!("< {tcp}"));
                let window = tcp.window.unwrap_or(self.peers[step.peer].window);
                self.peers[step.peer].window = window;
                let frame = packet::build(tcp, &self.ends(step.peer), window);
                self.input(step.peer, &frame)
            }
            Action::Icmp(icmp) => {
                self.note(step.peer, &format!("< icmp {} {}", icmp.kind, icmp.code));
                let frame = ip::build_icmp(icmp, &self.ends(step.peer));
                self.input(step.peer, &frame)
            }
            Action::LinkMtu(mtu) => {
                self.note(step.peer, &step.text);
                match self.script.family {
                    // As a lease says.
                    Family::V4 => self.stack.set_mtu(self.instant(), *mtu).map_err(|error| error.to_string()),
                    Family::V6 => self.input(step.peer, &ip::router_advertisement(*mtu)),
                }
            }
            Action::Call(call, fails) => {
                self.note(step.peer, &step.text);
                self.note_call(step.peer, call);
                let result = self.call(step.peer, call)?;
                self.collect()?;
                match (result, fails) {
                    (Ok(()), None) => Ok(()),
                    (Ok(()), Some(error)) => {
                        Err(format!("expected the error {error}, but the call succeeded"))
                    }
                    (Err(actual), Some(error)) if *error == actual => Ok(()),
                    (Err(actual), expected) => Err(format!(
                        "expected {}, actual {actual}",
                        expected.as_deref().unwrap_or("no error")
                    )),
                }
            }
            Action::Check(name, expected) => {
                let actual = self.gauge(step.peer, name)?;
                if actual == *expected {
                    return Ok(());
                }
                Err(format!("{name}: expected {expected}, actual {actual}"))
            }
            Action::State(expected) => {
                let actual = self.state(step.peer);
                if actual == expected { Ok(()) } else { Err(format!("expected {expected}, actual {actual}")) }
            }
            Action::Quiet | Action::Out(_) | Action::Event(_) => Ok(()),
        }
    }

    /// A range says itself how late something may be.
    fn latest(&self, step: &Step, to: u64) -> u64 {
        if matches!(step.when, When::Between(..)) { to } else { to + self.script.tolerance }
    }

    fn expect_output(&mut self, peer: usize, expected: &Tcp, from: u64, latest: u64) -> Result<(), String> {
        self.advance(latest, |run| !run.outputs.is_empty())?;
        let Some(seen) = self.outputs.pop_front() else {
            return Err(format!("expected > {expected}\n  actual: nothing until {}", seconds(latest)));
        };
        let actual = format!("{}> {} at {}", self.name(seen.peer), seen.what, seconds(seen.at));
        if seen.peer != peer {
            return Err(format!("expected > {expected}\n  actual: {actual}"));
        }
        if let Err(differences) = expected.matches(&seen.what) {
            return Err(format!("expected > {expected}\n  actual: {actual}{differences}"));
        }
        within(seen.at, from, latest).map_err(|error| format!("{error}\n  actual: {actual}"))
    }

    fn expect_event(&mut self, peer: usize, expected: &str, from: u64, latest: u64) -> Result<(), String> {
        let optional = |event: &str| event.starts_with("acked") || event == "low_water";
        loop {
            self.advance(latest, |run| !run.events.is_empty())?;
            let Some(seen) = self.events.pop_front() else {
                return Err(format!("expected = {expected}\n  actual: no event until {}", seconds(latest)));
            };
            if seen.peer == peer && seen.what == expected {
                return within(seen.at, from, latest);
            }
            if !optional(&seen.what) {
                let name = self.name(seen.peer);
                return Err(format!(
                    "expected = {expected}\n  actual: {name}= {} at {}",
                    seen.what,
                    seconds(seen.at)
                ));
            }
        }
    }

    /// What the host did and the script did not expect.
    fn nothing_is_left(&mut self) -> Result<(), String> {
        if let Some(seen) = self.outputs.front() {
            let name = self.name(seen.peer);
            return Err(format!("not expected: {name}> {} at {}", seen.what, seconds(seen.at)));
        }
        self.events.retain(|event| !event.what.starts_with("acked") && event.what != "low_water");
        match self.events.front() {
            Some(seen) => {
                Err(format!("not expected: {}= {} at {}", self.name(seen.peer), seen.what, seconds(seen.at)))
            }
            None => Ok(()),
        }
    }

    /// Lets time pass, from deadline to deadline, until `to` or until `stop`.
    fn advance(&mut self, to: u64, stop: impl Fn(&Self) -> bool) -> Result<(), String> {
        let mut earliest = self.now;
        while !stop(self) {
            let deadline =
                self.stack.next_deadline().map_or(u64::MAX, |at| at.as_nanos().saturating_sub(BEGIN));
            let next = deadline.max(earliest);
            if next > to {
                self.now = self.now.max(to);
                return Ok(());
            }
            self.now = next;
            earliest = next + 1_000;
            let mut ended = Vec::new();
            let now = self.instant();
            self.stack.expire(now, &mut self.device, |conn, event| ended.push((conn, event)));
            for (conn, event) in ended {
                let peer = self.peers.iter().position(|peer| peer.conn == Some(conn));
                let peer = peer.ok_or_else(|| format!("{event:?} of a connection that nobody has"))?;
                let text = match event {
                    TimerEvent::Ended(end) => {
                        self.ended(peer);
                        format!("ended {}", snake(&format!("{end:?}")))
                    }
                    other => snake(&format!("{other:?}")),
                };
                self.event(peer, text);
            }
            self.collect()?;
        }
        Ok(())
    }

    pub(crate) fn event(&mut self, peer: usize, what: String) {
        self.note(peer, &format!("= {what}"));
        self.events.push_back(Happened { at: self.now, peer, what });
    }

    fn input(&mut self, peer: usize, frame: &[u8]) -> Result<(), String> {
        let now = self.instant();
        match self.stack.input(now, frame, RxMeta::default()) {
            Input::Nothing | Input::Datagram(_) | Input::DatagramError(_) => {}
            Input::Reply(reply) => self.device.frames.push_back(owned(&reply)),
            Input::Segment(events) => self.segment(peer, &events)?,
        }
        self.stack.check();
        self.collect()
    }

    /// Takes what the device was given, answers for the peers' link addresses, and notes the rest.
    fn collect(&mut self) -> Result<(), String> {
        while let Some(frame) = self.device.frames.pop_front() {
            match Asks::of(&frame) {
                Asks::Nothing => {}
                Asks::Nobody => continue,
                Asks::For(target, asker) => {
                    self.answer(target, asker)?;
                    continue;
                }
            }
            let seen = Seen::parse(&frame)?;
            let (to, port) = (seen.ip.destination, seen.ports.1);
            let is_theirs = |peer: &Peer| peer.ip == to && peer.port == port && peer.host == seen.ip.source;
            let Some(peer) = self.script.peers.iter().position(is_theirs) else {
                return Err(format!(
                    "a segment from {} to {to} port {port}, where nobody is",
                    seen.ip.source
                ));
            };
            if frame[..6] != PEER_MAC {
                return Err(format!("a segment to the wrong link address: {:02x?}", &frame[..6]));
            }
            let state = &mut self.peers[peer];
            if seen.flags & SYN != 0 && state.host_isn.is_none() {
                state.host_isn = Some(seen.seq);
                if seen.flags & ACK == 0 {
                    state.local_port = seen.ports.0;
                }
            }
            let what = seen.relative(&self.ends(peer))?;
            self.note(peer, &format!("> {what}"));
            self.outputs.push_back(Happened { at: self.now, peer, what });
        }
        Ok(())
    }

    fn answer(&mut self, target: IpAddr, asker: IpAddr) -> Result<(), String> {
        if self.script.peers.iter().any(|peer| peer.is_silent && peer.ip == target) {
            return Ok(());
        }
        self.input(0, &ip::neighbour_answer(target, asker))?;
        // What waited for the answer.
        let now = self.instant();
        self.stack.retry_blocked(now, &mut self.device);
        self.collect()
    }
}

fn within(at: u64, from: u64, latest: u64) -> Result<(), String> {
    if (from..=latest).contains(&at) {
        return Ok(());
    }
    Err(format!("expected from {} to {}, actual {}", seconds(from), seconds(latest), seconds(at)))
}
