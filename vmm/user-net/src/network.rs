//! The network as a whole: frames in, frames out, and what the host says in between.

use std::os::fd::RawFd;
use std::time::Duration;

use smoltcp::wire::EthernetAddress;

use crate::config::{Config, GuestOffloads, Published, UserNetError};
use crate::counters::Counters;
use crate::flow::{Flow, Surroundings};
use crate::link::{FRAME_BYTES_MAX, Link};
use crate::policy::Policy;
use crate::publish::{Protocol, Publish};
use crate::reactor::{Reactor, Source};
use crate::replies::Replies;
use crate::tcp::{Tcp, TcpPort};
use crate::udp::Udp;
use crate::wire::{self, Packet, Refusal, Segment};
use crate::{GATEWAY_ADDRESS, GATEWAY_MAC, answer};

/// Frames to the guest after which the host's sockets are looked at, even if there are more.
const FRAMES_A_POLL: u32 = 64;

/// How often the host's sockets are looked at for one frame.
const ROUNDS_A_FRAME: u32 = 8;

/// A network with a guest on it.
pub struct UserNet {
    around: Surroundings,
    tcp: Tcp,
    tcp_ports: Vec<TcpPort>,
    udp: Udp,
    policy: Policy,
    published: Vec<Published>,
    frame: Box<[u8; FRAME_BYTES_MAX]>,
    frames_since_poll: u32,
    udp_is_next: bool,
    seed: u64,
}

impl UserNet {
    /// Makes a network and binds what is published.
    pub fn new(config: Config) -> Result<Self, UserNetError> {
        let link = Link {
            guest_mac: EthernetAddress(config.guest_mac),
            gateway_mac: EthernetAddress(GATEWAY_MAC),
            offloads: GuestOffloads::default(),
        };
        let reactor = Reactor::new().map_err(std::io::Error::from)?;
        let frame = vec![0; FRAME_BYTES_MAX].into_boxed_slice();
        let frame =
            frame.try_into().map_err(|_| std::io::Error::other("a frame's buffer has another length"))?;
        let mut net = Self {
            tcp: Tcp::new(&link, config.seed),
            around: Surroundings {
                link,
                reactor,
                replies: Replies::default(),
                counters: Counters::default(),
                now: Duration::ZERO,
            },
            tcp_ports: Vec::new(),
            udp: Udp::new(),
            policy: Policy {
                outbound: config.outbound,
                host_ports: config.host_ports,
                resolver: config.resolver,
            },
            published: Vec::new(),
            frame,
            frames_since_poll: 0,
            udp_is_next: false,
            seed: config.seed,
        };
        for publish in config.publish {
            net.publish(publish)?;
        }
        Ok(net)
    }

    fn publish(&mut self, publish: Publish) -> Result<(), UserNetError> {
        let explicit = publish.host.port() != 0;
        let same =
            |other: &Published| (other.asked.host, other.asked.protocol) == (publish.host, publish.protocol);
        if explicit && self.published.iter().any(same) {
            return Err(UserNetError::Twice(publish));
        }
        let failed = |error| UserNetError::of_bind(publish, error);
        let host = match publish.protocol {
            Protocol::Tcp => {
                let port = TcpPort::bind(publish.host, publish.guest_port).map_err(failed)?;
                port.watch(&self.around.reactor, Source::TcpListener(self.tcp_ports.len() as u32))
                    .map_err(failed)?;
                let host = port.local_address().map_err(failed)?;
                self.tcp_ports.push(port);
                host
            }
            Protocol::Udp => {
                self.udp.publish(publish.host, publish.guest_port, &self.around.reactor).map_err(failed)?
            }
        };
        self.published.push(Published { asked: publish, host });
        Ok(())
    }

    /// What is published, and where.
    pub fn published(&self) -> &[Published] {
        &self.published
    }

    /// Says what the guest's driver can cope with. Until then, it gets whole checksums and small segments.
    pub fn set_offloads(&mut self, offloads: GuestOffloads) {
        self.around.link.offloads = offloads;
        self.tcp.set_link(&self.around.link, self.seed);
    }

    /// Becomes readable when [`Self::output`] has something to do.
    pub fn event_fd(&self) -> RawFd {
        self.around.reactor.event_fd()
    }

    /// The counters now.
    pub fn counters(&self) -> Counters {
        Counters { replies_lost: self.around.replies.lost(), ..self.around.counters }
    }

    /// TCP connections now.
    pub fn connections(&self) -> usize {
        self.tcp.len()
    }

    /// UDP sessions now.
    pub fn sessions(&self) -> usize {
        self.udp.len()
    }

    /// Takes a frame from the guest, header first. `now` is the time since some moment, and never goes back.
    pub fn input(&mut self, now: Duration, frame: &[u8]) {
        self.around.now = now;
        match wire::parse(frame, self.around.link.gateway_mac) {
            Ok(packet) => self.packet(packet),
            Err(refusal) => {
                *match refusal {
                    Refusal::Malformed => &mut self.around.counters.dropped_malformed,
                    Refusal::Checksum => &mut self.around.counters.dropped_checksum,
                    Refusal::Fragment => &mut self.around.counters.dropped_fragments,
                    Refusal::Spoofed => &mut self.around.counters.dropped_spoofed,
                    Refusal::Protocol => &mut self.around.counters.dropped_protocol,
                } += 1;
                tracing::trace!("a frame of the guest is dropped: {refusal:?}");
            }
        }
    }

    fn packet(&mut self, packet: Packet<'_>) {
        match packet {
            Packet::Tcp(segment) => self.segment(&segment),
            Packet::Udp { guest_port, to, payload, ip } => {
                self.datagram(Flow { guest_port, peer: to }, payload, ip);
            }
            Packet::Arp { sender, wanted } => {
                self.around.replies.extend(answer::arp(&self.around.link, sender, wanted));
            }
            Packet::Echo { to, ident, sequence, data } if to == GATEWAY_ADDRESS => {
                self.around.replies.extend(answer::echo(&self.around.link, to, ident, sequence, data));
            }
            Packet::Echo { to, .. } => {
                self.around.counters.refused += 1;
                tracing::debug!("refused: echo of the guest to {to}");
            }
        }
    }

    fn segment(&mut self, segment: &Segment<'_>) {
        if self.tcp.input(segment, &mut self.around) {
            return;
        }
        if segment.opens {
            match self.policy.target(segment.to) {
                Some(target) => {
                    return self.tcp.open_outbound(segment, target, &mut self.around);
                }
                None => {
                    self.around.counters.refused += 1;
                    tracing::debug!("refused: TCP of the guest to {}", segment.to);
                }
            }
        }
        self.tcp.reset(segment, &mut self.around);
    }

    fn datagram(&mut self, flow: Flow, payload: &[u8], ip: &[u8]) {
        if self.udp.input(flow, payload, &mut self.around) {
            return;
        }
        let Some(target) = self.policy.target(flow.peer) else {
            self.around.counters.refused += 1;
            tracing::debug!("refused: UDP of the guest to {}", flow.peer);
            self.around.replies.extend(answer::prohibited(&self.around.link, ip));
            return;
        };
        match self.udp.open_outside(flow, target, &mut self.around) {
            Ok(()) => {
                self.udp.input(flow, payload, &mut self.around);
            }
            Err(error) => {
                self.around.counters.udp_dropped += 1;
                tracing::debug!("UDP of the guest to {target}: {error}");
            }
        }
    }

    /// The next frame to the guest, header first. `None`: there is none now.
    pub fn output(&mut self, now: Duration) -> Option<&[u8]> {
        self.around.now = now;
        let frame_bytes = self.next_frame()?;
        self.frames_since_poll = self.frames_since_poll.wrapping_add(1);
        Some(&self.frame[..frame_bytes])
    }

    fn next_frame(&mut self) -> Option<usize> {
        if self.frames_since_poll >= FRAMES_A_POLL {
            self.poll_host();
        }
        for _ in 0..ROUNDS_A_FRAME {
            if let Some(reply) = self.around.replies.pop() {
                self.frame[..reply.len()].copy_from_slice(&reply);
                return Some(reply.len());
            }
            if let Some(frame_bytes) = self.transport_frame() {
                return Some(frame_bytes);
            }
            if !self.poll_host() {
                return None;
            }
        }
        // Much happens, and nothing of it is for the guest: the rest comes with the next call.
        self.around.reactor.wake_at(Duration::ZERO, self.around.now);
        None
    }

    /// The next frame of UDP or TCP; when both have some, in turn.
    fn transport_frame(&mut self) -> Option<usize> {
        let (frame, around) = (&mut self.frame, &mut self.around);
        self.udp_is_next = !self.udp_is_next;
        if self.udp_is_next {
            self.udp.output(frame, around).or_else(|| self.tcp.output(frame, around))
        } else {
            self.tcp.output(frame, around).or_else(|| self.udp.output(frame, around))
        }
    }

    /// Sees what the host's sockets and the time have to say. `false`: nothing.
    fn poll_host(&mut self) -> bool {
        let now = self.around.now;
        self.frames_since_poll = 0;
        let events = self.around.reactor.poll();
        let mut any = events > 0;
        for index in 0..events {
            let Some((source, readiness)) = self.around.reactor.event(index) else { break };
            match source {
                Source::Timer => {}
                Source::TcpListener(index) => {
                    if let Some(port) = self.tcp_ports.get_mut(index as usize) {
                        port.client_waits(now);
                    }
                }
                Source::Tcp(id) => self.tcp.host_event(id, readiness, &mut self.around),
                Source::UdpPort(_) | Source::Udp(_) => self.udp.host_event(source),
            }
        }
        for port in &mut self.tcp_ports {
            any |= port.accept(&mut self.tcp, &mut self.around);
        }
        any |= self.tcp.expire(&mut self.around);
        self.udp.expire(now);
        if !any && let Some(deadline) = self.next_deadline() {
            self.around.reactor.wake_at(deadline, now);
        }
        any
    }

    /// When to look again, if nothing happens.
    fn next_deadline(&self) -> Option<Duration> {
        let ports = self.tcp_ports.iter().filter_map(TcpPort::next_deadline);
        ports.chain(self.tcp.next_deadline()).chain(self.udp.next_deadline()).min()
    }
}

impl std::fmt::Debug for UserNet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("UserNet")
            .field("published", &self.published)
            .field("connections", &self.tcp.len())
            .finish()
    }
}
