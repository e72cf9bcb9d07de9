//! Which of KVM's tracepoints are recorded, and what one of them says. A kernel that lacks some of them has the others; fields that
//! it lacks are 0.

use crate::perf_events::Unavailable;
use crate::perf_events::tracefs::{self, Field, Tracepoint};
use zerocopy::IntoBytes;

/// What a tracepoint says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// The guest was left, for a reason of the processor's: by the tables of VMX (1) or SVM (2).
    Exit {
        isa: u64,
        reason: u64,
        guest_address: u64,
    },
    /// The guest is entered.
    Entry,
    /// KVM_RUN returns.
    UserSpace {
        reason: u64,
        errno: i32,
    },
    /// An instruction of the guest's is emulated, or was and could not be.
    Emulated {
        guest_address: u64,
        failed: bool,
    },
    /// The guest touched what was not mapped.
    PageFault {
        address: u64,
    },
    Interrupt {
        vector: u64,
    },
    Exception {
        vector: u64,
    },
    /// The guest's halt is over; whether the thread slept, or polled all the time.
    Halted {
        ns: u64,
        slept: bool,
    },
    /// An interrupt was sent by a message.
    Message {
        data: u64,
    },
    /// The local APIC of the vCPU took it.
    Accepted {
        vector: u64,
    },
}

/// Which.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum What {
    Exit,
    Entry,
    UserSpace,
    Emulated,
    PageFault,
    Interrupt,
    Exception,
    Halted,
    Message,
    Accepted,
}

/// All of them, with the fields that are read.
const WANTED: [(What, &str, &[&str]); 10] = [
    (What::Exit, "kvm_exit", &["isa", "exit_reason", "guest_rip"]),
    (What::Entry, "kvm_entry", &[]),
    (What::UserSpace, "kvm_userspace_exit", &["reason", "errno"]),
    (What::Emulated, "kvm_emulate_insn", &["rip", "failed"]),
    (What::PageFault, "kvm_page_fault", &["fault_address"]),
    (What::Interrupt, "kvm_inj_virq", &["vector"]),
    (What::Exception, "kvm_inj_exception", &["exception"]),
    (What::Halted, "kvm_vcpu_wakeup", &["ns", "waited"]),
    (What::Message, "kvm_msi_set_irq", &["data"]),
    (What::Accepted, "kvm_apic_accept_irq", &["vec"]),
];

/// One that there is.
#[derive(Debug)]
pub(super) struct Point {
    pub(super) id: u16,
    pub(super) what: What,
    fields: Vec<Option<Field>>,
    words: Vec<Vec<(i64, String)>>,
}

/// Those that there are.
#[derive(Debug)]
pub(super) struct Points(Vec<Point>);

impl Points {
    /// Looks for them in tracefs.
    pub(super) fn find() -> Result<Self, Unavailable> {
        let kvm = tracefs::subsystem("kvm")?;
        let mut points = Vec::new();
        for (what, name, fields) in WANTED {
            if let Some(tracepoint) = tracefs::tracepoint(&kvm, name)? {
                points.push(Point::new(what, fields, tracepoint));
            }
        }
        if points.is_empty() { Err(Unavailable::NoTracepoints) } else { Ok(Self(points)) }
    }

    pub(super) fn all(&self) -> &[Point] {
        &self.0
    }

    /// Words that a tracepoint has for its values, table by table.
    pub(super) fn words(&self, what: What) -> &[Vec<(i64, String)>] {
        self.0.iter().find(|point| point.what == what).map_or(&[], |point| &point.words)
    }

    /// What a sample says, and when it was taken, by the clock of records. Its words: the time, and what was recorded with its length
    /// in front.
    pub(super) fn step(&self, sample: &[u64]) -> Option<(u64, Step)> {
        let (&ns, rest) = sample.split_first()?;
        let bytes = rest.as_bytes();
        let (len_bytes, recorded) = bytes.split_first_chunk()?;
        let recorded = recorded.get(..u32::from_ne_bytes(*len_bytes) as usize).unwrap_or(recorded);
        let id = u16::from_ne_bytes(*recorded.first_chunk()?);
        let point = self.0.iter().find(|point| point.id == id)?;
        Some((ns, point.step(recorded)))
    }
}

impl Point {
    fn new(what: What, fields: &[&str], tracepoint: Tracepoint) -> Self {
        let fields = fields.iter().map(|name| tracepoint.field(name)).collect();
        Self { id: tracepoint.id, what, fields, words: tracepoint.words }
    }

    fn step(&self, recorded: &[u8]) -> Step {
        let field = |number: usize| {
            let field = self.fields.get(number).copied().flatten();
            field.map_or(0, |field| field.read(recorded))
        };
        match self.what {
            What::Exit => Step::Exit { isa: field(0), reason: field(1), guest_address: field(2) },
            What::Entry => Step::Entry,
            What::UserSpace => Step::UserSpace { reason: field(0), errno: field(1) as u32 as i32 },
            What::Emulated => Step::Emulated { guest_address: field(0), failed: field(1) != 0 },
            What::PageFault => Step::PageFault { address: field(0) },
            What::Interrupt => Step::Interrupt { vector: field(0) },
            What::Exception => Step::Exception { vector: field(0) },
            What::Halted => Step::Halted { ns: field(0), slept: field(1) != 0 },
            What::Message => Step::Message { data: field(0) },
            What::Accepted => Step::Accepted { vector: field(0) },
        }
    }
}

#[cfg(test)]
impl Points {
    /// Of tracepoints with these descriptions.
    pub(super) fn described(formats: &[(What, &str)]) -> Self {
        let point = |&(what, format): &(What, &str)| {
            let fields = WANTED.iter().find(|wanted| wanted.0 == what).expect("all are wanted").2;
            Point::new(what, fields, Tracepoint::parse(format).expect("a format"))
        };
        Self(formats.iter().map(point).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const USER_SPACE: &str = "ID: 42\n\
        field:unsigned short common_type;\toffset:0;\tsize:2;\tsigned:0;\n\
        field:__u32 reason;\toffset:8;\tsize:4;\tsigned:0;\n\
        field:int errno;\toffset:12;\tsize:4;\tsigned:1;\n\
        print fmt: \"%d\", __print_symbolic(REC->reason, { 6, \"KVM_EXIT_\" \"MMIO\" })\n";

    /// A sample as the kernel writes it: time, length, and the tracepoint's own bytes.
    fn sample(ns: u64, recorded: &[u8]) -> Vec<u64> {
        let mut bytes = (recorded.len() as u32).to_ne_bytes().to_vec();
        bytes.extend(recorded);
        bytes.resize(bytes.len().next_multiple_of(8), 0);
        let words = bytes.as_chunks().0.iter().map(|&word| u64::from_ne_bytes(word));
        std::iter::once(ns).chain(words).collect()
    }

    #[test]
    fn sample_is_told_by_the_number_and_the_fields_of_its_format() {
        let points = Points::described(&[(What::UserSpace, USER_SPACE)]);
        let mut recorded = [0u8; 16];
        recorded[0] = 42;
        recorded[8] = 6;
        recorded[12..].copy_from_slice(&(-4i32).to_ne_bytes());
        let expected = Step::UserSpace { reason: 6, errno: -4 };
        assert_eq!(points.step(&sample(7, &recorded)), Some((7, expected)));
        recorded[0] = 43;
        assert_eq!(points.step(&sample(7, &recorded)), None, "another tracepoint");
    }

    #[test]
    fn cut_samples_are_nothing_or_zeros() {
        let points = Points::described(&[(What::UserSpace, USER_SPACE)]);
        assert_eq!(points.step(&[]), None);
        assert_eq!(points.step(&[1]), None);
        assert_eq!(points.step(&sample(1, &[])), None);
        let expected = Step::UserSpace { reason: 0, errno: 0 };
        assert_eq!(points.step(&sample(1, &[42, 0])), Some((1, expected)));
        // A length that is more than there is.
        assert_eq!(points.step(&[1, 42 << 32 | u64::from(u32::MAX)]), Some((1, expected)));
    }
}
