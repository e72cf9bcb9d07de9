//! Messages: a parent calls its children and is called by them. The children are a few instructions each; what they got lies in
//! their data page, where the parent looks.

mod ends;
mod waiting;
mod words;

use crate::Case;
use crate::child::{Child, Code, DATA_VA, call};
use abi::call::{Call, state};
use abi::capability::{Handle, rights};
use exos_runtime::message::Sender;
use exos_runtime::{clock, kernel, pages};

type Arguments<'a> = &'a mut dyn Iterator<Item = &'static str>;

pub(crate) const TABLES: [&[Case]; 3] = [words::CASES, ends::CASES, waiting::CASES];

/// What a child that waits for an answer has in its other registers.
const PATTERN: u64 = 0x5A5A_5A5A_5A5A_5A5A;
/// Longer than anything here takes.
const LONG_NS: u64 = 40_000_000_000;

/// What a child has written with [`Code::store_message`].
#[derive(Debug, PartialEq, Eq)]
struct Stored {
    status: u64,
    from: u64,
    words: [u64; 4],
    /// Whatever was in registers that carry nothing.
    other: u64,
}

impl Code {
    /// A call whose first argument is in the child's data page, at a word.
    fn call_by_word(self, number: Call, word: u64, words: [u64; 4]) -> Self {
        let [b, c, d, e] = words;
        self.load([0x48, 0xBE], b) // mov rsi, imm64, and so on
            .load([0x48, 0xBA], c)
            .load([0x49, 0xBA], d)
            .load([0x49, 0xB8], e)
            .load([0x48, 0xBF], DATA_VA + 8 * word)
            .bytes(&[0x48, 0x8B, 0x3F]) // mov rdi, [rdi]
            .gate(number)
    }

    /// Patterns in registers that carry nothing.
    fn fill(self) -> Self {
        self.load([0x48, 0xBB], PATTERN) // rbx
            .load([0x48, 0xBD], PATTERN) // rbp
            .load([0x49, 0xBB], PATTERN) // r11
            .load([0x49, 0xBC], PATTERN) // r12
            .load([0x49, 0xBD], PATTERN) // r13
            .load([0x49, 0xBE], PATTERN) // r14
            .load([0x49, 0xBF], PATTERN) // r15
    }

    /// All general registers but `rsp` go to the data page, from a word on.
    fn store_message(self, word: u64) -> Self {
        self.bytes(&[0x4C, 0x09, 0xCB]) // or rbx, r9
            .load([0x49, 0xB9], DATA_VA + 8 * word) // mov r9, imm64
            .bytes(&[0x49, 0x89, 0x01]) // mov [r9], rax
            .bytes(&[0x49, 0x89, 0x79, 8]) // rdi
            .bytes(&[0x49, 0x89, 0x71, 16]) // rsi
            .bytes(&[0x49, 0x89, 0x51, 24]) // rdx
            .bytes(&[0x4D, 0x89, 0x51, 32]) // r10
            .bytes(&[0x4D, 0x89, 0x41, 40]) // r8
            .bytes(&[0x48, 0x09, 0xEB, 0x48, 0x09, 0xCB]) // or rbx, rbp; or rbx, rcx
            .bytes(&[0x4C, 0x09, 0xDB, 0x4C, 0x09, 0xE3]) // or rbx, r11; or rbx, r12
            .bytes(&[0x4C, 0x09, 0xEB, 0x4C, 0x09, 0xF3]) // or rbx, r13; or rbx, r14
            .bytes(&[0x4C, 0x09, 0xFB]) // or rbx, r15
            .bytes(&[0x49, 0x89, 0x59, 48]) // mov [r9 + 48], rbx
    }

    /// Answers for ever: each word becomes one more.
    pub(crate) fn serve() -> Self {
        let receive = Self::new().call(Call::MessageReceive, [0; 5]);
        // test eax, eax; jne receive; inc rsi, rdx, r10, r8
        let again = -(receive.0.len() as i8 + 4);
        let answer = Self::new()
            .bytes(&[0x85, 0xC0, 0x75, again as u8])
            .bytes(&[0x48, 0xFF, 0xC6, 0x48, 0xFF, 0xC2, 0x49, 0xFF, 0xC2, 0x49, 0xFF, 0xC0])
            .gate(Call::MessageReplyReceive)
            .for_ever();
        receive.bytes(&answer.0)
    }

    /// Over and over again.
    pub(crate) fn for_ever(self) -> Self {
        let back = -(self.0.len() as i32 + 5);
        self.bytes(&[0xE9]).bytes(&back.to_le_bytes())
    }
}

impl Child {
    fn make(code: Code) -> Option<Self> {
        Self::new(code, rights::WRITE).ok()
    }

    /// Gives it a capability for another environment, and its handle for that in a word of its data page.
    fn knows(&self, other: Handle, word: usize) -> Option<Handle> {
        let give =
            [0, other.0, self.environment.0, u64::from(rights::CALL | rights::YIELD | rights::GIVE), 0];
        let handle = call(Call::CapabilityGive, give).ok()?;
        self.set_word_at(word, handle);
        Some(Handle(handle))
    }

    fn stored(&self, word: usize) -> Stored {
        Stored {
            status: self.word_at(word),
            from: self.word_at(word + 1),
            words: [2, 3, 4, 5].map(|at| self.word_at(word + at)),
            other: self.word_at(word + 6),
        }
    }

    /// Lets others run until it is in that state.
    pub(crate) fn becomes(&self, wanted: u64) -> Option<()> {
        for _ in 0..10_000 {
            if self.status().0 == wanted {
                return Some(());
            }
            kernel::yield_to(Handle::NONE).ok()?;
        }
        log::error!("probe: a child is in state {:?} and not in {wanted}", self.status());
        None
    }

    pub(crate) fn destroy(&self) -> Option<()> {
        call(Call::EnvironmentDestroy, [self.environment.0, 0, 0, 0, 0]).ok()?;
        self.wait(state::GONE).map(drop)
    }
}

fn own() -> Handle {
    let page = pages::environment();
    page.capabilities.neighbours[page.environment as usize]
}

fn soon(ns: u64) -> u64 {
    clock::tsc() + clock::Scale::new().ticks(ns)
}

/// The sender that a child is, which is the `generation`th in its place.
fn sender_of(number: u32, generation: u32) -> Sender {
    Sender::caller(number, generation)
}

/// A caller, and one that it calls, which does not answer.
fn pair(receiver: Code) -> Option<(Child, Child)> {
    let receiver = Child::make(receiver)?;
    let caller =
        Child::make(Code::new().call_by_word(Call::MessageCall, 0, [9; 4]).store_message(8).exit(0))?;
    caller.knows(receiver.environment, 0)?;
    Some((receiver, caller))
}
