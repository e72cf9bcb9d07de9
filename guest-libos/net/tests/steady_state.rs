//! In steady state nothing is allocated: a thousand requests and responses, their acknowledgments and timers, counted by
//! the allocator itself; and an idle connection holds next to nothing. A test binary of its own, because it replaces the global allocator.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use exos_net::{
    AckPolicy, Config, ControlFrame, Duration, Full, Input, Instant, MacAddress, RxChecksum, RxMeta, Stack,
    Transmit, TxChecksum, TxSegment,
};

thread_local! {
    static ALLOCATIONS: Cell<usize> = const { Cell::new(0) };
    /// Bytes allocated and not freed.
    static HELD: Cell<usize> = const { Cell::new(0) };
}

struct Counting;

// SAFETY: every call is passed on to the system's allocator with its arguments unchanged; the counters are
// thread-locals without destructor, so touching them allocates nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.with(|count| count.set(count.get() + 1));
        HELD.with(|held| held.set(held.get().wrapping_add(layout.size())));
        // SAFETY: the caller's promises about `layout` are passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        HELD.with(|held| held.set(held.get().wrapping_sub(layout.size())));
        // SAFETY: `pointer` came from `alloc` above, which is the system's.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

#[derive(Default)]
struct Wire {
    segments: u32,
    server_isn: u32,
}

impl Transmit<&'static [u8]> for Wire {
    fn transmit(&mut self, segment: TxSegment<'_, &'static [u8]>) -> Result<(), Full> {
        assert_eq!(segment.payload.map(|piece| piece.bytes().len()).sum::<usize>(), 500);
        self.segments += 1;
        Ok(())
    }

    fn transmit_control(&mut self, frame: &ControlFrame<'_>) -> Result<(), Full> {
        let head = frame.head();
        self.server_isn = u32::from_be_bytes([head[38], head[39], head[40], head[41]]);
        Ok(())
    }
}

const META: RxMeta = RxMeta { checksum: RxChecksum::AllValid };

fn frame(flags: u8, seq: u32, ack: u32, payload: usize) -> Vec<u8> {
    let mut frame = vec![0; 54 + payload];
    frame[..6].copy_from_slice(&[2, 0, 0, 0, 0, 1]);
    frame[6..12].copy_from_slice(&[2, 0, 0, 0, 0, 2]);
    frame[12] = 8;
    frame[14] = 0x45;
    frame[16..18].copy_from_slice(&(40 + payload as u16).to_be_bytes());
    frame[23] = 6;
    frame[26..34].copy_from_slice(&[10, 0, 0, 2, 10, 0, 0, 1]);
    frame[35] = 99;
    frame[37] = 80;
    frame[38..42].copy_from_slice(&seq.to_be_bytes());
    frame[42..46].copy_from_slice(&ack.to_be_bytes());
    frame[46] = 0x50;
    frame[47] = flags;
    frame[48] = 0xff;
    frame
}

#[test]
fn requests_in_steady_state_allocate_nothing() {
    let mut config = Config::new(MacAddress([2, 0, 0, 0, 0, 1]), [10, 0, 0, 1].into(), 24, [1; 16]);
    config.tx_checksum = TxChecksum::Offload;
    let mut stack = Stack::<&'static [u8]>::new(config, Instant::ZERO).unwrap();
    stack.listen(80).unwrap();
    let mut wire = Wire::default();
    let mut now = Instant::ZERO;
    let syn = frame(2, 0, 0, 0);
    let Input::Reply(syn_ack) = stack.input(now, &syn, META) else { panic!("no SYN-ACK") };
    wire.transmit_control(&syn_ack).unwrap();
    let mut ack = wire.server_isn.wrapping_add(1);
    let Input::Segment(_) = stack.input(now, &frame(16, 1, ack, 0), META) else { panic!("not opened") };

    let mut seq = 1;
    let mut request = frame(24, seq, ack, 100);
    let mut after_warm_up = 0;
    for round in 0..1_100 {
        if round == 100 {
            after_warm_up = ALLOCATIONS.with(Cell::get);
        }
        request[38..42].copy_from_slice(&u32::to_be_bytes(seq));
        request[42..46].copy_from_slice(&ack.to_be_bytes());
        let Input::Segment(events) = stack.input(now, &request, META) else { panic!("no events") };
        assert_eq!(events.data.len(), 100);
        let conn = events.conn;
        // Every third request is not used up at once.
        if round % 3 == 0 {
            stack.keep(conn, &request[54 + 40..]).unwrap();
            stack.consume(conn, 60).unwrap();
        }
        stack.send(conn, &[7; 200]).unwrap();
        stack.send(conn, &[8; 300]).unwrap();
        stack.output(conn, now, &mut wire, AckPolicy::IfDue).unwrap();
        seq += 100;
        ack = ack.wrapping_add(500);
        now += Duration::from_millis(7);
        stack.expire(now, &mut wire, |_, event| panic!("{event:?}"));
    }
    assert_eq!(ALLOCATIONS.with(Cell::get) - after_warm_up, 0);
    assert_eq!(wire.segments, 1_100);
    assert_eq!(stack.counters().retransmits, 0);
}

#[test]
fn flood_of_syns_allocates_nothing_once_the_backlog_is_full() {
    let config = Config::new(MacAddress([2, 0, 0, 0, 0, 1]), [10, 0, 0, 1].into(), 24, [1; 16]);
    let backlog = config.max_half_open;
    let mut stack = Stack::<&'static [u8]>::new(config, Instant::ZERO).unwrap();
    stack.listen(80).unwrap();
    let mut syn = frame(2, 0, 0, 0);
    let mut full_at = 0;
    for number in 0..100_000 {
        if number == backlog {
            full_at = ALLOCATIONS.with(Cell::get);
        }
        syn[28..30].copy_from_slice(&(2 + (number >> 15) as u16).to_be_bytes());
        syn[34..36].copy_from_slice(&(1 + (number & 0x7fff) as u16).to_be_bytes());
        let Input::Reply(_) = stack.input(Instant::ZERO, &syn, META) else { panic!("no SYN-ACK") };
    }
    assert_eq!(ALLOCATIONS.with(Cell::get) - full_at, 0);
    assert_eq!(
        (stack.half_open() as u32, stack.counters().syn_cookies_sent),
        (backlog, 100_000 - u64::from(backlog))
    );
}

/// A server that closes first, a connection per request: nothing is allocated but room for records, and each of them, with
/// its share of the tables at their worst, just after they have grown, takes less than 64 bytes.
#[test]
fn connections_one_after_another_leave_less_than_64_bytes_each_in_time_wait() {
    const CONNECTIONS: u16 = 7_169;
    let config = Config::new(MacAddress([2, 0, 0, 0, 0, 1]), [10, 0, 0, 1].into(), 24, [1; 16]);
    let mut stack = Stack::<&'static [u8]>::new(config, Instant::ZERO).unwrap();
    stack.listen(80).unwrap();
    let mut wire = Wire::default();
    let (mut before, mut allocations) = (0, 0);
    for port in 0..=CONNECTIONS {
        let from = |mut frame: Vec<u8>| {
            frame[34..36].copy_from_slice(&(port + 1).to_be_bytes());
            frame
        };
        let syn = from(frame(2, 0, 0, 0));
        let request = from(frame(24, 1, 0, 100));
        let fin = from(frame(17, 101, 0, 0));
        let held = (HELD.with(Cell::get), ALLOCATIONS.with(Cell::get));
        let (syn, mut request, mut fin) = (syn, request, fin);
        let Input::Reply(syn_ack) = stack.input(Instant::ZERO, &syn, META) else { panic!("no SYN-ACK") };
        wire.transmit_control(&syn_ack).unwrap();
        let ack = wire.server_isn.wrapping_add(1);
        request[42..46].copy_from_slice(&ack.to_be_bytes());
        let Input::Segment(events) = stack.input(Instant::ZERO, &request, META) else { panic!("not opened") };
        let conn = events.conn;
        stack.send(conn, &[7; 500]).unwrap();
        stack.close(conn).unwrap();
        stack.output(conn, Instant::ZERO, &mut wire, AckPolicy::Merge).unwrap();
        fin[42..46].copy_from_slice(&ack.wrapping_add(501).to_be_bytes());
        let Input::Segment(events) = stack.input(Instant::ZERO, &fin, META) else { panic!("no events") };
        assert!(events.ended.is_some() && events.last_ack.is_some());
        // The first one leaves its place and its backlog to all others.
        if port > 0 {
            before += HELD.with(Cell::get).wrapping_sub(held.0);
            allocations += ALLOCATIONS.with(Cell::get) - held.1;
        }
    }
    assert_eq!(stack.time_wait(), usize::from(CONNECTIONS) + 1);
    let each = before as f64 / f64::from(CONNECTIONS);
    println!("{each:.1} bytes held a record in TIME-WAIT, {allocations} allocations for all");
    assert!(each < 64.0, "{each}");
    // A piece for 256 records each, the list of them, and the doublings of the hash table.
    assert!(allocations < 64, "{allocations}");
}

/// As many as fill a table that doubles, so that nothing of it is empty; each has had a request in two parts, and a
/// response that was acknowledged. What the stack keeps for whoever is next is in the sum.
#[test]
fn idle_connections_hold_less_than_512_bytes_each() {
    const CONNECTIONS: u16 = 4_096;
    let config = Config::new(MacAddress([2, 0, 0, 0, 0, 1]), [10, 0, 0, 1].into(), 24, [1; 16]);
    let before = HELD.with(Cell::get);
    let mut stack = Stack::<&'static [u8]>::new(config, Instant::ZERO).unwrap();
    stack.listen(80).unwrap();
    let mut wire = Wire::default();
    let mut now = Instant::ZERO;
    for port in 1..=CONNECTIONS {
        let from = |mut frame: Vec<u8>| {
            frame[34..36].copy_from_slice(&port.to_be_bytes());
            frame
        };
        let meta = META;
        let syn = from(frame(2, 0, 0, 0));
        let Input::Reply(syn_ack) = stack.input(now, &syn, meta) else { panic!("no SYN-ACK") };
        wire.transmit_control(&syn_ack).unwrap();
        let ack = wire.server_isn.wrapping_add(1);
        let Input::Segment(_) = stack.input(now, &from(frame(16, 1, ack, 0)), meta) else {
            panic!("not opened")
        };
        let request = from(frame(24, 1, ack, 100));
        let Input::Segment(events) = stack.input(now, &request, meta) else { panic!("no events") };
        let conn = events.conn;
        stack.keep(conn, &request[54 + 40..]).unwrap();
        stack.consume(conn, 60).unwrap();
        stack.send(conn, &[7; 200]).unwrap();
        stack.send(conn, &[8; 300]).unwrap();
        stack.output(conn, now, &mut wire, AckPolicy::IfDue).unwrap();
        let acknowledgment = from(frame(16, 101, ack.wrapping_add(500), 0));
        let Input::Segment(events) = stack.input(now, &acknowledgment, meta) else { panic!("no events") };
        assert_eq!(events.acked_bytes, 500);
        now += Duration::from_micros(100);
    }
    assert_eq!((stack.connections(), stack.buffered_bytes()), (usize::from(CONNECTIONS), 0));
    // Wrapping: this thread may have freed what another one allocated.
    let each = HELD.with(Cell::get).wrapping_sub(before) / usize::from(CONNECTIONS);
    println!("{each} bytes held a connection");
    assert!(each < 512, "{each}");
}
