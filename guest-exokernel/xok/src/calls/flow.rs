//! Flows: carving a child out of one, and saying which queues get its frames.

use crate::kernel::Kernel;
use crate::machine::{Machine, direct_map};
use abi::boot::DEVICE_NET;
use abi::call::Error;
use abi::capability::{CAPABILITIES, Handle, Kind, rights};
use abi::flow::{FlowTable, Node, ROOT, SEND_ANY, Target};
use abi::queue::QUEUES_PER_DEVICE;
use core::sync::atomic::Ordering;
use xok_core::capability::Part;
use xok_core::flow::{Field, Writer};
use xok_core::refuse;

fn writer() -> Writer<'static> {
    let gpa = Machine::get().boot().flows_gpa;
    // SAFETY: the VMM reserved the table; it consists of atomics, and nobody but the kernel writes it.
    let table = unsafe { &*direct_map::<FlowTable>(gpa) };
    let nodes = direct_map::<Node>(gpa + size_of::<FlowTable>() as u64);
    // SAFETY: as many follow, by the VMM's word.
    Writer::new(table, unsafe {
        core::slice::from_raw_parts(nodes, table.nodes.load(Ordering::Relaxed) as usize)
    })
}

impl Kernel {
    /// [`abi::call::Call::FlowCarve`].
    #[inline(always)]
    pub(super) fn flow_carve(
        &mut self,
        environment: u64,
        flow: u64,
        field: u64,
        high: u64,
        low: u64,
    ) -> Result<u64, Error> {
        let environment = self.subject(environment)?;
        let tree = self.tree();
        let parent = tree.find(environment, Handle(flow), Kind::Flow)?;
        tree.allow(parent, rights::CARVE)?;
        if field > 0xFFFF {
            return refuse(Error::BadArgument);
        }
        let field = Field { level: field as u32 & 0xFF, prefix_len: field as u32 >> 8, value: [high, low] };
        let above = *tree.entry(parent);
        if self.environment(environment).flows_left == 0 {
            return refuse(Error::NoSpace);
        }
        let index = writer().carve(above.start as u32, field)?;
        let part = Part {
            start: u64::from(index),
            count: 1,
            rights: u64::from(above.rights & !rights::SEND_ANY),
            object: 1,
        };
        let hung = self.tree().hang(parent, &mut self.environment(environment).slots, part);
        match hung {
            Ok(_) => self.environment(environment).flows_left -= 1,
            // It was made a moment ago and has neither children nor a director.
            Err(_) => drop(writer().remove(index)),
        }
        hung.map(|handle| handle.0)
    }

    /// [`abi::call::Call::FlowDirect`].
    #[inline(always)]
    pub(super) fn flow_direct(
        &mut self,
        environment: u64,
        flow: u64,
        queues: u64,
        pairs: u64,
        wanted: u64,
    ) -> Result<(), Error> {
        let environment = self.subject(environment)?;
        let tree = self.tree();
        let flow = tree.find(environment, Handle(flow), Kind::Flow)?;
        tree.allow(flow, rights::DIRECT)?;
        if wanted & !u64::from(rights::SEND_ANY) != 0 || pairs > u64::from(u32::MAX) {
            return refuse(Error::BadArgument);
        }
        tree.allow(flow, wanted as u16)?;
        let node = tree.entry(flow).start as u32;
        let (first, count) = (pairs & 0xFFFF, pairs >> 16);
        if count == 0 {
            return writer().direct(node, None, 0);
        }
        let queues = tree.find(environment, Handle(queues), Kind::Queues)?;
        tree.allow(queues, rights::BIND)?;
        let range = tree.entry(queues);
        let device = range.start / QUEUES_PER_DEVICE as u64;
        let start = device * QUEUES_PER_DEVICE as u64 + 2 * first;
        let network = Machine::get().device(device).is_some_and(|device| device.kind == DEVICE_NET);
        if !network || start < range.start || start + 2 * count > range.start + range.count {
            return refuse(Error::NotPermitted);
        }
        let target = Target {
            environment: environment as u16,
            queue_pair: first as u16,
            queue_pairs: count as u16,
            rights: if wanted != 0 { SEND_ANY as u16 } else { 0 },
        };
        writer().direct(node, Some(target), u32::from(flow) + 1)
    }

    /// Undoes what was done with a flow capability: its direction, and the node, if that was carved with it. What the VMM gave
    /// at boot was directed and carved by the VMM.
    pub(super) fn unflow_step(&mut self, capability: u16) -> bool {
        let tree = self.tree();
        let entry = tree.entry(capability);
        let node = entry.start as u32;
        let (from_boot, carved) = (entry.parent == 0, entry.object != 0);
        if from_boot || writer().director(node) == u32::from(capability) + 1 {
            // A node that is not there has no direction either.
            let _ = writer().direct(node, None, 0);
        }
        if node != ROOT && (from_boot || carved) {
            // Its children went before it.
            let _ = writer().remove(node);
        }
        if carved {
            self.environment(u32::from(capability) / CAPABILITIES as u32).flows_left += 1;
        }
        true
    }
}
