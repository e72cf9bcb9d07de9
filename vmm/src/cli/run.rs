//! `exovm run`: boot an image, say where it serves, and run it until it ends or Ctrl-C.

use super::announce::Announcement;
use super::disk::DiskArgument;
use super::docroot;
use super::lean;
use super::net::{NetArgument, OpenNet, Reach};
use super::print_log::{Copying, Piece, copy};
use super::supervise::{Signals, supervise};
use super::{Failure, detach, exit, log_file, messages, say};
use crate::account::ledger::now_tsc;
use crate::backend::capture::Capture;
use crate::backend::impair::{Impair, Impairments};
use crate::control::{Control, ControlSocket, Ending, Info, Served, State};
use crate::guest_log::GuestLog;
use crate::images;
use crate::machine::memory::MEMORY_MAX_BYTES;
use crate::machine::{End, Machine, MachineConfig, NetSetup, PhaseStamp};
use crate::placement::IoMode;
use abi::boot::VCPUS_MAX;
use exovm_image::container::Image;
use exovm_user_net::Publish;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

fn after_help() -> String {
    format!(
        "\
The user network (--net user, the default)
  Needs no privileges: the guest is connected to sockets of this process. Its
  address is 10.0.2.15; clients come to it through the ports that --publish
  names, on 127.0.0.1 unless an address says otherwise, and it sees them as
  10.0.2.2. HOSTPORT 0 takes any free port; the output says which. Nothing is
  published by itself: which port of the host answers is for you to say, and
  the same command then does the same each time.

  exovm run cheetah --docroot ./site --publish 8080:80
  curl http://127.0.0.1:8080/

  The guest reaches nothing of the host or the outside. With --net
  user,outbound it reaches other machines by TCP and UDP (IPv4), and the host's
  name server at 10.0.2.2. The host itself, by any of its addresses, it reaches
  only where allow-host=PORT names a port of 127.0.0.1; it finds it at 10.0.2.2.

  TCP ends in this process and is spoken anew on the other side, by another
  stack: what the guest's TCP does is not what the client sees, and each byte
  is copied. To measure, or to see the guest's own TCP, use a tap.

The tap (--net tap=NAME)
  The guest's network interface is a tap device: the host's end of a virtual
  cable. Make one, as root, for the user who runs exovm, and give it an address
  (the guest takes the next one unless ip= says otherwise):

{}

  exovm run cheetah --docroot ./site --net tap=tap0
  curl http://10.80.0.2/

  sudo ip link del tap0                       (when done)

  On a tap that is in a bridge with a DHCP server, the guest can ask that for
  its address (one environment; not the forwarder). It takes 4 to 7 seconds,
  in which the link is asked whether somebody has the address already:

  exovm run cheetah --docroot ./site --net tap=tap0,ip=dhcp

  ip6= gives it IPv6 as well: an address, or auto for what routers advertise
  (SLAAC), or both; a link-local address it makes of its hardware address in any
  case. gw6= names a router where none advertises itself. Starting takes 2
  seconds longer, in which nobody else may claim the addresses (6 where ip6=auto
  finds no router; the forwarder hears none, and has the given address only).
  Several environments share all of these addresses, each with a port of its own.
  ip=none leaves IPv4 out.

  dns= says whom the guest asks for names; given up to three times, they are asked
  in turn, and nobody else is. Without it a guest with ip=dhcp asks the servers
  that its lease says, then, as any with ip6=auto, those that routers advertise,
  and one with user,outbound the host's; others know none. On the user network
  dns= takes outbound as well.

  exovm run webswamp --net tap=tap0,gw=10.80.0.1,dns=10.80.0.1 \\
      --target http://www.example.org/

  sudo ip addr add 2001:db8::1/64 dev tap0
  exovm run cheetah --docroot ./site --net tap=tap0,ip6=2001:db8::2/64
  curl 'http://[2001:db8::2]/'
  exovm run cheetah --docroot ./site --net tap=tap0,ip6=auto
  curl 'http://[fe80::78:aff:fe50:2%tap0]/'         (the output says the address)

  While the guest serves, the link is asked whether another host has its IPv4
  address, and the log says so if one does. With probe, that comes first: 4 to 7
  seconds, and the guest ends if its address is taken.

  exovm run cheetah --docroot ./site --net tap=tap0,ip=10.80.0.7/24,probe

  With --net tap=auto, exovm makes such a tap itself and removes it at the end;
  that needs root, or CAP_NET_ADMIN, or a network namespace of one's own:

  unshare -rn exovm run hello --net tap=auto

Disks
  --disk attaches a raw image: a file of whole 4096-byte blocks, no format. A
  writable image can be attached to one machine at a time, one with ,ro to any
  number. What the guest has written is in the file when the guest has flushed
  it, or in the host's cache before.

  truncate -s 64M disk.img                    (makes an empty one)

Options of images
  An image can declare options of its own. They go behind its name, like those
  of `run`; a letter that both have (such as -d) is the image's there.

  exovm run forwarder --help                  (shows them too)
  exovm run forwarder --net tap=tap0,ip6=2001:db8::3/64 --listen 80 \\
      --to '10.80.0.9:80,[2001:db8::2]:80'    (a server of each version of IP)

Faults (--impair)
  A seeded injector between the guest's interface and its network, whichever
  that is. KEY=VALUE, separated by commas; tx: before a key makes it one for what
  the guest sends, rx: for what it receives, nothing for both. What passes are
  packets as on a wire: large segments are cut first.

  loss=1%        packets that are lost; burst=4: four in one go, on average
  delay=20ms     how long the way takes; jitter=2ms: more or less, in order
  reorder=2%     packets that are late, by 5 ms at most (late=1ms: by 1 ms), and
                 overtaken
  duplicate=1%   packets that arrive twice
  corrupt=0.1%   packets with a flipped bit
  rate=10mbit    bits per second; queue=100: packets that wait for it, 1000 if
                 not said; what comes then is dropped
  mark=10%       packets that are marked Congestion Experienced (RFC 3168), of
                 those whose sender says that they may be; the others stay as
                 they are. mark-from=20: the line with a rate marks those that
                 find 20 waiting
  seed=7         other faults; the same seed (1 if not said) has the same ones
                 happen to the same packets

  exovm run cheetah --publish 8080:80 --impair loss=1%,delay=20ms,jitter=2ms,seed=7
  exovm run cheetah --net tap=tap0 --impair tx:loss=2%,burst=3,rx:rate=10mbit,rx:queue=50
  exovm run cheetah --net tap=tap0 --impair delay=10ms,tx:rate=20mbit,tx:mark-from=20

  What happened is counted, and `exovm stat` shows it.

Captures (--pcap)
  Each frame with its direction and its time in nanoseconds, as the guest sees
  it: before segmentation, so up to 64 KiB long, and inside of --impair. A disk
  that is full, or a reader that goes, ends the capture with a warning and leaves
  the machine alone. Standard output is the log's; to watch frames as they come:

  exovm run hello --publish 8080:80 --pcap hello.pcapng
  exovm run hello --publish 8080:80 --pcap >(tshark -i -)

Examples
  exovm run hello --publish 8080:80
  exovm run hello --publish 0.0.0.0:0:80 --net user,outbound
  exovm run cheetah --docroot ./site --net tap=tap0,ip=10.80.0.7/24 --io turn
  exovm run ./my.image --net none --memory 64
  exovm run cheetah --environments 2 --docroot ./a --docroot ./b --publish 8080:80 --publish 8081:81
  exovm run cheetah --vcpus 2 --vcpu-cpu 0,1 --docroot ./site --publish 8080:80
  exovm run --detach hello && exovm logs -f hello

A detached machine runs on in a session of its own; the command returns when
it is ready or has failed. Its log is kept (`exovm logs`), and a copy of at
most 1 MiB lies in the runtime directory ($XDG_RUNTIME_DIR/exovm/NAME.log)
until it ends well; after a fault or a kill the copy stays.

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
    /// Directory to serve, for images that serve one; made into a disk image. Not given, and no --disk either: a sample site.
    /// With --environments, once for all of them or once for each.
    #[arg(long, value_name = "DIR")]
    docroot: Vec<PathBuf>,
    /// Network: user[,outbound][,allow-host=PORT][,dns=ADDRESS][,mac=MAC], tap=NAME[,ip=ADDRESS/BITS|,ip=dhcp|,ip=none][,gw=ADDRESS]
    /// [,ip6=ADDRESS/BITS][,ip6=auto][,gw6=ADDRESS][,dns=ADDRESS][,probe][,mac=MAC], tap=auto[,...] or none.
    #[arg(long, value_name = "NET", default_value = "user")]
    net: NetArgument,
    /// Have a port of this host lead to one of the guest: [ADDR:]HOSTPORT:GUESTPORT[/tcp|/udp]; may be repeated.
    #[arg(long, value_name = "PORTS")]
    publish: Vec<Publish>,
    /// Have faults happen to the guest's packets: [tx:|rx:]KEY=VALUE[,...]; see "Faults" below.
    #[arg(long, value_name = "FAULTS")]
    impair: Option<Impairments>,
    /// Write the frames that the guest sends and receives to this file (pcapng), for Wireshark and tshark.
    #[arg(long, value_name = "FILE")]
    pcap: Option<PathBuf>,
    /// Attach a raw disk image; with ,ro for reading only. May be given several times.
    #[arg(long, value_name = "FILE[,ro]")]
    disk: Vec<DiskArgument>,
    /// Where device work is done.
    #[arg(long, value_enum, default_value_t)]
    io: IoMode,
    /// Memory in MiB; what the image wants if not given.
    #[arg(long, value_name = "MIB", value_parser = clap::value_parser!(u64).range(1..=MEMORY_MAX_BYTES >> 20))]
    memory: Option<u64>,
    /// Run the image's program in so many environments; as many as the image asks for if not given.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=abi::domain::DOMAINS as i64))]
    environments: Option<u32>,
    /// vCPUs; as many as the image asks for if not given. With more than one, device work is done on a thread.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=VCPUS_MAX as i64))]
    vcpus: Option<u32>,
    /// Bind the vCPU to this CPU; with several vCPUs, one CPU for each, separated by commas.
    #[arg(long, value_name = "CPU[,...]", value_delimiter = ',')]
    vcpu_cpu: Vec<u32>,
    /// Name for other commands; the image's name if not given.
    #[arg(long)]
    name: Option<String>,
    /// Run in the background: return when the machine is ready or has failed.
    #[arg(long, short)]
    detach: bool,
    /// Print only the guest's log and errors; with --detach only the machine's name.
    #[arg(long, short)]
    quiet: bool,
    /// Further arguments for the image, as they are; its options, if it declares any, go without `--`: `exovm run IMAGE --help`.
    #[arg(last = true)]
    arguments: Vec<String>,
}

impl RunArguments {
    /// Puts words before the arguments for the image.
    pub(super) fn prepend(&mut self, words: Vec<String>) {
        self.arguments.splice(0..0, words);
    }

    /// Whether the machine is to run in the background.
    #[cfg(test)]
    pub(super) fn is_detached(&self) -> bool {
        self.detach
    }
}

pub(super) fn run(arguments: RunArguments) -> Result<ExitCode, Failure> {
    let start_tsc = now_tsc();
    let mut phases = Vec::new();
    let mut reached = |name| phases.push(PhaseStamp { name, tsc: now_tsc() });
    if arguments.detach && !detach::is_child() {
        return detach::start();
    }
    let image = images::load(&arguments.image)?;
    if !arguments.docroot.is_empty() && !image.manifest.docroot {
        return Err(format!("image {} takes no --docroot", image.manifest.name).into());
    }
    vcpus_of(&arguments, &image)?;
    reached("image");
    let environments = arguments.environments.unwrap_or(image.manifest.environments) as usize;
    let has_site = !arguments.docroot.is_empty() || (image.manifest.docroot && arguments.disk.is_empty());
    if environments > 1 && has_site && !arguments.disk.is_empty() {
        return Err("with several environments, --docroot and --disk exclude each other: each environment has one disk, \
                    or the first has all"
            .into());
    }
    if environments > 1 && arguments.net.asks_dhcp() {
        return Err("ip=dhcp is for one environment, which gets all that arrives; say --environments 1, or the address".into());
    }
    if image.manifest.guardian && arguments.net.has_ipv6() {
        return Err("the guardian gives its clients IPv4 only; leave ip6= out".into());
    }
    let (mut disks, served): (Vec<_>, Vec<String>) = if has_site {
        // A guardian serves nothing.
        let serving = environments.saturating_sub(image.manifest.guardian.into()).max(1);
        docroot::of_environments(&arguments.docroot, serving)?
    } else {
        Default::default()
    };
    if has_site {
        reached("disk image");
    }
    for disk in &arguments.disk {
        disks.push(disk.open()?);
    }
    // Up to here a signal just ends the process: making an image takes its time, and leaves nothing.
    let signals = Signals::block()?;
    let net = arguments.net.open(&arguments.publish)?;
    let (image_name, serves) = (image.manifest.name.clone(), image.manifest.serves);
    let socket = ControlSocket::bind(arguments.name.as_ref().unwrap_or(&image_name))?;
    let name = socket.name().to_owned();
    let (setup, host, reach) = match net {
        Some(OpenNet { setup, host, reach }) => (Some(wrapped(setup, &arguments)?), Some(host), reach),
        None if arguments.impair.is_some() || arguments.pcap.is_some() => {
            return Err("--impair and --pcap are for a network interface, and --net none has none".into());
        }
        None => (None, None, Reach::Nothing),
    };
    let log = Arc::new(GuestLog::new()?);
    messages::also_into(&log);
    let log_of_guest = Arc::clone(&log);
    let mut machine = Machine::start(MachineConfig {
        image,
        memory_bytes: arguments.memory.map(|mib| mib.saturating_mul(1 << 20)),
        net: setup,
        disks,
        io: arguments.io,
        vcpus: arguments.vcpus,
        vcpu_cpus: arguments.vcpu_cpu.clone(),
        arguments: arguments.arguments.clone(),
        environments: arguments.environments,
        spare_environments: None,
        log: Box::new(move |line| log_of_guest.push(line)),
    })?;
    let info = Info {
        name: name.clone(),
        pid: std::process::id(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        image: image_name,
        detached: arguments.detach,
        state: State::Starting,
        started_utc_us: SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_micros() as u64,
        uptime_ms: 0,
        memory_bytes: machine.memory_bytes(),
        vcpus: machine.vcpus(),
        io: format!("{:?}", machine.placement().mode()).to_lowercase(),
        addresses: reach.addresses(),
        published: reach.published(),
        disks: arguments.disk.iter().map(ToString::to_string).collect(),
        port: None,
    };
    let control = Control::new(socket, Served::new(&machine, Arc::clone(&log), info)?);
    let hint = if arguments.detach {
        format!("It runs on: `exovm logs -f {name}` shows its log, `exovm stop {name}` ends it.")
    } else {
        format!("Ctrl-C ends it; `exovm account {name}` shows where its cycles go.")
    };
    let asks_link = arguments.net.has_ipv6();
    let announcement = Announcement { name, reach, serves, asks_link, served, start_tsc, phases, hint };
    let output = Output::new(&arguments, Arc::clone(&log))?;
    let stop = control.stop_event().try_clone()?;
    let supervised = std::thread::scope(|scope| {
        scope.spawn(|| {
            if let Err(error) = output.when_ready(&announcement, &machine) {
                complain!("exovm: {error}");
                let _ = stop.write(1);
            }
        });
        supervise(&machine, control, signals)
    })?;
    // Joins the threads, so that the log is complete.
    let end = machine.stop(Duration::ZERO);
    log.close();
    supervised.control.finish(&Ending::from(&end));
    output.finish(&end);
    // The tap, if it is ours, goes after the machine that uses it.
    drop(machine);
    drop(host);
    let code = match end {
        End::Stopped => exit::SUCCESS,
        End::PowerOff { .. } if supervised.asked => exit::SUCCESS,
        End::PowerOff { status } => u8::try_from(status).unwrap_or(u8::MAX),
        End::Fault { report } => {
            complain!("exovm: {report}");
            exit::FAULT
        }
    };
    if let (exit::SUCCESS, Some(file)) = (code, log_file::installed()) {
        file.remove();
    }
    Ok(ExitCode::from(code))
}

/// Puts around the interface's backend what was asked for. The capture is nearest to the guest.
fn wrapped(setup: NetSetup, arguments: &RunArguments) -> Result<NetSetup, Failure> {
    let mut backend = setup.backend;
    if let Some(impairments) = &arguments.impair {
        backend = Box::new(Impair::new(backend, impairments));
    }
    if let Some(path) = &arguments.pcap {
        backend = Box::new(Capture::create(path, backend)?);
    }
    Ok(NetSetup { backend, ..setup })
}

/// Checks what was asked for of vCPUs against the host.
fn vcpus_of(arguments: &RunArguments, image: &Image) -> Result<(), Failure> {
    let vcpus = arguments.vcpus.unwrap_or(image.manifest.vcpus);
    let allowed = crate::placement::allowed_cpus();
    if let Some(cpu) = arguments.vcpu_cpu.iter().find(|cpu| !allowed.contains(cpu)) {
        return Err(format!("--vcpu-cpu {cpu}: this process may not use that CPU").into());
    }
    match arguments.vcpu_cpu.len() {
        0 => {}
        cpus if cpus == vcpus as usize => {}
        cpus => {
            return Err(format!(
                "--vcpu-cpu names {cpus} of the host's CPUs, and the machine has {vcpus} vCPUs: name one for each, separated \
                 by commas, or none"
            )
            .into());
        }
    }
    if vcpus as usize > allowed.len() {
        complain!(
            "exovm: warning: {vcpus} vCPUs share {} of the host's CPUs: they take turns on them, and each is slower for it",
            allowed.len()
        );
    }
    Ok(())
}

/// Where a machine's log and messages go: standard output, or, for a detached one, nowhere until it is ready and then to
/// its log file.
struct Output {
    detach: bool,
    quiet: bool,
    log: Arc<GuestLog>,
    copying: Mutex<Option<Copying>>,
}

impl Output {
    fn new(arguments: &RunArguments, log: Arc<GuestLog>) -> Result<Self, Failure> {
        let copying =
            if arguments.detach { None } else { Some(copy(&log, |piece| say(&piece.to_string()))?) };
        let (detach, quiet) = (arguments.detach, arguments.quiet);
        Ok(Self { detach, quiet, log, copying: Mutex::new(copying) })
    }

    /// Waits until the machine is ready, and says so.
    fn when_ready(&self, announcement: &Announcement, machine: &Machine) -> Result<(), Failure> {
        if self.quiet && !self.detach {
            return Ok(());
        }
        let text = announcement.wait(machine, || self.detach && detach::nobody_waits());
        lean::give_up_what_starting_needed();
        let ended = machine.wait(Some(Duration::ZERO)).is_some();
        match text {
            // It failed, or it is done already: the parent learns that from the exit code.
            _ if self.detach && ended => return Ok(()),
            Some(_) if self.quiet => say(&announcement.name),
            Some(text) => say(&text),
            None => {}
        }
        if self.detach {
            if !detach::ready(&announcement.name)? {
                return Err("nobody waited for this detached machine".into());
            }
            let to_file = |piece: Piece<'_>| {
                let text = match piece {
                    Piece::Line(line) => super::logs::as_text(line),
                    lost @ Piece::Lost(_) => lost.to_string(),
                };
                // A full file system must not end the machine.
                let _ = log_file::installed().map(|file| file.append(&format!("{text}\n")));
            };
            *self.copying.lock().unwrap_or_else(PoisonError::into_inner) = Some(copy(&self.log, to_file)?);
        }
        Ok(())
    }

    /// The log is complete: what is not printed yet is.
    fn finish(self, end: &End) {
        match self.copying.into_inner().unwrap_or_else(PoisonError::into_inner) {
            Some(copying) => copying.finish(),
            // Detached, and never ready: the terminal is still there, and should see why.
            None if *end != End::Stopped => {
                let lines = self.log.read(0, usize::MAX).lines;
                lines.iter().for_each(|line| complain!("{}", line.as_written()));
            }
            None => {}
        }
    }
}
