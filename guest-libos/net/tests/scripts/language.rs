//! The script language itself: what a script says must be compared, and whatever is wrong with a script must be an
//! error that names the line.

use std::net::IpAddr;

use smoltcp::wire::{IpAddress, Ipv4Packet, Ipv6Packet, TcpOption as PeerOption, TcpPacket};

use crate::ip::{self, Family};
use crate::packet::{self, Around, Endpoints, Tcp, TcpOption};
use crate::{config, parse, run};

/// A connection is opened, a request comes, a response goes. The expectations are exact.
const GOOD: &str = "\
# A request and its response.
tolerance 0
listen 80
0       < S 0 win 1000 mss 500 ws 2
        > SA 0 ack 1 win 65535 mss 1460 ws 0
10ms    < A 1 ack 1
        = opened
20ms    < PA 1 ack 1 len 100
        = data 100
+5ms    send 700
        > A 1 ack 101 len 500 win 65435 ttl 64 tos 0
        > PA 501 ack 101 len 200
30ms    < A 101 ack 701
        = acked 700
check   bytes_in 100
";

fn outcome(text: &str) -> Result<(), String> {
    run::run(&parse::parse("test.pkt", text, config())?).map(drop).map(drop)
}

/// What is wrong when `from` in the good script is `to`.
fn error_with(from: &str, to: &str) -> String {
    assert!(GOOD.contains(from), "{from}");
    outcome(&GOOD.replacen(from, to, 1)).expect_err(to)
}

#[test]
fn good_script_passes() {
    outcome(GOOD).unwrap();
}

#[test]
fn wrong_expectation_of_a_segment_returns_the_field_with_both_values() {
    for (from, to, says) in [
        ("> PA 501", "> A 501", "flags: expected A, actual PA"),
        ("> PA 501", "> PA 502", "seq: expected 502, actual 501"),
        ("ack 101 len 200", "ack 102 len 200", "ack: expected 102, actual 101"),
        ("ack 101 len 200", "len 200", "ack: expected none, actual 101"),
        ("len 200", "len 201", "len: expected 201, actual 200"),
        ("win 65435", "win 65434", "win: expected 65434, actual 65435"),
        ("mss 1460 ws 0", "mss 1460 ws 1", "options: expected mss 1460 ws 1, actual mss 1460 ws 0"),
        ("mss 1460 ws 0", "mss 1460", "options: expected mss 1460, actual mss 1460 ws 0"),
        (
            "> PA 501 ack 101 len 200",
            "> PA 501 ack 101 len 200 sackok",
            "options: expected sackok, actual \n",
        ),
        ("ttl 64", "ttl 63", "ttl: expected 63, actual 64"),
        ("tos 0", "tos 4", "tos: expected 4, actual 0"),
        ("> PA 501 ack 101 len 200", "> PA 501 ack 101 len 200 urg 3", "urg: expected 3, actual none"),
    ] {
        let error = format!("{}\n", error_with(from, to));
        assert!(error.contains(says), "{says:?} is not in:\n{error}");
        assert!(error.starts_with("test.pkt:") && error.contains("so far:"), "{error}");
    }
}

#[test]
fn error_names_the_line_and_prints_the_packets_so_far() {
    let error = error_with("> PA 501", "> PA 502");
    assert!(error.starts_with("test.pkt:12: "), "{error}");
    assert!(error.contains("0.020000s < PA 1 len 100 ack 1"), "{error}");
    assert!(error.contains("0.025000s > A 1 len 500 ack 101 win 65435"), "{error}");
}

#[test]
fn output_that_nobody_expects_returns_error() {
    let error = error_with("        > PA 501 ack 101 len 200\n", "");
    assert!(error.starts_with("test.pkt:12: not expected: > PA 501 len 200"), "{error}");
    let at_the_end =
        GOOD.replace("30ms    < A 101 ack 701\n        = acked 700\ncheck   bytes_in 100\n", "40ms quiet\n");
    let at_the_end = at_the_end.replace("        > PA 501 ack 101 len 200\n40ms quiet\n", "");
    let error = outcome(&at_the_end).unwrap_err();
    assert!(error.starts_with("test.pkt: at the end: not expected: > PA 501 len 200"), "{error}");
}

#[test]
fn output_that_does_not_come_returns_error() {
    let error = error_with("30ms    <", "26ms    > A 1 ack 1\n30ms    <");
    assert!(error.contains("actual: nothing until 0.026000s"), "{error}");
}

#[test]
fn output_at_another_time_returns_error() {
    let late = GOOD.replace("30ms    < A 101 ack 701\n        = acked 700", "200ms   > A 1 ack 101 len 500");
    let error = outcome(&late.replace("check   bytes_in 100\n", "")).unwrap_err();
    assert!(error.contains("expected > A 1 len 500 ack 101\n  actual: nothing until 0.200000s"), "{error}");
    let range = |range: &str| {
        let text = GOOD.replace(
            "30ms    < A 101 ack 701\n        = acked 700",
            &format!("{range} > A 1 ack 101 len 500"),
        );
        outcome(&text)
    };
    range("200ms..300ms").unwrap();
    assert!(range("300ms..400ms").unwrap_err().contains("expected from 0.300000s to 0.400000s, actual 0.2"));
}

#[test]
fn segment_during_quiet_returns_error() {
    let error = error_with("30ms    < A 101 ack 701", "400ms   quiet\n 401ms   < A 101 ack 701");
    assert!(error.contains("not expected: > A 1 len 500"), "{error}");
}

#[test]
fn events_that_are_wrong_missing_or_not_expected_return_error() {
    assert!(error_with("= data 100", "= data 99").contains("expected = data 99\n  actual: = data 100"));
    assert!(error_with("= acked 700", "= acked 600").contains("actual: no event"));
    assert!(error_with("        = data 100\n", "").contains("not expected: = data 100"));
    assert!(error_with("= opened", "= peer_closed").contains("actual: = opened"));
    assert!(
        error_with("check   bytes_in 100", "check bytes_in 101")
            .contains("bytes_in: expected 101, actual 100")
    );
}

#[test]
fn calls_that_fail_and_calls_that_should_return_error() {
    let with = |line: &str| error_with("+5ms    send 700", &format!("{line}\n+5ms    send 700"));
    assert!(with("listen 80").contains("expected no error, actual InUse"));
    assert!(with("listen 81 fails InUse").contains("expected the error InUse, but the call succeeded"));
    assert!(with("listen 80 fails PortZero").contains("expected PortZero, actual InUse"));
    assert!(with("consume 1").contains("only 0 bytes are kept"));
    assert!(error_with("listen 80\n", "listen 80\nclose\n").contains("there is no connection"));
}

#[test]
fn payload_that_is_not_the_stream_returns_error() {
    // The peer sends byte 1 again where byte 101 should be.
    let frame = {
        let ends = ends(Family::V4);
        let mut tcp = Tcp { flags: packet::ACK, seq: 1, ack: Some(1), len: 10, ..Tcp::default() };
        let first = packet::build(&tcp, &ends, 1000);
        tcp.seq = 101;
        (first, packet::build(&tcp, &ends, 1000))
    };
    assert_ne!(frame.0[54..], frame.1[54..]);
    let mut ours = frame.0.clone();
    ours[6..12].copy_from_slice(&ip::HOST_MAC);
    let ends = ends(Family::V4);
    let (IpAddr::V4(host), IpAddr::V4(peer)) = (ends.host_ip, ends.peer_ip) else { panic!("not of IPv4") };
    let mut packet = Ipv4Packet::new_unchecked(&mut ours[14..]);
    packet.set_src_addr(host);
    packet.set_dst_addr(peer);
    packet.fill_checksum();
    TcpPacket::new_unchecked(packet.payload_mut()).fill_checksum(&host.into(), &peer.into());
    let error = packet::Seen::parse(&ours).unwrap().relative(&ends).unwrap_err();
    assert!(error.contains("is not what was sent"), "{error}");
}

#[test]
fn text_that_is_no_script_returns_error() {
    for (from, to, says) in [
        ("# A request and its response.\n", "", "begins with a comment"),
        ("listen 80", "lisen 80", "unknown word \"lisen\""),
        ("listen 80", "listen", "listen: a value is missing"),
        ("listen 80", "listen 80 81", "unknown word \"81\""),
        ("tolerance 0", "tolerance 5", "is no time"),
        ("tolerance 0", "config speed 5", "unknown setting \"speed\""),
        ("tolerance 0", "config mtu high", "\"high\" is no value"),
        ("10ms    <", "10      <", "is no time"),
        ("20ms    <", "5ms     <", "it is 0.010000s already"),
        ("20ms    <", "20ms..30ms <", "a range of time is for what is expected"),
        ("= opened", "= open", "unknown event \"open\""),
        ("< A 1 ack 1", "< X 1 ack 1", "unknown flags \"X\""),
        ("< A 1 ack 1", "< A one ack 1", "\"one\" is no value"),
        ("< A 1 ack 1", "< A 1 ack 1 wnd 5", "unknown word \"wnd\""),
        ("> PA 501", "> PA 501 nop", "unknown word \"nop\""),
        ("< A 1 ack 1", "@b < A 1 ack 1", "no peer is called \"b\""),
        ("check   bytes_in 100", "check   bytes 100", "there is no counter bytes"),
        ("< A 1 ack 1", "< icmp 3 1", "quotes a segment"),
        ("mss 500", "raw 0g", "no hexadecimal string"),
        ("tolerance 0", "only ipv4", "why not over the other one"),
        ("tolerance 0", "only ipv5 because", "one of: ipv4, ipv6"),
        ("10ms    <", "only ipv4 too late\n10ms    <", "come after this line"),
    ] {
        let error = error_with(from, to);
        assert!(error.starts_with("test.pkt:") && error.contains(says), "{says:?} is not in:\n{error}");
    }
    let nothing = "# Expects nothing.\nlisten 80\n";
    assert!(outcome(nothing).unwrap_err().contains("it cannot fail"));
}

fn ends(family: Family) -> Endpoints {
    Endpoints {
        host_ip: family.host(),
        peer_ip: family.peer(),
        peer_port: 40_000,
        local_port: 80,
        peer_isn: 7,
        host_isn: 9,
    }
}

/// What scripts send is what smoltcp reads.
#[test]
fn segment_built_then_read_by_smoltcp_returns_same() {
    let tcp = Tcp {
        flags: packet::SYN | packet::ACK,
        seq: 0,
        ack: Some(1),
        len: 3,
        options: vec![
            TcpOption::Mss(1234),
            TcpOption::Nop,
            TcpOption::WindowScale(7),
            TcpOption::SackPermitted,
            TcpOption::Timestamp(Some(5), Some(6)),
            TcpOption::Sack(vec![(2, 4)]),
        ],
        around: Around { ttl: Some(3), tos: Some(0xba), ip_options: vec![1, 1, 1], ..Around::default() },
        ..Tcp::default()
    };
    let frame = packet::build(&tcp, &ends(Family::V4), 777);
    let ip = Ipv4Packet::new_checked(&frame[14..]).unwrap();
    assert!(ip.verify_checksum() && ip.header_len() == 24 && ip.hop_limit() == 3);
    check_segment(ip.payload(), ip.src_addr().into(), ip.dst_addr().into());

    let frame = packet::build(&tcp, &ends(Family::V6), 777);
    let ip = Ipv6Packet::new_checked(&frame[14..]).unwrap();
    assert_eq!((ip.hop_limit(), ip.traffic_class(), ip.total_len()), (3, 0xba, frame.len() - 14));
    check_segment(ip.payload(), ip.src_addr().into(), ip.dst_addr().into());
}

fn check_segment(bytes: &[u8], source: IpAddress, destination: IpAddress) {
    let segment = TcpPacket::new_checked(bytes).unwrap();
    assert!(segment.verify_checksum(&source, &destination));
    assert_eq!((segment.src_port(), segment.dst_port(), segment.window_len()), (40_000, 80, 777));
    assert_eq!((segment.seq_number().0, segment.ack_number().0, segment.payload().len()), (7, 10, 3));
    let mut rest = segment.options();
    let mut seen = Vec::new();
    while !rest.is_empty() {
        let (after, option) = PeerOption::parse(rest).unwrap();
        seen.push(format!("{option:?}"));
        rest = after;
    }
    let expected = [
        "MaxSegmentSize(1234)",
        "NoOperation",
        "WindowScale(7)",
        "SackPermitted",
        "TimeStamp { tsval: 5, tsecr: 6 }",
        "SackRange([Some((11, 13)), None, None])",
    ];
    assert_eq!(seen[..expected.len()], expected);
}
