//! Acting for another environment without the right to, in every call that takes one; and taking more than there is.

use crate::child::{CODE_VA, Child, Code, DATA_VA, derive, derive_environment, give};
use crate::queue::{RING_ENTRIES, RING_PAGES};
use crate::{Case, HELD};
use abi::boot::DEVICE_BLOCK;
use abi::call::{ANY, Call, Error};
use abi::capability::{Handle, rights};
use abi::flow::ipv4;
use abi::layout::PAGE_BYTES;
use exos_runtime::{kernel, pages};

type Arguments<'a> = &'a mut dyn Iterator<Item = &'static str>;

pub(crate) const CASES: &[Case] = &[("act-for-another", act_for_another), ("exhaust", exhaust)];

/// Calls whose first argument is no environment, or one for which other rights count.
const OTHERS: &[Call] = &[
    Call::CapabilityAsk,
    Call::Version,
    Call::Exit,
    Call::Halt,
    Call::Sleep,
    Call::Yield,
    Call::EnvironmentCreate,
    Call::EnvironmentDestroy,
    Call::EnvironmentStatus,
    Call::Wake,
    Call::MessageCall,
    Call::MessageSend,
    Call::MessageReceive,
    Call::MessageReply,
    Call::MessageReplyReceive,
];

/// Every call there is for a child that one may wake and give to, but not control. It has something for each, so that what
/// stands against a call is the right alone.
fn act_for_another(_: Arguments<'_>) -> Option<u32> {
    let environment = pages::environment();
    let own = &environment.capabilities;
    let try_ = |what: &str, answer: Result<u64, Error>| log::info!("probe: {what}: {answer:?}");
    let victim = Child::new(Code::new().exit(0), rights::WRITE).ok()?;
    let no_rights = derive_environment(&victim, rights::GIVE)?;
    try_("wake without the right", kernel::raw(Call::Wake, [no_rights.0, 0, 0, 0, 0]));
    try_("yield without the right", kernel::raw(Call::Yield, [no_rights.0, 0, 0, 0, 0]));
    let to_none = [0, victim.part.0, no_rights.0, 1, 0];
    try_("give without the right to", kernel::raw(Call::CapabilityGive, to_none));
    try_("destroy without the right", kernel::raw(Call::EnvironmentDestroy, [no_rights.0, 0, 0, 0, 0]));

    // Should it be started, it sleeps.
    let sleeps = Code::new().call(Call::Sleep, [0; 5]).exit(0);
    let all = rights::WRITE | rights::DMA | rights::GIVE;
    let child = Child::with_pages(sleeps, all, 1 + RING_PAGES).ok()?;
    child.grant_to_devices().ok()?;
    let weak = derive_environment(&child, rights::WAKE | rights::RECEIVE | rights::GIVE | rights::YIELD)?;
    let disk = environment.devices.iter().position(|device| device.kind == DEVICE_BLOCK)?;
    let queues = give(own.queues[0], &child, rights::BIND).ok()?;
    let flow = give(own.flows[0], &child, rights::CARVE | rights::DIRECT).ok()?;
    let extent = give(own.extents[disk], &child, rights::READ).ok()?;
    // One that nobody has bound.
    kernel::raw(Call::SliceUnbind, [0, own.slices[0].0, 0, 1, 0]).ok()?;
    let slices = give(own.slices[0], &child, rights::BIND).ok()?;
    let dropped = give(child.part, &child, rights::READ).ok()?;
    let itself = give(child.environment, &child, rights::RECEIVE).ok()?;
    let [high, low] = ipv4([10, 0, 0, 2]);
    for call in Call::ALL.into_iter().filter(|call| !OTHERS.contains(call)) {
        let given = child.given.0;
        let arguments = |environment: Handle| match call {
            Call::EnvironmentStart => [environment.0, CODE_VA, DATA_VA + PAGE_BYTES, 0, 0],
            Call::SliceBind | Call::SliceUnbind => [environment.0, slices.0, 0, 1, 0],
            Call::MemoryMap => [environment.0, given, 1 << 40, 0, 1],
            Call::MemoryUnmap => [environment.0, 1 << 40, 1, 0, 0],
            Call::DmaGrant => [environment.0, given, 0, 1, 0],
            Call::QueueBind => [environment.0, queues.0, 0, child.gpa(1), RING_ENTRIES.into()],
            Call::QueueUnbind => [environment.0, queues.0, 0, 0, 0],
            Call::FlowCarve => [environment.0, flow.0, 1 | 128 << 8, high, low],
            Call::FlowDirect => [environment.0, flow.0, queues.0, 1 << 16, 0],
            Call::ExtentBind | Call::ExtentUnbind => [environment.0, extent.0, 0, 0, 0],
            Call::CapabilityDerive => [environment.0, given, child.gpa(0) / PAGE_BYTES, 1, 1],
            Call::CapabilityGive => [environment.0, given, itself.0, 1, 0],
            Call::CapabilityDrop => [environment.0, dropped.0, 0, 0, 0],
            _ => [environment.0, given, 1, 0, 0],
        };
        try_for(call, kernel::raw(call, arguments(weak)));
        let stranger = kernel::raw(call, arguments(Handle(child.environment.0 + (77 << 32))));
        if stranger != Err(Error::NotFound) {
            log::error!("probe: act for nobody, {call:?}: {stranger:?}");
        }
    }
    try_("status by a number", kernel::raw(Call::EnvironmentStatus, [1, 0, 0, 0, 0]));
    try_("halt beside others", {
        let other = Child::new(Code::new().exit(0), rights::WRITE).ok()?;
        other.start(0).ok()?;
        kernel::raw(Call::Halt, [1, 0, 0, 0, 0])
    });
    let few = derive(own.environments, 4, 1, rights::CONTROL | rights::GIVE).ok()?;
    try_("create without the right", kernel::raw(Call::EnvironmentCreate, [few.0, ANY, 0, 0, 0]));
    let one = derive(own.environments, 4, 1, rights::CREATE | rights::GIVE).ok()?;
    try_("create beside one's places", kernel::raw(Call::EnvironmentCreate, [one.0, 5, 0, 0, 0]));
    Some(HELD)
}

/// What is allowed answers a number that tells nothing.
fn try_for(call: Call, answer: Result<u64, Error>) {
    log::info!("probe: act for another, {call:?}: {:?}", answer.map(drop));
}

/// Makes as many as it gets; why there are no more, and how many there were.
fn until_refused(mut make: impl FnMut(u64) -> Result<u64, Error>) -> (u64, Result<u64, Error>) {
    const MOST: u64 = 100_000;
    for made in 0..MOST {
        let answer = make(made);
        if answer.is_err() {
            return (made, answer);
        }
    }
    (MOST, Ok(0))
}

/// Everything of which there is a table, to its end. Each ends with an error, and after one is given back there is one again.
fn exhaust(_: Arguments<'_>) -> Option<u32> {
    let environment = pages::environment();
    let own = &environment.capabilities;
    let first = environment.heap[0].start_gpa / PAGE_BYTES;
    let say = |what: &str, (made, why): (u64, Result<u64, Error>), again: Result<u64, Error>| {
        let some = if made > 1 { "some" } else { "none" };
        log::info!("probe: exhaust {what}: {some}, then {why:?}, given back {:?}", again.map(drop));
    };
    let raw = kernel::raw;
    let mut last = 0;

    let create = || raw(Call::EnvironmentCreate, [own.environments.0, ANY, 0, 0, 0]);
    let all = until_refused(|_| create().inspect(|&handle| last = handle));
    while raw(Call::CapabilityDrop, [0, last, 0, 0, 0]).ok()? != 0 {}
    // It is the place that counts, which is cleared before it is free.
    for _ in 0..1000 {
        if create().is_ok_and(|handle| raw(Call::CapabilityDrop, [0, handle, 0, 0, 0]).is_ok()) {
            break;
        }
        kernel::yield_to(Handle::NONE).ok()?;
    }
    say("places", all, {
        let mut answer = Err(Error::NoSpace);
        for _ in 0..1000 {
            answer = create();
            if answer.is_ok() {
                break;
            }
            kernel::yield_to(Handle::NONE).ok()?;
        }
        answer
    });

    // A table a mapping: each lies in another part of the address space.
    let far = |number: u64| (1 << 40) + number * (2 << 20);
    let map = |number: u64| raw(Call::MemoryMap, [0, own.heap[0].0, far(number), 0, 1]);
    let all = until_refused(map);
    let made = all.0;
    // An unmapped page leaves its table, which another page can use.
    raw(Call::MemoryUnmap, [0, far(made - 1), 1, 0, 0]).ok()?;
    say("page tables", all, map(made - 1));

    let root = own.flows[0].0;
    let carve = |number: u64| {
        let [high, low] = ipv4([10, 1, (number >> 8) as u8, number as u8]);
        raw(Call::FlowCarve, [0, root, 1 | 128 << 8, high, low])
    };
    let all = until_refused(|number| carve(number).inspect(|&handle| last = handle));
    let number = all.0;
    raw(Call::CapabilityDrop, [0, last, 0, 0, 0]).ok()?;
    say("flows", all, carve(number - 1));
    raw(Call::CapabilityRevoke, [0, root, 0, 0, 0]).ok()?;
    while raw(Call::CapabilityRevoke, [0, root, 0, 0, 0]).ok()? != 0 {}

    let disk = environment.devices.iter().position(|device| device.kind == DEVICE_BLOCK)?;
    let extent = |_| {
        let part = raw(Call::CapabilityDerive, [0, own.extents[disk].0, 0, 1, u64::from(rights::READ)])?;
        raw(Call::ExtentBind, [0, part, 0, 0, 0]).map(|_| part)
    };
    let all = until_refused(|number| extent(number).inspect(|&part| last = part));
    raw(Call::CapabilityDrop, [0, last, 0, 0, 0]).ok()?;
    say("extents", all, extent(0));
    while raw(Call::CapabilityRevoke, [0, own.extents[disk].0, 0, 0, 0]).ok()? != 0 {}

    let derive = |_| raw(Call::CapabilityDerive, [0, own.heap[0].0, first, 1, 1]);
    let all = until_refused(|number| derive(number).inspect(|&handle| last = handle));
    raw(Call::CapabilityDrop, [0, last, 0, 0, 0]).ok()?;
    say("capabilities", all, derive(0));

    let deeper = until_refused(|depth| {
        // The last of the slots just made is given back for each, so that it is the depth that ends it.
        let from = if depth == 0 { own.heap[0].0 } else { last };
        if depth == 0 {
            while raw(Call::CapabilityRevoke, [0, own.heap[0].0, 0, 0, 0])? != 0 {}
        }
        raw(Call::CapabilityDerive, [0, from, first, 1, 1]).inspect(|&handle| last = handle)
    });
    say("depth", deeper, derive(0));
    Some(HELD)
}
