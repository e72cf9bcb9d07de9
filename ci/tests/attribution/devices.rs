//! Burnt by what is behind a device, in each placement of the device work.

use crate::fixture::{Sink, config, disk, net, run, undisturbed};
use exovm::placement::IoMode;
use std::sync::Arc;

/// Each placement, and the thread that does the work there.
const PLACEMENTS: [(IoMode, &str); 3] =
    [(IoMode::Turn, "vcpu"), (IoMode::Thread, "io"), (IoMode::Poll, "io")];
/// Much more than what the account itself and the way to the burning take.
const CYCLES: u64 = 4_000_000;

#[test]
fn nic_has_what_its_backend_burnt_in_each_placement() {
    for (io, thread) in PLACEMENTS {
        undisturbed(|| {
            let sink = Arc::new(Sink::default());
            let mut config = config(&["send:0:25"]);
            (config.io, config.net) = (io, Some(net(&sink, CYCLES)));
            let run = run(config);
            let found = run.bucket(thread, "backend write");
            run.assert_burnt_in(&format!("{io:?}, writes"), thread, found, Sink::of(&sink.writes));
            if io != IoMode::Poll {
                // There most reads find nothing, and take their time all the same.
                let found = run.bucket(thread, "backend read");
                run.assert_burnt_in(&format!("{io:?}, reads"), thread, found, Sink::of(&sink.reads));
            }
            let other = if thread == "io" { "vcpu" } else { "io" };
            assert_eq!(run.bucket(other, "backend write"), 0, "{io:?}: {other}");
        });
    }
}

#[test]
fn each_disk_has_what_it_burnt_in_each_placement() {
    for (io, thread) in PLACEMENTS {
        undisturbed(|| {
            let sinks = [Arc::new(Sink::default()), Arc::new(Sink::default())];
            let mut config = config(&["read:0:15", "read:1:15"]);
            config.io = io;
            config.disks = vec![disk(&sinks[0], CYCLES, true), disk(&sinks[1], 2 * CYCLES, true)];
            let run = run(config);
            for (device, sink) in sinks.iter().enumerate() {
                let found = run.account.bucket_of(thread, "disk read", device as u8).expect("it was read");
                let what = format!("{io:?}, disk {device}");
                run.assert_burnt_in(&what, thread, found.cycles, Sink::of(&sink.reads));
            }
        });
    }
}

#[test]
fn threads_of_a_disk_have_what_waits() {
    for (io, _) in PLACEMENTS {
        undisturbed(|| {
            let sink = Arc::new(Sink::default());
            let mut config = config(&["read:0:20", "write:0:20", "flush:0:20"]);
            config.io = io;
            config.disks = vec![disk(&sink, CYCLES, false)];
            let run = run(config);
            for (bucket, burnt) in
                [("disk read", &sink.reads), ("disk write", &sink.writes), ("disk flush", &sink.flushes)]
            {
                let found = run.bucket("disk 0.", bucket);
                run.assert_burnt_in(&format!("{io:?}, {bucket}"), "disk 0.", found, Sink::of(burnt));
                // Whether it is at hand is tried by the device work.
                let others = run.bucket("vcpu", bucket) + run.bucket("io", bucket);
                assert!(others < Sink::of(burnt) / 50, "{io:?}, {bucket}: {others}");
            }
        });
    }
}
