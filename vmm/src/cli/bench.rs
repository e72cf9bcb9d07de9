//! `exovm bench`: beside today's servers. The measuring is in `exovm-bench`; here are its flags.

use super::{Failure, say};
use crate::kernel_costs::{self, Cost, INSTRUCTIONS_AIM, SUBJECTS};
use exovm_bench::{ClientErrors, Contender, HttpOptions, Mode};
use std::path::PathBuf;
use std::process::ExitCode;

/// Arguments of `bench`.
#[derive(clap::Args, Debug)]
pub(super) struct BenchArguments {
    #[command(subcommand)]
    what: What,
}

#[derive(clap::Subcommand, Debug)]
enum What {
    /// Requests per second of cheetah, nginx, lighttpd and a bare responder, in turn, with wrk as the client.
    Http(HttpArguments),
    /// One connection's Gbit/s and requests per second on our stack, Linux's and smoltcp, in turn.
    Tcp(super::bench_tcp::TcpArguments),
    /// The forwarder and haproxy as a TCP relay between wrk and nginx, in turn.
    Forward(super::bench_forward::ForwardArguments),
    /// Attacks on a guest's TCP/IP, one after the other, and what honest clients get beside each.
    Attack(super::bench_attack::AttackArguments),
    /// What each kernel call costs: cycles, and ring 0 instructions where they can be counted.
    Kernel(KernelArguments),
    /// What looking at a machine costs it: accounts, a sampled trace, a whole one; and a span by itself.
    Trace(super::bench_trace::TraceArguments),
}

/// Arguments of `bench kernel`.
#[derive(clap::Args, Debug)]
#[command(
    after_long_help = "A machine makes one call few times, another one many times; the difference is the call's. Instructions are counted
by KVM where it interprets ring 0; where ring 0 runs natively there is nobody to count them.

Examples
  exovm bench kernel
  exovm bench kernel --json | jq '.calls[] | select(.call == \"MemoryMap, one page\")'"
)]
struct KernelArguments {
    /// As JSON.
    #[arg(long)]
    json: bool,
}

/// Arguments of `bench http`.
#[derive(clap::Args, Debug)]
#[command(after_long_help = "Needs wrk, nginx and lighttpd:  sudo apt-get install wrk nginx-light lighttpd
Everything runs in network namespaces of its own; nothing on the host is changed. A quiet machine with two CPUs
or more gives figures worth quoting; compare ratios, not absolute numbers.

Examples
  exovm bench http --quick
  exovm bench http --sizes 64,8192 --connections 1,8,64 --modes keep-alive,close --json result.json
  exovm bench http --contenders cheetah,nginx --seconds 5 --rounds 7
  exovm bench http --contenders cheetah,plain,plain-linux --connections 64 --modes keep-alive")]
struct HttpArguments {
    /// A few points only, in a few minutes.
    #[arg(long)]
    quick: bool,
    /// Document sizes in bytes.
    #[arg(long, value_delimiter = ',', value_name = "BYTES")]
    sizes: Vec<u64>,
    /// Numbers of connections.
    #[arg(long, value_delimiter = ',', value_name = "N")]
    connections: Vec<u32>,
    /// How connections are used: keep-alive, close, pipelined.
    #[arg(long, value_delimiter = ',', value_name = "MODE")]
    modes: Vec<Mode>,
    /// Who takes part: cheetah, cheetah-both-cpus, bare, nginx, lighttpd; plain, plain-linux: a program on sockets in a guest and on
    /// Linux.
    #[arg(long, value_delimiter = ',', value_name = "NAME")]
    contenders: Vec<Contender>,
    /// Seconds for each measurement.
    #[arg(long, value_name = "N")]
    seconds: Option<u32>,
    /// How often each point is measured; the median counts.
    #[arg(long, value_name = "N")]
    rounds: Option<u32>,
    /// CPU of the client.
    #[arg(long, value_name = "CPU")]
    client_cpu: Option<usize>,
    /// CPU of the server.
    #[arg(long, value_name = "CPU")]
    server_cpu: Option<usize>,
    /// Also write the result as JSON (schema in ci/bench/README.md).
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

pub(super) fn bench(arguments: BenchArguments) -> Result<ExitCode, Failure> {
    let arguments = match arguments.what {
        What::Http(arguments) => arguments,
        What::Tcp(arguments) => return super::bench_tcp::tcp(arguments),
        What::Forward(arguments) => return super::bench_forward::forward(arguments),
        What::Attack(arguments) => return super::bench_attack::attack(arguments),
        What::Kernel(arguments) => return kernel(arguments),
        What::Trace(arguments) => return super::bench_trace::trace(arguments),
    };
    let options = options(arguments);
    let report = exovm_bench::run_http(options, &std::env::current_exe()?)?;
    say(report.to_string().trim_end());
    Ok(if report.errors() == ClientErrors::default() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn kernel(arguments: KernelArguments) -> Result<ExitCode, Failure> {
    let costs =
        SUBJECTS.iter().map(|subject| kernel_costs::measure(*subject)).collect::<Result<Vec<_>, _>>()?;
    let met = |cost: &Cost| cost.instructions.and_then(|instructions| cost.subject.meets_aim(instructions));
    if arguments.json {
        let call = |cost: &Cost| {
            serde_json::json!({
                "call": cost.subject.what,
                "least_cycles": cost.cycles.0,
                "median_cycles": cost.cycles.1,
                "instructions": cost.instructions,
                "met": met(cost),
            })
        };
        let calls: Vec<_> = costs.iter().map(call).collect();
        say(&serde_json::json!({ "schema": "exovm-bench-kernel/1", "calls": calls }).to_string());
        return Ok(ExitCode::SUCCESS);
    }
    say(&format!("{:<40} {:>12} {:>14} {:>13}", "call", "least cycles", "median cycles", "instructions"));
    for cost in &costs {
        let instructions = cost.instructions.map_or("-".to_owned(), |count| format!("{count:.0}"));
        let bar = match met(cost) {
            Some(true) => "  met",
            Some(false) => "  missed",
            None => "",
        };
        let (least, median) = cost.cycles;
        say(&format!("{:<40} {least:>12} {median:>14} {instructions:>13}{bar}", cost.subject.what));
    }
    say(&format!(
        "Bar: at most {INSTRUCTIONS_AIM:.0} ring 0 instructions for a call that does not grow with what it is given."
    ));
    Ok(ExitCode::SUCCESS)
}

fn options(arguments: HttpArguments) -> HttpOptions {
    let mut options = if arguments.quick { HttpOptions::quick() } else { HttpOptions::default() };
    fn replace<T>(option: &mut Vec<T>, given: Vec<T>) {
        if !given.is_empty() {
            *option = given;
        }
    }
    replace(&mut options.sizes_bytes, arguments.sizes);
    replace(&mut options.connections, arguments.connections);
    replace(&mut options.modes, arguments.modes);
    replace(&mut options.contenders, arguments.contenders);
    options.seconds_per_point = arguments.seconds.unwrap_or(options.seconds_per_point);
    options.rounds = arguments.rounds.unwrap_or(options.rounds);
    options.client_cpu = arguments.client_cpu.unwrap_or(options.client_cpu);
    options.server_cpu = arguments.server_cpu.unwrap_or(options.server_cpu);
    options.json_path = arguments.json;
    options
}
