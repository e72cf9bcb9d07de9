//! Prints what scanning, packing, parsing and looking up cost: `cargo run --release --example pack-cost -- DIR`.

use std::hint::black_box;
use std::time::Instant;

use exos_docroot::Archive;
use exos_docroot::pack::Plan;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let root = std::env::args_os().nth(1).ok_or("usage: pack-cost DIR")?;
    let start = Instant::now();
    let plan = Plan::scan(root)?;
    println!(
        "scan    {:>10.3?}  {} files, {} bytes packed",
        start.elapsed(),
        plan.file_count(),
        plan.packed_bytes()
    );
    for warning in plan.warnings() {
        println!("warning: {warning}");
    }
    let mut memory = vec![0; usize::try_from(plan.packed_bytes())?];
    let start = Instant::now();
    plan.pack_into(&mut memory)?;
    println!("pack    {:>10.3?}", start.elapsed());
    let start = Instant::now();
    let archive = Archive::parse(&memory)?;
    println!("parse   {:>10.3?}", start.elapsed());
    let paths: Vec<_> = archive.files().map(|file| [b"/", file.path()].concat()).collect();
    let rounds = 1 + 2_000_000 / paths.len();
    let start = Instant::now();
    for _ in 0..rounds {
        for path in &paths {
            black_box(archive.lookup(black_box(path)));
        }
    }
    let lookups = (rounds * paths.len()) as u32;
    println!("lookup  {:>10.3?} each, paths in order", start.elapsed() / lookups);
    Ok(())
}
