//! What an environment that runs from the start is given of the devices.

use super::capabilities::Capabilities;
use super::shares::Queues;
use super::{Attached, BootConfig, Grant, MachineError};
use crate::tables::flow::{LINK_LOCAL, interface_id};
use crate::tables::{FlowField, FlowTableError, FlowTableWriter, Memory};
use abi::boot::DEVICES;
use abi::extent::ExtentEntry;
use abi::flow::{HEAR_LINK, ROOT, SEND_ANY, Target};
use abi::queue::owner_index;
use std::net::Ipv6Addr;
use vm_memory::{Bytes, GuestAddress};
use zerocopy::IntoBytes;

/// TCP port of the first environment's flow; each has the one after that of the environment before it.
const FIRST_PORT: u16 = 80;
const PROTOCOL_TCP: u8 = 6;

/// Writes the tables that the devices read, and capabilities for what is in them.
pub(super) struct Giver<'a> {
    pub(super) memory: &'a Memory,
    pub(super) config: &'a BootConfig,
    pub(super) extents_gpa: u64,
    pub(super) flows: &'a mut FlowTableWriter,
}

impl Giver<'_> {
    /// An environment gets its share of each device.
    pub(super) fn give(
        &mut self,
        number: usize,
        attached: &[Attached],
        share: &[Queues; DEVICES],
        own: &mut Capabilities,
        handles: &mut abi::boot::Capabilities,
    ) -> Result<(), MachineError> {
        let places = self.config.environments + self.config.spare_environments;
        let mut free_extents = abi::extent::share(number as u32, places);
        for (device, Attached { grant, .. }) in attached.iter().enumerate() {
            let queues = share[device];
            let Some(first) = owner_index(device as u32, queues.first).filter(|_| queues.count > 0) else {
                continue;
            };
            handles.queues[device] = own.queues(first as u32, queues.count);
            match *grant {
                Grant::Queues => {}
                Grant::Extent { blocks, rights } => {
                    let (environment, device_number) = (number as u32, device as u32);
                    let entry = free_extents.next().ok_or(MachineError::TooManyDevices)?;
                    handles.extents[device] = own.extent(device_number, blocks, rights, entry as u32);
                    let extent = ExtentEntry {
                        start_block: 0,
                        blocks,
                        environment,
                        device: device_number,
                        rights,
                        reserved: 0,
                    };
                    let gpa = self.extents_gpa + (entry * size_of::<ExtentEntry>()) as u64;
                    self.memory.write_slice(extent.as_bytes(), GuestAddress(gpa))?;
                }
                Grant::Flows { queue_pairs } => {
                    let (queue_pair, own_pairs) = queues.pairs();
                    let (environment, queue_pairs) = (number as u16, queue_pairs.min(own_pairs));
                    let speaks_ipv6 = self.config.ipv6.mode != abi::boot::ipv6::OFF;
                    let rights = if speaks_ipv6 { HEAR_LINK as u16 } else { 0 };
                    let target = Target { environment, queue_pair, queue_pairs, rights };
                    if number == 0 {
                        self.flows.set_root(Some(Target { rights: SEND_ANY as u16, ..target }));
                        handles.flows[device] = own.all_flows();
                    } else if !self.config.guardian {
                        let port = FIRST_PORT + number as u16;
                        for (index, address) in self.addresses().into_iter().enumerate() {
                            let node = carve(self.flows, address, port, target)?;
                            // The capability is for the first.
                            if index == 0 {
                                handles.flows[device] = own.flow(node);
                            }
                        }
                    }
                }
            }
        }
        Ok(())
    }

    /// The addresses of the interface that are known before it starts.
    fn addresses(&self) -> Vec<[u64; 2]> {
        let BootConfig { ipv4, ipv6, mac, .. } = self.config;
        let mut addresses = Vec::new();
        if ipv4.address != [0; 4] {
            addresses.push(abi::flow::ipv4(ipv4.address));
        }
        if ipv6.mode != abi::boot::ipv6::OFF {
            addresses.push([LINK_LOCAL, interface_id(*mac)]);
            if ipv6.address != [0; 16] {
                addresses.push(halves(Ipv6Addr::from(ipv6.address)));
            }
        }
        addresses
    }
}

fn halves(address: Ipv6Addr) -> [u64; 2] {
    let bits = address.to_bits();
    [(bits >> 64) as u64, bits as u64]
}

/// The frames for a TCP port of an address of the interface are this environment's.
fn carve(
    flows: &mut FlowTableWriter,
    address: [u64; 2],
    port: u16,
    target: Target,
) -> Result<u32, FlowTableError> {
    let host = FlowField::Destination { address, prefix_len: 128 };
    let mut node = ROOT;
    // The nodes on the way are those of all environments.
    for field in [host, FlowField::Protocol(PROTOCOL_TCP)] {
        node = match flows.insert(node, field, None) {
            Err(FlowTableError::Exists { index }) => index,
            other => other?,
        };
    }
    flows.insert(node, FlowField::DestinationPort(port), Some(target))
}
