//! Frames in, frames out: ARP for one address, and what looks like TCP to a client that behaves and a wire that loses
//! nothing. Pure: no device, no clock.

use super::answer::{AnswerIndex, Answers, LARGEST_SEND_BYTES, Request};
use super::wire::{ACK, FIN, MSS, OWN_MAC, OutgoingSegment, PSH, RST, SYN, Segment, window_shift};
use exovm_netns::tap::VNET_HEADER_BYTES;
use std::net::Ipv4Addr;

/// Where frames go: virtio-net, Ethernet, IP and TCP headers, then payload that stays where it is.
pub(super) trait FrameSink {
    fn send(&mut self, headers: &[u8], payload: &[u8]);
}

/// What is known of a connection; the client's port is its index.
#[derive(Clone, Copy, Debug, Default)]
struct Connection {
    open: bool,
    receive_next: u32,
    send_next: u32,
    send_unacknowledged: u32,
    window_bytes: u32,
    window_shift: u8,
    answer: AnswerIndex,
    answer_offset: usize,
    unsent_bytes: usize,
    must_acknowledge: bool,
    fin_wanted: bool,
    fin_sent: bool,
}

pub(super) struct Responder {
    address: Ipv4Addr,
    peer_address: Ipv4Addr,
    peer_mac: [u8; 6],
    connections: Vec<Connection>,
    answers: Answers,
    ip_identification: u16,
}

impl Responder {
    pub(super) fn new(address: Ipv4Addr) -> Self {
        Responder {
            address,
            peer_address: Ipv4Addr::UNSPECIFIED,
            peer_mac: [0xff; 6],
            connections: vec![Connection::default(); 1 << 16],
            answers: Answers::default(),
            ip_identification: 0,
        }
    }

    /// Takes a frame with its virtio-net header and sends what it calls for.
    pub(super) fn receive(&mut self, frame: &[u8], sink: &mut impl FrameSink) {
        let Some(ethernet) = frame.get(VNET_HEADER_BYTES..) else { return };
        match ethernet.get(12..14) {
            Some([0x08, 0x06]) => self.receive_arp(ethernet, sink),
            Some([0x08, 0x00]) => {
                if let Some(segment) = Segment::parse(ethernet, self.address) {
                    self.peer_address = segment.peer_address;
                    self.peer_mac = segment.peer_mac;
                    self.receive_segment(&segment, sink);
                }
            }
            _ => {}
        }
    }

    /// RFC 826: answers a request for our address.
    fn receive_arp(&mut self, ethernet: &[u8], sink: &mut impl FrameSink) {
        const REQUEST: u8 = 1;
        let Some(request) = ethernet.get(..42) else { return };
        if request[21] != REQUEST || request[38..42] != self.address.octets() {
            return;
        }
        self.peer_mac.copy_from_slice(&request[6..12]);
        let mut reply = [0; VNET_HEADER_BYTES + 42];
        let out = &mut reply[VNET_HEADER_BYTES..];
        out[..6].copy_from_slice(&request[6..12]);
        out[6..12].copy_from_slice(&OWN_MAC);
        out[12..20].copy_from_slice(&request[12..20]);
        out[20..22].copy_from_slice(&[0, 2]);
        out[22..28].copy_from_slice(&OWN_MAC);
        out[28..32].copy_from_slice(&self.address.octets());
        out[32..42].copy_from_slice(&request[22..32]);
        sink.send(&reply, &[]);
    }

    fn receive_segment(&mut self, segment: &Segment<'_>, sink: &mut impl FrameSink) {
        let mut connection = self.connections[usize::from(segment.port)];
        if segment.flags & RST != 0 {
            connection.open = false;
        } else if segment.flags & SYN != 0 {
            connection = self.accept(segment, sink);
        } else if connection.open {
            self.advance(&mut connection, segment, sink);
        } else {
            self.refuse(segment, sink);
        }
        self.connections[usize::from(segment.port)] = connection;
    }

    fn accept(&mut self, segment: &Segment<'_>, sink: &mut impl FrameSink) -> Connection {
        let initial_sequence = segment.sequence.wrapping_add(0x0100_0000);
        let mut connection = Connection {
            open: true,
            receive_next: segment.sequence.wrapping_add(1),
            send_next: initial_sequence,
            send_unacknowledged: initial_sequence,
            window_bytes: u32::from(segment.window),
            window_shift: window_shift(segment.options),
            ..Connection::default()
        };
        self.transmit(&connection, segment.port, SYN | ACK, 0, sink);
        connection.send_next = initial_sequence.wrapping_add(1);
        connection
    }

    fn refuse(&mut self, segment: &Segment<'_>, sink: &mut impl FrameSink) {
        let fin = u32::from(segment.flags & FIN);
        let stranger = Connection {
            send_next: segment.acknowledgement,
            receive_next: segment.sequence.wrapping_add(segment.payload.len() as u32 + fin),
            ..Connection::default()
        };
        self.transmit(&stranger, segment.port, RST | ACK, 0, sink);
    }

    fn advance(&mut self, connection: &mut Connection, segment: &Segment<'_>, sink: &mut impl FrameSink) {
        if segment.acknowledgement.wrapping_sub(connection.send_unacknowledged).cast_signed() > 0 {
            connection.send_unacknowledged = segment.acknowledgement;
        }
        connection.window_bytes = u32::from(segment.window) << connection.window_shift;
        let has_fin = segment.flags & FIN != 0;
        if !segment.payload.is_empty() || has_fin {
            connection.must_acknowledge = true;
            if segment.sequence == connection.receive_next {
                connection.receive_next =
                    connection.receive_next.wrapping_add(segment.payload.len() as u32 + u32::from(has_fin));
                connection.fin_wanted |= has_fin;
                self.take_requests(connection, segment.payload);
            }
        }
        self.send_what_fits(connection, segment.port, sink);
        // A FIN from each side: over. No TIME-WAIT, the next SYN of the port is taken.
        connection.open = !(connection.fin_sent && has_fin);
    }

    fn take_requests(&mut self, connection: &mut Connection, mut payload: &[u8]) {
        const END: &[u8] = b"\r\n\r\n";
        while let Some(end) = payload.windows(END.len()).position(|window| window == END) {
            let request = Request::parse(&payload[..end]);
            let answer = self.answers.find_or_make(request);
            if connection.unsent_bytes == 0 && connection.answer != answer {
                connection.answer = answer;
                connection.answer_offset = 0;
            }
            connection.unsent_bytes += self.answers.get(connection.answer).len();
            connection.fin_wanted |= request.close;
            payload = &payload[end + END.len()..];
        }
    }

    fn send_what_fits(&mut self, connection: &mut Connection, port: u16, sink: &mut impl FrameSink) {
        while connection.unsent_bytes > 0 {
            let in_flight = connection.send_next.wrapping_sub(connection.send_unacknowledged);
            let room = connection.window_bytes.saturating_sub(in_flight) as usize;
            let mut count = connection.unsent_bytes.min(room).min(LARGEST_SEND_BYTES);
            if count < connection.unsent_bytes {
                // Whole segments while there is more, and no small one while others are on their way (RFC 9293 3.7.4).
                count = if count >= MSS { count - count % MSS } else { count * usize::from(in_flight == 0) };
            }
            if count == 0 {
                break;
            }
            connection.unsent_bytes -= count;
            let last = connection.unsent_bytes == 0 && connection.fin_wanted && !connection.fin_sent;
            connection.fin_sent |= last;
            let fin = if last { FIN } else { 0 };
            self.transmit(connection, port, ACK | PSH | fin, count, sink);
            connection.send_next = connection.send_next.wrapping_add(count as u32 + u32::from(fin));
            connection.answer_offset =
                (connection.answer_offset + count) % self.answers.get(connection.answer).len();
            connection.must_acknowledge = false;
        }
        if connection.unsent_bytes == 0 && connection.fin_wanted && !connection.fin_sent {
            self.transmit(connection, port, ACK | FIN, 0, sink);
            connection.send_next = connection.send_next.wrapping_add(1);
            connection.fin_sent = true;
            connection.must_acknowledge = false;
        }
        if connection.must_acknowledge {
            self.transmit(connection, port, ACK, 0, sink);
            connection.must_acknowledge = false;
        }
    }

    /// Sends `payload_bytes` of the connection's answer from where it stands.
    fn transmit(
        &mut self,
        connection: &Connection,
        port: u16,
        flags: u8,
        payload_bytes: usize,
        sink: &mut impl FrameSink,
    ) {
        self.ip_identification = self.ip_identification.wrapping_add(1);
        let segment = OutgoingSegment {
            peer_mac: self.peer_mac,
            from: self.address,
            to: self.peer_address,
            ip_identification: self.ip_identification,
            port,
            sequence: connection.send_next,
            acknowledgement: connection.receive_next,
            flags,
            payload_bytes,
        };
        let payload = match payload_bytes {
            0 => &[],
            _ => self.answers.get(connection.answer).slice(connection.answer_offset, payload_bytes),
        };
        sink.send(segment.headers().as_slice(), payload);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bare::wire::{TCP_AT, ip_checksum_is_right};
    use crate::document;

    #[derive(Default)]
    struct Sent(Vec<(u8, Vec<u8>)>);

    impl FrameSink for Sent {
        fn send(&mut self, headers: &[u8], payload: &[u8]) {
            assert!(ip_checksum_is_right(headers));
            self.0.push((headers[TCP_AT + 13], payload.to_vec()));
        }
    }

    fn segment(sequence: u32, acknowledgement: u32, flags: u8, payload: &[u8]) -> Segment<'_> {
        Segment {
            peer_mac: [2; 6],
            peer_address: Ipv4Addr::new(10, 80, 0, 1),
            port: 4000,
            sequence,
            acknowledgement,
            flags,
            window: 0xffff,
            options: &[],
            payload,
        }
    }

    fn connected(sent: &mut Sent) -> (Responder, u32) {
        let mut responder = Responder::new(Ipv4Addr::new(10, 80, 0, 2));
        responder.receive_segment(&segment(9, 0, SYN, &[]), sent);
        let acknowledgement = responder.connections[4000].send_next;
        responder.receive_segment(&segment(10, acknowledgement, ACK, &[]), sent);
        (responder, acknowledgement)
    }

    #[test]
    fn request_with_close_gets_document_and_fin_in_one_segment() {
        let mut sent = Sent::default();
        let (mut responder, acknowledgement) = connected(&mut sent);
        let request = b"GET /f64 HTTP/1.1\r\nConnection: close\r\n\r\n";
        responder.receive_segment(&segment(10, acknowledgement, ACK | PSH, request), &mut sent);
        let flags: Vec<u8> = sent.0.iter().map(|(flags, _)| *flags).collect();
        assert_eq!(flags, [SYN | ACK, ACK | PSH | FIN]);
        assert!(sent.0[1].1.ends_with(&document::content(64)));
    }

    #[test]
    fn pipelined_requests_are_answered_together() {
        let mut sent = Sent::default();
        let (mut responder, acknowledgement) = connected(&mut sent);
        let requests = b"GET /f64 HTTP/1.1\r\n\r\n".repeat(3);
        responder.receive_segment(&segment(10, acknowledgement, ACK | PSH, &requests), &mut sent);
        let one = 282 + 64;
        let answers = &sent.0[1].1;
        assert_eq!((sent.0.len(), answers.len() % 3), (2, 0));
        assert!(answers.len() / 3 >= 64 && answers.len() / 3 < one + 64);
        assert_eq!(answers[..answers.len() / 3], answers[answers.len() * 2 / 3..]);
    }

    #[test]
    fn large_document_waits_for_the_window() {
        let mut sent = Sent::default();
        let (mut responder, mut acknowledgement) = connected(&mut sent);
        responder.receive_segment(
            &segment(10, acknowledgement, ACK | PSH, b"GET /f200000 HTTP/1.1\r\n\r\n"),
            &mut sent,
        );
        let mut body: Vec<u8> = Vec::new();
        let mut next = 1;
        while next < sent.0.len() {
            let bytes: usize = sent.0[next..].iter().map(|(_, payload)| payload.len()).sum();
            assert!(bytes <= 0xffff, "more in flight than the window");
            sent.0[next..].iter().for_each(|(_, payload)| body.extend(payload));
            next = sent.0.len();
            acknowledgement = acknowledgement.wrapping_add(bytes as u32);
            responder.receive_segment(&segment(35, acknowledgement, ACK, &[]), &mut sent);
        }
        assert!(body.ends_with(&document::content(200_000)));
    }

    #[test]
    fn segment_of_no_connection_gets_a_reset() {
        let mut sent = Sent::default();
        let mut responder = Responder::new(Ipv4Addr::new(10, 80, 0, 2));
        responder.receive_segment(&segment(10, 77, ACK, b"late"), &mut sent);
        assert_eq!(sent.0[0].0, RST | ACK);
    }

    #[test]
    fn receive_truncated_frames_sends_nothing() {
        let mut sent = Sent::default();
        let mut responder = Responder::new(Ipv4Addr::new(10, 80, 0, 2));
        let mut frame = vec![0; VNET_HEADER_BYTES + 14];
        frame[VNET_HEADER_BYTES + 12] = 8;
        frame.extend([0x45, 0, 0, 60, 0, 0, 0, 0, 64, 6, 0, 0, 10, 80, 0, 1, 10, 80, 0, 2]);
        frame.extend([0xf0; 40]);
        for length in 0..frame.len() {
            responder.receive(&frame[..length], &mut sent);
        }
        assert!(sent.0.is_empty());
    }
}
