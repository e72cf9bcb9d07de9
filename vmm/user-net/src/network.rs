//! The network as a whole: frames in, frames out, and what the host says in between.

use std::os::fd::RawFd;
use std::time::Duration;

use smoltcp::wire::EthernetAddress;

use crate::config::{Config, GuestOffloads, Published, UserNetError};
use crate::counters::Counters;
use crate::link::{FRAME_BYTES_MAX, Link};
use crate::publish::{Protocol, Publish};
use crate::reactor::{Reactor, Source};
use crate::replies::Replies;
use crate::tcp::{Surroundings, Tcp, TcpPort};
use crate::wire::{self, Packet, Refusal};
use crate::{GATEWAY_ADDRESS, GATEWAY_MAC, answer};

/// Frames to the guest after which the host's sockets are looked at, even if there are more.
const FRAMES_A_POLL: u32 = 64;

/// A network with a guest on it.
pub struct UserNet {
    link: Link,
    reactor: Reactor,
    replies: Replies,
    counters: Counters,
    tcp: Tcp,
    tcp_ports: Vec<TcpPort>,
    published: Vec<Published>,
    frame: Box<[u8; FRAME_BYTES_MAX]>,
    frames_since_poll: u32,
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
            link,
            reactor,
            replies: Replies::default(),
            counters: Counters::default(),
            tcp_ports: Vec::new(),
            published: Vec::new(),
            frame,
            frames_since_poll: 0,
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
                port.watch(&self.reactor, Source::TcpListener(self.tcp_ports.len() as u32))
                    .map_err(failed)?;
                let host = port.local_address().map_err(failed)?;
                self.tcp_ports.push(port);
                host
            }
            Protocol::Udp => return Err(failed(std::io::Error::other("UDP is not there yet"))),
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
        self.link.offloads = offloads;
        self.tcp.set_link(&self.link, self.seed);
    }

    /// Becomes readable when [`Self::output`] has something to do.
    pub fn event_fd(&self) -> RawFd {
        self.reactor.event_fd()
    }

    /// The counters now.
    pub fn counters(&self) -> Counters {
        Counters { replies_lost: self.replies.lost(), ..self.counters }
    }

    /// TCP connections now.
    pub fn connections(&self) -> usize {
        self.tcp.len()
    }

    /// Takes a frame from the guest, header first. `now` is the time since some moment, and never goes back.
    pub fn input(&mut self, now: Duration, frame: &[u8]) {
        match wire::parse(frame, self.link.gateway_mac) {
            Ok(packet) => self.packet(now, packet),
            Err(refusal) => {
                *match refusal {
                    Refusal::Malformed => &mut self.counters.dropped_malformed,
                    Refusal::Checksum => &mut self.counters.dropped_checksum,
                    Refusal::Fragment => &mut self.counters.dropped_fragments,
                    Refusal::Spoofed => &mut self.counters.dropped_spoofed,
                    Refusal::Protocol => &mut self.counters.dropped_protocol,
                } += 1;
                tracing::trace!("a frame of the guest is dropped: {refusal:?}");
            }
        }
    }

    fn packet(&mut self, now: Duration, packet: Packet<'_>) {
        let mut around = Surroundings {
            link: &self.link,
            reactor: &self.reactor,
            replies: &mut self.replies,
            counters: &mut self.counters,
            now,
        };
        match packet {
            Packet::Tcp(segment) => {
                if !self.tcp.input(&segment, &mut around) {
                    if segment.opens {
                        around.counters.refused += 1;
                        tracing::debug!("refused: TCP of the guest to {}", segment.to);
                    }
                    self.tcp.reset(&segment, &mut around);
                }
            }
            Packet::Arp { sender, wanted } => {
                self.replies.extend(answer::arp(&self.link, sender, wanted));
            }
            Packet::Echo { to, ident, sequence, data } if to == GATEWAY_ADDRESS => {
                self.replies.extend(answer::echo(&self.link, to, ident, sequence, data));
            }
            Packet::Echo { to, .. } => {
                self.counters.refused += 1;
                tracing::debug!("refused: echo of the guest to {to}");
            }
            Packet::Udp { to, ip, .. } => {
                self.counters.refused += 1;
                tracing::debug!("refused: UDP of the guest to {to}");
                self.replies.extend(answer::prohibited(&self.link, ip));
            }
        }
    }

    /// The next frame to the guest, header first. `None`: there is none now.
    pub fn output(&mut self, now: Duration) -> Option<&[u8]> {
        let frame_bytes = self.next_frame(now)?;
        self.frames_since_poll += 1;
        Some(&self.frame[..frame_bytes])
    }

    fn next_frame(&mut self, now: Duration) -> Option<usize> {
        if self.frames_since_poll >= FRAMES_A_POLL {
            self.poll_host(now);
        }
        loop {
            if let Some(reply) = self.replies.pop() {
                self.frame[..reply.len()].copy_from_slice(&reply);
                return Some(reply.len());
            }
            let mut around = Surroundings {
                link: &self.link,
                reactor: &self.reactor,
                replies: &mut self.replies,
                counters: &mut self.counters,
                now,
            };
            if let Some(frame_bytes) = self.tcp.output(&mut self.frame, &mut around) {
                return Some(frame_bytes);
            }
            if !self.poll_host(now) {
                return None;
            }
        }
    }

    /// Sees what the host's sockets and the time have to say. `false`: nothing.
    fn poll_host(&mut self, now: Duration) -> bool {
        self.frames_since_poll = 0;
        let events = self.reactor.poll();
        let mut any = events > 0;
        for index in 0..events {
            let Some((source, readiness)) = self.reactor.event(index) else { break };
            let mut around = Surroundings {
                link: &self.link,
                reactor: &self.reactor,
                replies: &mut self.replies,
                counters: &mut self.counters,
                now,
            };
            match source {
                Source::Timer => {}
                Source::TcpListener(index) => {
                    if let Some(port) = self.tcp_ports.get_mut(index as usize) {
                        port.client_waits(now);
                    }
                }
                Source::Tcp(id) => self.tcp.host_event(id, readiness, &mut around),
                Source::UdpPort(_) | Source::Udp(_) => {}
            }
        }
        let mut around = Surroundings {
            link: &self.link,
            reactor: &self.reactor,
            replies: &mut self.replies,
            counters: &mut self.counters,
            now,
        };
        for port in &mut self.tcp_ports {
            any |= port.accept(&mut self.tcp, &mut around);
        }
        any |= self.tcp.expire(&mut around);
        if !any && let Some(deadline) = self.next_deadline() {
            self.reactor.wake_at(deadline, now);
        }
        any
    }

    /// When to look again, if nothing happens.
    fn next_deadline(&self) -> Option<Duration> {
        let ports = self.tcp_ports.iter().filter_map(TcpPort::next_deadline);
        ports.chain(self.tcp.next_deadline()).min()
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
