//! A guest under test: an image started in this process, on a TAP of the test's own namespace.

use crate::Site;
use crate::builder::GuestBuilder;
use crate::cost::Cost;
use crate::host;
use crate::http::{Client, Response};
use crate::log::Log;
use crate::network::Network;
use exovm::account::AccountSnapshot;
use exovm::machine::{End, Machine};
use exovm::stat::StatSnapshot;
use exovm_image::container::Image;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::path::Path;
use std::time::Duration;

/// How long a guest may take until it serves or ends. Long, for hosts that are emulated.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);
/// How long a guest may take to finish when asked.
const GRACE: Duration = Duration::from_secs(10);

/// A running guest. Dropping it ends the machine without any check; [`Guest::stop`] checks.
pub struct Guest {
    pub(crate) machine: Machine,
    pub(crate) network: Option<Network>,
    /// Where the host reaches its port 80, on a user network.
    pub(crate) published: Option<SocketAddr>,
    /// Its address, on a link.
    pub(crate) linked: Option<Ipv4Addr>,
    pub(crate) log: Log,
    pub(crate) port: u16,
}

impl Guest {
    /// The built-in image of this name, on TAP 0.
    pub fn image(name: &str) -> GuestBuilder {
        let image = exovm::images::load(name).unwrap_or_else(|error| panic!("{error}"));
        GuestBuilder::new(image)
    }

    /// The image in this file, on TAP 0.
    pub fn file(path: impl AsRef<Path>) -> GuestBuilder {
        let path = path.as_ref();
        let file = std::fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let image = Image::parse(&file).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        GuestBuilder::new(image)
    }

    /// Cheetah, serving a site on TAP 0 in turns.
    pub fn serving(site: &Site) -> Guest {
        Self::image("cheetah").site(site).start()
    }

    /// Where it serves.
    pub fn address(&self) -> SocketAddr {
        if let Some(published) = self.published {
            return published;
        }
        let address = self.linked.unwrap_or_else(|| self.network().guest_address());
        SocketAddrV4::new(address, self.port).into()
    }

    /// Its TAP.
    ///
    /// # Panics
    /// If it has none.
    pub fn network(&self) -> &Network {
        self.network.as_ref().expect("this guest was started without a TAP")
    }

    /// A connection to it.
    pub fn connect(&self) -> Client {
        Client::connect(self.address()).unwrap_or_else(|error| panic!("cannot connect to the guest: {error}"))
    }

    /// One GET on a connection of its own.
    pub fn get(&self, target: &str) -> Response {
        self.connect().get(target).unwrap_or_else(|error| panic!("GET {target}: {error}"))
    }

    /// The machine.
    pub fn machine(&self) -> &Machine {
        &self.machine
    }

    /// What the guest logged so far.
    pub fn log(&self) -> Vec<String> {
        self.log.lines()
    }

    /// What `body` cost, by the account.
    pub fn account_of(&self, body: impl FnOnce()) -> AccountSnapshot {
        let _accounts = self.machine.accounts();
        let before = self.machine.account();
        body();
        self.machine.account().since(&before)
    }

    /// What `body` cost.
    pub fn cost_of(&self, body: impl FnOnce()) -> Cost {
        Cost::new(self.account_of(body))
    }

    /// A counter of its network's backend, as `exovm stat` has it: `link_sent_in_place_frames`, `impair_tx_lost`.
    ///
    /// # Panics
    /// If there is none of that name.
    pub fn backend_counter(&self, name: &str) -> u64 {
        let nic = self.machine.placement().nic().expect("a network interface");
        let counters = nic.backend_counters();
        drop(nic);
        let found = counters.iter().find(|metric| metric.name == name);
        found.unwrap_or_else(|| panic!("no counter {name} in {counters:?}")).value
    }

    /// What every layer has counted, once the guest has come to rest: it publishes its own counters before it waits. That nothing
    /// changes for a moment says little on a host that takes CPUs away: the machine's threads must sleep as well, or nothing
    /// change for long, as some poll and machines of other tests may be beside.
    pub fn statistics(&self) -> StatSnapshot {
        const REST: Duration = Duration::from_millis(20);
        const ATTEMPTS: usize = 100;
        const LONG: usize = 25;
        let own = |statistics: &StatSnapshot| {
            let layers = ["ip", "tcp", "http", "cache", "forward"];
            let families =
                statistics.families.iter().filter(|family| layers.contains(&family.layer.as_str()));
            families.cloned().collect::<Vec<_>>()
        };
        let mut last = self.machine.statistics();
        let (mut asleep, mut unchanged) = (0, 0);
        for _ in 0..ATTEMPTS {
            std::thread::sleep(REST);
            let sleep = host::machine_threads_sleep();
            let now = self.machine.statistics();
            let same = own(&now) == own(&last);
            asleep = if same && sleep { asleep + 1 } else { 0 };
            unchanged = if same { unchanged + 1 } else { 0 };
            if asleep >= 2 || unchanged >= LONG {
                return now;
            }
            last = now;
        }
        last
    }

    /// Waits until the machine's threads sleep: a client may have an answer before who sent it has gone on. At most half a second,
    /// as some poll for ever.
    pub fn come_to_rest(&self) {
        const LOOKS: usize = 25;
        const BETWEEN: Duration = Duration::from_millis(20);
        let mut asleep = 0;
        for _ in 0..LOOKS {
            std::thread::sleep(BETWEEN);
            asleep = if host::machine_threads_sleep() { asleep + 1 } else { 0 };
            if asleep == 2 {
                return;
            }
        }
    }

    /// How many requests the guest counted while `body` ran.
    pub fn requests_during(&self, body: impl FnOnce()) -> u64 {
        self.cost_of(body).requests()
    }

    /// Waits until the guest has logged a line that contains `text`, and gives it back.
    ///
    /// # Panics
    /// If none comes.
    pub fn wait_for_log(&self, text: &str) -> String {
        self.log.wait_for(text, PATIENCE).unwrap_or_else(|| {
            panic!("the guest did not log {text:?} within {} s, but {:#?}", PATIENCE.as_secs(), self.log())
        })
    }

    /// The guest has logged no line that contains `text` so far.
    pub fn assert_not_logged(&self, text: &str) {
        let log = self.log();
        assert!(!log.iter().any(|line| line.contains(text)), "the guest logged {text:?}: {log:#?}");
    }

    /// Waits until the guest ends by itself. Gives back how, and the whole log.
    pub fn wait(mut self) -> (End, Vec<String>) {
        if self.machine.wait(Some(PATIENCE)).is_none() {
            panic!("the guest did not end by itself; it logged {:#?}", self.log());
        }
        // Joins the threads, so that the log is complete.
        let end = self.machine.stop(Duration::ZERO);
        (end, self.log())
    }

    /// Asks the guest to finish, and ends the machine if it does not. Gives back how it ended.
    pub fn end(mut self) -> End {
        self.machine.stop(GRACE)
    }

    /// The same, with the whole log.
    pub fn end_with_log(mut self) -> (End, Vec<String>) {
        let end = self.machine.stop(GRACE);
        (end, self.log())
    }

    /// Asks the guest to finish.
    ///
    /// # Panics
    /// If it does not finish by itself with status 0, or said anything worse than "info".
    pub fn stop(mut self) {
        let end = self.machine.stop(GRACE);
        let log = self.log();
        assert_eq!(end, End::PowerOff { status: 0 }, "the guest should have finished; it logged {log:#?}");
        let complaints: Vec<_> =
            log.iter().filter(|line| line.starts_with("WARN") || line.starts_with("ERROR")).collect();
        assert!(complaints.is_empty(), "the guest complained: {complaints:#?}");
    }
}
