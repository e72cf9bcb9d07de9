//! Frames to the forwarder, from clients, the server, routers and anybody.

use crate::adversary::frames::{is_whole_ipv4, sums_are_right};
use crate::input::Input;
use crate::network::{Ends, expected, frame};
use exos_forward::{Config, Forwarder, HEAD_BYTES, Meta, Offload, Outgoing, REQUEST_BYTES, Verdict};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Duration;

const OWN: ([u8; 6], Ipv4Addr) = ([2, 0, 0, 0, 0, 1], Ipv4Addr::new(10, 0, 0, 1));
const CLIENT: ([u8; 6], Ipv4Addr) = ([2, 0, 0, 0, 0, 2], Ipv4Addr::new(10, 0, 0, 2));
const SERVER: ([u8; 6], Ipv4Addr) = ([2, 0, 0, 0, 0, 3], Ipv4Addr::new(10, 0, 0, 3));
const MAX: u32 = 8;

/// What goes on is whole, from us, and as right as it came; what is remembered is bounded.
pub fn forward(bytes: &[u8]) {
    let mut input = Input(bytes);
    let to = SocketAddrV4::new(SERVER.1, 80);
    let config =
        Config { max_connections: MAX, ..Config::new(OWN.0, OWN.1, 24, 80, to, *b"0123456789abcdef") };
    let Ok(mut forwarder) = Forwarder::new(&config) else { return };
    let (mut now, mut near) = (Duration::ZERO, (4, 4));
    let (mut head, mut request) = ([0; HEAD_BYTES], [0; REQUEST_BYTES]);
    // The port by which the server knows the client that was forwarded last.
    let mut port = 0u16;
    while !input.is_empty() {
        let from_server = input.below(2) == 1;
        let ends = Ends { from: if from_server { SERVER } else { CLIENT }, to: OWN };
        let mut came = frame(&mut input, &ends, near);
        if from_server && is_whole_ipv4(&came) && came[23] == 6 && came.len() >= 54 && input.below(8) != 0 {
            // As an answer to what went there.
            came[34..36].copy_from_slice(&80u16.to_be_bytes());
            came[36..38].copy_from_slice(&port.to_be_bytes());
            crate::adversary::frames::finish(&mut came);
        }
        if input.below(4) == 0 {
            now += Duration::from_secs(u64::from(input.u16()));
        }
        let was_right = is_whole_ipv4(&came) && came.len() >= 54 && came[23] == 6 && sums_are_right(&came);
        let before = forwarder.counters().frames_in;
        let verdict = forwarder.forward(now, &came, &mut head, Meta::default());
        assert_eq!(forwarder.counters().frames_in, before + 1, "each frame is counted");
        if let Verdict::Send(Outgoing { headers_bytes, len_bytes, offload }) = verdict {
            assert!(headers_bytes <= HEAD_BYTES && headers_bytes <= len_bytes);
            assert!(len_bytes == headers_bytes || len_bytes <= came.len(), "the rest is the frame's");
            let mut goes = head[..headers_bytes].to_vec();
            goes.extend(came.get(headers_bytes..len_bytes).unwrap_or_default());
            assert_eq!(goes[6..12], OWN.0, "it is from us");
            assert_eq!(offload, Offload::None, "nobody asked for more");
            if was_right && is_whole_ipv4(&goes) {
                assert!(sums_are_right(&goes), "right checksums stay right: {goes:02x?}");
            }
            if is_whole_ipv4(&goes) && goes[23] == 6 && goes[..6] == SERVER.0 {
                port = u16::from_be_bytes([goes[34], goes[35]]);
            }
            near = expected(&goes).unwrap_or(near);
        }
        for _ in 0..4 {
            if !forwarder.poll(now, &mut request) {
                break;
            }
            assert_eq!(request[6..12], OWN.0);
        }
        assert!(forwarder.connections().iter().sum::<u32>() <= MAX && forwarder.connections_max() <= MAX);
    }
}
