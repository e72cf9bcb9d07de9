//! What a thread's tracepoints say, one after the other, as records: an exit is a slice from when KVM left the guest until it enters it
//! again or KVM_RUN returns. Instructions that are emulated in a row are one slice with their number: where ring 0 is interpreted
//! there are hundreds.

use super::names::{Fixed, Names};
use super::points::Step;
use crate::perf_events::clock::ticks;
use crate::trace::record::Record;
use abi::trace::{RECORD_ENTER, RECORD_EVENT, RECORD_LEAVE, pack_what};

/// Emulated instructions that are further apart are not in a row: the guest ran in between.
const ROW_NS: u64 = 20_000;

/// What is known of a thread.
#[derive(Debug)]
pub(super) struct Story {
    tsc_khz: u64,
    /// A slice of an exit is open.
    in_exit: bool,
    row: Option<Row>,
    last_tsc: u64,
}

/// Instructions that are emulated in a row.
#[derive(Clone, Copy, Debug)]
struct Row {
    from_tsc: u64,
    to_tsc: u64,
    instructions: u16,
    guest_address: u64,
}

impl Story {
    /// Of a thread of which nothing is known.
    pub(super) fn new(tsc_khz: u64) -> Self {
        Self { tsc_khz, in_exit: false, row: None, last_tsc: 0 }
    }

    /// Goes on.
    pub(super) fn step(&mut self, tsc: u64, step: Step, names: &Names, out: &mut Vec<Record>) {
        // Two readings of the clocks differ a little.
        let tsc = tsc.max(self.last_tsc);
        if !matches!(step, Step::Emulated { .. }) {
            self.end_row(out);
        }
        match step {
            Step::Emulated { guest_address, failed } => self.emulated(tsc, guest_address, failed, out),
            Step::Exit { isa, reason, guest_address } => {
                self.end_exit(tsc, out);
                self.in_exit = true;
                let what = pack_what(names.exit(isa, reason), RECORD_ENTER, 0);
                out.push(Record { tsc, what, subject: guest_address, argument: reason });
            }
            Step::Entry => self.end_exit(tsc, out),
            Step::UserSpace { reason, errno } => {
                self.end_exit(tsc, out);
                out.push(moment(tsc, names.user_space(reason, errno), reason));
            }
            Step::Halted { ns, slept } => {
                let site = if slept { Fixed::Slept } else { Fixed::Polled };
                let from_tsc = tsc.saturating_sub(ticks(ns, self.tsc_khz)).max(self.last_tsc);
                out.push(slice(from_tsc, tsc, site, 1, 0));
            }
            Step::PageFault { address } => out.push(moment(tsc, Fixed::PageFault as u32, address)),
            Step::Interrupt { vector } => out.push(moment(tsc, Fixed::Interrupt as u32, vector)),
            Step::Exception { vector } => out.push(moment(tsc, Fixed::Exception as u32, vector)),
            // The vector is the low byte of a message's data.
            Step::Message { data } => out.push(moment(tsc, Fixed::Message as u32, data & 0xFF)),
            Step::Accepted { vector } => out.push(moment(tsc, Fixed::Accepted as u32, vector)),
        }
        self.last_tsc = tsc;
    }

    /// One more instruction. One that could not be emulated was counted when that began.
    fn emulated(&mut self, tsc: u64, guest_address: u64, failed: bool, out: &mut Vec<Record>) {
        let near = ticks(ROW_NS, self.tsc_khz);
        match &mut self.row {
            Some(row) if tsc - row.to_tsc < near && row.instructions < u16::MAX => {
                row.to_tsc = tsc;
                row.instructions += u16::from(!failed);
            }
            _ if failed => {}
            _ => {
                self.end_row(out);
                self.row = Some(Row { from_tsc: tsc, to_tsc: tsc, instructions: 1, guest_address });
            }
        }
    }

    fn end_row(&mut self, out: &mut Vec<Record>) {
        if let Some(Row { from_tsc, to_tsc, instructions, guest_address }) = self.row.take() {
            out.push(slice(from_tsc, to_tsc, Fixed::Emulated, instructions, guest_address));
        }
    }

    fn end_exit(&mut self, tsc: u64, out: &mut Vec<Record>) {
        if std::mem::take(&mut self.in_exit) {
            out.push(Record { tsc, what: pack_what(0, RECORD_LEAVE, 0), subject: 0, argument: 0 });
        }
    }

    /// Nothing more is known at this time: a row that is over is told.
    pub(super) fn pause(&mut self, now_tsc: u64, out: &mut Vec<Record>) {
        let near = ticks(ROW_NS, self.tsc_khz);
        if self.row.is_some_and(|row| now_tsc.saturating_sub(row.to_tsc) > near) {
            self.end_row(out);
        }
    }

    /// What comes next does not follow from what came: all that goes on ends where it was last seen.
    pub(super) fn interrupt(&mut self, out: &mut Vec<Record>) {
        self.end_row(out);
        self.end_exit(self.last_tsc, out);
    }
}

/// Something that took from one moment to another, and so many times; `subject` says more.
fn slice(from_tsc: u64, tsc: u64, site: Fixed, times: u16, subject: u64) -> Record {
    Record { tsc, what: pack_what(site as u32, RECORD_EVENT, times), subject, argument: from_tsc }
}

/// Something that happened at a moment.
fn moment(tsc: u64, site: u32, subject: u64) -> Record {
    Record { tsc, what: pack_what(site, RECORD_EVENT, 1), subject, argument: tsc }
}

#[cfg(test)]
mod tests {
    use super::super::points::{Points, What};
    use super::*;

    /// A microsecond is 1000 ticks.
    const TSC_KHZ: u64 = 1_000_000;

    fn names() -> Names {
        Names::new(&Points::described(&[(
            What::Exit,
            "ID: 1\nprint fmt: __print_symbolic(y, { 12, \"HLT\" }, { 48, \"EPT_VIOLATION\" })",
        )]))
    }

    /// What is told of steps at so many microseconds: from, to, kind, name, times.
    fn told(steps: &[(u64, Step)], end: impl FnOnce(&mut Story, &mut Vec<Record>)) -> Vec<String> {
        let (names, mut story, mut records) = (names(), Story::new(TSC_KHZ), Vec::new());
        for &(us, step) in steps {
            story.step(us * 1000, step, &names, &mut records);
        }
        end(&mut story, &mut records);
        let line = |record: &Record| {
            let (site, kind, times) = record.parts();
            let (to, from) = (record.tsc / 1000, record.argument / 1000);
            match kind {
                RECORD_ENTER => format!("{to} begin {}", names.all()[site as usize]),
                RECORD_LEAVE => format!("{to} end"),
                _ => format!("{from}-{to} {} x{times}", names.all()[site as usize]),
            }
        };
        records.iter().map(line).collect()
    }

    fn exit(reason: u64) -> Step {
        Step::Exit { isa: 1, reason, guest_address: 0x1000 }
    }

    fn emulated(guest_address: u64) -> Step {
        Step::Emulated { guest_address, failed: false }
    }

    const MMIO: Step = Step::UserSpace { reason: 6, errno: 0 };

    #[test]
    fn exit_lasts_until_the_guest_is_entered_or_kvm_returns_to_the_vmm() {
        let steps = [
            (1, exit(48)),
            (4, Step::Entry),
            (10, exit(48)),
            (12, emulated(0x1000)),
            (13, MMIO),
            (20, Step::Entry),
            (30, exit(12)),
            (90, Step::Halted { ns: 55_000, slept: true }),
            (91, Step::Entry),
        ];
        let expected = [
            "1 begin EPT_VIOLATION",
            "4 end",
            "10 begin EPT_VIOLATION",
            "12-12 emulated instructions x1",
            "13 end",
            "13-13 to the VMM x1",
            "30 begin HLT",
            "35-90 halted x1",
            "91 end",
        ];
        assert_eq!(told(&steps, |_, _| ()), expected);
    }

    #[test]
    fn instructions_in_a_row_are_one_slice() {
        let failed = Step::Emulated { guest_address: 3, failed: true };
        let steps = [
            (1, emulated(1)),
            (3, emulated(2)),
            (5, emulated(3)),
            (6, failed),
            (40, emulated(9)),
            (41, MMIO),
        ];
        let expected =
            ["1-6 emulated instructions x3", "40-40 emulated instructions x1", "41-41 to the VMM x1"];
        assert_eq!(told(&steps, |_, _| ()), expected);
    }

    #[test]
    fn row_is_told_once_it_is_over() {
        let steps = [(1, emulated(1)), (3, emulated(2))];
        assert!(told(&steps, |story, out| story.pause(4_000, out)).is_empty());
        let over = told(&steps, |story, out| story.pause(40_000, out));
        assert_eq!(over, ["1-3 emulated instructions x2"]);
        assert_eq!(told(&steps, |story, out| story.interrupt(out)), over);
    }

    #[test]
    fn halt_does_not_begin_before_what_came_before_it() {
        let steps = [(50, Step::Message { data: 0x4_0060 }), (60, Step::Halted { ns: 10_500, slept: false })];
        let expected = ["50-50 message-signalled interrupt x1", "50-60 halted, polling x1"];
        assert_eq!(told(&steps, |_, _| ()), expected);
    }

    #[test]
    fn interruption_ends_what_goes_on_where_it_was_last_seen() {
        let steps = [(1, exit(12)), (3, emulated(1))];
        let expected = ["1 begin HLT", "3-3 emulated instructions x1", "3 end"];
        assert_eq!(told(&steps, |story, out| story.interrupt(out)), expected);
    }

    #[test]
    fn time_does_not_go_back() {
        let steps = [(10, exit(12)), (9, Step::Entry)];
        assert_eq!(told(&steps, |_, _| ()), ["10 begin HLT", "10 end"]);
    }
}
