//! Arguments for each call: good ones, and good ones with something wrong in one place.

use super::attacker::Request;
use super::held::Holding;
use super::random::Random;
use abi::call::{ANY, Call, map};
use abi::capability::{Kind, rights};
use abi::flow::Level;
use abi::layout::*;
use exos_runtime::clock;

/// Where pages are mapped: a part of the address space that is used for nothing else.
const VA: u64 = 1 << 40;
/// Entries of a queue.
const SIZE: u64 = 8;
/// How long an ask gives: a little more than the least.
const GRACE_NS: u64 = 110_000_000;

impl Holding {
    /// Sometimes a call is made again and again, so that what it takes from comes to its end.
    pub(super) fn begin_batch(&mut self, random: &mut Random) {
        const TAKE: [Call; 8] = [
            Call::MemoryMap,
            Call::FlowCarve,
            Call::ExtentBind,
            Call::CapabilityDerive,
            Call::QueueBind,
            Call::CapabilityGive,
            Call::CapabilityAsk,
            Call::MessageSend,
        ];
        let (call, left) = self.insist;
        self.insist = match left.checked_sub(1) {
            Some(left) => (call, left),
            None if random.below(4) == 0 => (random.pick(&TAKE).copied(), random.below(16)),
            None => (None, random.below(8)),
        };
    }

    /// What has to be done for it, if it is insisted on.
    fn helps(call: Call, random: &mut Random) -> Call {
        match (call, random.below(8)) {
            (Call::ExtentBind, 0..=3) => Call::CapabilityDerive,
            (Call::CapabilityAsk | Call::CapabilityGive, 0) => Call::EnvironmentCreate,
            (Call::CapabilityAsk, 1..=3) => Call::CapabilityGive,
            (Call::QueueBind, 0 | 1) => Call::DmaGrant,
            (Call::QueueBind, 2..=4) => Call::QueueUnbind,
            _ => call,
        }
    }

    /// A call.
    pub(super) fn invent(&self, random: &mut Random) -> Request {
        let insist = self.insist.0;
        let any = random.pick(&Call::ALL).copied().unwrap_or(Call::Version);
        let mut call = insist.map_or(any, |call| Self::helps(call, random));
        // It ends soon enough by itself.
        if call == Call::Exit && random.below(8) != 0 {
            call = Call::Version;
        }
        let mut number = call as u64;
        let mut arguments = self.good(call, random);
        if insist.is_none() {
            match random.below(8) {
                0..=2 => {}
                3..=6 => {
                    let at = random.below(5) as usize;
                    arguments[at] = self.word(arguments[at], random);
                }
                _ => {
                    arguments = arguments.map(|before| self.word(before, random));
                    if random.below(4) == 0 {
                        number = random.number();
                    }
                }
            }
        }
        Request { number, arguments, status: 0, value: 0, first: 0 }
    }

    /// Arguments with which it should succeed, as far as can be known.
    fn good(&self, call: Call, random: &mut Random) -> [u64; 5] {
        match call {
            Call::Version | Call::Exit | Call::Halt => [0; 5],
            Call::Sleep => [1, 0, 0, 0, 0],
            Call::MessageReceive => [random.below(2), 0, 0, 0, 0],
            Call::Yield => [self.environment(rights::YIELD, random), 0, 0, 0, 0],
            Call::EnvironmentCreate => {
                let places = self.of(Kind::Environment, random);
                let number = places.start + random.below(places.count);
                [places.handle, if random.below(2) == 0 { ANY } else { number }, 0, 0, 0]
            }
            Call::EnvironmentStart => {
                let environment = self.environment(rights::CONTROL, random);
                [environment, IMAGE_VA, IMAGE_VA + 2 * PAGE_BYTES, 0, 0]
            }
            Call::EnvironmentDestroy => [self.environment(rights::DESTROY, random), 0, 0, 0, 0],
            Call::EnvironmentStatus if random.below(8) == 0 => {
                [self.of(Kind::Environment, random).handle, 0, 0, 0, 0]
            }
            Call::EnvironmentStatus => [self.environment(0, random), 0, 0, 0, 0],
            Call::Wake => [self.environment(rights::WAKE, random), 0, 0, 0, 0],
            // Who is called should be one who answers, most of the time.
            Call::MessageCall => [self.companion(random), 1, 2, 3, 4],
            Call::MessageSend => [self.environment(rights::CALL, random), 1, 2, 3, 4],
            Call::MessageReply | Call::MessageReplyReceive => {
                [self.senders.last().copied().unwrap_or(0), 1, 2, 3, 4]
            }
            Call::SliceBind | Call::SliceUnbind => {
                let slices = self.of(Kind::Slices, random);
                [0, slices.handle, slices.start + random.below(slices.count), 1, 0]
            }
            Call::MemoryMap | Call::MemoryUnmap | Call::DmaGrant => self.good_memory(call, random),
            Call::QueueBind | Call::QueueUnbind => {
                let queues = self.of(Kind::Queues, random);
                let base =
                    self.any(random, |held| held.kind == Kind::Memory && held.rights & rights::DMA != 0);
                let base_gpa = base.map_or(0, |memory| memory.start * PAGE_BYTES);
                // Few of them, so that they are met again.
                [0, queues.handle, queues.start + random.below(queues.count.min(2)), base_gpa, SIZE]
            }
            Call::FlowCarve => {
                let flow = self.of(Kind::Flow, random);
                let level = flow.level + 1;
                let is_prefix =
                    level == Level::DestinationPrefix as u64 || level == Level::SourcePrefix as u64;
                let prefix_len = if is_prefix { 128 } else { 0 };
                let few = random.below(2) == 0;
                let value = random.below(if few { 4 } else { 1 << 8 });
                [0, flow.handle, level | prefix_len << 8, 0, value]
            }
            Call::FlowDirect => {
                let (flow, queues) = (self.of(Kind::Flow, random), self.of(Kind::Queues, random));
                let pairs = if random.below(2) == 0 { 0 } else { 1 << 16 };
                [0, flow.handle, queues.handle, pairs, 0]
            }
            Call::ExtentBind | Call::ExtentUnbind => [0, self.of(Kind::Extent, random).handle, 0, 0, 0],
            _ => self.good_capability(call, random),
        }
    }

    fn good_memory(&self, call: Call, random: &mut Random) -> [u64; 5] {
        let memory = self.of(Kind::Memory, random);
        let large = LARGE_PAGE_BYTES / PAGE_BYTES;
        // Everywhere, a table each; close together; or where large pages are.
        let place = if self.insist.0.is_some() { 0 } else { random.below(4) };
        let va = match place {
            0 => VA + (random.below(1 << 9) << 30),
            1 => VA + (random.below(64) << 21),
            _ => VA + random.below(64) * PAGE_BYTES,
        };
        let first = random.below(memory.count);
        match call {
            Call::MemoryUnmap => [0, va, 1 + random.below(4), 0, 0],
            Call::DmaGrant if random.below(2) == 0 => [0, memory.handle, 0, memory.count, 3],
            Call::DmaGrant => [0, memory.handle, first, 1, random.below(4)],
            _ if place == 1 && memory.count >= large => {
                let first = memory.start.next_multiple_of(large) - memory.start;
                [0, memory.handle, va | map::LARGE, first, large]
            }
            _ => [0, memory.handle, va | (random.below(2) * map::WRITE), first, 1],
        }
    }

    fn good_capability(&self, call: Call, random: &mut Random) -> [u64; 5] {
        let of = match self.insist.0 {
            Some(Call::ExtentBind) => Some(self.of(Kind::Extent, random)),
            _ => self.any(random, |_| true),
        };
        let going = if random.below(8) == 0 { self.going(random) } else { None };
        let Some(of) = going.or(of) else { return [0; 5] };
        let fewer = if random.below(2) == 0 { of.rights } else { of.rights & random.next() as u16 };
        match call {
            Call::CapabilityDerive => {
                let first = random.below(of.count);
                let count = 1 + random.below(of.count - first);
                // Whole, now and then, so that it goes on from there.
                let (start, count) =
                    if random.below(2) == 0 { (of.start, of.count) } else { (of.start + first, count) };
                [0, of.handle, start, count, fewer.into()]
            }
            Call::CapabilityGive => {
                let give = going.or(self.any(random, |held| held.rights & rights::GIVE != 0)).unwrap_or(of);
                let to = self.environment(rights::RECEIVE, random);
                [0, give.handle, to, u64::from(give.rights & random.next() as u16), 0]
            }
            Call::CapabilityRevoke | Call::CapabilityDrop => {
                [0, self.to_lose(random, |_| true).map_or(0, |held| held.handle), 0, 0, 0]
            }
            Call::CapabilityTrim => {
                let divides = |kind| !matches!(kind, Kind::Flow | Kind::Environment);
                let of = self.to_lose(random, |held| divides(held.kind) && held.count > 1).unwrap_or(of);
                [0, of.handle, 1 + random.below(of.count), 0, 0]
            }
            _ => {
                let grace = clock::Scale::new().ticks(GRACE_NS);
                let given = random.pick(&self.given).copied();
                let newest = self.given.last().copied().filter(|_| random.below(2) == 0);
                newest
                    .or(given)
                    .map_or([0; 5], |given| [given.from, given.to, given.theirs, random.below(3), grace])
            }
        }
    }
}
