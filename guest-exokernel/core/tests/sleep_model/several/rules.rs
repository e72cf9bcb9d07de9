//! What a machine with several vCPUs is like, and the rules of the kernel there, each of which can be left out.

/// vCPUs of a model.
pub(crate) const CPUS: usize = 2;
/// Most environments of a model.
pub(crate) const MOST: usize = 3;
/// Nobody.
pub(crate) const NOBODY: u8 = MOST as u8;

/// A set of vCPUs, a bit each.
pub(crate) const FIRST: u8 = 1;
pub(crate) const SECOND: u8 = 2;
pub(crate) const BOTH: u8 = 3;

/// What an environment does, one after the other, before it serves or computes for good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Act {
    /// `Call::Sleep`, until what comes for it has come.
    Sleep,
    /// `Call::Wake`.
    Wake(u8),
    /// A plain store to somebody's word.
    Write(u8),
    /// `Call::EnvironmentStart` of one that does not run from the start.
    Start(u8),
    /// `Call::SliceBind` and `Call::SliceUnbind` for somebody: from now on it runs on these vCPUs.
    Move(u8, u8),
    /// `Call::CapabilityAsk`, of something that somebody holds.
    Ask(u8),
    /// `Call::EnvironmentDestroy`.
    End(u8),
    /// `Call::MemoryUnmap` for somebody: waits until it is not used anywhere.
    Unmap(u8),
}

/// What comes after that.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Then {
    /// Looks what came, and sleeps.
    #[default]
    Serve,
    /// Computes for good, and yields when its slice is over.
    Compute,
    /// Calls somebody who never answers.
    Call,
}

/// One environment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Work {
    /// Where it may run.
    pub(crate) vcpus: u8,
    /// It runs from the start.
    pub(crate) begins: bool,
    pub(crate) acts: &'static [Act],
    pub(crate) then: Then,
    /// Frames that come for it.
    pub(crate) frames: u8,
    /// It sleeps until a deadline.
    pub(crate) deadline: bool,
    /// It has an upcall for what it is asked for.
    pub(crate) answers: bool,
}

/// How a device's interrupt ends a halt (xok/src/arch/probe.rs `wake`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wake {
    Silent,
    Vector,
}

/// A machine.
#[derive(Clone, Debug)]
pub(crate) struct Setup {
    pub(crate) wake: Wake,
    pub(crate) environments: Vec<Work>,
    /// How often a slice ends at most where it makes a difference when, and how often its timer comes early.
    pub(crate) slice_ends: u8,
    pub(crate) early_timers: u8,
    /// The deadline of the ask passes.
    pub(crate) ask_ends: bool,
    /// The user wants the machine to end, at any moment.
    pub(crate) stop: bool,
}

rules! {
    /// arch/vcpu.rs `xok_call_several`, `lock`: whoever is in the kernel has it to itself.
    lock,
    /// arch/vcpu.rs `xok_lock`: who waits for the lock forgets translations for whoever has it.
    lock_waiter_flushes,
    /// arch/vcpu.rs `xok_call_several`: who was ended while it waited for the lock makes no call.
    ended_makes_no_call,
    /// arch/vcpu.rs `have_look`, `stop`: the wish is exchanged; the interrupt does not overtake it.
    look_is_exchanged,
    /// arch/vcpu.rs `flush_other`: so is that.
    flush_is_exchanged,
    /// arch/vcpu.rs `stop`: who is ended elsewhere is told so.
    end_has_look,
    /// schedule.rs `kicked`, `at_slice_end`: `leave_if_ended`.
    leaves_if_ended,
    /// schedule.rs `kicked`: who had no end of its slice has one now, if somebody else wants the vCPU.
    kicked_begins_slice,
    /// entry.rs `xok_end_of_interrupt`: an interrupt between STI and HLT has the halt skipped.
    halt_skipped,
    /// sleep.rs `idle`: who halts says so before it gives the lock back.
    idle_said_under_lock,
    /// schedule.rs `schedule`: who does not halt any more says so.
    idle_taken_back,
    /// schedule.rs `schedule_but`: looks at the terms before it halts.
    look_before_idle,
    /// entry.rs `xok_idle`: and afterwards.
    look_after_idle,
    /// sleep.rs `look`: at all sleepers, also at those that run on other vCPUs only.
    look_at_all,
    /// schedule.rs `at_slice_end`: looks at the terms.
    look_at_slice_end,
    /// schedule.rs `at_slice_end`: a timer that came early is set again.
    early_timer_set_again,
    /// sleep.rs `wake_up`: what comes before the sleep is kept.
    wake_is_kept,
    /// sleep.rs `rouse`: who can run again is offered to the vCPUs where it may.
    rouse_offers,
    /// schedule.rs `wake_idle`: the interrupt that ends the halt.
    wake_idle_kicks,
    /// schedule.rs `schedule_but`: `offer_rest`.
    offer_rest,
    /// schedule.rs `leave`: who may not run here any more is offered elsewhere.
    leave_offers,
    /// The same, for the deadline of one that sleeps.
    leave_offers_sleepers,
    /// schedule.rs `notify_vcpus`: who runs without an end on another vCPU gets one.
    notify_has_look,
    /// schedule.rs `notify_vcpus`, `begin_slice`: the same on this one.
    notify_begins_slice,
    /// schedule.rs `begin_slice`: who sleeps here counts as another.
    sleepers_limit_slices,
    /// schedule.rs `begin_slice`: who may not run here has an end.
    guests_have_an_end,
    /// schedule.rs `begin_slice`: while something is asked for, slices end.
    asks_limit_slices,
    /// schedule.rs `begin_slice`: while something is to be taken back, slices end.
    endings_limit_slices,
    /// kernel.rs `start`: `offer`.
    start_offers,
    /// calls/slice.rs `move_to`: the new vCPUs are told.
    move_notifies,
    /// calls/slice.rs `move_to`: the one where it runs is told.
    move_has_look,
    /// calls/slice.rs `move_to`: also if it is this one.
    move_ends_own_slice,
    /// vcpus.rs `allow_on`: `aim_interrupts`.
    interrupts_follow,
    /// sleep.rs `idle`: deadlines of those who sleep here.
    idle_deadline,
    /// sleep.rs `idle`: the deadline of an ask.
    idle_deadline_of_asks,
    /// calls/revocation.rs `capability_ask`: who sleeps looks around.
    ask_wakes,
    /// calls/revocation.rs `capability_ask`: who runs on another vCPU is told.
    ask_has_look,
    /// calls/revocation.rs `capability_ask`: the asker's vCPU sees to the deadline, should no other.
    ask_begins_slice,
    /// calls/revocation.rs `answered`: the asker is woken.
    answer_wakes,
    /// calls/repossession.rs `take_step`: who loses something looks around.
    loss_wakes,
    /// ending.rs `end`: somebody sees to it that what it held is taken back.
    end_is_seen_to,
    /// ending.rs `take_back`: when all is taken back, sleepers look around.
    gone_wakes,
    /// The same: and who is about to sleep does not.
    gone_is_kept,
    /// vmm `Placement::interrupt_guest`: every vCPU.
    stop_interrupts_all,
}
