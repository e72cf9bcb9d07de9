//! The hardware's view of the tables that the kernel writes: DMA domains, queue owners, flows, extents.
//!
//! The tables lie in guest memory that no environment can write. They are read natively and live, so a store of the
//! kernel holds from the next access on. Nothing here trusts their content to be well formed: whatever they hold, a look-up
//! ends and stays inside guest memory.

use std::sync::Arc;

use abi::boot::BootPage;
use abi::domain::{DOMAINS, DomainEntry};

pub mod domain;
pub mod extent;
pub mod flow;
pub mod flow_writer;
pub mod frame;
pub mod owner;
pub mod shared;

pub use domain::{DmaDomain, DomainError};
pub use extent::{ExtentError, Extents};
pub use flow::Flows;
pub use flow_writer::{FlowField, FlowTableError, FlowTableWriter};
pub use frame::FrameKey;
pub use owner::{Owner, Owners};
pub use shared::TableError;

use shared::Shared;

/// Guest memory: fixed for the life of the machine, shared by everybody who plays hardware.
pub type Memory = vm_memory::GuestMemoryMmap<()>;

/// Where the tables lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TableAddresses {
    /// [`DomainEntry`] × [`DOMAINS`].
    pub domains_gpa: u64,
    /// [`abi::queue::QueueOwner`] × [`abi::queue::QUEUE_OWNERS`].
    pub queue_owners_gpa: u64,
    /// [`abi::flow::FlowTable`].
    pub flows_gpa: u64,
    /// [`abi::extent::ExtentEntry`] × [`abi::extent::EXTENTS`].
    pub extents_gpa: u64,
    /// [`abi::capability::Capability`] × [`abi::capability::CAPABILITIES`] × places. The VMM itself does not look at them.
    pub capabilities_gpa: u64,
}

impl From<&BootPage> for TableAddresses {
    fn from(boot: &BootPage) -> Self {
        Self {
            domains_gpa: boot.domains_gpa,
            queue_owners_gpa: boot.queue_owners_gpa,
            flows_gpa: boot.flows_gpa,
            extents_gpa: boot.extents_gpa,
            capabilities_gpa: boot.capabilities_gpa,
        }
    }
}

/// All tables of one machine.
#[derive(Debug)]
pub struct Tables {
    memory: Arc<Memory>,
    domains: Shared<[domain::Entry]>,
    owners: Owners,
    flows: Flows,
    extents: Extents,
}

impl Tables {
    /// Finds the tables in guest memory.
    pub fn open(memory: Arc<Memory>, at: TableAddresses) -> Result<Arc<Self>, TableError> {
        Ok(Arc::new(Self {
            domains: Shared::slice(&memory, "the domain table", at.domains_gpa, DOMAINS)?,
            owners: Owners::open(&memory, at.queue_owners_gpa)?,
            flows: Flows::open(&memory, at.flows_gpa)?,
            extents: Extents::open(&memory, at.extents_gpa)?,
            memory,
        }))
    }

    /// The guest memory in which the tables lie.
    pub fn memory(&self) -> &Arc<Memory> {
        &self.memory
    }

    /// The DMA domain of an environment. Its address and size are read now, its bits at each access.
    pub fn domain(&self, environment: u32) -> Result<DmaDomain, DomainError> {
        let entry = usize::try_from(environment).ok().and_then(|index| self.domains.get(index));
        let entry: DomainEntry = entry.ok_or(DomainError::NoSuchEnvironment { environment })?.read();
        DmaDomain::open(&self.memory, environment, entry)
    }

    /// Who a queue belongs to now.
    pub fn owner(&self, device: u32, queue: u32) -> Option<Owner> {
        self.owners.read(device, queue)
    }

    /// A reader of the flow table, with caches of its own.
    pub fn flows(&self) -> Flows {
        self.flows.clone()
    }

    /// The disk extents.
    pub fn extents(&self) -> &Extents {
        &self.extents
    }
}
