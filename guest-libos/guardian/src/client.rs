//! A client's side: asks the guardian, and binds what it was given.

use crate::request::{self, Port, Refusal, Request};
use crate::tables::{self, Reader};
use abi::boot::DEVICE_NET;
use abi::call::{Call, sleep};
use abi::capability::Handle;
use core::net::IpAddr;
use exos_net::MacAddress;
use exos_runtime::{clock, kernel, message, pages, shared};

/// How long who waits for a neighbour sleeps before it looks again without having been woken.
const LOOK_AGAIN_MS: u64 = 500;

/// Why something was not to be had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Error {
    /// There is no guardian, or this is it.
    NoGuardian,
    /// No queues of a network device are this environment's.
    NoQueues,
    /// The guardian said no.
    Refused(Refusal),
    /// The kernel said no. `Ended`: there is no guardian any more.
    Kernel(abi::call::Error),
    /// The tables cannot be read.
    Tables(tables::OpenError),
}

impl core::fmt::Display for Error {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::NoGuardian => f.write_str("there is no guardian; its image says `guardian = true`"),
            Self::NoQueues => f.write_str("this environment has no queues of a network interface"),
            Self::Refused(refusal) => write!(f, "{refusal}"),
            Self::Kernel(error) => f.write_str(error.message()),
            Self::Tables(error) => write!(f, "{error}"),
        }
    }
}

/// The tables, for a stack that hears no ARP because the guardian does.
#[derive(Clone, Copy, Debug)]
pub struct NextHops {
    tables: Reader<'static>,
    read_at: Option<u64>,
}

impl NextHops {
    /// Nothing read yet.
    pub const fn new(tables: Reader<'static>) -> Self {
        Self { tables, read_at: None }
    }

    /// Where the gateway is, if the tables have changed since the last call. A load, if they have not.
    #[inline]
    pub fn gateway_mac(&mut self) -> Option<MacAddress> {
        let sequence = self.tables.sequence();
        if self.read_at == Some(sequence) {
            return None;
        }
        // While they are written, the next call looks again.
        let snapshot = self.tables.snapshot().ok()?;
        self.read_at = Some(sequence);
        snapshot.gateway_mac()
    }
}

/// The guardian of the machine's NIC.
#[derive(Clone, Copy, Debug)]
pub struct Guardian {
    handle: Handle,
}

impl Guardian {
    /// The first environment, if it is a guardian and another one.
    pub fn find() -> Result<Self, Error> {
        let page = pages::environment();
        let handle = page.capabilities.neighbours[0];
        if page.environment == 0 || handle == Handle::NONE {
            return Err(Error::NoGuardian);
        }
        Ok(Self { handle })
    }

    fn ask(self, request: Request) -> Result<u64, Error> {
        let answer = message::call(self.handle, request.words()).map_err(Error::Kernel)?;
        request::result(answer).map_err(Error::Refused)
    }

    /// Asks for a port, and has its frames come to the first of this environment's queue pairs.
    pub fn reserve(self, port: Port) -> Result<(), Error> {
        let page = pages::environment();
        let index = pages::device_of_kind(DEVICE_NET).ok_or(Error::NoQueues)?;
        let first_pair = u64::from(page.devices[index].first_queue / 2);
        let flow = self.ask(Request::Reserve(port))?;
        let directed = kernel::raw(
            Call::FlowDirect,
            [0, flow, page.capabilities.queues[index].0, first_pair | 1 << 16, 0],
        );
        if let Err(error) = directed {
            // Of no use to us, then; somebody else may want it. That the guardian has ended meanwhile is no worse.
            let _ = self.release(port);
            return Err(Error::Kernel(error));
        }
        Ok(())
    }

    /// Gives a port back.
    pub fn release(self, port: Port) -> Result<(), Error> {
        self.ask(Request::Release(port)).map(drop)
    }

    /// Where a neighbour is on the link. `None`: the guardian asks there, and wakes this environment when it knows, or when nobody has
    /// answered; then ask again.
    pub fn neighbour(self, ip: IpAddr) -> Result<Option<MacAddress>, Error> {
        self.ask(Request::Neighbour(ip)).map(request::mac)
    }

    /// The same, and waits for it: some seconds, if nobody answers.
    pub fn resolve(self, ip: IpAddr) -> Result<MacAddress, Error> {
        loop {
            if let Some(mac) = self.neighbour(ip)? {
                return Ok(mac);
            }
            // The wake-up that the answer brings also ends a sleep that has not begun.
            let later = clock::tsc() + clock::Scale::new().ticks(LOOK_AGAIN_MS * 1_000_000);
            kernel::sleep(later, [sleep::NONE; 4]);
        }
    }

    /// The guardian's tables, mapped read-only.
    pub fn tables(self) -> Result<Reader<'static>, Error> {
        let memory = Handle(self.ask(Request::Tables)?);
        let words = shared::map(memory).map_err(Error::Kernel)?;
        Reader::open(words).map_err(Error::Tables)
    }
}
