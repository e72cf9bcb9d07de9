//! What is asked back: who answers, who does not, who answers with something else, and who must not ask. The children are
//! functions of this program ([`crate::offspring`]); what they saw they write into the page that they share with their parent.

mod children;

use crate::binding::pages_for;
use crate::offspring::{Entry, Offspring, Part, derive};
use crate::{BROKEN, Case, HELD};
use abi::call::{Call, Error, map, sleep, state};
use abi::capability::{Handle, rights};
use abi::layout::{LARGE_PAGE_BYTES, PAGE_BYTES, WINDOW_VA};
use abi::queue::RingLayout;
use abi::slice::SLICES;
use alloc::alloc::{Layout, alloc_zeroed};
use alloc::vec::Vec;
use children::{
    answers, asks_and_ends, computing, counts_losses, ends_when_asked, fill, give_way, gives_less, ignores,
    neighbour, stalling, word, wrong,
};
use core::sync::atomic::AtomicU64;
use core::sync::atomic::Ordering::Relaxed;
use exos_runtime::revocation::give_back;
use exos_runtime::{clock, kernel, pages, revocation};

type Arguments<'a> = &'a mut dyn Iterator<Item = &'static str>;

pub(crate) const CASES: &[Case] = &[
    ("revoke-answered", answered),
    ("revoke-ignored", ignored),
    ("revoke-whole", whole),
    ("revoke-large", large),
    ("revoke-computes", computes),
    ("revoke-partly", partly),
    ("revoke-stalls", stalls),
    ("revoke-refusals", refusals),
    ("revoke-ends", ends),
    ("revoke-queues", queues),
    ("revoke-slices", slices),
    ("revoke-devices", devices),
    ("revoke-losses", losses),
];

/// Where children have what they are asked for.
const PART_VA: u64 = 1 << 41;
/// Its pages, and how many they may keep.
const PAGES: u64 = 8;
const KEEP: u64 = 3;
/// What the kernel may take, in scheduling points and on a busy host, beyond the deadline.
const SLACK_MS: u64 = 4000;

fn ms(milliseconds: u64) -> u64 {
    clock::Scale::new().ticks(milliseconds * 1_000_000)
}

/// A child that has a part of the heap, is ready, and runs or sleeps.
fn with_part(entry: Entry, argument: u64) -> Option<(Offspring, Part)> {
    let child = Offspring::new(entry).ok()?;
    let part = child.give(PAGES, rights::READ | rights::WRITE | rights::DMA).ok()?;
    child.map(&part, PART_VA, PAGES).ok()?;
    child.shared[word::PART].store(part.given.0, Relaxed);
    child.shared[word::KEEP].store(part.page, Relaxed);
    elsewhere(&child)?;
    child.start(argument).ok()?;
    is_ready(&child)?;
    Some((child, part))
}

/// If there is a second vCPU, the child runs there.
fn elsewhere(child: &Offspring) -> Option<()> {
    const COUNT: u64 = 4;
    static TAKEN: AtomicU64 = AtomicU64::new(0);
    let own = pages::environment().capabilities.slices[1];
    if own == Handle::NONE {
        return Some(());
    }
    let first = SLICES as u64 + TAKEN.fetch_add(COUNT, Relaxed);
    // Nobody has begun there.
    let _ = kernel::raw(Call::SliceUnbind, [0, own.0, first, COUNT, 0]);
    let part = derive(own, first, COUNT, rights::BIND | rights::GIVE).ok()?;
    let given = child.give_on(part, rights::BIND).ok()?;
    kernel::raw(Call::SliceBind, [child.handle().0, given.0, first, COUNT, 0]).ok().map(drop)
}

fn is_ready(child: &Offspring) -> Option<()> {
    let end = clock::tsc() + ms(30_000);
    while child.shared[word::READY].load(Relaxed) == 0 {
        if clock::tsc() > end {
            log::error!("probe: a child is not ready: {:?}", child.child.status());
            return None;
        }
        kernel::sleep(clock::tsc() + ms(20), [sleep::NONE; 4]);
    }
    Some(())
}

/// Asks until nothing is left, and how that went: whether it was over before the deadline, or soon after it.
fn ask(child: &Offspring, part: &Part, keep: u64, grace_ms: u64) -> &'static str {
    let begun = clock::tsc();
    loop {
        let left = revocation::ask(part.own, child.handle(), part.given, keep, ms(grace_ms));
        let passed = clock::tsc() - begun;
        match left {
            // A capability that was given back whole is not known any more.
            Ok(0) | Err(Error::NotFound) if passed < ms(grace_ms) => return "before the deadline",
            Ok(0) | Err(Error::NotFound) => return "after the deadline",
            Ok(_) if passed > ms(grace_ms + SLACK_MS) => return "never",
            Ok(_) => kernel::sleep(begun + ms(grace_ms + SLACK_MS), [sleep::NONE; 4]),
            Err(error) => {
                log::error!("probe: ask: {error:?}");
                return "not at all";
            }
        }
    }
}

/// Whether the tail of a part is the parent's to use.
fn usable(part: &Part, keep: u64) -> bool {
    let va = PART_VA + (1 << 30);
    let mapped = kernel::raw(Call::MemoryMap, [0, part.own.0, va | map::WRITE, keep, PAGES - keep])
        == Ok(PAGES - keep);
    if !mapped {
        return false;
    }
    fill(va, PAGES - keep);
    wrong(va, PAGES - keep) == 0
}

/// What a child lost first: which capability of which, from which page of it on, how many, and why.
fn first_loss(child: &Offspring, part: &Part) -> (bool, i64, u64, u64) {
    let words: Vec<u64> =
        child.shared[word::LOSSES..word::LOSSES + 4].iter().map(|word| word.load(Relaxed)).collect();
    (words[0] == part.given.0, words[1] as i64 - part.page as i64, words[2], words[3])
}

fn poke(child: &Offspring) -> Option<()> {
    child.shared[word::POKE].store(1, Relaxed);
    kernel::raw(Call::Wake, [child.handle().0, 0, 0, 0, 0]).ok().map(drop)
}

fn at(child: &Offspring, word: usize) -> u64 {
    child.shared[word].load(Relaxed)
}

/// How often a child has answered: it counts when its call is over, and its parent may see the answer before that.
fn answers_of(child: &Offspring) -> u64 {
    let end = clock::tsc() + ms(SLACK_MS);
    while at(child, word::ANSWERS) == 0 && clock::tsc() < end {
        give_way();
    }
    at(child, word::ANSWERS)
}

/// One that answers, beside one that is not asked.
fn answered(_: Arguments<'_>) -> Option<u32> {
    let (beside, _) = with_part(neighbour, 0)?;
    let (child, part) = with_part(answers, 0)?;
    log::info!("probe: answered {}", ask(&child, &part, KEEP, 5000));
    log::info!("probe: answers {}, wrong {}", answers_of(&child), at(&child, word::WRONG));
    log::info!("probe: lost {:?}", first_loss(&child, &part).2);
    log::info!("probe: the tail is usable: {}", usable(&part, KEEP));
    let rounds = at(&beside, word::ROUNDS);
    for _ in 0..10 {
        give_way();
    }
    log::info!(
        "probe: the neighbour goes on: {}, wrong {}",
        at(&beside, word::ROUNDS) > rounds,
        at(&beside, word::WRONG)
    );
    // What it gave back it cannot use any more.
    poke(&child)?;
    log::info!("probe: it touches the tail: {}", child.child.wait(state::GONE)?);
    kernel::raw(Call::EnvironmentDestroy, [beside.handle().0, 0, 0, 0, 0]).ok()?;
    Some(HELD)
}

/// One that does not answer.
fn ignored(_: Arguments<'_>) -> Option<u32> {
    let (beside, _) = with_part(neighbour, 0)?;
    let (child, part) = with_part(ignores, 0)?;
    log::info!("probe: answered {}", ask(&child, &part, KEEP, 150));
    log::info!("probe: the tail is usable: {}", usable(&part, KEEP));
    poke(&child)?;
    log::info!("probe: it ended with {}, wrong {}", child.child.wait(state::GONE)?, at(&child, word::WRONG));
    log::info!("probe: it faulted at page {}", at(&child, word::FAULT).wrapping_sub(PART_VA) / PAGE_BYTES);
    log::info!("probe: it was told {:?}", first_loss(&child, &part));
    log::info!("probe: the neighbour: wrong {}", at(&beside, word::WRONG));
    kernel::raw(Call::EnvironmentDestroy, [beside.handle().0, 0, 0, 0, 0]).ok()?;
    Some(HELD)
}

/// All of something: given back by one, taken from another.
fn whole(_: Arguments<'_>) -> Option<u32> {
    let (child, part) = with_part(answers, 0)?;
    log::info!("probe: answered {}", ask(&child, &part, 0, 5000));
    log::info!("probe: the range is usable: {}", usable(&part, 0));
    let (child, part) = with_part(ignores, 0)?;
    log::info!("probe: answered {}", ask(&child, &part, 0, 150));
    log::info!("probe: the range is usable: {}", usable(&part, 0));
    poke(&child)?;
    child.child.wait(state::GONE)?;
    log::info!("probe: it was told {:?}", first_loss(&child, &part));
    Some(HELD)
}

/// A large page of which the tail takes a part goes as a whole, or there would be a way to the tail.
fn large(_: Arguments<'_>) -> Option<u32> {
    const COUNT: u64 = LARGE_PAGE_BYTES / PAGE_BYTES;
    let child = Offspring::new(ignores).ok()?;
    let access = rights::READ | rights::WRITE;
    let layout = Layout::from_size_align(LARGE_PAGE_BYTES as usize, LARGE_PAGE_BYTES as usize).ok()?;
    // SAFETY: of a size that is not zero.
    let block = unsafe { alloc_zeroed(layout) };
    let page = exos_runtime::dma::device_address(block, LARGE_PAGE_BYTES as usize)? / PAGE_BYTES;
    let heap = pages::environment().capabilities.heap[0];
    let own = derive(heap, page, COUNT, access | rights::GIVE).ok()?;
    let part = Part { own, given: child.give_on(own, access).ok()?, page };
    let va = PART_VA | map::WRITE | map::LARGE;
    let mapped = kernel::raw(Call::MemoryMap, [child.handle().0, part.given.0, va, 0, COUNT]);
    log::info!("probe: mapped {mapped:?}");
    child.start(0).ok()?;
    is_ready(&child)?;
    log::info!("probe: answered {}", ask(&child, &part, KEEP, 150));
    poke(&child)?;
    let status = child.child.wait(state::GONE)?;
    let fault = at(&child, word::FAULT).wrapping_sub(PART_VA) / PAGE_BYTES;
    log::info!("probe: it ended with {status}, faulted at page {fault}");
    log::info!("probe: it was told {:?}", first_loss(&child, &part));
    Some(HELD)
}

/// One that computes and is interrupted for it, and one that does not want to hear.
fn computes(_: Arguments<'_>) -> Option<u32> {
    let (child, part) = with_part(computing, 1)?;
    log::info!("probe: answered {}", ask(&child, &part, KEEP, 5000));
    log::info!(
        "probe: it ended with {}, answers {}",
        child.child.wait(state::GONE)?,
        at(&child, word::ANSWERS)
    );
    let (deaf, part) = with_part(computing, 0)?;
    log::info!("probe: answered {}", ask(&deaf, &part, KEEP, 150));
    log::info!("probe: it runs on: {}", deaf.child.status().0 == state::RUNNABLE);
    kernel::raw(Call::EnvironmentDestroy, [deaf.handle().0, 0, 0, 0, 0]).ok()?;
    Some(HELD)
}

fn partly(_: Arguments<'_>) -> Option<u32> {
    let (child, part) = with_part(gives_less, 0)?;
    log::info!("probe: answered {}", ask(&child, &part, KEEP, 3000));
    kernel::raw(Call::Wake, [child.handle().0, 0, 0, 0, 0]).ok()?;
    for _ in 0..4 {
        give_way();
    }
    log::info!("probe: answers {}, told {:?}", answers_of(&child), first_loss(&child, &part));
    Some(HELD)
}

/// `revoke-stalls 0|1`
fn stalls(arguments: Arguments<'_>) -> Option<u32> {
    let drops = crate::number(arguments.next())?;
    let child = Offspring::new(stalling).ok()?;
    let part = child.give(PAGES, rights::READ).ok()?;
    let other = child.give(PAGES, rights::READ).ok()?;
    child.shared[word::PART].store(part.given.0, Relaxed);
    child.shared[word::OTHER].store(other.given.0, Relaxed);
    child.shared[word::KEEP].store(part.page, Relaxed);
    child.start(drops).ok()?;
    is_ready(&child)?;
    for _ in 0..3 {
        give_way();
    }
    log::info!("probe: answered {}", ask(&child, &part, KEEP, 150));
    let before = at(&child, word::ROUNDS);
    for _ in 0..3 {
        give_way();
    }
    log::info!("probe: it goes on: {}", at(&child, word::ROUNDS) > before);
    poke(&child)?;
    log::info!("probe: it ended with {}, bound {}", child.child.wait(state::GONE)?, at(&child, word::BOUND));
    Some(HELD)
}

/// What is refused, and what changes nothing.
fn refusals(_: Arguments<'_>) -> Option<u32> {
    let own = &pages::environment().capabilities;
    let (child, part) = with_part(ignores, 0)?;
    let env = child.handle().0;
    let second = child.give(PAGES, rights::READ).ok()?;
    let grace = ms(20_000);
    let ask = |what: &str, arguments: [u64; 5]| {
        log::info!("probe: {what}: {:?}", kernel::raw(Call::CapabilityAsk, arguments));
    };
    ask("ask with nothing", [0, env, part.given.0, KEEP, grace]);
    ask("ask with another's", [second.own.0, env, part.given.0, KEEP, grace]);
    ask(
        "ask with what was derived beside it",
        [derive(own.heap[0], part.page, PAGES, 1).ok()?.0, env, part.given.0, KEEP, grace],
    );
    ask("ask with the places", [own.environments.0, env, part.given.0, KEEP, grace]);
    ask("ask nobody", [part.own.0, 0, part.given.0, KEEP, grace]);
    ask("ask memory", [part.own.0, own.heap[0].0, part.given.0, KEEP, grace]);
    ask("ask the places", [part.own.0, own.environments.0, part.given.0, KEEP, grace]);
    ask("ask for nothing known", [part.own.0, env, part.given.0 + (1 << 32), KEEP, grace]);
    ask("ask for what is behind the table", [part.own.0, env, 1 << 32 | 255, KEEP, grace]);
    ask("ask for no time", [part.own.0, env, part.given.0, KEEP, 0]);
    ask("ask for too little time", [part.own.0, env, part.given.0, KEEP, ms(10)]);
    ask("ask for too much time", [part.own.0, env, part.given.0, KEEP, ms(61_000)]);
    ask("ask for all time", [part.own.0, env, part.given.0, KEEP, u64::MAX]);
    ask("ask for no more than there is", [part.own.0, env, part.given.0, PAGES, grace]);
    ask("ask for less than there is", [part.own.0, env, part.given.0, u64::MAX, grace]);
    let given_env = child.give_on(child.handle(), rights::WAKE).ok()?;
    ask("ask for a part of an environment", [env, env, given_env.0, 1, grace]);
    ask("ask", [part.own.0, env, part.given.0, KEEP, grace]);
    ask("ask again", [part.own.0, env, part.given.0, KEEP, grace]);
    ask("ask again from further up", [own.heap[0].0, env, part.given.0, KEEP, grace]);
    ask("ask for more", [part.own.0, env, part.given.0, 1, grace]);
    for nth in ["a second", "a third", "a fourth", "a fifth"] {
        let more = child.give(PAGES, rights::READ).ok()?;
        log::info!("probe: {nth}: {:?}", revocation::ask(more.own, child.handle(), more.given, 1, grace));
    }
    let trim = |what: &str, capability: u64, keep: u64| {
        log::info!("probe: {what}: {:?}", kernel::raw(Call::CapabilityTrim, [env, capability, keep, 0, 0]));
    };
    trim("trim nothing known", part.given.0 + (1 << 32), 1);
    trim("trim to nothing", second.given.0, 0);
    trim("trim to more", second.given.0, PAGES + 1);
    trim("trim to far more", second.given.0, u64::MAX);
    trim("trim an environment", given_env.0, 1);
    trim("trim to what there is", second.given.0, PAGES);
    trim("trim", second.given.0, 2);
    trim("trim back", second.given.0, 3);
    let map = [env, second.given.0, PART_VA + (1 << 30), 2, 1];
    log::info!("probe: map behind it: {:?}", kernel::raw(Call::MemoryMap, map));
    let stranger = kernel::raw(Call::CapabilityTrim, [second.own.0, second.given.0, 1, 0, 0]);
    log::info!("probe: trim for a stranger: {stranger:?}");
    log::info!("probe: all of it is there: {}", at(&child, word::WRONG) == 0);
    Some(HELD)
}

/// Whoever is asked ends; whoever asks ends; whoever asks is a stranger.
fn ends(_: Arguments<'_>) -> Option<u32> {
    let (child, part) = with_part(ends_when_asked, 0)?;
    log::info!("probe: answered {}", ask(&child, &part, KEEP, 20_000));
    log::info!("probe: it ended with {}", child.child.wait(state::GONE)?);
    // The next in its place is not asked for anything.
    let (next, _) = with_part(counts_losses, 0)?;
    poke(&next)?;
    log::info!("probe: the next one in its place: {}", next.child.wait(state::GONE)?);
    for stranger in [0, 1] {
        let (asked, own) = with_part(counts_losses, 0)?;
        let asker = Offspring::new(asks_and_ends).ok()?;
        let part = asker.give(PAGES, rights::READ | rights::GIVE).ok()?;
        let all = rights::RECEIVE | rights::WAKE;
        asker.shared[word::PART].store(part.given.0, Relaxed);
        asker.shared[word::OTHER].store(own.given.0, Relaxed);
        asker.shared[word::ENVIRONMENT].store(asker.give_on(asked.handle(), all).ok()?.0, Relaxed);
        asker.start(stranger).ok()?;
        let status = asker.child.wait(state::GONE)?;
        log::info!("probe: the asker ended with {status}, was answered {}", at(&asker, word::ANSWER));
        poke(&asked)?;
        let status = asked.child.wait(state::GONE)?;
        log::info!("probe: the asked is still asked: {status}, lost {}", at(&asked, word::ROUNDS));
    }
    Some(HELD)
}

/// A queue that is asked back, beside one that stays bound. Needs a NIC.
fn queues(_: Arguments<'_>) -> Option<u32> {
    let own = pages::environment().capabilities.queues[0];
    let pair = derive(own, 0, 2, rights::BIND | rights::GIVE).ok()?;
    let (child, _) = with_part(ignores, 0)?;
    let given = child.give_on(pair, rights::BIND).ok()?;
    let layout = RingLayout::new(256)?;
    let ring_pages = layout.len_bytes().div_ceil(PAGE_BYTES);
    let mut bases = [0; 2];
    for (queue, base) in bases.iter_mut().enumerate() {
        let rings = child.give(ring_pages, rights::READ | rights::WRITE | rights::DMA).ok()?;
        *base = rings.page * PAGE_BYTES;
        kernel::raw(Call::DmaGrant, [child.handle().0, rings.given.0, 0, ring_pages, 3]).ok()?;
        let bind = [child.handle().0, given.0, queue as u64, *base, 256];
        kernel::raw(Call::QueueBind, bind).ok()?;
    }
    let part = Part { own: pair, given, page: 0 };
    log::info!("probe: answered {}", ask(&child, &part, 1, 150));
    let again = pages_for(layout.len_bytes())?;
    for queue in 0..2 {
        let theirs =
            kernel::raw(Call::QueueBind, [child.handle().0, given.0, queue, bases[queue as usize], 256]);
        let ours = kernel::raw(Call::QueueBind, [0, own.0, queue, again, 256]);
        log::info!("probe: queue {queue}: {theirs:?}, {ours:?}");
    }
    Some(HELD)
}

/// Slices that are asked back, beside those that stay bound.
fn slices(_: Arguments<'_>) -> Option<u32> {
    let own = pages::environment().capabilities.slices[0];
    let (child, _) = with_part(ignores, 0)?;
    kernel::raw(Call::SliceUnbind, [0, own.0, 16, 8, 0]).ok()?;
    let part = derive(own, 16, 8, rights::BIND | rights::GIVE).ok()?;
    let given = child.give_on(part, rights::BIND).ok()?;
    let bound = kernel::raw(Call::SliceBind, [child.handle().0, given.0, 16, 8, 0]);
    log::info!("probe: bound {bound:?}");
    log::info!("probe: answered {}", ask(&child, &Part { own: part, given, page: 16 }, KEEP, 150));
    for slice in [16, 18, 19, 23] {
        let ours = kernel::raw(Call::SliceBind, [0, own.0, slice, 1, 0]);
        log::info!("probe: slice {slice}: {ours:?}");
    }
    Some(HELD)
}

/// What devices may do with pages that were taken, and with blocks. `revoke-devices keep|take`: the log says which pages.
fn devices(arguments: Arguments<'_>) -> Option<u32> {
    let take = arguments.next()? == "take";
    let (child, part) = with_part(ignores, 0)?;
    let grant = kernel::raw(Call::DmaGrant, [child.handle().0, part.given.0, 0, PAGES, 3]);
    log::info!("probe: pages from {} on: {grant:?}", part.page);
    let disk = pages::device_of_kind(abi::boot::DEVICE_BLOCK)?;
    let all = pages::environment().capabilities.extents[disk];
    let blocks = derive(all, 64, 32, rights::READ | rights::GIVE).ok()?;
    let given = child.give_on(blocks, rights::READ).ok()?;
    kernel::raw(Call::ExtentBind, [child.handle().0, given.0, 0, 0, 0]).ok()?;
    if take {
        log::info!("probe: answered {}", ask(&child, &part, KEEP, 150));
        log::info!("probe: answered {}", ask(&child, &Part { own: blocks, given, page: 64 }, 10, 150));
    }
    log::info!("probe: done");
    // With us everything would go.
    while !exos_runtime::turn::stop_wanted() {
        kernel::sleep(clock::tsc() + ms(20), [sleep::NONE; 4]);
    }
    Some(HELD)
}

/// More losses than are kept.
fn losses(_: Arguments<'_>) -> Option<u32> {
    let (child, _) = with_part(counts_losses, 0)?;
    for _ in 0..40 {
        let part = child.give(1, rights::READ).ok()?;
        give_back(part.own, 0).ok()?;
    }
    poke(&child)?;
    let status = child.child.wait(state::GONE)?;
    log::info!("probe: lost {}, and missed {}", at(&child, word::ROUNDS), at(&child, word::MISSED));
    // Who comes after it in its place has lost nothing.
    let (next, _) = with_part(counts_losses, 0)?;
    poke(&next)?;
    next.child.wait(state::GONE)?;
    log::info!("probe: the next lost {}, and missed {}", at(&next, word::ROUNDS), at(&next, word::MISSED));
    Some(if status == 0 { HELD } else { BROKEN })
}

const _: () = assert!(PART_VA < WINDOW_VA);
