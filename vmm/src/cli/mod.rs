//! The command line.
//!
//! Exit codes: 0 success (also after Ctrl-C), 1 an error that the message explains, 2 wrong usage, 3 the guest ended with
//! a fault; `run` of an image that ends by itself gives the image's own status.

mod account;
mod announce;
mod bench;
mod build;
mod detach;
mod disk;
mod log_file;
mod logs;
mod net;
mod new;
mod print_log;
mod ps;
mod run;
mod stop;
mod style;
mod supervise;

use clap::{Parser, Subcommand};
use std::process::ExitCode;

/// Exit code for a guest that ended with a fault.
const EXIT_FAULT: u8 = 3;

/// exovm: an exokernel on its own VMM.
#[derive(Parser, Debug)]
#[command(name = "exovm", version, about, max_term_width = 110)]
struct Cli {
    /// What to do.
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// Boot an image and let it run until it ends or Ctrl-C.
    Run(run::RunArguments),
    /// List the machines that run, and remove what killed ones left behind.
    Ps(ps::PsArguments),
    /// End machines.
    Stop(stop::StopArguments),
    /// Print a machine's log.
    Logs(logs::LogsArguments),
    /// Print where the cycles of a running machine go.
    Account(account::AccountArguments),
    /// Make a project for an image of one's own.
    New(new::NewArguments),
    /// Build the image of such a project.
    Build(build::BuildArguments),
    /// Measure beside today's servers.
    Bench(bench::BenchArguments),
}

/// What any command can fail with.
type Failure = Box<dyn std::error::Error>;

/// Runs the command line of this process.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    init_tracing();
    let result = match cli.command {
        Command::Run(arguments) => run::run(arguments),
        Command::Ps(arguments) => ps::ps(&arguments),
        Command::Stop(arguments) => stop::stop(&arguments),
        Command::Logs(arguments) => logs::logs(&arguments),
        Command::Account(arguments) => account::account(&arguments),
        Command::New(arguments) => new::new(arguments),
        Command::Build(arguments) => build::build(arguments),
        Command::Bench(arguments) => bench::bench(arguments),
    };
    result.unwrap_or_else(|error| {
        eprintln!("exovm: {error}");
        ExitCode::FAILURE
    })
}

/// Prints to standard output. Nobody reading it (a closed pipe) is no reason to stop a machine.
fn say(text: &str) {
    use std::io::Write;
    let _ = writeln!(std::io::stdout().lock(), "{text}");
}

/// `EXOVM_LOG` chooses what of the VMM's own tracing is printed; warnings and errors by default.
fn init_tracing() {
    let filter = tracing_subscriber::EnvFilter::try_from_env("EXOVM_LOG")
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("warn"));
    let ansi = style::colours(&std::io::stderr());
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(ansi)
        .with_target(false)
        .with_writer(|| log_file::Messages)
        .init();
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn run_help_prints_the_commands_for_a_tap() {
        let mut command = Cli::command();
        let run = command.find_subcommand_mut("run").expect("run");
        let help = run.render_long_help().to_string();
        for line in ["ip tuntap add", "ip addr add", "ip link set", "up"] {
            assert!(help.contains(line), "{help}");
        }
    }
}
