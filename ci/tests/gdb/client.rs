//! The other side of gdb's remote protocol, as far as these tests need it; so they need no gdb.

use exovm::debug::DebugError;
use exovm::machine::Machine;
use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

/// How long an answer may take, on a busy host.
const PATIENCE: Duration = Duration::from_secs(20);

/// A debugger.
pub(crate) struct Client {
    socket: UnixStream,
    input: Vec<u8>,
}

/// Why the guest stopped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Stop {
    /// Its number.
    pub(crate) signal: u8,
    pub(crate) thread: u64,
    /// A breakpoint.
    pub(crate) breakpoint: bool,
}

/// What a thread has in its registers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Registers(pub(crate) Vec<u8>);

pub(crate) const RAX: usize = 0;
pub(crate) const RBX: usize = 1;
pub(crate) const RCX: usize = 2;
pub(crate) const RBP: usize = 6;
pub(crate) const RSP: usize = 7;
pub(crate) const R11: usize = 11;
pub(crate) const RIP: usize = 16;

impl Registers {
    pub(crate) fn get(&self, at: usize) -> u64 {
        u64::from_le_bytes(self.0[8 * at..][..8].try_into().expect("eight bytes"))
    }

    pub(crate) fn set(&mut self, at: usize, value: u64) {
        self.0[8 * at..][..8].copy_from_slice(&value.to_le_bytes());
    }

    pub(crate) fn flags(&self) -> u32 {
        u32::from_le_bytes(self.0[0x88..0x8C].try_into().expect("four bytes"))
    }

    pub(crate) fn cs(&self) -> u32 {
        u32::from_le_bytes(self.0[0x8C..0x90].try_into().expect("four bytes"))
    }

    /// The lower half of a vector register.
    pub(crate) fn xmm(&self, number: usize) -> u64 {
        u64::from_le_bytes(self.0[0x114 + 16 * number..][..8].try_into().expect("eight bytes"))
    }

    pub(crate) fn set_xmm(&mut self, number: usize, value: u64) {
        self.0[0x114 + 16 * number..][..8].copy_from_slice(&value.to_le_bytes());
    }
}

impl Client {
    /// Attaches to a machine of this process. It stands still from then on.
    pub(crate) fn attach(machine: &Machine) -> Self {
        Self::try_attach(machine).expect("nobody else is attached")
    }

    /// The same, if nobody else is.
    pub(crate) fn try_attach(machine: &Machine) -> Result<Self, DebugError> {
        let (ours, theirs) = UnixStream::pair().expect("sockets");
        machine.attach_debugger(theirs)?;
        ours.set_read_timeout(Some(Duration::from_millis(20))).expect("a socket");
        let mut client = Self { socket: ours, input: Vec::new() };
        assert_eq!(client.ask("QStartNoAckMode"), "OK");
        client.write(b"+");
        Ok(client)
    }

    /// Bytes as they are.
    pub(crate) fn write(&mut self, bytes: &[u8]) {
        self.socket.write_all(bytes).expect("it listens");
    }

    /// Whether the other side has closed the connection, or does within its patience.
    pub(crate) fn closes(mut self) -> bool {
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            match self.socket.read(&mut [0; 4096]) {
                Ok(0) => return true,
                Ok(_) => {}
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
                Err(_) => return true,
            }
        }
        false
    }

    pub(crate) fn send(&mut self, packet: &str) {
        let sum = packet.bytes().fold(0u8, u8::wrapping_add);
        self.write(format!("${packet}#{sum:02x}").as_bytes());
    }

    /// The next packet, within a time.
    pub(crate) fn next(&mut self, patience: Duration) -> Option<String> {
        let deadline = Instant::now() + patience;
        loop {
            let start = self.input.iter().position(|&byte| byte == b'$');
            let end = self.input.iter().position(|&byte| byte == b'#');
            if let (Some(start), Some(end)) = (start, end)
                && self.input.len() >= end + 3
            {
                let body = expand(&self.input[start + 1..end]);
                self.input.drain(..end + 3);
                return Some(body);
            }
            if Instant::now() >= deadline {
                return None;
            }
            let mut part = [0; 4096];
            match self.socket.read(&mut part) {
                Ok(0) => panic!("the debugger's connection was closed"),
                Ok(count) => self.input.extend_from_slice(&part[..count]),
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
                Err(error) => panic!("the debugger's connection: {error}"),
            }
        }
    }

    pub(crate) fn ask(&mut self, packet: &str) -> String {
        self.send(packet);
        self.next(PATIENCE).unwrap_or_else(|| panic!("no answer to {packet}"))
    }

    /// Numbers of all threads.
    pub(crate) fn threads(&mut self) -> Vec<u64> {
        let mut threads = Vec::new();
        let mut answer = self.ask("qfThreadInfo");
        while let Some(list) = answer.strip_prefix('m') {
            let numbers = list.split(',').map(|id| id.rsplit('.').next().expect("a number"));
            threads.extend(numbers.map(|id| u64::from_str_radix(id, 16).expect("a number")));
            answer = self.ask("qsThreadInfo");
        }
        threads
    }

    pub(crate) fn describe(&mut self, thread: u64) -> String {
        String::from_utf8(bytes(&self.ask(&format!("qThreadExtraInfo,{thread:x}")))).expect("text")
    }

    pub(crate) fn registers(&mut self, thread: u64) -> Registers {
        assert_eq!(self.ask(&format!("Hg{thread:x}")), "OK");
        Registers(bytes(&self.ask("g")))
    }

    /// What comes of writing them.
    pub(crate) fn set_registers(&mut self, thread: u64, registers: &Registers) -> String {
        assert_eq!(self.ask(&format!("Hg{thread:x}")), "OK");
        self.ask(&format!("G{}", hex(&registers.0)))
    }

    /// Memory as a thread has it; nothing if there is none.
    pub(crate) fn read(&mut self, thread: u64, va: u64, len: usize) -> Vec<u8> {
        assert_eq!(self.ask(&format!("Hg{thread:x}")), "OK");
        let answer = self.ask(&format!("m{va:x},{len:x}"));
        if answer.starts_with('E') { Vec::new() } else { bytes(&answer) }
    }

    pub(crate) fn word(&mut self, thread: u64, va: u64) -> Option<u64> {
        self.read(thread, va, 8).try_into().ok().map(u64::from_le_bytes)
    }

    /// What comes of writing memory.
    pub(crate) fn write_memory(&mut self, thread: u64, va: u64, data: &[u8]) -> String {
        assert_eq!(self.ask(&format!("Hg{thread:x}")), "OK");
        self.ask(&format!("M{va:x},{:x}:{}", data.len(), hex(data)))
    }

    pub(crate) fn break_at(&mut self, va: u64) -> String {
        self.ask(&format!("Z0,{va:x},1"))
    }

    pub(crate) fn unbreak(&mut self, va: u64) -> String {
        self.ask(&format!("z0,{va:x},1"))
    }

    /// All go on.
    pub(crate) fn go(&mut self) {
        self.send("vCont;c");
    }

    /// Why the guest stopped, within a time.
    pub(crate) fn stop_within(&mut self, patience: Duration) -> Option<Stop> {
        self.next(patience).map(|packet| parse_stop(&packet))
    }

    pub(crate) fn stop(&mut self) -> Stop {
        self.stop_within(PATIENCE).expect("it stops")
    }

    /// One instruction of a thread.
    pub(crate) fn step(&mut self, thread: u64) -> Stop {
        self.send(&format!("vCont;s:{thread:x}"));
        self.stop()
    }

    /// Ctrl-C.
    pub(crate) fn interrupt(&mut self) -> Stop {
        self.write(&[3]);
        self.stop()
    }

    /// Goes, and lets the guest go on.
    pub(crate) fn detach(mut self) {
        assert_eq!(self.ask("D"), "OK");
        assert!(self.closes());
    }
}

fn parse_stop(packet: &str) -> Stop {
    let (head, rest) = packet.split_at_checked(3).unwrap_or_else(|| panic!("no stop: {packet}"));
    assert!(head.starts_with('T'), "no stop: {packet}");
    let parts: Vec<_> = rest.split(';').collect();
    let thread = parts.iter().find_map(|part| part.strip_prefix("thread:")).expect("a thread");
    let thread = thread.rsplit('.').next().expect("a number");
    Stop {
        signal: u8::from_str_radix(&head[1..], 16).expect("a number"),
        thread: u64::from_str_radix(thread, 16).expect("a number"),
        breakpoint: parts.iter().any(|part| part.starts_with("swbreak")),
    }
}

/// Without the abbreviation of repeated letters.
fn expand(packet: &[u8]) -> String {
    let mut text = String::new();
    let mut at = 0;
    while at < packet.len() {
        if packet[at] == b'*' {
            let last = text.chars().last().expect("a letter before");
            text.extend(std::iter::repeat_n(last, usize::from(packet[at + 1]) - 29));
            at += 2;
        } else {
            text.push(packet[at] as char);
            at += 1;
        }
    }
    text
}

fn bytes(hex: &str) -> Vec<u8> {
    // What is not known is given as letters.
    hex.as_bytes()
        .chunks_exact(2)
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).expect("hex"), 16).unwrap_or(0))
        .collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
