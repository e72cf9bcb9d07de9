//! What finding a frame's flow costs, by the number of flows: one client each of one port of one server.
//!
//! `cargo run --release -p exovm --example flow_lookup`

use abi::flow::{NODES, ROOT, Target, ipv4, table_bytes};
use exovm::account::ledger::now_tsc;
use exovm::machine::memory;
use exovm::tables::{FlowField, FlowTableWriter, Flows, FrameKey, Memory};
use std::error::Error;
use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant;

const TABLE_GPA: u64 = 0x1000;
const SERVER: [u8; 4] = [10, 0, 0, 2];
const TCP: u8 = 6;
/// The environment whose all flows are.
const ENVIRONMENT: u16 = 3;
/// Frames that are looked up, over and over: more than the caches know the way of.
const FRAMES: usize = 1 << 16;
const LOOKUPS: usize = 1 << 21;

fn main() -> Result<(), Box<dyn Error>> {
    println!(
        "{:>10} {:>10} {:>8} {:>14} {:>16} {:>19} {:>21}",
        "flows",
        "nodes",
        "full",
        "ns a look-up",
        "cycles a look-up",
        "ns a frame's check",
        "cycles a frame's check"
    );
    for flows in [1, 100, 10_000, 1_000_000] {
        measure(flows)?;
    }
    Ok(())
}

/// Prints a line for so many flows.
fn measure(count: u32) -> Result<(), Box<dyn Error>> {
    let nodes = (4 * count).next_power_of_two().max(NODES);
    let (_memory, mut flows, full) = table(count, nodes)?;
    let mut random = 1u64;
    let frames: Vec<[u8; 54]> = (0..FRAMES)
        .map(|_| {
            // Marsaglia's xorshift.
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            to_client((random % u64::from(count)) as u32)
        })
        .collect();
    let keys: Vec<_> =
        frames.iter().filter_map(|frame| FrameKey::parse(frame)).map(FrameKey::reversed).collect();
    let lookup = time(|at| {
        black_box(flows.lookup(Some(black_box(&keys[at]))));
    });
    let mut allowed = 0;
    let check = time(|at| allowed += usize::from(flows.may_send(ENVIRONMENT.into(), black_box(&frames[at]))));
    if full == 0 && allowed != LOOKUPS {
        return Err(format!("{} of {LOOKUPS} frames were refused", LOOKUPS - allowed).into());
    }
    println!(
        "{count:>10} {nodes:>10} {full:>8} {:>14.1} {:>16.0} {:>19.1} {:>21.0}",
        lookup.0, lookup.1, check.0, check.1
    );
    Ok(())
}

/// Nanoseconds and cycles that one of many takes.
fn time(mut one: impl FnMut(usize)) -> (f64, f64) {
    for at in 0..FRAMES {
        one(at);
    }
    let (started, tsc) = (Instant::now(), now_tsc());
    for round in FRAMES..LOOKUPS {
        one(round % FRAMES);
    }
    let each = |sum: f64| sum / (LOOKUPS - FRAMES) as f64;
    (each(started.elapsed().as_nanos() as f64), each((now_tsc() - tsc) as f64))
}

/// A table with so many flows, and how many found no room.
fn table(count: u32, nodes: u32) -> Result<(Arc<Memory>, Flows, u32), Box<dyn Error>> {
    let bytes = (TABLE_GPA + table_bytes(nodes)).next_multiple_of(2 << 20);
    let memory = Arc::new(memory::map(bytes)?);
    let mut writer = FlowTableWriter::create(&memory, TABLE_GPA, nodes)?;
    let guardian = Target { environment: 0, queue_pair: 0, queue_pairs: 1, rights: 0 };
    writer.set_root(Some(guardian));
    let server = FlowField::Destination { address: ipv4(SERVER), prefix_len: 128 };
    let mut node = ROOT;
    for field in [server, FlowField::Protocol(TCP), FlowField::DestinationPort(80)] {
        node = writer.insert(node, field, None)?;
    }
    let mut full = 0;
    for number in 0..count {
        let field = FlowField::Source { address: ipv4(client(number)), prefix_len: 128 };
        let target = Target { environment: ENVIRONMENT, ..guardian };
        full += u32::from(writer.insert(node, field, Some(target)).is_err());
    }
    let flows = Flows::open(&memory, TABLE_GPA)?;
    Ok((memory, flows, full))
}

/// The address of a client.
fn client(number: u32) -> [u8; 4] {
    (0x0B00_0000 + number).to_be_bytes()
}

/// A segment from the server to a client.
fn to_client(number: u32) -> [u8; 54] {
    let mut frame = [0; 54];
    frame[12..14].copy_from_slice(&0x0800u16.to_be_bytes());
    frame[14] = 0x45;
    frame[16..18].copy_from_slice(&40u16.to_be_bytes());
    frame[23] = TCP;
    frame[26..30].copy_from_slice(&SERVER);
    frame[30..34].copy_from_slice(&client(number));
    frame[34..36].copy_from_slice(&80u16.to_be_bytes());
    frame[36..38].copy_from_slice(&50_000u16.to_be_bytes());
    frame
}
