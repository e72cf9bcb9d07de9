//! Explicit congestion notification (RFC 3168) beside the kernel's: what SYNs agree on, marks that either side echoes and the other
//! answers, and what becomes of both where somebody does not want it.

use crate::assert_nothing_is_left;
use crate::bulk::{Opens, PORT, Traffic, kernels, kernels_part, our_part};
use crate::tap_port::{Bottleneck, Faults, LINUX, Left, interface, start};
use exos_net::Ecn;
use exovm_netns::in_namespace;
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsRawFd;

const BYTES: usize = (2 << 20) + 12_345;

/// A line whose queue overflows when 64 KiB are on their way, and marks long before that.
const NARROW: Bottleneck =
    Bottleneck { rate_bytes: 2_000_000, queue_bytes: 50_000, mark_above_bytes: 10_000 };
const MARKING: Faults = Faults { delay_ms: 2, bottleneck: Some(NARROW), ..Faults::NONE };

/// What the kernel does about ECN (net.ipv4.tcp_ecn): nothing, ask and agree, agree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kernels {
    Never = 0,
    Ask = 1,
    Agree = 2,
}

/// What the kernel says of a connection.
#[derive(Clone, Copy, Debug)]
struct Info {
    /// ECN was agreed on, and something that may be marked has come.
    agreed: bool,
    seen: bool,
    /// Segments sent again.
    retransmits: u32,
    /// Segments of its own that were reported as marked.
    delivered_marked: u32,
}

/// The kernel's `struct tcp_info`, of which libc has the beginning only.
fn info(socket: &TcpStream) -> Info {
    const OPTIONS: usize = 5;
    const TOTAL_RETRANS: usize = 100;
    const DELIVERED_CE: usize = 196;
    let (mut bytes, mut len) = ([0u8; 200], 200);
    // SAFETY: bytes and length live through the call, and the kernel writes no more than the length says.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_INFO,
            bytes.as_mut_ptr().cast(),
            &mut len,
        )
    };
    assert_eq!((result, len), (0, 200));
    let word = |at: usize| u32::from_ne_bytes(std::array::from_fn(|place| bytes[at + place]));
    Info {
        agreed: bytes[OPTIONS] & 8 != 0,
        seen: bytes[OPTIONS] & 16 != 0,
        retransmits: word(TOTAL_RETRANS),
        delivered_marked: word(DELIVERED_CE),
    }
}

/// A transfer, with what the kernel says at its end and what we and the wire have counted.
fn transfer(kernel: Kernels, us: Ecn, opens: Opens, traffic: Traffic, faults: Faults) -> (Info, Left) {
    std::fs::write("/proc/sys/net/ipv4/tcp_ecn", (kernel as u8).to_string()).expect("a namespace of our own");
    // BBR keeps its rate, whatever is marked.
    interface()
        .set_route_congestion_control(LINUX, 24, "cubic")
        .expect("a congestion control of the kernel's");
    let listener = (opens == Opens::We).then(|| TcpListener::bind(("0.0.0.0", PORT)).expect("free"));
    let running = start(
        faults,
        move |config| config.ecn = us,
        move |sockets, _| our_part(sockets, opens, traffic, BYTES),
    );
    let socket = kernels(listener);
    let same = socket.try_clone().expect("a socket");
    kernels_part(socket, traffic, BYTES);
    let info = info(&same);
    drop(same);
    let ((), left) = running.join();
    assert_nothing_is_left(&left);
    println!(
        "  the kernel: {kernel:?}, we: {us:?}, opened by {opens:?}, {traffic:?}: {info:?}, again {}",
        left.counters.retransmits
    );
    println!("    to us {:?}", left.wire[0]);
    println!("    from us {:?}", left.wire[1]);
    (info, left)
}

/// Who asks, when who opens does.
fn asking(opens: Opens) -> (Kernels, Ecn) {
    match opens {
        Opens::We => (Kernels::Agree, Ecn::Ask),
        Opens::Linux => (Kernels::Ask, Ecn::Agree),
    }
}

#[test]
fn where_a_queue_marks_nothing_is_lost_whoever_opens_and_whoever_sends() {
    in_namespace!(|| {
        for opens in [Opens::We, Opens::Linux] {
            let (kernel, us) = asking(opens);
            for traffic in [Traffic::Out, Traffic::In] {
                let (info, left) = transfer(kernel, us, opens, traffic, MARKING);
                let [to_us, from_us] = left.wire;
                let (data, acknowledgments) =
                    if traffic == Traffic::Out { (from_us, to_us) } else { (to_us, from_us) };
                assert!(info.agreed);
                assert_eq!((to_us.setups + from_us.setups, to_us.agreements + from_us.agreements), (1, 1));
                assert_eq!((to_us.overflowed, from_us.overflowed), (0, 0));
                // The marks were echoed, and the echoes answered, often enough to end them.
                assert!(data.marked > 0 && acknowledgments.echoes > 0 && data.reductions > 0);
                assert!(data.reductions <= data.marked);
                match traffic {
                    Traffic::Out => {
                        assert!(info.seen);
                        assert!(left.counters.congestion_echoes_answered >= data.reductions);
                    }
                    _ => {
                        assert!(info.delivered_marked > 0);
                        // What was sent again needlessly is no news.
                        assert!((1..=data.marked).contains(&left.counters.congestion_marks_in));
                        assert!(acknowledgments.echoes < left.counters.pure_acks_out, "CWR ends echoes");
                    }
                }
            }
        }
    });
}

#[test]
fn same_queue_loses_where_it_may_not_mark() {
    in_namespace!(|| {
        for (kernel, us) in
            [(Kernels::Never, Ecn::Ask), (Kernels::Ask, Ecn::Never), (Kernels::Agree, Ecn::Agree)]
        {
            let opens = if us == Ecn::Never { Opens::Linux } else { Opens::We };
            let (info, left) = transfer(kernel, us, opens, Traffic::Out, MARKING);
            let [to_us, from_us] = left.wire;
            assert!(!info.agreed && !info.seen);
            assert_eq!((to_us.capable, from_us.capable), (0, 0), "nothing may be marked");
            assert_eq!((to_us.agreements, from_us.agreements), (0, 0));
            assert!(from_us.overflowed > 0 && left.counters.retransmits >= from_us.overflowed);
        }
        let (info, left) = transfer(Kernels::Ask, Ecn::Never, Opens::Linux, Traffic::In, MARKING);
        assert!(left.wire[0].overflowed > 0 && info.retransmits > 0 && !info.agreed);
    });
}

#[test]
fn path_that_loses_syns_that_ask_is_crossed_without_asking() {
    let faults = Faults { loses_ecn_setup: true, ..Faults::NONE };
    in_namespace!(|| {
        for (opens, asker) in [(Opens::We, 1), (Opens::Linux, 0)] {
            let (kernel, us) = asking(opens);
            let (info, left) = transfer(kernel, us, opens, Traffic::Both, faults);
            assert!(!info.agreed && !info.seen);
            assert!(left.wire[asker].setups > 0, "it was asked for");
            assert_eq!(left.wire[0].capable + left.wire[1].capable, 0);
        }
    });
}
