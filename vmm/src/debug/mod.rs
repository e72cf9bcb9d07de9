//! The debugger's side of a machine: gdb's remote protocol, spoken by a thread that exists as long as one is attached.
//!
//! | module | what |
//! | --- | --- |
//! | [`serve`] | the thread: the socket, the news |
//! | [`target`] | gdb's questions |
//! | [`session`] | stop, go on, step |
//! | [`text`] | breakpoints |
//! | [`threads`] | who there is |
//! | [`registers`] | in gdb's order, wherever they are |
//! | [`memory`] | the guest's, by its addresses |
//! | [`hub`] | the vCPUs' side |
//! | [`symbols`] | files for gdb |
//!
//! How it works and why: README.md beside this file.

mod hub;
mod memory;
mod registers;
mod serve;
mod session;
pub mod symbols;
mod target;
mod text;
mod threads;

pub(crate) use hub::Hub;

use crate::machine::{MachineError, Shared, Team};
use crate::tables::Memory;
use exovm_image::container::{Files, Image};
use exovm_image::program::Header;
use memory::GuestMemory;
use serde::{Deserialize, Serialize};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::Duration;
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

/// How long a client may take for a file.
const FILE_PATIENCE: Duration = Duration::from_secs(10);

/// What a client wants of a machine's debugger.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DebugRequest {
    /// To attach: the connection carries gdb's remote protocol from then on.
    #[default]
    Attach,
    /// The kernel's ELF file, up to the end of the connection.
    KernelFile,
    /// That of the program.
    ProgramFile,
}

/// Why it does not get that.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DebugError {
    /// One debugger at a time.
    #[error("another debugger is attached; one at a time")]
    Taken,
    /// There is nothing left to debug.
    #[error("it is about to end")]
    Ending,
}

/// A machine's debugger, attached or not.
pub(crate) struct Debugger {
    pub(crate) hub: Arc<Hub>,
    files: Files,
}

/// What a client gets once its connection is its own.
pub(crate) struct Granted {
    machine: Arc<Shared>,
    request: DebugRequest,
    /// The attachment is to be given back.
    attached: bool,
}

impl Debugger {
    /// For a machine that does not run yet, whose page tables and fault records are there.
    pub(crate) fn new(
        memory: Arc<Memory>,
        (roots_gpa, fault_gpa): (Vec<u64>, u64),
        image: &Image,
        team: Arc<Team>,
    ) -> Result<Self, MachineError> {
        let Header::Kernel(header) = &image.kernel.header else {
            return Err(MachineError::Internal("the kernel is none"));
        };
        let memory = GuestMemory::new(memory, roots_gpa, **header, fault_gpa, &image.kernel.symbols);
        let news = EventFd::new(EFD_NONBLOCK).map_err(MachineError::host("event descriptor"))?;
        Ok(Self { hub: Arc::new(Hub::with(memory, team, news)), files: image.files.clone() })
    }
}

/// Whether a client gets what it asks for.
pub(crate) fn grant(machine: &Arc<Shared>, request: DebugRequest) -> Result<Granted, DebugError> {
    let hub = &machine.debugger.hub;
    let attached = request == DebugRequest::Attach;
    if attached {
        if hub.is_ending() {
            return Err(DebugError::Ending);
        }
        if !hub.attach() {
            return Err(DebugError::Taken);
        }
    }
    Ok(Granted { machine: Arc::clone(machine), request, attached })
}

impl Granted {
    /// The connection is its own. `first` are bytes that were read from it already.
    pub(crate) fn start(self, socket: UnixStream, first: Vec<u8>) {
        let files = &self.machine.debugger.files;
        let file = match self.request {
            DebugRequest::KernelFile => Some(Arc::clone(&files.kernel)),
            DebugRequest::ProgramFile => Some(Arc::clone(&files.program)),
            DebugRequest::Attach => None,
        };
        let machine = Arc::clone(&self.machine);
        match file {
            Some(file) => {
                let sender = Arc::clone(&machine);
                machine.tools.start("exovm-file", move || send(&sender, &socket, &file));
            }
            None => machine.tools.start("exovm-debug", move || {
                // From here on it is given back by who serves.
                let mut granted = self;
                granted.attached = false;
                let machine = &granted.machine;
                serve::serve(&machine.debugger.hub, machine, socket, &first);
            }),
        }
    }
}

impl Drop for Granted {
    fn drop(&mut self) {
        if self.attached {
            self.machine.debugger.hub.detach();
        }
    }
}

fn send(machine: &Shared, socket: &UnixStream, file: &[u8]) {
    let ready = socket.set_nonblocking(false).and_then(|()| socket.set_write_timeout(Some(FILE_PATIENCE)));
    if let Err(error) = ready.and_then(|()| machine.send(socket, file)) {
        tracing::debug!("a client did not take its file: {error}");
    }
}
