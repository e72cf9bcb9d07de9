//! Async tasks on sockets, as the loop's tenant: for programs that want streams of bytes and no events.

use crate::addresses::{self, Told};
use crate::disk::Disk;
use crate::tenant::{Devices, Moment, Tenant, meta};
use crate::transmit::{Held, Sender};
use crate::{Interface, StartError, statistics, tenant};
use abi::statistics::StatisticsArea;
use alloc::rc::Rc;
use core::cell::RefCell;
use core::future::Future;
use exos_net::{Duration, Instant};
use exos_nic::Frame;
use exos_runtime::clock::Scale;
use exos_sockets::{Bytes, Endpoint, Sockets, Spawner};

/// What bounds a program's sockets.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Connections at a time; more are not answered, so that clients try again.
    pub max_connections: u32,
    /// A connection without progress for so long is ended.
    pub idle_timeout: Option<Duration>,
}

/// What the program has besides its tasks.
pub trait Program {
    /// Name in the prompt of its console (`exovm console`); `None`: it has none.
    fn console(&self) -> Option<&'static str> {
        None
    }

    /// The port that it serves, for whoever asks the machine.
    fn port(&self) -> Option<u16> {
        None
    }

    /// Takes what has been read and asks for more: before the tasks run, and when they have run.
    fn disk(&mut self, disk: &mut Disk) {
        let _ = disk;
    }

    /// See [`Tenant::give_up`].
    fn give_up(&mut self, start_va: usize, frames: usize) {
        let _ = (start_va, frames);
    }

    /// Gives each of the program's own counters with its name.
    fn counters(&self, each: &mut dyn FnMut(&'static str, u64)) {
        let _ = each;
    }

    /// Copies what the program has counted to where the VMM reads it.
    fn publish(&self, area: &StatisticsArea) {
        let _ = area;
    }
}

/// Nothing besides.
impl Program for () {}

/// Runs `main`, which is given the sockets and may start more tasks, until it is done and what its streams have written is
/// acknowledged; answers what it did. `None`: the user wanted the machine to end before that.
pub fn run<P, F>(
    program: &mut P,
    disk: Option<Disk>,
    limits: &Limits,
    main: impl FnOnce(Sockets, Spawner) -> F,
) -> Result<Option<F::Output>, StartError>
where
    P: Program,
    F: Future<Output: 'static> + 'static,
{
    let interface = Interface::first()?;
    let mut config = interface.stack_config(limits.max_connections)?;
    config.idle_timeout = limits.idle_timeout;
    let endpoint = Endpoint::new(config, tenant::now(Scale::new())).map_err(StartError::Stack)?;
    endpoint.sockets().set_name_servers(interface.name_servers());
    let output = Rc::new(RefCell::new(None));
    let main = main(endpoint.sockets(), endpoint.spawner());
    endpoint.spawner().spawn({
        let output = output.clone();
        async move { *output.borrow_mut() = Some(main.await) }
    });
    let is_ready = addresses::are_settled(endpoint.stack());
    let is_done = || output.borrow().is_some();
    let told = Told::default();
    let mut tasks = Tasks { program, endpoint, is_done, told, is_ready, is_without_address: false };
    crate::run(&mut tasks, &interface, disk)?;
    let is_without_address = tasks.is_without_address;
    drop(tasks);
    if is_without_address { Err(StartError::AddressesTaken) } else { Ok(output.take()) }
}

struct Tasks<'p, P, D> {
    program: &'p mut P,
    endpoint: Endpoint,
    /// Whether `main` is.
    is_done: D,
    /// What the machine knows of IPv6 addresses.
    told: Told,
    /// There is an address, or was one, and no other is about to be there.
    is_ready: bool,
    /// Others have all addresses that there were to be.
    is_without_address: bool,
}

impl<P: Program, D> Tasks<'_, P, D> {
    #[inline]
    fn disk(&mut self, devices: &mut Devices<'_, Held<Bytes>>) {
        if let Some(disk) = devices.disk.as_deref_mut() {
            self.program.disk(disk);
        }
    }

    /// Tells of addresses that came or went, and looks whether there is one.
    #[cold]
    fn look_after_addresses(&mut self, now: Instant) {
        let stack = self.endpoint.stack();
        if self.told.is_behind(stack) {
            self.told.catch_up(now, stack, |_| true);
        }
        if !self.is_ready && addresses::are_settled(stack) {
            self.is_ready = addresses::has_any(now, stack);
            self.is_without_address = !self.is_ready;
            if self.is_without_address {
                addresses::tell_conflicts(self.endpoint.stack_mut());
            }
        }
    }
}

impl<P: Program, D: Fn() -> bool> Tenant for Tasks<'_, P, D> {
    type Held = Held<Bytes>;

    fn console(&self) -> Option<&'static str> {
        self.program.console()
    }

    fn port(&self) -> Option<u16> {
        self.program.port()
    }

    #[inline]
    fn input(&mut self, frame: &Frame<'_>, at: Moment, devices: &mut Devices<'_, Self::Held>) {
        let _span = exos_trace::span!("tcp input");
        self.endpoint.input(at.now, frame.bytes(), meta(frame), &mut Sender(devices.transmit));
    }

    #[inline]
    fn work(&mut self, devices: &mut Devices<'_, Self::Held>) {
        self.disk(devices);
        {
            let _span = exos_trace::span!("sockets");
            let now = devices.now();
            self.endpoint.work(now, &mut Sender(devices.transmit));
        }
        self.disk(devices);
        if !self.is_ready || self.told.is_behind(self.endpoint.stack()) {
            self.look_after_addresses(devices.now());
        }
    }

    fn is_ready(&self) -> bool {
        self.is_ready
    }

    fn next_deadline(&self) -> Option<Instant> {
        self.endpoint.next_deadline()
    }

    fn is_over(&self) -> bool {
        self.is_without_address || ((self.is_done)() && self.endpoint.sockets().is_empty())
    }

    fn counters(&self, each: &mut dyn FnMut(&'static str, u64)) {
        self.program.counters(each);
        self.endpoint.stack().counters().iter().for_each(|(name, value)| each(name, value));
    }

    fn connections(&self) -> (usize, usize) {
        let stack = self.endpoint.stack();
        (stack.connections(), stack.config().max_connections as usize)
    }

    fn publish(&mut self, area: &StatisticsArea) {
        statistics::publish(self.endpoint.stack_mut(), area);
        statistics::publish_udp_sockets(self.endpoint.sockets().udp_counters(), area);
        self.program.publish(area);
    }

    fn give_up(&mut self, start_va: usize, frames: usize) {
        self.program.give_up(start_va, frames);
    }
}
