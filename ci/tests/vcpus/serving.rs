//! A server to which something is done again and again, on each kind of machine: it serves every request.

use exovm::machine::Machine;
use exovm::placement::IoMode;
use exovm_ci::{Guest, Site};
use std::time::{Duration, Instant};

const REQUESTS: u32 = 1000;
const PAGE_BYTES: usize = 10_000;

/// What was done.
pub(crate) struct Done {
    pub(crate) times: u32,
    pub(crate) longest: Duration,
}

/// In a namespace of the test's: `act` is done to one of the machine's vCPUs after the other, or to all of them, while it serves; `judge` says whether that was
/// often and quick enough.
pub(crate) fn cheetah_serves_while(mut act: impl FnMut(&Machine, u32), judge: impl Fn(&Done)) {
    for (io, vcpus) in [(IoMode::Turn, 1), (IoMode::Auto, 1), (IoMode::Thread, 2)] {
        let site = Site::new().pattern_file("page", 1, PAGE_BYTES as u64);
        let guest = Guest::image("cheetah").site(&site).io(io).vcpus(vcpus).start();
        let mut client = guest.connect();
        std::thread::scope(|scope| {
            let serving = scope.spawn(|| {
                for _ in 0..REQUESTS {
                    assert_eq!(client.get("/page").unwrap().body.len(), PAGE_BYTES);
                }
            });
            let mut done = Done { times: 0, longest: Duration::ZERO };
            while !serving.is_finished() {
                let begun = Instant::now();
                act(guest.machine(), done.times % vcpus);
                done = Done { times: done.times + 1, longest: done.longest.max(begun.elapsed()) };
            }
            println!("{io:?}: {} times, the longest took {:?}", done.times, done.longest);
            judge(&done);
        });
        guest.stop();
    }
}
