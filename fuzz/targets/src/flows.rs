//! The flow table: carved and directed by the kernel's code, read by the VMM's, with frames of any shape. Beside it a table as
//! plain as possible says what each frame should find.

use crate::input::Input;
use abi::flow::{FlowTable, Node, ROOT, Target, prefix, table_bytes};
use exovm::tables::{FlowTableWriter, Flows, FrameKey, Memory};
use std::collections::BTreeMap;
use std::sync::Arc;
use vm_memory::{GuestAddress, GuestMemoryBackend};
use xok_core::flow::{Field, Writer};

const NODES: u32 = 64;
const GPA: u64 = 0x1000;

/// What is known of a node.
#[derive(Clone, Debug)]
struct Known {
    parent: u32,
    level: u32,
    prefix_len: u32,
    value: [u64; 2],
    target: Option<Target>,
}

/// A field out of few values, so that frames and flows meet.
fn field(input: &mut Input<'_>, level: u32) -> Field {
    let small = u64::from(input.below(3));
    let (prefix_len, value) = match level {
        1 | 4 => {
            let len = [128, 120, 96, 0][usize::from(input.below(4))];
            (len, [0, 0xFFFF_0A00_0000 | small])
        }
        2 => (0, [0, [6, 17, 1][small as usize]]),
        _ => (0, [0, 80 + small]),
    };
    // Now and then a value that cannot be.
    if input.below(16) == 0 {
        return Field { level, prefix_len: input.u16().into(), value: [input.u64(), input.u64()] };
    }
    Field { level, prefix_len, value }
}

/// A frame out of few values, or of any bytes.
fn frame(input: &mut Input<'_>) -> Vec<u8> {
    if input.below(4) == 0 {
        let len = usize::from(input.u8());
        return input.bytes(len).to_vec();
    }
    let mut frame = vec![0; 14];
    frame[12] = 8;
    let protocol = [6, 17, 1][usize::from(input.below(3))];
    let fragment = [0, 0, 0x20, 0x1F][usize::from(input.below(4))];
    frame.extend([0x45, 0, 0, 28, 0, 1, fragment, 0, 64, protocol, 0, 0]);
    frame.extend([10, 0, 0, input.below(3)]);
    frame.extend([10, 0, 0, input.below(3)]);
    frame.extend([0, 80 + input.below(3), 0, 80 + input.below(3), 0, 8, 0, 0]);
    if protocol == 1 && input.below(2) == 0 {
        // An error that quotes.
        frame[34] = 3;
        frame.extend([
            0x45, 0, 0, 28, 0, 1, 0, 0, 64, 17, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2, 0, 80, 0, 81, 0, 8, 0, 0,
        ]);
        frame[17] = 56;
    }
    frame
}

/// The target that the frame with this key should find.
fn expected(known: &BTreeMap<u32, Known>, root: Option<Target>, key: Option<&FrameKey>) -> Option<Target> {
    let Some(key) = key else { return root };
    let (mut at, mut target) = (ROOT, root);
    for level in 1..=5 {
        let child = known.iter().find(|(_, node)| {
            let field = match level {
                1 => Some(key.destination),
                2 => Some([0, key.protocol.into()]),
                3 => key.ports.map(|(_, destination)| [0, destination.into()]),
                4 => Some(key.source),
                _ => key.ports.map(|(source, _)| [0, source.into()]),
            };
            let same = |field| match level {
                1 | 4 => prefix(field, node.prefix_len) == node.value,
                _ => field == node.value,
            };
            node.parent == at && node.level == level && field.is_some_and(same)
        });
        let Some((&index, node)) = child else { break };
        at = index;
        target = node.target.or(target);
    }
    target
}

/// Flows come and go; frames are looked up.
pub fn flows(bytes: &[u8]) {
    let mut input = Input(bytes);
    let len = (GPA + table_bytes(NODES)).next_multiple_of(4096) as usize;
    let memory = Arc::new(Memory::from_ranges(&[(GuestAddress(0), len)]).expect("guest memory"));
    FlowTableWriter::create(&memory, GPA, NODES).expect("inside").set_root(None);
    let mut reader = Flows::open(&memory, GPA).expect("inside");
    let at = |gpa: u64| memory.get_host_address(GuestAddress(gpa)).expect("inside");
    // SAFETY: the table was made there a moment ago, in memory that outlives both, and consists of atomics.
    let (table, nodes) = unsafe {
        let nodes = at(GPA + size_of::<FlowTable>() as u64).cast::<Node>();
        (&*at(GPA).cast::<FlowTable>(), std::slice::from_raw_parts(nodes, NODES as usize))
    };
    // The same bytes are the same run.
    table.key.store(0, std::sync::atomic::Ordering::Relaxed);
    let writer = Writer::new(table, nodes);
    let (mut known, mut root) = (BTreeMap::<u32, Known>::new(), None);
    while !input.is_empty() {
        let pick = |number: u8, known: &BTreeMap<u32, Known>| {
            let count = known.len() + 1;
            known.keys().copied().nth(usize::from(number) % count).unwrap_or(ROOT)
        };
        match input.below(8) {
            0..=2 => {
                let parent = pick(input.u8(), &known);
                let above = known.get(&parent).map_or(0, |node| node.level);
                let level = if input.below(16) == 0 { input.u8().into() } else { above + 1 };
                let field = field(&mut input, level);
                let Ok(index) = writer.carve(parent, field) else { continue };
                assert_eq!(field.level, above + 1, "a child is one level below its parent");
                assert_ne!(index, ROOT);
                let value =
                    if matches!(level, 1 | 4) { prefix(field.value, field.prefix_len) } else { field.value };
                let siblings = known.values().filter(|node| node.parent == parent);
                let mut siblings = siblings.inspect(|node| assert_eq!(node.prefix_len, field.prefix_len));
                assert!(siblings.all(|node| node.value != value), "two flows for the same frames");
                let node = Known { parent, level, prefix_len: field.prefix_len, value, target: None };
                assert!(known.insert(index, node).is_none(), "a node in use was given again");
            }
            3 => {
                let index = if input.below(8) == 0 { input.u32() % NODES } else { pick(input.u8(), &known) };
                let has_children = known.values().any(|node| node.parent == index);
                let removed = writer.remove(index).is_ok();
                assert_eq!(removed, known.contains_key(&index) && !has_children);
                if removed {
                    known.remove(&index);
                }
            }
            4 | 5 => {
                let index = pick(input.u8(), &known);
                let target =
                    Target { environment: input.u8().into(), queue_pair: 0, queue_pairs: 1, rights: 0 };
                let target = (input.below(4) != 0).then_some(target);
                writer.direct(index, target, 1).expect("a live node");
                match known.get_mut(&index) {
                    Some(node) => node.target = target,
                    None => root = target,
                }
            }
            _ => {
                let frame = frame(&mut input);
                let key = FrameKey::parse(&frame);
                let found = reader.lookup(key.as_ref());
                assert_eq!(found, expected(&known, root, key.as_ref()), "{key:?}");
                if let Some(key) = key {
                    assert_eq!(key.reversed().reversed(), key);
                    assert_eq!(key.symmetric_hash(), key.reversed().symmetric_hash());
                }
                let environment = u32::from(input.u8());
                let _ = reader.may_send(environment, &frame);
            }
        }
    }
}
