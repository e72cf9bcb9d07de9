//! SYN cookies (RFC 4987 3.6): what a half-open connection would remember goes to the peer in the SYN-ACK, and comes back
//! with its acknowledgment. The initial sequence number has the segment size, and a keyed hash of everything, so that nobody
//! can make one who was not sent it. The other options go into the low bits of the timestamp where there is one; nobody
//! vouches for these, and who changes them lies about himself.

use core::hash::Hasher;

use siphasher::sip::SipHasher24;

use super::Seq;
use super::ecn::Agreed;
use super::isn::Flow;
use crate::time::Instant;
use crate::wire::tcp_options::{SynOptions, Timestamps};

/// A tick is 2^36 ns, 69 s. A cookie is good in the tick in which it was made and in the next: for a client whose
/// acknowledgment is lost, and who says so with data only.
const TICK_SHIFT: u32 = 36;
/// Segment sizes that a cookie can say: the lowest allowed, RFC 9293's defaults for IPv4 and IPv6, tunnels, Ethernet
/// with and without timestamps' or IPv6's bytes, jumbo frames. The next smaller one is taken.
const SEGMENT_SIZES: [u16; 8] = [48, 256, 536, 1_220, 1_360, 1_440, 1_460, 8_940];
/// Bits of a cookie that are the place in [`SEGMENT_SIZES`].
const SIZE_MASK: u32 = SEGMENT_SIZES.len() as u32 - 1;
const _: () = assert!(SEGMENT_SIZES.len().is_power_of_two());

/// Low bits of a timestamp: four of the window scale, one whether SACK may be used, and one whether ECN is agreed on.
const OPTION_BITS: u32 = 6;
const OPTION_MASK: u32 = (1 << OPTION_BITS) - 1;
const SCALE_MASK: u32 = 0x0f;
/// No window scaling; real shifts end at 14.
const NO_SCALE: u32 = 0x0f;
const SACK_BIT: u32 = 0x10;
const ECN_BIT: u32 = 0x20;

/// Makes cookies and knows them again.
#[derive(Debug)]
pub(crate) struct SynCookies {
    secret: [u8; 16],
    /// The last tick in which one was made.
    last_made: Option<u64>,
}

fn tick(now: Instant) -> u64 {
    now.as_nanos() >> TICK_SHIFT
}

impl SynCookies {
    pub(crate) fn new(secret: [u8; 16]) -> Self {
        Self { secret, last_made: None }
    }

    fn cookie(&self, flow: Flow, peer_isn: Seq, place: u32, tick: u64) -> Seq {
        let mut hasher = SipHasher24::new_with_key(&self.secret);
        hasher.write(b"syn cookie");
        flow.write(&mut hasher);
        hasher.write_u32(peer_isn.value());
        hasher.write_u32(place);
        hasher.write_u64(tick);
        Seq::new(hasher.finish() as u32 & !SIZE_MASK | place)
    }

    /// The initial sequence number that answers the SYN `peer_isn` of a peer that takes segments of `mss` bytes.
    pub(crate) fn make(&mut self, flow: Flow, peer_isn: Seq, mss: u16, now: Instant) -> Seq {
        let place = SEGMENT_SIZES.iter().rposition(|&size| size <= mss).unwrap_or(0);
        self.last_made = Some(tick(now));
        self.cookie(flow, peer_isn, place as u32, tick(now))
    }

    /// Whether a cookie can come back at all: one was made lately.
    pub(crate) fn is_expecting(&self, now: Instant) -> bool {
        self.last_made.is_some_and(|made| tick(now) - made < 2)
    }

    /// The segment size that a cookie of ours says, if it is one.
    pub(crate) fn read(&self, flow: Flow, peer_isn: Seq, cookie: Seq, now: Instant) -> Option<u16> {
        let place = cookie.value() & SIZE_MASK;
        let (this, before) = (tick(now), tick(now).wrapping_sub(1));
        let ours = [this, before].into_iter().any(|tick| self.cookie(flow, peer_isn, place, tick) == cookie);
        if ours { Some(SEGMENT_SIZES[place as usize]) } else { None }
    }
}

/// What of a SYN's options comes back with a cookie: without timestamps, the segment size alone.
pub(crate) fn remembered(syn: &SynOptions) -> SynOptions {
    if syn.timestamps.is_some() { *syn } else { SynOptions { mss: syn.mss, ..SynOptions::default() } }
}

/// The timestamp of a SYN-ACK that has the peer's options in its low bits: at most 2^6 ticks before `clock`, never after it.
pub(crate) fn timestamp(clock: u32, syn: &SynOptions, ecn: Agreed) -> u32 {
    let scale = syn.window_scale.map_or(NO_SCALE, u32::from);
    let sack = if syn.sack_permitted { SACK_BIT } else { 0 };
    let bits = scale | sack | if ecn == Agreed::Full { ECN_BIT } else { 0 };
    let value = clock & !OPTION_MASK | bits;
    if bits > clock & OPTION_MASK { value.wrapping_sub(1 << OPTION_BITS) } else { value }
}

/// The options of the SYN that was answered by a cookie, from the timestamps that came back with it.
pub(crate) fn options(mss: u16, timestamps: Option<Timestamps>) -> SynOptions {
    let none = SynOptions { mss: Some(mss), ..SynOptions::default() };
    let Some(returned) = timestamps else { return none };
    let scale = returned.echo & SCALE_MASK;
    SynOptions {
        window_scale: (scale != NO_SCALE).then_some(scale as u8),
        sack_permitted: returned.echo & SACK_BIT != 0,
        timestamps,
        ..none
    }
}

/// What was agreed about ECN.
pub(crate) fn ecn(timestamps: Option<Timestamps>) -> Agreed {
    if timestamps.is_some_and(|returned| returned.echo & ECN_BIT != 0) { Agreed::Full } else { Agreed::No }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tcp::table::FlowKey;
    use proptest::prelude::*;

    const fn flow(key: u64) -> Flow {
        Flow { key: FlowKey(key), pair: None }
    }

    const KEY: Flow = flow(0x0a00_0002_9c40_0050);

    fn ticks(count: u64) -> Instant {
        Instant::from_nanos(count << TICK_SHIFT)
    }

    #[test]
    fn cookie_is_read_in_its_tick_and_the_next_only() {
        let mut cookies = SynCookies::new([7; 16]);
        let cookie = cookies.make(KEY, Seq::new(9), 1_460, ticks(5));
        let read = |at| cookies.read(KEY, Seq::new(9), cookie, ticks(at));
        assert_eq!([4, 5, 6, 7].map(read), [None, Some(1_460), Some(1_460), None]);
    }

    #[test]
    fn cookie_of_somebody_else_is_none() {
        let mut cookies = SynCookies::new([7; 16]);
        let cookie = cookies.make(KEY, Seq::new(9), 1_460, ticks(5));
        assert_eq!(cookies.read(flow(0x0a00_0003_9c40_0050), Seq::new(9), cookie, ticks(5)), None);
        assert_eq!(cookies.read(KEY, Seq::new(8), cookie, ticks(5)), None);
        assert_eq!(SynCookies::new([8; 16]).read(KEY, Seq::new(9), cookie, ticks(5)), None);
        // Its segment size cannot be changed, nor any other bit.
        for bit in 0..32 {
            let changed = Seq::new(cookie.value() ^ 1 << bit);
            assert_eq!(cookies.read(KEY, Seq::new(9), changed, ticks(5)), None, "bit {bit}");
        }
    }

    #[test]
    fn cookies_are_expected_for_two_ticks() {
        let mut cookies = SynCookies::new([7; 16]);
        assert!(!cookies.is_expecting(ticks(5)));
        cookies.make(KEY, Seq::new(9), 1_460, ticks(5));
        assert_eq!([5, 6, 7].map(|at| cookies.is_expecting(ticks(at))), [true, true, false]);
    }

    proptest! {
        #[test]
        fn segment_size_that_is_read_is_the_next_smaller(mss in 48u16..) {
            let mut cookies = SynCookies::new([7; 16]);
            let cookie = cookies.make(KEY, Seq::new(9), mss, ticks(5));
            let read = cookies.read(KEY, Seq::new(9), cookie, ticks(5)).unwrap();
            prop_assert!(read <= mss && !SEGMENT_SIZES.iter().any(|size| (read + 1..=mss).contains(size)));
        }

        #[test]
        fn options_in_a_timestamp_are_read_and_it_is_not_of_the_future(
            clock: u32, window_scale in proptest::option::of(0u8..=14), sack_permitted: bool, uses_ecn: bool,
        ) {
            let timestamps = Some(Timestamps { value: 3, echo: 0 });
            let syn = SynOptions { mss: Some(1_460), window_scale, sack_permitted, timestamps };
            prop_assert_eq!(remembered(&syn), syn);
            let agreed = if uses_ecn { Agreed::Full } else { Agreed::No };
            let value = timestamp(clock, &syn, agreed);
            prop_assert!(clock.wrapping_sub(value) < 1 << OPTION_BITS);
            let returned = Some(Timestamps { value: 4, echo: value });
            prop_assert_eq!(options(1_460, returned), SynOptions { timestamps: returned, ..syn });
            prop_assert_eq!(ecn(returned), agreed);
        }
    }
}
