//! Samples of where a machine's threads are: `exovm profile`.
//!
//! While somebody looks, a thread of the VMM ([`sampler`]) wakes up so many times a second and notes what each thread of the
//! machine does. A thread in the VMM's own code is told by its ledger, and is not disturbed; so is a vCPU that is halted.
//! A vCPU in the guest is asked to look at itself ([`crate::machine::Machine::ask`] says how): it leaves the guest for a few
//! microseconds, notes registers and call stack, and goes on. Samples go to the client as they come, which makes of them what its
//! user wants; nobody looking costs nothing, for there is no thread and nobody asks.
//!
//! | module | what |
//! | --- | --- |
//! | [`sampler`] | when, and whom |
//! | `sight` | a vCPU looks at itself |
//! | `walk` | call stacks of either ring, out of the guest's memory |
//! | `names` | functions by address, told once |
//! | [`stream`] | what is sent |
//! | [`collect`] | the client's side: samples added up |
//! | [`table`], [`folded`], [`flame_graph`], [`pprof`] | what can be made of them |

pub mod collect;
pub mod flame_graph;
pub mod folded;
mod names;
pub mod pprof;
mod sampler;
mod sight;
pub mod stream;
pub mod table;
mod thread_state;
mod walk;

pub use stream::{Item, ProfileRequest};

use crate::machine::Shared;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

/// Most samples a second: an ask takes some tens of microseconds.
pub const HZ_MAX: u32 = 10_000;
/// Most clients at once; each of them disturbs the vCPUs.
const CLIENTS_MAX: usize = 4;

/// Who takes samples of one machine.
#[derive(Default)]
pub(crate) struct Profilers {
    admitted: Arc<AtomicUsize>,
    ended: Arc<AtomicBool>,
    /// Wake the samplers.
    wake: Mutex<Vec<Weak<EventFd>>>,
}

/// A client that may take samples. Dropping it makes room for another.
pub(crate) struct Admitted {
    request: ProfileRequest,
    admitted: Arc<AtomicUsize>,
}

impl Drop for Admitted {
    fn drop(&mut self) {
        self.admitted.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Profilers {
    /// Lets a client in, or says why not.
    pub(crate) fn admit(&self, request: &ProfileRequest) -> Result<Admitted, String> {
        if !(1..=HZ_MAX).contains(&request.hz) {
            return Err(format!("samples are taken 1 to {HZ_MAX} times a second, not {}", request.hz));
        }
        if self.ended.load(Ordering::Acquire) {
            return Err("the machine has ended".to_owned());
        }
        if self.admitted.fetch_add(1, Ordering::AcqRel) >= CLIENTS_MAX {
            self.admitted.fetch_sub(1, Ordering::AcqRel);
            return Err(format!("{CLIENTS_MAX} profilers look at it already; try again when one has ended"));
        }
        Ok(Admitted { request: *request, admitted: Arc::clone(&self.admitted) })
    }

    /// The machine has ended: clients hear of it.
    pub(crate) fn say_end(&self) {
        self.ended.store(true, Ordering::Release);
        for wake in self.wake().iter().filter_map(Weak::upgrade) {
            let _ = wake.write(1);
        }
    }

    fn wake(&self) -> MutexGuard<'_, Vec<Weak<EventFd>>> {
        self.wake.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Takes samples for a client from now on, on a thread of its own.
pub(crate) fn start(machine: Arc<Shared>, admitted: Admitted, socket: UnixStream) {
    let wake = socket.set_nonblocking(true).and_then(|()| EventFd::new(EFD_NONBLOCK | EFD_CLOEXEC));
    let wake = match wake {
        Ok(wake) => Arc::new(wake),
        Err(error) => return tracing::error!("a profiler cannot be served: {error}"),
    };
    let profilers = &machine.profilers;
    let ended = Arc::clone(&profilers.ended);
    // Before the thread looks whether the machine has ended.
    let mut known = profilers.wake();
    known.retain(|wake| wake.strong_count() > 0);
    known.push(Arc::downgrade(&wake));
    drop(known);
    let shared = Arc::clone(&machine);
    machine.tools.start("exovm-profile", move || {
        sampler::Sampler::new(shared, admitted.request.hz, socket, wake, ended).run();
        drop(admitted);
    });
}
