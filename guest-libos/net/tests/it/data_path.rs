//! How data leaves: by reference, read anew each time, gathered, cut by the device, with stored sums; and what happens
//! when the device is full.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use exos_net::wire::checksum::sum_bytes;
use exos_net::{
    AckPolicy, Config, ConnId, ControlFrame, Data, Full, MAX_PIECES, MAX_TSO_BYTES, Transmit, TxChecksum,
    TxSegment,
};

use crate::harness::{Client, Host, MSS, Nic, config, pattern};

type StaticHost = Host<&'static [u8]>;

fn connected<D: Data>(config: Config) -> (Host<D>, Client, ConnId) {
    let mut host = Host::with(config);
    let mut client = Client::default();
    let conn = client.connect(&mut host);
    (host, client, conn)
}

fn offload() -> Config {
    Config { tso_max_bytes: 65_000, tx_checksum: TxChecksum::Offload, ..config() }
}

/// A page that changes under the stack's hands, and counts who reads it.
#[derive(Clone)]
struct Page(Rc<PageContent>);

struct PageContent {
    /// Two contents; the second is shown once `changed` is set.
    contents: [Vec<u8>; 2],
    changed: Cell<bool>,
    reads: Cell<usize>,
    sums: Cell<usize>,
    has_sums: bool,
}

impl Page {
    fn new(has_sums: bool) -> Self {
        Self(Rc::new(PageContent {
            contents: [pattern(3_001).to_vec(), vec![0xee; 3_001]],
            changed: Cell::new(false),
            reads: Cell::new(0),
            sums: Cell::new(0),
            has_sums,
        }))
    }
}

impl Data for Page {
    fn len(&self) -> usize {
        3_001
    }

    fn bytes(&self) -> &[u8] {
        self.0.reads.set(self.0.reads.get() + 1);
        &self.0.contents[usize::from(self.0.changed.get())]
    }

    fn stored_sum(&self, offset: usize, len: usize) -> Option<u16> {
        self.0.sums.set(self.0.sums.get() + 1);
        self.0.has_sums.then(|| sum_bytes(&self.0.contents[0][offset..offset + len]))
    }
}

#[test]
fn retransmission_reads_the_page_again() {
    let (mut host, client, conn) = connected(config());
    let page = Page::new(false);
    host.stack.send(conn, page.clone()).unwrap();
    assert_eq!(page.0.reads.get(), 0, "queueing reads nothing");
    host.output(conn, AckPolicy::Merge);
    let seen = client.seen(&mut host);
    assert_eq!(seen[0].payload, &page.0.contents[0][..MSS]);
    page.0.changed.set(true);
    host.wait_ms(250);
    assert_eq!(client.seen(&mut host)[0].payload, vec![0xee; MSS]);
}

#[test]
fn offloaded_data_is_neither_read_nor_summed_by_the_stack() {
    struct Blind(usize);
    impl Transmit<Page> for Blind {
        fn transmit(&mut self, segment: TxSegment<'_, Page>) -> Result<(), Full> {
            self.0 += segment.payload.map(|piece| piece.len).sum::<usize>();
            Ok(())
        }
        fn transmit_control(&mut self, _: &ControlFrame<'_>) -> Result<(), Full> {
            Ok(())
        }
    }
    let (mut host, _, conn) = connected(offload());
    let page = Page::new(true);
    host.stack.send(conn, page.clone()).unwrap();
    let mut nic = Blind(0);
    host.stack.output(conn, host.now, &mut nic, AckPolicy::Merge).unwrap();
    assert_eq!((nic.0, page.0.reads.get(), page.0.sums.get()), (3_001, 0, 0));
    assert_eq!(host.stack.counters().bytes_summed, 0);
}

#[test]
fn stored_sums_replace_summing() {
    let (mut host, client, conn) = connected(config());
    let page = Page::new(true);
    // Three pages make odd offsets; the client verifies the checksums.
    for _ in 0..3 {
        host.stack.send(conn, page.clone()).unwrap();
    }
    host.output(conn, AckPolicy::Merge);
    let bytes: Vec<u8> = client.seen(&mut host).into_iter().flat_map(|segment| segment.payload).collect();
    assert_eq!(bytes, page.0.contents[0].repeat(3));
    assert_eq!(host.stack.counters().bytes_summed, 0);
    assert!(page.0.sums.get() >= 7);
}

#[test]
fn acknowledged_pages_are_released() {
    let (mut host, client, conn) = connected(config());
    let pages = [Page::new(false), Page::new(false)];
    for page in &pages {
        host.stack.send(conn, page.clone()).unwrap();
    }
    host.output(conn, AckPolicy::Merge);
    host.input(&client.ack(1, 3_001)).events();
    assert_eq!(pages.each_ref().map(|page| Rc::strong_count(&page.0)), [2, 2]);
    let events = host.input(&client.ack(1, 3_002)).events();
    assert!(!events.low_water);
    assert_eq!(pages.each_ref().map(|page| Rc::strong_count(&page.0)), [1, 2]);
    assert!(host.input(&client.ack(1, 6_003)).events().low_water);
    assert_eq!(pages.each_ref().map(|page| Rc::strong_count(&page.0)), [1, 1]);
}

#[test]
fn low_water_is_reported_when_an_acknowledgment_crosses_the_mark_and_only_then() {
    let (mut host, client, conn) = connected::<&'static [u8]>(config());
    host.stack.set_low_water(conn, 2_000).unwrap();
    let acknowledge =
        |host: &mut StaticHost, until: u32| host.input(&client.ack(1, until)).events().low_water;
    host.stack.send(conn, pattern(4_000)).unwrap();
    host.output(conn, AckPolicy::Merge);
    assert!(!acknowledge(&mut host, 2_000), "2,001 bytes are queued");
    assert!(acknowledge(&mut host, 2_001), "2,000 are");
    assert!(!acknowledge(&mut host, 3_001), "the mark lies above");
    // Filled up to the mark: nothing was above it.
    host.stack.send(conn, pattern(1_000)).unwrap();
    host.output(conn, AckPolicy::Merge);
    assert!(!acknowledge(&mut host, 4_001));
    host.stack.send(conn, pattern(1_001)).unwrap();
    host.output(conn, AckPolicy::Merge);
    // The last acknowledgment, past the mark, is reported as well.
    assert!(acknowledge(&mut host, 6_002));
}

#[test]
fn low_water_of_a_new_connection_in_the_same_place_is_zero_again() {
    let (mut host, client, conn) = connected::<&'static [u8]>(config());
    host.stack.set_low_water(conn, 2_000).unwrap();
    host.input(&client.rst(1)).events();
    assert!(!host.stack.is_alive(conn));
    assert!(host.stack.set_low_water(conn, 1).is_err());
    let mut client = Client::on_port(40_001);
    let conn = client.connect(&mut host);
    host.stack.send(conn, pattern(1_000)).unwrap();
    host.output(conn, AckPolicy::Merge);
    assert!(!host.input(&client.ack(1, 1_000)).events().low_water);
    assert!(host.input(&client.ack(1, 1_001)).events().low_water);
}

#[test]
fn body_produced_at_the_low_water_mark_keeps_the_wire_busy_with_a_short_queue() {
    const TOTAL: usize = 1 << 20;
    const PAGE: usize = 4_096;
    const MARK: usize = 8 * PAGE;
    let source = pattern(TOTAL);
    // The client acknowledges by the count of what it has seen.
    let (mut host, client, conn) = connected::<&'static [u8]>(Config { withhold_every: 0, ..offload() });
    host.stack.set_low_water(conn, MARK).unwrap();
    let (mut produced, mut received) = (0, Vec::new());
    let mut refill = true;
    while received.len() < TOTAL {
        while refill && produced < TOTAL && host.stack.unacked_bytes(conn) < 2 * MARK {
            host.stack.send(conn, &source[produced..produced + PAGE]).unwrap();
            produced += PAGE;
        }
        host.output(conn, AckPolicy::Merge);
        let segments = client.seen(&mut host);
        assert!(!segments.is_empty(), "the wire fell silent at {} of {produced}", received.len());
        assert!(host.stack.unacked_bytes(conn) < 2 * MARK + PAGE);
        received.extend(segments.into_iter().flat_map(|segment| segment.payload));
        refill = host.input(&client.ack(1, 1 + received.len() as u32)).events().low_water;
    }
    assert!(received == source);
}

#[test]
fn pages_of_a_reset_connection_are_released() {
    let (mut host, client, conn) = connected(config());
    let page = Page::new(false);
    host.stack.send(conn, page.clone()).unwrap();
    host.output(conn, AckPolicy::Merge);
    host.input(&client.rst(1)).events();
    assert_eq!(Rc::strong_count(&page.0), 1);
}

#[test]
fn header_and_body_leave_in_one_segment() {
    let (mut host, client, conn) = connected::<&'static [u8]>(config());
    host.input(&client.data(1, 1, b"GET")).events();
    for part in [&b"HTTP/1.1 200 OK\r\n"[..], b"", b"\r\n", b"body"] {
        host.stack.send(conn, part).unwrap();
    }
    let sent = host.output(conn, AckPolicy::IfDue);
    assert_eq!((sent.segments, sent.bytes, sent.blocked), (1, 23, false));
    assert_eq!(client.seen_one(&mut host).payload, b"HTTP/1.1 200 OK\r\n\r\nbody");
}

#[test]
fn many_small_pieces_are_spread_over_segments() {
    let (mut host, client, conn) = connected::<&'static [u8]>(config());
    for _ in 0..20 {
        host.stack.send(conn, b"ab").unwrap();
    }
    host.output(conn, AckPolicy::Merge);
    let lens: Vec<_> = client.seen(&mut host).iter().map(|segment| segment.payload.len()).collect();
    assert_eq!(lens, [2 * MAX_PIECES, 2 * MAX_PIECES, 8]);
}

#[test]
fn large_segments_are_whole_multiples_of_the_mss() {
    struct Sizes(Vec<(usize, Option<u16>)>);
    impl Transmit<&'static [u8]> for Sizes {
        fn transmit(&mut self, segment: TxSegment<'_, &'static [u8]>) -> Result<(), Full> {
            assert_eq!(segment.checksum.map(|request| (request.start, request.offset)), Some((34, 16)));
            self.0.push((segment.payload.len(), segment.gso.map(|gso| gso.mss)));
            Ok(())
        }
        fn transmit_control(&mut self, _: &ControlFrame<'_>) -> Result<(), Full> {
            Ok(())
        }
    }
    let mut host = StaticHost::with(offload());
    for (port, window, expected) in [(1, 65_535, 10 * MSS), (2, 4_000, 2 * MSS)] {
        let conn = Client { window, ..Client::on_port(port) }.connect(&mut host);
        host.stack.send(conn, pattern(14_000)).unwrap();
        host.stack.send(conn, pattern(100_000)).unwrap();
        let mut nic = Sizes(Vec::new());
        host.stack.output(conn, host.now, &mut nic, AckPolicy::Merge).unwrap();
        assert_eq!(nic.0, [(expected, Some(1460))]);
    }
}

#[test]
fn segments_cut_by_the_device_arrive_whole() {
    let (mut host, client, conn) =
        connected::<&'static [u8]>(Config { tso_max_bytes: MAX_TSO_BYTES, ..offload() });
    let data = pattern(1 << 20);
    host.stack.send(conn, data).unwrap();
    host.stack.close(conn).unwrap();
    host.output(conn, AckPolicy::Merge);
    let mut received = Vec::new();
    let mut fins = 0;
    while received.len() < data.len() {
        for segment in client.seen(&mut host) {
            assert_eq!(segment.seq as usize, 1 + received.len());
            assert!(segment.payload.len() <= MSS);
            received.extend(segment.payload);
            fins += usize::from(segment.flags.contains('F'));
        }
        host.input(&client.ack(1, 1 + received.len() as u32)).events();
        host.output(conn, AckPolicy::Merge);
    }
    assert!(received == data);
    assert_eq!(fins, 1);
    assert!(host.nic.gso_frames > 10);
    assert!((host.stack.counters().segments_out as usize) < 60);
}

#[test]
fn full_device_loses_nothing() {
    let (mut host, client, conn) = connected::<&'static [u8]>(config());
    let data = pattern(10_000);
    host.stack.send(conn, data).unwrap();
    host.stack.close(conn).unwrap();
    host.nic.room = Some(0);
    let sent = host.output(conn, AckPolicy::Merge);
    assert_eq!((sent.segments, sent.blocked), (0, true));
    let mut received = Vec::new();
    for _ in 0..20 {
        host.nic.room = Some(1);
        host.stack.retry_blocked(host.now, &mut host.nic);
        received.extend(client.seen(&mut host).into_iter().flat_map(|segment| segment.payload));
    }
    assert!(received == data);
    assert_eq!(host.stack.counters().retransmits, 0);
    host.nic.room = None;
    host.stack.retry_blocked(host.now, &mut host.nic);
    assert!(host.nic.frames.is_empty());
}

#[test]
fn full_device_keeps_the_acknowledgment_owed() {
    let (mut host, client, conn) = connected::<&'static [u8]>(config());
    host.input(&client.data(1, 1, pattern(1_460))).events();
    host.nic.room = Some(0);
    assert!(host.output(conn, AckPolicy::Now).blocked);
    // The delayed-ACK timer meets the full device too.
    host.wait_ms(100);
    host.nic.room = None;
    host.input(&client.data(1_461, 1, pattern(1_460))).events();
    host.stack.retry_blocked(host.now, &mut host.nic);
    assert_eq!(client.seen_one(&mut host).ack, 2_921);
}

#[test]
fn delayed_acknowledgment_that_meets_a_full_device_is_sent_at_the_retry() {
    let (mut host, client, conn) = connected::<&'static [u8]>(config());
    host.input(&client.data(1, 1, b"x")).events();
    host.nic.room = Some(0);
    host.wait_ms(100);
    assert_eq!(host.stack.next_deadline(), None, "{conn:?}");
    host.nic.room = None;
    host.stack.retry_blocked(host.now, &mut host.nic);
    assert_eq!(client.seen_one(&mut host).ack, 2);
}

#[test]
fn full_device_at_a_timeout_is_retried() {
    let (mut host, client, conn) = connected::<&'static [u8]>(config());
    host.stack.send(conn, b"x").unwrap();
    host.output(conn, AckPolicy::Merge);
    host.nic.frames.clear();
    host.nic.room = Some(0);
    host.wait_ms(250);
    host.nic.room = None;
    host.stack.retry_blocked(host.now, &mut host.nic);
    assert_eq!(client.seen_one(&mut host).payload, b"x");
}

#[test]
fn blocked_connections_take_turns_in_order() {
    let mut host = StaticHost::with(config());
    let mut clients = Vec::new();
    host.nic.room = Some(0);
    for port in 1..=3 {
        let mut client = Client::on_port(port);
        let conn = client.connect(&mut host);
        host.stack.send(conn, b"x").unwrap();
        assert!(host.output(conn, AckPolicy::Merge).blocked);
        clients.push(client);
    }
    for client in &clients {
        host.nic.room = Some(1);
        host.stack.retry_blocked(host.now, &mut host.nic);
        client.seen_one(&mut host);
    }
}

#[test]
fn payload_references_can_be_kept_beyond_the_call() {
    /// A driver keeps clones until its device has read them.
    struct Later(RefCell<Vec<(Page, usize, usize)>>);
    impl Transmit<Page> for Later {
        fn transmit(&mut self, segment: TxSegment<'_, Page>) -> Result<(), Full> {
            let pieces = segment.payload.map(|piece| (piece.data.clone(), piece.offset, piece.len));
            self.0.borrow_mut().extend(pieces);
            Ok(())
        }
        fn transmit_control(&mut self, _: &ControlFrame<'_>) -> Result<(), Full> {
            Ok(())
        }
    }
    let (mut host, _, conn) = connected(offload());
    host.stack.send(conn, Page::new(false)).unwrap();
    let mut nic = Later(RefCell::default());
    host.stack.output(conn, host.now, &mut nic, AckPolicy::Merge).unwrap();
    host.stack.abort(conn);
    let kept = nic.0.into_inner();
    assert_eq!(
        kept.iter().map(|(page, offset, len)| page.bytes()[*offset..][..*len].len()).sum::<usize>(),
        3_001
    );
    let _ = Nic::default();
}
