//! Our stack in this process, on a TAP: a thread that runs a program on it.

use exos_net::{Config, Duration, MacAddress, TxChecksum};
use exos_sockets::{Sockets, Spawner};
use exovm_netns::{Interface, TapQueues, attach_tap, create_tap, switch_offloads_off};
use exovm_tap_stack::Wire;
pub(crate) use exovm_tap_stack::{Bottleneck, Faults, Left};
use std::fs::File;
use std::future::Future;
use std::io::Read;
use std::net::Ipv4Addr;
use std::sync::mpsc;
use std::thread::JoinHandle;

/// The kernel's address on the TAP.
pub(crate) const LINUX: Ipv4Addr = Ipv4Addr::new(10, 80, 0, 1);
/// Ours.
pub(crate) const OURS: Ipv4Addr = Ipv4Addr::new(10, 80, 0, 2);

/// Our stack, running a program in a thread of its own.
pub(crate) struct Running<T> {
    thread: JoinHandle<(T, Left)>,
}

impl<T> Running<T> {
    /// Waits for the program, and for what it leaves behind to end.
    pub(crate) fn join(self) -> (T, Left) {
        match self.thread.join() {
            Ok(result) => result,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    }
}

/// `tap0`, which is made when it is first asked for.
pub(crate) fn interface() -> Interface {
    let interface = Interface::named("tap0").expect("a good name");
    if !interface.exists() {
        create_tap(&interface, TapQueues::Single).expect("a TAP");
        interface.add_address(LINUX.into(), 24).expect("an address");
        interface.up().expect("up");
    }
    interface
}

/// Starts a program on our stack behind `tap0`. It is running when this returns.
pub(crate) fn start<T, P, F>(
    faults: Faults,
    set: impl FnOnce(&mut Config) + Send + 'static,
    program: P,
) -> Running<T>
where
    T: Send + 'static,
    F: Future<Output = T> + 'static,
    P: FnOnce(Sockets, Spawner) -> F + Send + 'static,
{
    let interface = interface();
    let (ready, is_ready) = mpsc::channel();
    let thread = std::thread::spawn(move || {
        let tap = attach_tap(&interface, TapQueues::Single).expect("the TAP");
        if !faults.are_none() {
            switch_offloads_off(&interface, &tap).expect("no offloads");
        }
        let mut config = config(faults);
        set(&mut config);
        let wire = Wire { tap: &tap, faults, spin: Duration::ZERO };
        let ready = || ready.send(()).expect("somebody waits");
        exovm_tap_stack::run(&wire, config, program, ready).expect("a TAP that carries frames")
    });
    is_ready.recv().expect("the stack runs");
    Running { thread }
}

fn config(faults: Faults) -> Config {
    let mut secret = [0; 16];
    File::open("/dev/urandom").and_then(|mut random| random.read_exact(&mut secret)).expect("random bytes");
    let mut config = Config::new(MacAddress([2, 0, 0, 0, 0, 2]), OURS, 24, secret);
    config.tx_checksum = TxChecksum::Offload;
    config.tso_max_bytes = if faults.are_none() { exos_net::MAX_TSO_BYTES } else { 0 };
    config
}
