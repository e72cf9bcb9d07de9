//! Driver and device on two threads that both sleep whenever they may: if one wake-up were lost, both would sleep until
//! the test gives up.

mod common;

use common::{NO_EVENT_IDX, Pair, SMALL};
use exos_nic::fake::{ALL_FEATURES, FakeHal, NetQueue as _, Signal, device};
use exos_nic::{Arming, Interest, Offload, Piece, QueuePair};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;
use std::time::Duration;

const FRAMES: u64 = 20_000;
const ROUNDS: u64 = 100_000;

/// The device: sends `FRAMES` numbered frames, at most `window` unanswered, takes the answers, and waits for a doorbell of
/// the transmit queue when it has nothing to do.
fn run_device(hal: &FakeHal, features: u64, window: u64, interrupts: &SyncSender<()>) {
    let (mut receiver, mut sender) = (hal.queue(0, features), hal.queue(1, features));
    receiver.suppress_doorbell();
    let (mut sent, mut answered) = (0u64, 0u64);
    while answered < FRAMES {
        let before = (sent, answered);
        while sent < FRAMES && sent - answered < window && receiver.deliver([0; 12], &sent.to_le_bytes()) {
            sent += 1;
        }
        while let Some(chain) = sender.take() {
            assert_eq!(chain.gather()[12..], [answered.to_le_bytes(), answered.to_be_bytes()].concat());
            sender.give_back(chain.head, 0);
            answered += 1;
        }
        let signals = [receiver.publish(), sender.publish()];
        if signals.contains(&Signal::Interrupt) {
            // A full channel holds an interrupt that was not taken yet: one is as good as two.
            let _ = interrupts.try_send(());
        }
        if before == (sent, answered) {
            let seen = hal.doorbells(1);
            if sender.request_doorbell() == 0 {
                assert!(hal.wait_for_doorbell(1, seen), "a doorbell was lost at {sent}/{answered}");
            }
            sender.suppress_doorbell();
        }
    }
}

/// The environment: answers each frame, sleeps when there is none.
fn run_driver(pair: &mut Pair<Box<[u8; 8]>>, interrupts: &Receiver<()>) {
    let mut answered = 0u64;
    while answered < FRAMES {
        let mut worked = false;
        while let Some(frame) = pair.receive.poll() {
            worked = true;
            let body = Box::new(answered.to_be_bytes());
            let bytes: *const [u8; 8] = &raw const *body;
            // SAFETY: the box lives in the queue until the device has sent the frame.
            let lent = unsafe { &*bytes };
            let taken = pair.transmit.transmit(frame.bytes(), &[Piece::Lend(lent)], Offload::None, body);
            assert!(taken.is_ok());
            answered += 1;
        }
        pair.transmit.publish();
        pair.transmit.reclaim();
        if !worked {
            if pair.request_interrupts(Interest::Receive) == Arming::Sleep {
                let woken = interrupts.recv_timeout(Duration::from_secs(5));
                assert!(woken.is_ok(), "an interrupt was lost at {answered}");
            }
            pair.suppress_interrupts();
        }
    }
}

/// Both threads meet here, spinning: they leave within nanoseconds of each other.
fn meet(arrivals: &AtomicU64, round: u64) {
    arrivals.fetch_add(1, SeqCst);
    let mut spins = 0u32;
    while arrivals.load(SeqCst) < 2 * round {
        spins += 1;
        if spins > 10_000 {
            // The other one has no core just now.
            thread::yield_now();
        }
        core::hint::spin_loop();
    }
}

/// Each side makes its work visible and then looks for the other's wish, or the other way round, at the same moment. That
/// both miss each other is what the fences forbid: without either of them, a hundred to some thousand of the rounds lose a
/// wake-up on x86-64.
#[test]
fn publishing_and_falling_asleep_at_the_same_moment_never_miss_each_other() {
    for features in [ALL_FEATURES, NO_EVENT_IDX] {
        let hal = FakeHal::new();
        let mut pair: Pair<()> =
            QueuePair::open(hal.clone(), 0, &device(features), 0, &SMALL).expect("a pair");
        let (arrivals, doorbell_lost, frame_lost) = (AtomicU64::new(0), AtomicU64::new(0), AtomicU64::new(0));
        // What the device's thread found in this round.
        let (saw_chain, interrupted) = (AtomicBool::new(false), AtomicBool::new(false));
        thread::scope(|scope| {
            scope.spawn(|| {
                let (mut receiver, mut sender) = (hal.queue(0, features), hal.queue(1, features));
                receiver.suppress_doorbell();
                for round in 0..ROUNDS {
                    sender.suppress_doorbell();
                    meet(&arrivals, 3 * round + 1);
                    saw_chain.store(sender.request_doorbell() > 0, SeqCst);
                    meet(&arrivals, 3 * round + 2);
                    let chain = sender.take().expect("published in this round");
                    sender.give_back(chain.head, 0);
                    sender.publish();
                    assert!(receiver.deliver([0; 12], &[0; 60]));
                    meet(&arrivals, 3 * round + 3);
                    interrupted.store(receiver.publish() == Signal::Interrupt, SeqCst);
                }
                meet(&arrivals, 3 * ROUNDS + 1);
            });
            let mut arming = Arming::WorkArrived;
            for round in 0..ROUNDS {
                assert!(pair.transmit.transmit(&[0; 60], &[], Offload::None, ()).is_ok());
                let rung = hal.doorbells(1);
                meet(&arrivals, 3 * round + 1);
                if round > 0 {
                    // The end of the round before: the device has passed its publication.
                    let lost = arming == Arming::Sleep && !interrupted.load(SeqCst);
                    frame_lost.fetch_add(u64::from(lost), SeqCst);
                }
                pair.transmit.publish();
                let was_rung = hal.doorbells(1) > rung;
                meet(&arrivals, 3 * round + 2);
                doorbell_lost.fetch_add(u64::from(!was_rung && !saw_chain.load(SeqCst)), SeqCst);
                while pair.receive.poll().is_some() {}
                pair.suppress_interrupts();
                meet(&arrivals, 3 * round + 3);
                arming = pair.request_interrupts(Interest::Receive);
            }
            meet(&arrivals, 3 * ROUNDS + 1);
        });
        assert_eq!((doorbell_lost.into_inner(), frame_lost.into_inner()), (0, 0));
    }
}

#[test]
fn no_wake_up_is_lost_between_two_sleepers() {
    for (features, window) in [(ALL_FEATURES, 1), (ALL_FEATURES, 13), (NO_EVENT_IDX, 1), (NO_EVENT_IDX, 13)] {
        let hal = FakeHal::new();
        let mut pair = QueuePair::open(hal.clone(), 0, &device(features), 0, &SMALL).expect("a pair");
        let (interrupt, interrupts) = sync_channel(1);
        thread::scope(|scope| {
            scope.spawn(|| run_device(&hal, features, window, &interrupt));
            run_driver(&mut pair, &interrupts);
        });
        assert_eq!(pair.receive.statistics().frames, FRAMES);
        assert_eq!((pair.receive.fault(), pair.transmit.fault()), (None, None));
    }
}
