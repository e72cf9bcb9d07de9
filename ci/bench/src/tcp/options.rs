//! What is measured: which stacks, which tests, how long, how often.

use crate::BenchError;
use crate::network::TapLink;
use crate::options::{check_cpus, from_name};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::str::FromStr;

/// The other end of the client's connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Stack {
    /// Linux over the loopback interface: one kernel, no wire.
    Loopback,
    /// Linux in a namespace of its own, over a veth pair.
    Veth,
    /// Ours in a process of the host, on a TAP with checksum and segmentation offload.
    Ours,
    /// smoltcp in a process of the host, on the same kind of TAP with the same offloads.
    Smoltcp,
    /// As `ours`, but what it sends is a frame a segment.
    OursSegments,
    /// As `smoltcp`, but what it sends is a frame a segment.
    SmoltcpSegments,
}

impl Stack {
    /// All, in the order in which they take turns.
    pub const ALL: [Stack; 6] = [
        Stack::Loopback,
        Stack::Veth,
        Stack::Ours,
        Stack::Smoltcp,
        Stack::OursSegments,
        Stack::SmoltcpSegments,
    ];

    /// Whether large segments are left to the TAP.
    pub(crate) fn segments_are_offloaded(self) -> bool {
        matches!(self, Stack::Ours | Stack::Smoltcp)
    }

    /// The TAP that it needs.
    pub(crate) fn tap_link(self) -> Option<TapLink> {
        let link = |name, network| TapLink {
            name,
            client: Ipv4Addr::new(10, network, 0, 1),
            server: Ipv4Addr::new(10, network, 0, 2),
        };
        match self {
            Stack::Loopback | Stack::Veth => None,
            Stack::Ours => Some(link("ours", 90)),
            Stack::Smoltcp => Some(link("smoltcp", 91)),
            Stack::OursSegments => Some(link("ours-seg", 92)),
            Stack::SmoltcpSegments => Some(link("smoltcp-seg", 93)),
        }
    }
}

impl fmt::Display for Stack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Stack::Loopback => "Linux, loopback",
            Stack::Veth => "Linux, veth",
            Stack::Ours => "ours, TAP",
            Stack::Smoltcp => "smoltcp, TAP",
            Stack::OursSegments => "ours, a frame a segment",
            Stack::SmoltcpSegments => "smoltcp, a frame a segment",
        })
    }
}

/// Names as in the JSON.
impl FromStr for Stack {
    type Err = String;
    fn from_str(name: &str) -> Result<Self, String> {
        from_name(name, "loopback, veth, ours, smoltcp, ours-segments, smoltcp-segments")
    }
}

/// What the client does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Test {
    /// The stack sends, the client receives and compares every byte.
    Send,
    /// The client sends, the stack receives and compares every byte.
    Receive,
    /// A request of one byte and its answer, one after the other.
    Exchange1,
    /// A request of 100 bytes and its answer, one after the other.
    Exchange100,
    /// A connection for each request of 100 bytes.
    Connect,
}

impl Test {
    /// All, in the order in which they are measured.
    pub const ALL: [Test; 5] = [Test::Send, Test::Receive, Test::Exchange1, Test::Exchange100, Test::Connect];

    /// Whether what counts is bytes, and not requests.
    pub fn is_bulk(self) -> bool {
        matches!(self, Test::Send | Test::Receive)
    }
}

impl fmt::Display for Test {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Test::Send => "the stack sends",
            Test::Receive => "the stack receives",
            Test::Exchange1 => "request and answer of 1 byte",
            Test::Exchange100 => "request and answer of 100 bytes",
            Test::Connect => "a connection for each request of 100 bytes",
        })
    }
}

/// Names as in the JSON.
impl FromStr for Test {
    type Err = String;
    fn from_str(name: &str) -> Result<Self, String> {
        from_name(name, "send, receive, exchange1, exchange100, connect")
    }
}

/// What `exovm bench tcp` measures.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TcpOptions {
    /// Who takes part.
    pub stacks: Vec<Stack>,
    /// In what.
    pub tests: Vec<Test>,
    /// How long a stack is measured in one test in one round, at least.
    pub milliseconds_per_test: u32,
    /// How often; the stacks take turns within a round.
    pub rounds: u32,
    /// Bytes of the send buffer and of the receive buffer of each connection of a stack that is not the kernel's.
    pub buffer_bytes: u32,
    /// The CPU of the client.
    pub client_cpu: usize,
    /// The CPU of the stacks.
    pub stack_cpu: usize,
    /// Where the report is written as JSON.
    pub json_path: Option<PathBuf>,
    /// The short form.
    pub quick: bool,
}

impl Default for TcpOptions {
    /// Everything: seven rounds, about four minutes.
    fn default() -> Self {
        TcpOptions {
            stacks: Stack::ALL.to_vec(),
            tests: Test::ALL.to_vec(),
            milliseconds_per_test: 1_000,
            rounds: 7,
            buffer_bytes: 1 << 20,
            client_cpu: 0,
            stack_cpu: 1,
            json_path: None,
            quick: false,
        }
    }
}

impl TcpOptions {
    /// Everything, shorter.
    pub fn quick() -> Self {
        TcpOptions { quick: true, rounds: 3, milliseconds_per_test: 200, ..TcpOptions::default() }
    }

    /// Says what is wrong with the options, before anything is started.
    pub(crate) fn check(&self) -> Result<(), BenchError> {
        let refuse = |text: &str| Err(BenchError::InvalidOptions(text.into()));
        if self.milliseconds_per_test == 0 || self.rounds == 0 {
            return refuse("milliseconds per test and rounds must be at least 1");
        }
        if self.stacks.is_empty() || self.tests.is_empty() {
            return refuse("name at least one stack and one test");
        }
        if !(2_048..=1 << 28).contains(&self.buffer_bytes) {
            return refuse("buffers of 2048 bytes to 256 MiB are possible");
        }
        check_cpus(self.client_cpu, self.stack_cpu)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn check_invalid_options_returns_what_is_wrong() {
        let options = TcpOptions::default;
        let wrong = [
            (TcpOptions { rounds: 0, ..options() }, "at least 1"),
            (TcpOptions { stacks: vec![], ..options() }, "at least one stack"),
            (TcpOptions { buffer_bytes: 1, ..options() }, "256 MiB"),
            (TcpOptions { stack_cpu: 0, ..options() }, "a CPU each"),
        ];
        for (options, words) in wrong {
            let message = options.check().unwrap_err().to_string();
            assert!(message.contains(words), "{message}");
        }
    }

    #[test]
    fn from_str_knows_every_name_and_lists_them() {
        for stack in Stack::ALL {
            let name = serde_json::to_value(stack).unwrap();
            assert_eq!(name.as_str().unwrap().parse(), Ok(stack));
            assert!("lwip".parse::<Stack>().unwrap_err().contains(name.as_str().unwrap()));
        }
        for test in Test::ALL {
            let name = serde_json::to_value(test).unwrap();
            assert_eq!(name.as_str().unwrap().parse(), Ok(test));
            assert!("ping".parse::<Test>().unwrap_err().contains(name.as_str().unwrap()));
        }
    }
}
