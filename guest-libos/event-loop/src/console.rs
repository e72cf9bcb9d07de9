//! The loop's console: commands typed at the host's end of the port `console` (`exovm console`), answered from the loop's own
//! numbers and the service's. A terminal gets a prompt and an echo, a pipe only the answers.

use abi::boot::DEVICE_CONSOLE;
use alloc::vec::Vec;
use core::fmt::{self, Write};
pub use exos_channel::OpenError;
use exos_channel::{Arming, Channel, Config, Edit, Host, LineEditor};
use exos_runtime::pages;
use exos_virtqueue::guest::GuestHal;

const NAMES: &[&str] = &["console"];
/// The port in the list of one.
const PORT: usize = 0;
/// Bytes handled before their answers must have found room: a client that asks faster than it reads waits.
const INPUT_BYTES: usize = 16;

const HELP: &str = "\
help          this
counters      what the service and the TCP/IP stack have done since the start
connections   how many are open
quit          end the machine, as Ctrl-C at `exovm run` does
";

/// What a command can ask for.
pub trait Answers {
    /// Gives each counter with its name.
    fn counters(&self, each: &mut dyn FnMut(&'static str, u64));
    /// Connections that are open, and that can be.
    fn connections(&self) -> (usize, usize);
}

/// Whether the loop goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// It does.
    Go,
    /// A client wants the machine to end.
    Quit,
}

/// The console of one loop.
pub struct Console {
    channel: Channel<GuestHal>,
    /// What the prompt says.
    name: &'static str,
    editor: LineEditor,
    /// Number of the client that types.
    client: u32,
    /// It is a terminal.
    echo: bool,
    /// Text that the port had no room for yet.
    output: Text,
}

/// Text for the client.
#[derive(Default)]
struct Text(Vec<u8>);

impl Write for Text {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.0.extend_from_slice(text.as_bytes());
        Ok(())
    }
}

impl Console {
    /// Asks for the console's port, with a prompt that says `name`; `None`: the machine has no host channel.
    pub fn open(name: &'static str) -> Result<Option<Self>, OpenError> {
        let devices = &pages::environment().devices;
        let Some(index) = pages::device_of_kind(DEVICE_CONSOLE) else {
            return Ok(None);
        };
        let channel = Channel::open(GuestHal, index as u32, &devices[index], Config::default(), NAMES)?;
        let (editor, output) = (LineEditor::new(), Text::default());
        Ok(Some(Self { channel, name, editor, client: 0, echo: false, output }))
    }

    /// Whether there is something for [`Self::work`] to do.
    #[inline]
    pub fn is_ready(&mut self) -> bool {
        // While an answer waits for room, what else is typed waits, too.
        if self.output.0.is_empty() { self.channel.is_ready() } else { self.channel.is_ready_to_write() }
    }

    /// Asks for interrupts before a sleep.
    pub fn request_interrupts(&mut self) -> Arming {
        if self.output.0.is_empty() {
            self.channel.request_interrupts()
        } else {
            self.channel.request_write_interrupts()
        }
    }

    /// Whether the device broke the channel; it is of no use then.
    pub fn is_broken(&self) -> bool {
        match self.channel.fault() {
            Some(fault) => log::error!("console: {fault}"),
            None => return false,
        }
        true
    }

    /// Answers what was typed, as far as there is room for the answers.
    #[cold]
    pub fn work(&mut self, answers: &impl Answers) -> Next {
        let _span = exos_trace::span!("console");
        let mut next = Next::Go;
        self.channel.poll();
        self.greet();
        while self.flush() && next == Next::Go {
            let mut bytes = [0; INPUT_BYTES];
            let count = self.channel.read(PORT, &mut bytes);
            if count == 0 {
                break;
            }
            for &byte in &bytes[..count] {
                if self.push(byte, answers) == Next::Quit {
                    next = Next::Quit;
                }
            }
        }
        self.channel.poll();
        next
    }

    /// Notices a new client.
    fn greet(&mut self) {
        let Host::Attached { client, terminal } = self.channel.host(PORT) else { return };
        if client != self.client {
            self.client = client;
            self.echo = terminal.is_some();
            self.editor.reset();
            self.prompt();
        }
    }

    fn prompt(&mut self) {
        if self.echo {
            // Text takes everything.
            let _ = write!(self.output, "{}> ", self.name);
        }
    }

    /// Writes what waits. True: all of it.
    fn flush(&mut self) -> bool {
        let count = self.channel.write(PORT, &self.output.0);
        self.output.0.drain(..count);
        self.output.0.is_empty()
    }

    fn push(&mut self, byte: u8, answers: &impl Answers) -> Next {
        let edit = self.editor.push(byte);
        if self.echo {
            match edit {
                Edit::Typed(byte) => self.output.0.push(byte),
                Edit::Erased => self.output.0.extend_from_slice(b"\x08 \x08"),
                Edit::Cleared { .. } => self.output.0.extend_from_slice(b"^C\n"),
                Edit::Ended => self.output.0.push(b'\n'),
                Edit::Ignored => {}
            }
        }
        let mut next = Next::Go;
        if edit == Edit::Ended {
            let line = self.editor.take();
            next = answer(line.trim_ascii(), answers, &mut self.output);
        }
        if matches!(edit, Edit::Ended | Edit::Cleared { .. }) && next == Next::Go {
            self.prompt();
        }
        next
    }
}

/// Answers one line.
fn answer(line: &[u8], answers: &impl Answers, text: &mut Text) -> Next {
    // Text takes everything.
    let _ = match line {
        b"" => Ok(()),
        b"help" => text.write_str(HELP),
        b"counters" => {
            answers.counters(&mut |name, value| {
                let _ = writeln!(text, "{name:<24} {value}");
            });
            Ok(())
        }
        b"connections" => {
            let (open, most) = answers.connections();
            writeln!(text, "{open} open, {most} at most")
        }
        b"quit" => return Next::Quit,
        _ => {
            let line = core::str::from_utf8(line).unwrap_or_default();
            writeln!(text, "{line:?} is no command; `help` lists them")
        }
    };
    Next::Go
}
