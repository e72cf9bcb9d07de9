//! A machine to be: what a test asks for, until it starts.

use crate::guest::{Guest, PATIENCE};
use crate::log::Log;
use crate::network::Network;
use crate::{Site, host, link};
use exos_fs::make::{Options, Plan};
use exovm::backend::Backend;
use exovm::backend::capture::Capture;
use exovm::backend::disk::{Access, Store};
use exovm::backend::impair::{Impair, Impairments};
use exovm::backend::link::Port;
use exovm::backend::user::User;
use exovm::machine::{DiskSetup, Machine, MachineConfig, MachineError, NetSetup};
use exovm::placement::IoMode;
use exovm_image::container::Image;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// What is put around a guest's backend.
type Wrapper = Box<dyn FnOnce(Box<dyn Backend>) -> Box<dyn Backend>>;
/// What is put around a guest's first disk.
type DiskWrapper = Box<dyn FnOnce(Arc<dyn Store>) -> Arc<dyn Store>>;

/// What a guest's interface is connected to.
#[derive(Clone, Debug)]
enum Net {
    None,
    /// The TAP of this number.
    Tap(u8),
    /// Sockets of this process.
    User,
    /// A port of a link, with the guest's address.
    Link(Port, Ipv4Addr),
}

/// A machine to be.
pub struct GuestBuilder {
    image: Image,
    docroot: Option<PathBuf>,
    io: IoMode,
    memory_mib: Option<u64>,
    vcpus: Option<u32>,
    environments: Option<u32>,
    spare_environments: Option<u32>,
    arguments: Vec<String>,
    net: Net,
    gateway: Ipv4Addr,
    dhcp: bool,
    ipv6: abi::boot::Ipv6Config,
    probing: u32,
    without_ipv4: bool,
    name_servers: Vec<IpAddr>,
    disks: Vec<(PathBuf, Access)>,
    wrappers: Vec<Wrapper>,
    disk_wrappers: Vec<DiskWrapper>,
}

impl GuestBuilder {
    pub(crate) fn new(image: Image) -> Self {
        Self {
            image,
            docroot: None,
            io: IoMode::Turn,
            memory_mib: None,
            vcpus: None,
            environments: None,
            spare_environments: None,
            arguments: Vec::new(),
            net: Net::Tap(0),
            gateway: Ipv4Addr::UNSPECIFIED,
            dhcp: false,
            ipv6: abi::boot::Ipv6Config::default(),
            probing: abi::boot::probing::NONE,
            without_ipv4: false,
            name_servers: Vec::new(),
            disks: Vec::new(),
            wrappers: Vec::new(),
            disk_wrappers: Vec::new(),
        }
    }

    /// Serves this site.
    pub fn site(self, site: &Site) -> Self {
        self.docroot(site.path())
    }

    /// Serves this directory.
    pub fn docroot(mut self, dir: &Path) -> Self {
        self.docroot = Some(dir.to_owned());
        self
    }

    /// Where device work is done; turns if not said, which is deterministic.
    pub fn io(mut self, io: IoMode) -> Self {
        self.io = io;
        self
    }

    /// Memory of the machine.
    pub fn memory_mib(mut self, mib: u64) -> Self {
        self.memory_mib = Some(mib);
        self
    }

    /// vCPUs of the machine; as many as the image asks for if not said. Several take no turns: say also where device work is done.
    pub fn vcpus(mut self, number: u32) -> Self {
        self.vcpus = Some(number);
        self
    }

    /// In how many environments the image's program runs; as many as the image asks for if not said.
    pub fn environments(mut self, number: u32) -> Self {
        self.environments = Some(number);
        self
    }

    /// Places for environments that others make; as many as the image asks for if not said.
    pub fn spare_environments(mut self, number: u32) -> Self {
        self.spare_environments = Some(number);
        self
    }

    /// Makes the first environment the guardian of the others, whatever the image says.
    pub fn guardian(mut self) -> Self {
        self.image.manifest.guardian = true;
        self
    }

    /// Takes the names of functions out of the image's program, as `strip` does.
    pub fn stripped(mut self) -> Self {
        self.image.program.symbols.clear();
        self
    }

    /// The image's arguments.
    pub fn arguments(mut self, arguments: &[&str]) -> Self {
        self.arguments = arguments.iter().map(|&argument| argument.to_owned()).collect();
        self
    }

    /// Number of the TAP, for tests with several guests; 0 if not said.
    pub fn tap(mut self, number: u8) -> Self {
        self.net = Net::Tap(number);
        self
    }

    /// What the guest on a TAP takes for its gateway; none if not said.
    pub fn gateway(mut self, address: Ipv4Addr) -> Self {
        self.gateway = address;
        self
    }

    /// The guest on a TAP asks a DHCP server there for its address, which is [`Machine::leased_address`].
    pub fn dhcp(mut self) -> Self {
        self.dhcp = true;
        self
    }

    /// The guest has this IPv6 address as well, in a network of 64 bits, beside its link-local one
    /// ([`crate::network::Network::guest_link_local`]).
    pub fn ipv6(mut self, address: Ipv6Addr) -> Self {
        (self.ipv6.address, self.ipv6.prefix_len) = (address.octets(), 64);
        self.ipv6.mode = self.ipv6.mode.max(abi::boot::ipv6::GIVEN);
        self
    }

    /// What the guest with IPv6 takes for its router; none if not said.
    pub fn gateway6(mut self, address: Ipv6Addr) -> Self {
        self.ipv6.gateway = address.octets();
        self
    }

    /// The guest has IPv6, and uses what routers advertise ([`Machine::ipv6_addresses`]).
    pub fn ipv6_auto(mut self) -> Self {
        self.ipv6.mode = abi::boot::ipv6::AUTOMATIC;
        self
    }

    /// The guest on a TAP has no IPv4 address.
    pub fn without_ipv4(mut self) -> Self {
        self.without_ipv4 = true;
        self
    }

    /// The guest asks this server for names, after those said before; three at most. None, or those of its DHCP server, if not said.
    pub fn name_server(mut self, server: impl Into<IpAddr>) -> Self {
        self.name_servers.push(server.into());
        self
    }

    /// When the guest asks the link whether somebody has its IPv4 address: a value of [`abi::boot::probing`]. Never if not said.
    pub fn probing(mut self, probing: u32) -> Self {
        self.probing = probing;
        self
    }

    /// Instead of a TAP, a port of a link; the guest has this address in a network of 24 bits (see [`crate::link`]). It needs no
    /// namespace.
    pub fn link(mut self, port: &Port, address: Ipv4Addr) -> Self {
        self.net = Net::Link(port.clone(), address);
        self
    }

    /// Has faults happen to the guest's packets, as `exovm run --impair` does: `impair("loss=1%,delay=5ms,seed=7")`.
    ///
    /// # Panics
    /// If that is not what `--impair` takes.
    pub fn impair(self, faults: &str) -> Self {
        let faults: Impairments = faults.parse().unwrap_or_else(|error| panic!("{faults}: {error}"));
        self.wrap_backend(move |backend| Box::new(Impair::new(backend, &faults)))
    }

    /// Instead of a TAP, a user network: a free port of 127.0.0.1 leads to the guest's port 80. It needs no namespace.
    pub fn user_net(mut self) -> Self {
        self.net = Net::User;
        self
    }

    /// A raw disk image. Several follow each other in the device table, behind the network interface.
    pub fn disk(mut self, path: &Path, access: Access) -> Self {
        self.disks.push((path.to_owned(), access));
        self
    }

    /// No network interface.
    pub fn no_network(mut self) -> Self {
        self.net = Net::None;
        self
    }

    /// Writes all frames to this file, a pcapng capture: complete once the guest has ended, also by a test that fails.
    pub fn pcap(self, path: impl AsRef<Path>) -> Self {
        let path = path.as_ref().to_owned();
        self.wrap_backend(move |backend| match Capture::create(&path, backend) {
            Ok(capture) => Box::new(capture),
            Err(error) => panic!("{}: {error}", path.display()),
        })
    }

    /// Puts something between the NIC and its TAP, such as a loss of frames. What is wrapped last is nearest to the guest.
    pub fn wrap_backend(mut self, wrap: impl FnOnce(Box<dyn Backend>) -> Box<dyn Backend> + 'static) -> Self {
        self.wrappers.push(Box::new(wrap));
        self
    }

    /// Leaves the image without the names of its functions, as `strip` does.
    pub fn without_symbols(mut self) -> Self {
        self.image.program.symbols.clear();
        self
    }

    /// Puts something between the first disk and its image, such as a delay. The site of a docroot is the first disk.
    pub fn wrap_disk(mut self, wrap: impl FnOnce(Arc<dyn Store>) -> Arc<dyn Store> + 'static) -> Self {
        self.disk_wrappers.push(Box::new(wrap));
        self
    }

    /// Has the image run `code` instead of its own, so that a test can have the guest do what no compiler would let it.
    /// The code lies at the beginning of the image's longest function.
    ///
    /// # Panics
    /// If it is longer than that function.
    pub fn execute(mut self, code: &[u8]) -> Self {
        let symbols = &self.image.program.symbols;
        let place = symbols.iter().max_by_key(|symbol| symbol.len_bytes).expect("an image has functions");
        assert!(code.len() as u64 <= place.len_bytes, "{} bytes are too long", code.len());
        let (place_va, entry_va) = (place.va, self.image.program.entry_va);
        // jmp rel32, relative to the next instruction
        let distance = place_va.wrapping_sub(entry_va + 5) as u32;
        let jump = [&[0xE9][..], &distance.to_le_bytes()].concat();
        self.overwrite(place_va, code);
        self.overwrite(entry_va, &jump);
        self
    }

    fn overwrite(&mut self, va: u64, code: &[u8]) {
        let segment = self
            .image
            .program
            .segments
            .iter_mut()
            .find(|segment| (segment.va..segment.va + segment.bytes.len() as u64).contains(&va))
            .expect("code lies in a segment");
        let at = (va - segment.va) as usize;
        segment.bytes[at..at + code.len()].copy_from_slice(code);
    }

    /// Starts the machine, or says why it does not start.
    pub fn try_launch(self) -> Result<Guest, MachineError> {
        host::require();
        let docroot = self.docroot.as_deref().map(image_of);
        let disks = self.disks.iter().map(|(path, access)| DiskSetup::open(path, *access));
        let mut disks: Vec<DiskSetup> = docroot.into_iter().map(Ok).chain(disks).collect::<Result<_, _>>()?;
        if let Some(first) = disks.first_mut() {
            let store = Arc::clone(&first.store);
            first.store = self.disk_wrappers.into_iter().fold(store, |store, wrap| wrap(store));
        }
        let (mut published, mut linked) = (None, None);
        let (network, net) = match self.net {
            Net::None => (None, None),
            Net::Tap(number) => {
                host::require_tap();
                let (network, mut setup) = Network::create(number);
                setup.ipv4.gateway = self.gateway.octets();
                if self.dhcp {
                    setup.ipv4 = abi::boot::Ipv4Config { dhcp: 1, ..Default::default() };
                }
                if self.without_ipv4 {
                    setup.ipv4 = abi::boot::Ipv4Config::default();
                }
                (Some(network), Some(setup))
            }
            Net::User => {
                let (address, setup) = user_network();
                published = Some(address);
                (None, Some(setup))
            }
            Net::Link(port, address) => {
                let end = port.plug().unwrap_or_else(|error| panic!("{error}"));
                linked = Some(address);
                (None, Some(link::setup(end, address)))
            }
        };
        let net = net.map(|setup: NetSetup| {
            let backend = self.wrappers.into_iter().fold(setup.backend, |backend, wrap| wrap(backend));
            let ipv4 = abi::boot::Ipv4Config { probing: self.probing, ..setup.ipv4 };
            let name_servers = abi::boot::NameServers::new(self.name_servers);
            NetSetup { backend, ipv4, ipv6: self.ipv6, name_servers, ..setup }
        });
        let log = Log::default();
        let sink = log.clone();
        let machine = Machine::start(MachineConfig {
            memory_bytes: self.memory_mib.map(|mib| mib << 20),
            net,
            disks,
            io: self.io,
            vcpus: self.vcpus,
            arguments: self.arguments,
            environments: self.environments,
            spare_environments: self.spare_environments,
            log: Box::new(move |line| sink.push(line)),
            ..MachineConfig::new(self.image)
        })?;
        Ok(Guest { machine, network, published, linked, log, port: 0 })
    }

    /// Starts the machine; it need not serve anything.
    pub fn launch(self) -> Guest {
        self.try_launch().unwrap_or_else(|error| panic!("the machine does not start: {error}"))
    }

    /// Starts the machine and waits until it serves.
    pub fn start(self) -> Guest {
        let mut guest = self.launch();
        match guest.machine.wait_ready(PATIENCE) {
            Some(port) => guest.port = port,
            None => panic!(
                "the guest does not serve; it ended with {:?} and logged {:#?}",
                guest.machine.wait(Some(Duration::ZERO)),
                guest.log()
            ),
        }
        guest
    }
}

/// A volume with what is in a directory. Its file is gone when the machine is.
fn image_of(dir: &Path) -> DiskSetup {
    let scratch = tempfile::tempdir().expect("a temporary directory");
    let image = scratch.path().join("docroot.img");
    make_image(dir, &image);
    DiskSetup::open(&image, Access::ReadOnly).unwrap_or_else(|error| panic!("{error}"))
}

/// Makes a volume with what is in a directory, as `exovm mkfs` does.
pub fn make_image(dir: &Path, image: &Path) {
    let plan = Plan::scan(dir).unwrap_or_else(|error| panic!("{error}"));
    plan.write(image, &Options::default(), &mut |_| {}).unwrap_or_else(|error| panic!("{error}"));
}

/// A user network with one published port, and where that is.
fn user_network() -> (SocketAddr, NetSetup) {
    let config = exovm_user_net::Config {
        guest_mac: exovm_user_net::GUEST_MAC,
        publish: vec!["0:80".parse().expect("a good form")],
        ..exovm_user_net::Config::default()
    };
    let user = User::new(config).unwrap_or_else(|error| panic!("{error}"));
    (user.published()[0].host, NetSetup::user(user, exovm_user_net::GUEST_MAC))
}
