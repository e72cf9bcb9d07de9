//! ECN over IPv6, whose field lies across two octets (RFC 3168 5, RFC 8200 3).

use exos_net::wire::Ecn;
use exos_net::wire::ipv6::Packet;
use exos_net::wire::tcp::Segment;
use exos_net::{AckPolicy, ConnId, Dscp};

use super::fragments::part;
use super::traffic::Client6;
use super::*;
use crate::harness::pattern;

/// A connection whose SYNs agreed.
fn connect(host: &mut StaticHost, client: &mut Client6) -> ConnId {
    let syn_ack = host.input(&client.frame("SEC", 0, 0, b"")).reply();
    let payload = read(&syn_ack).payload;
    let segment = Segment::parse(&payload, None).unwrap();
    assert!(segment.ece && !segment.cwr);
    client.our_isn = segment.sequence.value();
    host.input(&client.frame("A", 1, 1, b"")).events().conn
}

fn with_field(mut frame: Vec<u8>, field: u8) -> Vec<u8> {
    frame[15] |= field << 4;
    frame
}

/// The one frame that left: its ECN field, and whether it echoes a mark.
fn left(host: &mut StaticHost) -> (Ecn, bool) {
    assert_eq!(host.nic.frames.len(), 1);
    let frame = host.nic.frames.pop_front().unwrap();
    let ecn = Packet::parse(&frame[14..]).unwrap().ecn();
    let payload = read(&frame).payload;
    (ecn, Segment::parse(&payload, None).unwrap().ece)
}

#[test]
fn new_data_may_be_marked_and_marks_are_echoed() {
    let mut host = settled();
    let mut client = Client6::on_port(40_000);
    let conn = connect(&mut host, &mut client);
    host.stack.set_dscp(conn, Dscp::new(0x2f).unwrap()).unwrap();
    host.stack.send(conn, b"x").unwrap();
    host.output(conn, AckPolicy::Merge);
    // Version, codepoint and field.
    assert_eq!(host.nic.frames[0][14..16], [0x6b, 0xe0]);
    assert_eq!(left(&mut host), (Ecn::Capable0, false));
    for (field, echoes) in [(2, false), (3, true)] {
        let sequence = 1 + u32::from(echoes);
        host.input(&with_field(client.frame("A", sequence, 2, b"y"), field)).events();
        host.output(conn, AckPolicy::Now);
        assert_eq!(left(&mut host), (Ecn::NotCapable, echoes));
    }
}

#[test]
fn mark_on_a_fragment_is_echoed() {
    let mut host = settled();
    let mut client = Client6::on_port(40_000);
    let conn = connect(&mut host, &mut client);
    let frame = client.frame("A", 1, 1, pattern(2_000));
    let segment = &frame[54..];
    host.input(&with_field(part(6, 7, 0, true, &segment[..1_440]), 3)).assert_nothing();
    host.input(&with_field(part(6, 7, 1_440, false, &segment[1_440..]), 2)).events();
    host.output(conn, AckPolicy::Now);
    assert_eq!(left(&mut host), (Ecn::NotCapable, true));
}
