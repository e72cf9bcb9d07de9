//! Two stacks with connections between them, in simulated time, and an adversary who owns the wire: it reads each frame and
//! may drop, delay, repeat, reorder, damage, split, merge and fragment it; one that forges may besides rewrite it and make up
//! others. Its decisions are bytes, from a seed or from a fuzzer. After each step both stacks are looked at, and each frame
//! that leaves one. When the bytes are used up the wire is perfect, and everything comes to an end.

pub(crate) mod choices;
pub(crate) mod forge;
mod forge_v6;
pub(crate) mod frames;
mod hosts;
pub(crate) mod monitor;
pub(crate) mod station;

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use exos_net::{Config, CongestionControl, Duration, Instant, Ipv6Config, MacAddress, SlowStart};

use choices::Choices;
use forge::Seen;
use hosts::Family;
use monitor::Monitor;
use station::{PORT, Station};

/// What an adversary does at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Adversary {
    /// Drops, delays, repeats, reorders, damages, splits, merges and fragments: all bytes arrive all the same.
    Unreliable,
    /// Everything.
    Forging,
}

/// How long a frame takes on a perfect wire.
const DELAY: Duration = Duration::from_micros(500);
const AT_ONCE: Duration = Duration::ZERO;
/// For so long a device is full.
const ROOM_AFTER: Duration = Duration::from_millis(1);
/// So many frames in a row, and so many in all, may be lost or late: a connection is given up for more.
const MOST_TROUBLE: u32 = 4;
const MOST_TROUBLE_IN_ALL: u32 = 64;
/// As much trouble as that, each time after the longest timeout, is not yet the end.
const LIFETIME: Duration = Duration::from_secs(2 * 3_600);
/// The fewest bytes that a full segment has: an adversary may say that its end takes no more (`MIN_MSS` less timestamps).
const LEAST_MSS: usize = 36;
/// From the end of the adversary on everything must have ended after so long.
const PATIENCE: Duration = Duration::from_secs(4 * 3_600);
/// Frames a second that connections at odds with each other may send on a perfect wire.
const CALM_FRAMES: u64 = 40;
/// Where both ends open at the same time.
const MEETING_PORT: u16 = 50_000;

/// What a run was like.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Summary {
    pub(crate) frames: u64,
    pub(crate) forged: u64,
    pub(crate) connections: usize,
    pub(crate) bytes: usize,
}

/// A frame under way: when it arrives, in which order, where.
type UnderWay = BinaryHeap<Reverse<(Instant, u64, usize, Vec<u8>)>>;

struct World<'a> {
    adversary: Adversary,
    family: Family,
    choices: Choices<'a>,
    now: Instant,
    stations: [Station; 2],
    monitor: Monitor,
    seen: Seen,
    under_way: UnderWay,
    /// Frames held back to be merged with the next.
    held: [Option<Vec<u8>>; 2],
    trouble: u32,
    troubles: u32,
    summary: Summary,
}

/// How a station is configured, and what it would speak.
fn config(choices: &mut Choices<'_>) -> (Config, Family) {
    let mut config = Config::new(MacAddress::BROADCAST, Ipv4Addr::UNSPECIFIED, 24, *b"0123456789abcdef");
    let bits = choices.u8();
    config.timestamps = bits & 1 == 0;
    config.sack = bits & 2 == 0;
    config.congestion = if bits & 4 == 0 { CongestionControl::Cubic } else { CongestionControl::NewReno };
    config.slow_start = if bits & 8 == 0 { SlowStart::HyStart } else { SlowStart::Standard };
    config.mtu = choices.of(&[1_500, 576, 1_400, 9_000]);
    config.receive_window_bytes = choices.of(&[65_535, 16_000, 200_000, 9_000]).max(u32::from(config.mtu));
    config.max_connections = 12;
    config.max_half_open = 4;
    config.max_time_wait = 8;
    config.max_buffered_bytes = choices.of(&[400_000, 30_000]);
    config.max_neighbours = 4;
    config.max_path_mtus = 2;
    config.max_reassemblies = 8;
    config.max_reassembly_bytes = 300_000;
    config.user_timeout = LIFETIME;
    config.fin_wait_2 = LIFETIME;
    config.time_wait = LIFETIME;
    config.syn_retries = 16;
    config.syn_ack_retries = 16;
    config.ephemeral_ports = MEETING_PORT..=MEETING_PORT + 200;
    (config, [Family::V4, Family::V6, Family::Both][usize::from(bits >> 4) % 3])
}

/// Gives a station what it needs to speak this family.
fn speak(config: &mut Config, family: Family, number: usize, choices: &mut Choices<'_>) {
    if family.has_v4() {
        config.ip = hosts::v4(number);
    }
    if family.has_v6() {
        let bits = choices.u8();
        config.mtu = config.mtu.max(1_280);
        config.receive_window_bytes = config.receive_window_bytes.max(config.mtu.into());
        config.ipv6 = Some(Ipv6Config {
            addresses: vec![(hosts::v6(number), 64)],
            probes: bits & 1,
            router_advertisements: bits & 2 != 0,
            max_addresses: 3,
            max_prefixes: 2,
            max_routers: 1,
            ..Ipv6Config::default()
        });
    }
}

impl<'a> World<'a> {
    fn new(adversary: Adversary, bytes: &'a [u8]) -> Self {
        let mut choices = Choices::new(bytes);
        let now = Instant::from_millis(1_000);
        let honest = adversary == Adversary::Unreliable;
        let ((one, family), (other, _)) = (config(&mut choices), config(&mut choices));
        let mut configs = [one, other];
        for (number, config) in configs.iter_mut().enumerate() {
            speak(config, family, number, &mut choices);
        }
        let meet = choices.once_in(4);
        if meet {
            configs.iter_mut().for_each(|config| config.ephemeral_ports = MEETING_PORT..=MEETING_PORT);
        }
        let mut number = 0..;
        let mut stations =
            configs.map(|config| Station::new(number.next().expect("endless"), config, honest, now));
        if meet {
            // Both open at the same time, from and to the same port.
            let is_v6 = family.choose_v6(&mut choices);
            for (number, station) in stations.iter_mut().enumerate() {
                let to: IpAddr =
                    if is_v6 { hosts::v6(1 - number).into() } else { hosts::v4(1 - number).into() };
                station.connect(SocketAddr::new(to, MEETING_PORT), usize::from(choices.u16()));
            }
        }
        for place in 0..1 + choices.below(4) {
            let bytes = usize::from(choices.u16());
            let to = hosts::any(family, 1 - place % 2, &mut choices);
            let to_send = if choices.once_in(4) { bytes } else { bytes / 8 };
            stations[place % 2].connect(SocketAddr::new(to, PORT), to_send);
        }
        Self {
            adversary,
            family,
            choices,
            now,
            stations,
            monitor: Monitor::new(honest),
            seen: Seen::default(),
            under_way: UnderWay::new(),
            held: [None, None],
            trouble: 0,
            troubles: 0,
            summary: Summary::default(),
        }
    }

    /// It arrives so much later than on a perfect wire.
    fn put(&mut self, to: usize, frame: Vec<u8>, late: Duration) {
        self.summary.frames += 1;
        self.under_way.push(Reverse((self.now + DELAY + late, self.summary.frames, to, frame)));
    }

    /// One more is lost or late, after so many in a row.
    fn trouble(&mut self, in_a_row: u32) {
        self.trouble = in_a_row + 1;
        self.troubles += 1;
    }

    /// A frame left the other station.
    fn carry(&mut self, to: usize, frame: Vec<u8>) {
        if let Some(held) = self.held[to].take() {
            match forge::merge(&held, &frame) {
                Some(merged) => return self.put(to, merged, AT_ONCE),
                None => self.put(to, held, AT_ONCE),
            }
        }
        if self.adversary == Adversary::Unreliable && frames::is_about_neighbours(&frame) {
            // Who does not answer three questions about his Ethernet address counts as not there.
            return self.put(to, frame, AT_ONCE);
        }
        let troubled = self.trouble;
        let may_trouble = troubled < MOST_TROUBLE && self.troubles < MOST_TROUBLE_IN_ALL;
        self.trouble = 0;
        match self.choices.below(if self.adversary == Adversary::Forging { 20 } else { 16 }) {
            1 | 2 if may_trouble => self.trouble(troubled),
            3 if may_trouble => {
                self.trouble(troubled);
                let late = Duration::from_millis(u64::from(self.choices.u8()) * 8);
                self.put(to, frame, late);
            }
            4 => {
                // Overtaken by those that follow.
                let late = Duration::from_micros(u64::from(self.choices.u8()) * 100);
                self.put(to, frame, late);
            }
            5 => {
                for _ in 0..1 + self.choices.below(3) {
                    let late = Duration::from_micros(u64::from(self.choices.u16()) * 40);
                    self.put(to, frame.clone(), late);
                }
                self.put(to, frame, AT_ONCE);
            }
            6 if may_trouble => {
                self.trouble(troubled);
                let mut damaged = frame;
                if frames::is_whole(&damaged) {
                    let at = frames::IP + usize::from(self.choices.u16()) % (damaged.len() - frames::IP);
                    damaged[at] ^= 1 << self.choices.below(8);
                }
                self.put(to, damaged, AT_ONCE);
            }
            7 | 8 => forge::split(&frame, &mut self.choices)
                .into_iter()
                .for_each(|part| self.put(to, part, AT_ONCE)),
            9 | 10 => self.held[to] = Some(frame),
            11 if frames::is_ipv6(&frame) && self.choices.once_in(2) => {
                let longer = forge::extended(&frame, false, &mut self.choices);
                self.put(to, longer, AT_ONCE);
            }
            11 if frames::is_whole(&frame) => {
                let parts = forge::fragments(&frame, false, &mut self.choices);
                parts.into_iter().for_each(|part| self.put(to, part, AT_ONCE));
            }
            16 | 17 => {
                let rewritten = forge::rewrite(&frame, &mut self.choices);
                self.put(to, rewritten, AT_ONCE);
            }
            _ => self.put(to, frame, AT_ONCE),
        }
    }

    /// What left the stations goes on its way.
    fn collect(&mut self) {
        for number in 0..2 {
            let mtu = self.stations[number].stack.config().mtu;
            for frame in std::mem::take(&mut self.stations[number].nic.frames) {
                self.monitor.look(number, mtu, &frame);
                self.seen.remember(number, &frame);
                self.carry(1 - number, frame);
            }
        }
        if self.adversary == Adversary::Forging {
            while self.choices.once_in(3) {
                let to = self.choices.below(2);
                for frame in forge::make_up(&self.seen, self.family, to, &mut self.choices) {
                    self.summary.forged += 1;
                    let late = Duration::from_micros(u64::from(self.choices.u8()) * 10);
                    self.put(to, frame, late);
                }
            }
        }
    }

    /// Connections are opened as soon as there are addresses; where they have to come about, by both ends.
    fn open(&mut self) {
        let is_settled = |station: &Station| station.stack.ipv6_is_settled();
        if self.adversary == Adversary::Forging || self.stations.iter().all(is_settled) {
            self.stations.iter_mut().for_each(|station| station.open(self.now));
        }
    }

    fn next_at(&self) -> Option<Instant> {
        let frame = self.under_way.peek().map(|Reverse((at, ..))| *at);
        // A device that was full says when it has room again.
        let room = self.stations.iter().any(|station| station.nic.is_full).then(|| self.now + ROOM_AFTER);
        self.stations.iter().map(|station| station.stack.next_deadline()).chain([frame, room]).flatten().min()
    }

    /// What is next happens. False: nothing ever will.
    fn step(&mut self) -> bool {
        let next = self.next_at();
        self.now = self.now.max(next.unwrap_or(self.now));
        for station in &mut self.stations {
            station.nic.is_full = self.choices.once_in(32);
        }
        while let Some(Reverse((at, ..))) = self.under_way.peek()
            && *at <= self.now
        {
            let Some(Reverse((_, _, to, frame))) = self.under_way.pop() else { break };
            let station = &mut self.stations[to];
            let before = station.nic.frames.len();
            station.take(self.now, &frame, &mut self.choices);
            assert!(station.nic.frames.len() <= before + 2, "one frame in, many answers");
            station.check();
        }
        let before = self.stations.each_ref().map(|station| station.nic.frames.len());
        self.stations.iter_mut().for_each(|station| station.expire(self.now));
        self.open();
        for (station, before) in self.stations.iter_mut().zip(before) {
            station.work(self.now, &mut self.choices);
            // A window at most, twice: once by a timer, once by the application.
            let most = 2 * 200_000 / LEAST_MSS + 64;
            assert!(station.nic.frames.len() <= before + most, "{} frames at once", station.nic.frames.len());
            let deadline = station.stack.next_deadline();
            let stuck = !station.nic.is_full && deadline.is_some_and(|deadline| deadline <= self.now);
            assert!(!stuck || station.settles(self.now), "a deadline lies in the past for ever");
            station.check();
        }
        for to in 0..2 {
            // Nobody waits for ever to be merged.
            if self.stations[1 - to].nic.frames.is_empty()
                && let Some(held) = self.held[to].take()
            {
                self.put(to, held, AT_ONCE);
            }
        }
        self.collect();
        next.is_some()
    }

    fn has_ended(&self) -> bool {
        let is_quiet = |station: &Station| station.stack.connections() == 0 && !station.is_opening();
        self.under_way.is_empty() && self.stations.iter().all(is_quiet)
    }

    /// Until the adversary has no more ideas.
    fn attack(&mut self) {
        for _ in 0..200_000 {
            if self.choices.is_empty() || !self.step() && self.has_ended() {
                return;
            }
        }
        panic!("it goes on for ever at {:?}", self.now);
    }

    /// On a perfect wire, until everything has ended or time is over.
    fn calm_down(&mut self) {
        for to in 0..2 {
            self.held[to].take().into_iter().for_each(|held| self.put(to, held, AT_ONCE));
        }
        let (begin, before) = (self.now, self.summary.frames);
        while !self.has_ended() && self.now.since(begin) < PATIENCE && self.step() {
            // What is still queued goes out at once; after that, only what cannot be settled goes to and fro.
            let most = 20_000 + self.now.since(begin).as_nanos() / 1_000_000_000 * CALM_FRAMES;
            assert!(self.summary.frames - before < most, "a storm at {:?}", self.now);
        }
    }

    fn finish(mut self) -> Summary {
        if self.adversary == Adversary::Unreliable {
            for station in &self.stations {
                for talk in &station.talks {
                    assert!(talk.is_complete(), "not complete at {:?}: {talk:?}", self.now);
                }
            }
            let (one, other) = (&self.stations[0].talks, &self.stations[1].talks);
            assert_eq!(one.len(), other.len(), "each connection has two ends");
        }
        let talks = self.stations.iter().flat_map(|station| &station.talks);
        self.summary.connections = self.stations[0].talks.len();
        self.summary.bytes = talks.map(|talk| talk.received).sum();
        self.stations.iter_mut().for_each(Station::abort_all);
        let begin = self.now;
        while self.now.since(begin) < PATIENCE && self.step() {}
        for station in &self.stations {
            let stack = &station.stack;
            assert_eq!(
                (stack.connections(), stack.time_wait(), stack.buffered_bytes()),
                (0, 0, 0),
                "something is left"
            );
            assert_eq!((stack.reassemblies(), stack.next_deadline()), (0, None), "something is left");
        }
        self.summary
    }
}

/// The whole of it.
///
/// # Panics
/// If a stack does what it must not.
pub(crate) fn run(adversary: Adversary, bytes: &[u8]) -> Summary {
    let mut world = World::new(adversary, bytes);
    world.open();
    for station in &mut world.stations {
        station.work(world.now, &mut world.choices);
    }
    world.collect();
    world.attack();
    world.calm_down();
    world.finish()
}
