//! The command line: one file a command. Exit codes are in [`exit`], colours and columns in [`style`].

#![deny(clippy::print_stderr, reason = "it panics where nobody listens; `complain!` does not")]

/// `eprintln!` for which a closed standard error, or a full disk behind it, is no reason to end a command or a machine.
macro_rules! complain {
    ($($text:tt)*) => {{
        use std::io::Write as _;
        let _ = std::io::stderr().write_all(format!("{}\n", format_args!($($text)*)).as_bytes());
    }};
}

mod account;
mod announce;
mod attack;
mod bench;
mod bench_attack;
mod bench_forward;
mod bench_tcp;
mod bench_trace;
mod build;
mod completions;
mod console;
mod detach;
mod disk;
mod disk_image;
mod docroot;
mod doctor;
mod duration;
mod ended;
mod exit;
mod gdb;
mod image;
mod image_options;
mod lean;
mod log_file;
mod logs;
mod man;
mod messages;
mod net;
mod new;
mod print_log;
mod probe;
mod profile;
mod progress;
mod ps;
mod run;
mod stat;
mod stop;
mod style;
mod supervise;
mod top;
mod trace;
mod trace_requests;

use clap::{Parser, Subcommand};
use std::process::ExitCode;

/// Examples, environment and exit codes, for the help of the command itself.
fn after_help() -> String {
    format!(
        "\
Examples
  exovm doctor                              can machines run here, and how fast
  exovm run cheetah --docroot ./site        serve a directory until Ctrl-C
  exovm run --detach hello && exovm ps      run in the background
  exovm logs -f hello                       what it says
  exovm account hello                       where its cycles go

Environment
  EXOVM_LOG         what of the VMM's own messages is printed: error, warn (as
                    if not set), info, debug, trace
  XDG_RUNTIME_DIR   control sockets and logs of machines lie in exovm/ below it;
                    not set: in $TMPDIR/exovm-UID
  NO_COLOR          set: no colours, which only terminals get anyway

{}",
        exit::help()
    )
}

/// exovm: an exokernel on its own VMM.
#[derive(Parser, Debug)]
#[command(name = "exovm", version, about, max_term_width = 110, after_long_help = after_help())]
struct Cli {
    /// What to do.
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// Boot an image and let it run until it ends or Ctrl-C.
    Run(Box<run::RunArguments>),
    /// List the machines that run, and remove what killed ones left behind.
    Ps(ps::PsArguments),
    /// End machines.
    Stop(stop::StopArguments),
    /// Print a machine's log.
    Logs(logs::LogsArguments),
    /// Talk to a machine's console.
    Console(console::ConsoleArguments),
    /// Print where the cycles of a running machine go.
    Account(account::AccountArguments),
    /// Record what a running machine does, for ui.perfetto.dev.
    Trace(trace::TraceArguments),
    /// Debug a running machine with gdb.
    Gdb(gdb::GdbArguments),
    /// Print which functions of a running machine take its time, or draw a flame graph.
    Profile(profile::ProfileArguments),
    /// Count and measure the calls of a function of a running machine.
    Probe(probe::ProbeArguments),
    /// Print what every layer of a running machine counts.
    Stat(stat::StatArguments),
    /// Watch where the cycles of running machines go, live in a terminal.
    Top(top::TopArguments),
    /// List the built-in images, or print what is in an image.
    Image(image::ImageArguments),
    /// Make a project for an image of one's own.
    New(new::NewArguments),
    /// Build the image of such a project.
    Build(build::BuildArguments),
    /// Make a disk image from a directory.
    Mkfs(disk_image::MkfsArguments),
    /// Check a disk image.
    Fsck(disk_image::FsckArguments),
    /// List what is in a disk image.
    Ls(disk_image::LsArguments),
    /// Print a file of a disk image.
    Cat(disk_image::CatArguments),
    /// Say how large a disk image is, and how full.
    Df(disk_image::DfArguments),
    /// Measure beside today's servers.
    Bench(bench::BenchArguments),
    /// Try what environments must not be able to do, and print what each attack got.
    Attack(attack::AttackArguments),
    /// Find out what this host can do for machines, and what will be slow.
    Doctor(doctor::DoctorArguments),
    /// Print a script that completes commands, flags and names of machines in a shell.
    Completions(completions::CompletionsArguments),
    /// Print manual pages.
    Man(man::ManArguments),
}

/// What any command can fail with.
type Failure = Box<dyn std::error::Error>;

/// Runs the command line of this process.
pub fn main() -> ExitCode {
    let cli = image_options::parse();
    fail_writes_beyond_the_file_size_limit();
    messages::init();
    let result = match cli.command {
        Command::Run(arguments) => run::run(*arguments),
        Command::Ps(arguments) => ps::ps(&arguments),
        Command::Stop(arguments) => stop::stop(&arguments),
        Command::Logs(arguments) => logs::logs(&arguments),
        Command::Console(arguments) => console::console(&arguments),
        Command::Account(arguments) => account::account(&arguments),
        Command::Trace(arguments) => trace::trace(&arguments),
        Command::Gdb(arguments) => gdb::gdb(&arguments),
        Command::Profile(arguments) => profile::profile(&arguments),
        Command::Probe(arguments) => probe::probe(&arguments),
        Command::Stat(arguments) => stat::stat(&arguments),
        Command::Top(arguments) => top::top(&arguments),
        Command::Image(arguments) => image::image(arguments),
        Command::New(arguments) => new::new(arguments),
        Command::Build(arguments) => build::build(arguments),
        Command::Mkfs(arguments) => disk_image::mkfs(&arguments),
        Command::Fsck(arguments) => disk_image::fsck(&arguments),
        Command::Ls(arguments) => disk_image::ls(&arguments),
        Command::Cat(arguments) => disk_image::cat(&arguments),
        Command::Df(arguments) => disk_image::df(&arguments),
        Command::Bench(arguments) => bench::bench(arguments),
        Command::Attack(arguments) => attack::attack(&arguments),
        Command::Doctor(arguments) => doctor::doctor(&arguments),
        Command::Completions(arguments) => completions::completions(&arguments),
        Command::Man(arguments) => man::man(&arguments),
    };
    result.unwrap_or_else(|error| {
        complain!("exovm: {error}");
        ExitCode::from(exit::ERROR)
    })
}

/// A write beyond `ulimit -f` is an error (EFBIG) that its caller can report, and not a signal that ends the process.
fn fail_writes_beyond_the_file_size_limit() {
    // SAFETY: SIG_IGN is a disposition that calls nothing; the other arguments go by value.
    unsafe { libc::signal(libc::SIGXFSZ, libc::SIG_IGN) };
}

/// Prints to standard output. Nobody reading it (a closed pipe) is no reason to stop a machine.
fn say(text: &str) {
    use std::io::Write;
    let _ = writeln!(std::io::stdout().lock(), "{text}");
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
    fn help_of_every_command_has_an_example_of_it() {
        fn check(command: &clap::Command, path: &str) {
            let below: Vec<_> =
                command.get_subcommands().filter(|below| below.get_name() != "help").collect();
            for below in &below {
                check(below, &format!("{path} {}", below.get_name()));
            }
            let help = command.get_after_long_help().map(ToString::to_string).unwrap_or_default();
            assert!(!below.is_empty() || help.contains(&format!("  {path}")), "{path}: {help}");
        }
        check(&Cli::command(), "exovm");
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
