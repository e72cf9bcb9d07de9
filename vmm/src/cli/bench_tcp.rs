//! `exovm bench tcp`: stacks beside each other. The measuring is in `exovm-bench`; here are its flags.

use super::{Failure, say};
use exovm_bench::tcp::{Stack, TcpOptions, Test};
use std::path::PathBuf;
use std::process::ExitCode;

/// Arguments of `bench tcp`.
#[derive(clap::Args, Debug)]
#[command(after_long_help = "\
The client is always a socket of the kernel's, on one CPU; the stacks take turns on another. Every byte is compared with what it
must be, by whoever receives it. Everything runs in network namespaces of its own; nothing on the host is changed, and no root is
needed. A quiet machine with two CPUs or more gives figures worth quoting; compare ratios, not absolute numbers.

Examples
  exovm bench tcp --quick
  exovm bench tcp --stacks ours,smoltcp --tests send,receive --rounds 15
  exovm bench tcp --buffer 65536 --json result.json && jq '.bars[] | select(.verdict == \"missed\")' result.json")]
pub(super) struct TcpArguments {
    /// The short form, in half a minute.
    #[arg(long)]
    quick: bool,
    /// Who takes part: loopback, veth, ours, smoltcp, ours-segments, smoltcp-segments.
    #[arg(long, value_delimiter = ',', value_name = "NAME")]
    stacks: Vec<Stack>,
    /// In what: send, receive, exchange1, exchange100, connect.
    #[arg(long, value_delimiter = ',', value_name = "NAME")]
    tests: Vec<Test>,
    /// Milliseconds for each measurement.
    #[arg(long, value_name = "N")]
    milliseconds: Option<u32>,
    /// How often each is measured; the median counts.
    #[arg(long, value_name = "N")]
    rounds: Option<u32>,
    /// Send buffer and receive buffer of a connection of ours and of smoltcp's.
    #[arg(long, value_name = "BYTES")]
    buffer: Option<u32>,
    /// CPU of the client.
    #[arg(long, value_name = "CPU")]
    client_cpu: Option<usize>,
    /// CPU of the stacks.
    #[arg(long, value_name = "CPU")]
    stack_cpu: Option<usize>,
    /// Also write the result as JSON (schema in ci/bench/README.md).
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

pub(super) fn tcp(arguments: TcpArguments) -> Result<ExitCode, Failure> {
    let mut options = if arguments.quick { TcpOptions::quick() } else { TcpOptions::default() };
    if !arguments.stacks.is_empty() {
        options.stacks = arguments.stacks;
    }
    if !arguments.tests.is_empty() {
        options.tests = arguments.tests;
    }
    options.milliseconds_per_test = arguments.milliseconds.unwrap_or(options.milliseconds_per_test);
    options.rounds = arguments.rounds.unwrap_or(options.rounds);
    options.buffer_bytes = arguments.buffer.unwrap_or(options.buffer_bytes);
    options.client_cpu = arguments.client_cpu.unwrap_or(options.client_cpu);
    options.stack_cpu = arguments.stack_cpu.unwrap_or(options.stack_cpu);
    options.json_path = arguments.json;
    let report = exovm_bench::run_tcp(options, &std::env::current_exe()?)?;
    say(report.to_string().trim_end());
    Ok(ExitCode::SUCCESS)
}
