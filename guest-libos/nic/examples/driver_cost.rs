//! What the driver itself costs a small frame, in nanoseconds: batches against the fake device, only the driver's calls
//! timed. `cargo run --release -p exos-nic --features fake --example driver_cost`

use exos_nic::fake::{ALL_FEATURES, FakeHal, NetQueue as _, device};
use exos_nic::{ChecksumAt, Config, Offload, Piece, QueuePair};
use std::rc::Rc;
use std::time::{Duration, Instant};

const BATCH: usize = 64;
const ROUNDS: usize = 20_000;

fn median_ns(mut times: Vec<Duration>) -> f64 {
    times.sort_unstable();
    times[times.len() / 2].as_nanos() as f64 / BATCH as f64
}

fn main() {
    let hal = FakeHal::new();
    let mut pair: QueuePair<FakeHal, Rc<[u8]>> =
        QueuePair::open(hal.clone(), 0, &device(ALL_FEATURES), 0, &Config::default()).expect("a pair");
    let (mut receiver, mut sender) = (hal.queue(0, ALL_FEATURES), hal.queue(1, ALL_FEATURES));
    receiver.suppress_doorbell();
    sender.suppress_doorbell();

    let request = [7u8; 120];
    let header = [9u8; 66];
    let text = [3u8; 180];
    let body: Rc<[u8]> = Rc::from(vec![5u8; 64]);
    let offload = Offload::Checksum(ChecksumAt { start: 34, offset: 16 });
    let mut sum = 0u64;
    let (mut receive, mut copied, mut lent) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        for _ in 0..BATCH {
            assert!(receiver.deliver([0; 12], &request));
        }
        receiver.publish();
        let start = Instant::now();
        while let Some(frame) = pair.receive.poll() {
            sum += u64::from(frame.bytes()[40]);
        }
        receive.push(start.elapsed());

        for (pieces, times) in [
            (&[Piece::Copy(&text)][..], &mut copied),
            (&[Piece::Copy(&text), Piece::Lend(&body)][..], &mut lent),
        ] {
            let start = Instant::now();
            for _ in 0..BATCH {
                assert!(pair.transmit.transmit(&header, pieces, offload, body.clone()).is_ok());
            }
            pair.transmit.publish();
            let taken = start.elapsed();
            while let Some(chain) = sender.take() {
                sender.give_back(chain.head, 0);
            }
            sender.publish();
            let start = Instant::now();
            assert_eq!(pair.transmit.reclaim(), BATCH);
            times.push(taken + start.elapsed());
        }
    }
    assert_eq!(sum, (7 * ROUNDS * BATCH) as u64);
    println!("batches of {BATCH}, median of {ROUNDS}, nanoseconds a frame");
    println!("receive 120 B:                             {:5.1}", median_ns(receive));
    println!("transmit 66 + 180 B copied, and reclaim:   {:5.1}", median_ns(copied));
    println!("transmit the same + a lent piece, reclaim: {:5.1}", median_ns(lent));
}
