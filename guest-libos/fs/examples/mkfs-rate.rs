//! Prints how fast an image is made, checked and read: `cargo run --release -p exos-fs --features std --example mkfs-rate --
//! DIR IMAGE`. The time of `mkfs` is until the image is on the host's disk.

use std::time::Instant;

use exos_fs::fsck::{Depth, fsck};
use exos_fs::image::Image;
use exos_fs::make::{Options, Plan, Progress, Stage};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args_os().skip(1);
    let (Some(dir), Some(target)) = (arguments.next(), arguments.next()) else {
        return Err("usage: mkfs-rate DIR IMAGE".into());
    };
    let rate = |what: &str, bytes: u64, from: Instant| {
        let seconds = from.elapsed().as_secs_f64();
        println!("{what:<12} {seconds:>8.3} s  {:>8.0} MB/s", bytes as f64 / seconds / 1e6);
    };
    let start = Instant::now();
    let plan = Plan::scan(dir)?;
    rate("scan", plan.file_bytes(), start);
    println!("             {} files, {} bytes", plan.file_count(), plan.file_bytes());
    let mut copied = None;
    let written = Instant::now();
    let made = plan.write(&target, &Options::default(), &mut |progress: Progress| {
        if progress.stage == Stage::Syncing {
            copied = Some(Instant::now());
            rate("copy", progress.total_bytes, written);
        }
    })?;
    if let Some(copied) = copied {
        rate("sync", made.file_bytes, copied);
    }
    rate("mkfs", made.file_bytes, start);
    for (name, depth) in [("fsck", Depth::Full), ("fsck quick", Depth::Quick)] {
        let start = Instant::now();
        let report = fsck(&target, depth, &mut |_, _| {})?;
        rate(name, report.checked_blocks * 4096, start);
    }
    let mut image = Image::open(&target)?;
    let root = image.volume().root();
    let (mut waiting, mut bytes, start) = (vec![root], 0, Instant::now());
    while let Some(directory) = waiting.pop() {
        for (_, node) in image.entries(&directory)? {
            if node.is_directory() {
                waiting.push(node);
            } else {
                image.copy(&node, &mut std::io::sink())?;
                bytes += node.size_bytes();
            }
        }
    }
    rate("read all", bytes, start);
    Ok(())
}
