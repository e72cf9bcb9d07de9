//! A debugger at a server under load.

use crate::client::{Client, RBP, RIP};
use crate::program::{function, text};
use exovm::placement::IoMode;
use exovm_ci::{Guest, Site};
use exovm_netns::in_namespace;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

#[test]
fn cheetah_that_is_debugged_under_load_is_late_and_fails_nobody() {
    in_namespace!(|| {
        for (io, vcpus) in [(IoMode::Turn, 1), (IoMode::Auto, 1), (IoMode::Thread, 2)] {
            let image = exovm::images::load("cheetah").expect("built in");
            let site = Site::new().pattern_file("page", 1, 10_000);
            let guest = Guest::image("cheetah").site(&site).io(io).vcpus(vcpus).start();
            let machine = guest.machine();
            let before = text(machine, &image);
            let done = AtomicBool::new(false);
            std::thread::scope(|scope| {
                let clients: Vec<_> = (0..4)
                    .map(|_| {
                        let mut client = guest.connect();
                        let done = &done;
                        scope.spawn(move || {
                            let mut count = 0;
                            while !done.load(Ordering::Relaxed) {
                                assert_eq!(client.get("/page").unwrap().body.len(), 10_000);
                                count += 1;
                            }
                            count
                        })
                    })
                    .collect();
                let mut gdb = Client::attach(machine);
                let at = busy_function(&image);
                assert_eq!(gdb.break_at(at), "OK");
                for _ in 0..50 {
                    gdb.go();
                    let stop = gdb.stop();
                    assert!(stop.breakpoint, "{stop:?}");
                    assert_eq!(gdb.registers(stop.thread).get(RIP), at);
                }
                let depth = back_trace(&mut gdb, &image).len();
                assert!(depth >= 2, "{depth} callers");
                // Nobody is served while it stands still.
                std::thread::sleep(Duration::from_millis(300));
                gdb.detach();
                std::thread::sleep(Duration::from_millis(500));
                done.store(true, Ordering::Relaxed);
                let counts: Vec<u32> =
                    clients.into_iter().map(|client| client.join().expect("no failure")).collect();
                println!("{io:?}, {vcpus} vCPUs: {counts:?} requests");
                assert!(counts.iter().all(|&count| count > 20), "{counts:?}");
            });
            assert!(text(machine, &image) == before, "the text is as it was");
            // Whoever asks it to end while it stands still has the debugger sent away, and it finishes what it has.
            let gdb = Client::attach(machine);
            guest.stop();
            assert!(gdb.closes());
        }
    });
}

/// A function that runs for each request.
fn busy_function(image: &exovm_image::container::Image) -> u64 {
    function(image, "::respond_with_file")
}

/// Functions that called, by frame pointers, from the inside out.
fn back_trace(gdb: &mut Client, image: &exovm_image::container::Image) -> Vec<String> {
    let mut frame = gdb.registers(1).get(RBP);
    let mut functions = Vec::new();
    while let (Some(above), Some(back)) = (gdb.word(1, frame), gdb.word(1, frame + 8)) {
        let Some((symbol, _)) = image.program.symbol(back.wrapping_sub(1)) else { break };
        functions.push(symbol.name.clone());
        if above <= frame {
            break;
        }
        frame = above;
    }
    functions
}
