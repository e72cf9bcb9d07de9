//! `exovm run`: boot an image, say where it serves, and run it until it ends or Ctrl-C.

use super::net::{NetArgument, OpenNet};
use super::{EXIT_FAULT, Failure, say};
use crate::control::Control;
use crate::images;
use crate::machine::memory::MEMORY_MAX_BYTES;
use crate::machine::{End, Machine, MachineConfig};
use crate::placement::IoMode;
use event_manager::{EventManager, EventOps, EventSet, Events, MutEventSubscriber, SubscriberOps};
use exos_docroot::pack::Plan;
use std::cell::Cell;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::path::PathBuf;
use std::process::ExitCode;
use std::rc::Rc;
use std::time::{Duration, Instant};

/// How long a guest may take until it serves, before a line says that it does not.
const READY_PATIENCE: Duration = Duration::from_secs(10);
/// How long a guest may take to finish after Ctrl-C.
const STOP_GRACE: Duration = Duration::from_millis(500);
/// Work longer than this shows that it goes on.
const PROGRESS_AFTER: Duration = Duration::from_secs(1);

fn after_help() -> String {
    format!(
        "\
The tap
  The guest's network interface is a tap device: the host's end of a virtual
  cable. Make one, as root, for the user who runs exovm, and give it an address
  (the guest takes the next one unless ip= says otherwise):

{}

  exovm run cheetah --docroot ./site --net tap=tap0
  curl http://10.80.0.2/

  sudo ip link del tap0                       (when done)

  With --net tap=auto, exovm makes such a tap itself and removes it at the end;
  that needs root, or CAP_NET_ADMIN, or a network namespace of one's own:

  unshare -rn exovm run hello --net tap=auto

Examples
  exovm run hello --net tap=tap0
  exovm run cheetah --docroot ./site --net tap=tap0,ip=10.80.0.7/24 --io turn
  exovm run ./my.image --net none --memory 64

Exit codes
  0 after Ctrl-C, or the image's own status; 1 an error; 2 wrong usage;
  3 the guest ended with a fault",
        crate::backend::tap::commands("tap0")
    )
}

/// Arguments of `run`.
#[derive(clap::Args, Debug)]
#[command(after_long_help = after_help())]
pub(super) struct RunArguments {
    /// A built-in image (see below), or the path of an image file (with a '/').
    #[arg(value_name = "IMAGE", help = format!("A built-in image ({}), or the path of an image file (with a '/')",
        images::names().collect::<Vec<_>>().join(", ")))]
    image: String,
    /// Directory to serve, for images that serve one; packed into the machine's memory.
    #[arg(long, value_name = "DIR")]
    docroot: Option<PathBuf>,
    /// Network: tap=NAME[,ip=ADDRESS/BITS][,gw=ADDRESS][,mac=MAC], tap=auto[,...] or none.
    #[arg(long, value_name = "NET", default_value = "tap=auto")]
    net: NetArgument,
    /// Where device work is done.
    #[arg(long, value_enum, default_value_t)]
    io: IoMode,
    /// Memory in MiB; what the image wants plus the document root if not given.
    #[arg(long, value_name = "MIB", value_parser = clap::value_parser!(u64).range(1..=MEMORY_MAX_BYTES >> 20))]
    memory: Option<u64>,
    /// Bind the vCPU to this CPU.
    #[arg(long, value_name = "CPU")]
    vcpu_cpu: Option<u32>,
    /// Name for other commands; the image's name if not given.
    #[arg(long)]
    name: Option<String>,
    /// Print only the guest's log and errors.
    #[arg(long, short)]
    quiet: bool,
    /// Arguments for the image.
    #[arg(last = true)]
    arguments: Vec<String>,
}

pub(super) fn run(arguments: RunArguments) -> Result<ExitCode, Failure> {
    let start_tsc = crate::account::ledger::now_tsc();
    let signals = block_signals()?;
    let image = images::load(&arguments.image)?;
    if arguments.docroot.is_some() != image.manifest.docroot {
        let verb = if image.manifest.docroot { "serves a directory: give it one with" } else { "takes no" };
        return Err(format!("image {} {verb} --docroot", image.manifest.name).into());
    }
    if let Some(cpu) = arguments.vcpu_cpu.filter(|cpu| !crate::placement::allowed_cpus().contains(cpu)) {
        return Err(format!("--vcpu-cpu {cpu}: this process may not use that CPU").into());
    }
    let docroot = arguments.docroot.as_deref().map(scan).transpose()?;
    let net = arguments.net.open()?;
    let name = arguments.name.clone().unwrap_or_else(|| image.manifest.name.clone());
    let served =
        docroot.as_ref().map(|plan| format!("{} files, {} bytes", plan.file_count(), plan.packed_bytes()));
    let (setup, host) = match net {
        Some(OpenNet { setup, host }) => (Some(setup), Some(host)),
        None => (None, None),
    };
    let address = setup.as_ref().map(|setup| std::net::Ipv4Addr::from(setup.ipv4.address));
    let mut machine = Machine::start(MachineConfig {
        image,
        memory_bytes: arguments.memory.map(|mib| mib.saturating_mul(1 << 20)),
        docroot,
        net: setup,
        io: arguments.io,
        vcpu_cpu: arguments.vcpu_cpu,
        arguments: arguments.arguments.clone(),
        log: Box::new(say),
    })?;
    let control = Control::bind(&name, &machine)?;
    if !arguments.quiet {
        announce(&machine, &control.name(), address, served.as_deref(), start_tsc);
    }
    let interrupted = supervise(&machine, control, signals)?;
    let end = if interrupted { machine.stop(STOP_GRACE) } else { machine.wait(None).unwrap_or(End::Stopped) };
    // The tap, if it is ours, goes after the machine that uses it.
    drop(machine);
    drop(host);
    Ok(match end {
        End::Stopped => ExitCode::SUCCESS,
        End::PowerOff { .. } if interrupted => ExitCode::SUCCESS,
        End::PowerOff { status } => ExitCode::from(u8::try_from(status).unwrap_or(u8::MAX)),
        End::Fault { report } => {
            eprintln!("exovm: {report}");
            ExitCode::from(EXIT_FAULT)
        }
    })
}

/// Reads what is to be served, with a line if that takes long.
fn scan(dir: &std::path::Path) -> Result<Plan, Failure> {
    let started = Instant::now();
    let plan = Plan::scan(dir)?;
    for warning in plan.warnings() {
        eprintln!("exovm: {warning}");
    }
    if started.elapsed() > PROGRESS_AFTER {
        eprintln!("read {} files in {:.1} s", plan.file_count(), started.elapsed().as_secs_f64());
    }
    Ok(plan)
}

/// Says where the machine serves and how long each phase of its start took.
fn announce(
    machine: &Machine,
    name: &str,
    address: Option<std::net::Ipv4Addr>,
    served: Option<&str>,
    start_tsc: u64,
) {
    let port = machine.wait_ready(READY_PATIENCE);
    let ended = machine.wait(Some(Duration::ZERO));
    if matches!(ended, Some(End::Fault { .. })) {
        // The report says it all.
        return;
    }
    let mut text = String::new();
    match (address, port) {
        _ if ended.is_some() => {}
        (Some(address), Some(80)) => text.push_str(&format!("serving http://{address}/\n")),
        (Some(address), Some(port)) => text.push_str(&format!("serving http://{address}:{port}/\n")),
        (Some(_), None) => {
            text.push_str(&format!("the guest does not serve yet, after {} s\n", READY_PATIENCE.as_secs()));
        }
        (None, _) => {}
    }
    if let Some(served) = served {
        text.push_str(&format!("  document root: {served}\n"));
    }
    let io = machine.placement().map_or("none".to_owned(), |p| format!("{:?}", p.mode()).to_lowercase());
    let mib = machine.memory_bytes() >> 20;
    text.push_str(&format!("  machine: {name}, {mib} MiB, device work: {io}\n"));
    text.push_str(&format!("  kernel calls: {}\n\n", gate(machine)));
    text.push_str(&format!("  {:<16} {:>10} {:>10}\n", "boot phase", "ms", "since start"));
    let mut last = start_tsc;
    for phase in machine.phases() {
        let ms = |ticks: u64| ticks as f64 / machine.tsc_khz() as f64;
        let (step, total) = (phase.tsc.saturating_sub(last), phase.tsc.saturating_sub(start_tsc));
        text.push_str(&format!("  {:<16} {:>10.3} {:>10.3}\n", phase.name, ms(step), ms(total)));
        last = phase.tsc;
    }
    if ended.is_none() {
        text.push_str(&format!("\nCtrl-C ends it; `exovm account {name}` shows where its cycles go."));
    }
    say(text.trim_end());
}

/// What the kernel found out about the host.
fn gate(machine: &Machine) -> &'static str {
    use abi::call::gate::{KIND_INT3, KIND_SYSCALL};
    match machine.pages().status.gate.load(std::sync::atomic::Ordering::Relaxed) {
        KIND_INT3 => "by int3 (SYSCALL does not raise the privilege here)",
        KIND_SYSCALL => "by syscall",
        _ => "not yet",
    }
}

/// Takes SIGINT, SIGTERM and SIGHUP away from their default, for all threads started from now on, and gives a
/// descriptor to read them from.
fn block_signals() -> Result<OwnedFd, Failure> {
    // SAFETY: an all-zero set is a value that sigemptyset overwrites; the calls only touch the set given.
    let fd = unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&mut set);
        for signal in [libc::SIGINT, libc::SIGTERM, libc::SIGHUP] {
            libc::sigaddset(&mut set, signal);
        }
        libc::pthread_sigmask(libc::SIG_BLOCK, &set, std::ptr::null_mut());
        libc::signalfd(-1, &set, libc::SFD_NONBLOCK | libc::SFD_CLOEXEC)
    };
    if fd < 0 {
        return Err(format!("signal descriptor: {}", std::io::Error::last_os_error()).into());
    }
    // SAFETY: signalfd returned a descriptor that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Serves the control socket until the machine ends (`false`) or the user wants it to (`true`).
fn supervise(machine: &Machine, control: Control, signals: OwnedFd) -> Result<bool, Failure> {
    let outcome = Rc::new(Cell::new(None));
    let supervisor =
        Supervisor { control, signals, end: machine.end_event().as_raw_fd(), outcome: Rc::clone(&outcome) };
    let mut manager = EventManager::new().map_err(|error| format!("event loop: {error}"))?;
    manager.add_subscriber(supervisor);
    loop {
        manager.run().map_err(|error| format!("event loop: {error}"))?;
        if let Some(interrupted) = outcome.get() {
            return Ok(interrupted);
        }
    }
}

struct Supervisor {
    control: Control,
    signals: OwnedFd,
    end: i32,
    outcome: Rc<Cell<Option<bool>>>,
}

/// What a descriptor of the supervisor stands for.
const SIGNAL: u32 = 0;
const END: u32 = 1;
const CONTROL: u32 = 2;

impl MutEventSubscriber for Supervisor {
    fn process(&mut self, events: Events, _: &mut EventOps) {
        match events.data() {
            SIGNAL => self.outcome.set(Some(true)),
            END => self.outcome.set(Some(false)),
            _ => self.control.serve(),
        }
    }

    fn init(&mut self, ops: &mut EventOps) {
        for (fd, what) in
            [(self.signals.as_raw_fd(), SIGNAL), (self.end, END), (self.control.as_raw_fd(), CONTROL)]
        {
            if let Err(error) = ops.add(Events::with_data_raw(fd, what, EventSet::IN)) {
                tracing::error!("cannot watch a descriptor: {error}");
            }
        }
    }
}
