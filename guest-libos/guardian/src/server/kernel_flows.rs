//! What the kernel does for a guardian: flows carved, given and taken back.

use crate::ports::Flows;
use crate::request::{Port, Refusal, TCP};
use abi::call::Call;
use abi::capability::{Handle, rights};
use abi::flow::{Level, ipv4};
use exos_runtime::{kernel, pages};

/// The capability for a client; none for a number that cannot be one's.
pub(super) fn neighbour(client: u32) -> Handle {
    let neighbours = &pages::environment().capabilities.neighbours;
    neighbours.get(client as usize).copied().unwrap_or(Handle::NONE)
}

pub(super) fn give(capability: Handle, client: u32, rights: u16) -> Result<u64, Refusal> {
    let to = neighbour(client);
    if to == Handle::NONE {
        return Err(Refusal::Stranger);
    }
    kernel::raw(Call::CapabilityGive, [0, capability.0, to.0, u64::from(rights), 0])
        .map_err(|_| Refusal::NoSpace)
}

/// Flows in the kernel: one for each port, below one for each protocol, below the interface's address.
pub(super) struct KernelFlows {
    root: Handle,
    address: [u8; 4],
    host: Option<Handle>,
    /// TCP's and UDP's.
    protocols: [Option<Handle>; 2],
}

impl KernelFlows {
    pub(super) const fn new(root: Handle, address: [u8; 4]) -> Self {
        Self { root, address, host: None, protocols: [None; 2] }
    }

    fn protocol(&mut self, protocol: u8) -> Result<Handle, Refusal> {
        let host = match self.host {
            Some(host) => host,
            None => carve(self.root, Level::DestinationPrefix as u64 | 128 << 8, ipv4(self.address))?,
        };
        self.host = Some(host);
        let at = usize::from(protocol != TCP);
        let flow = match self.protocols[at] {
            Some(flow) => flow,
            None => carve(host, Level::Protocol as u64, [0, protocol.into()])?,
        };
        self.protocols[at] = Some(flow);
        Ok(flow)
    }
}

fn carve(from: Handle, level: u64, [high, low]: [u64; 2]) -> Result<Handle, Refusal> {
    kernel::raw(Call::FlowCarve, [0, from.0, level, high, low]).map(Handle).map_err(|_| Refusal::NoSpace)
}

impl Flows for KernelFlows {
    type Flow = Handle;

    fn carve(&mut self, port: Port) -> Result<Handle, Refusal> {
        let protocol = self.protocol(port.protocol)?;
        carve(protocol, Level::DestinationPort as u64, [0, port.number.into()])
    }

    fn give(&mut self, flow: Handle, client: u32) -> Result<u64, Refusal> {
        give(flow, client, rights::CARVE | rights::DIRECT | rights::GIVE)
    }

    fn take_back(&mut self, flow: Handle) {
        // Bounded steps; the flow has one node and what its holder carved below.
        while kernel::raw(Call::CapabilityDrop, [0, flow.0, 0, 0, 0]).is_ok_and(|left| left != 0) {}
    }
}
