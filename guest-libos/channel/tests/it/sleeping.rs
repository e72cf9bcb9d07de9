//! Driver and device on two threads that both sleep whenever they may: if one wake-up were lost, both would sleep until
//! the test gives up.

use crate::harness::{opened, pattern};
use exos_channel::Arming;
use exos_channel::fake::{ALL_FEATURES, EVENT_IDX, FakeHal, FakeQueue, Signal};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;
use std::time::Duration;

const LEN: usize = 1_000_000;

/// The device: gives `LEN` bytes in pieces and takes them back, and sleeps until a doorbell when it can do neither.
fn run_device(hal: &FakeHal, mut receive: FakeQueue, mut transmit: FakeQueue, interrupts: &SyncSender<()>) {
    let (mut given, mut taken) = (0, 0);
    while taken < LEN {
        let before = (given, taken);
        while given < LEN && receive.waiting() > 0 {
            let len = (1 + given % 100).min(LEN - given);
            let (head, buffer) = receive.peek(0);
            receive.write(buffer, 0, &pattern(given, len));
            receive.pass(1);
            receive.give_back(head, len as u32);
            given += len;
        }
        while let Some(chain) = transmit.take() {
            let bytes = chain.gather();
            assert!(bytes == pattern(taken, bytes.len()));
            transmit.give_back(chain.head, 0);
            taken += bytes.len();
        }
        if [receive.publish(), transmit.publish()].contains(&Signal::Interrupt) {
            // A full channel holds an interrupt that was not taken yet: one is as good as two.
            let _ = interrupts.try_send(());
        }
        if before == (given, taken) {
            let seen = hal.doorbells(5);
            // It is woken by what the driver writes; buffers come back beside that.
            if transmit.request_doorbell() == 0 {
                assert!(hal.wait_for_doorbell(5, seen), "a doorbell was lost at {given}/{taken}");
            }
            transmit.suppress_doorbell();
        }
    }
}

/// The guest: says everything back, sleeps when it can do nothing.
fn run_driver(channel: &mut exos_channel::Channel<FakeHal>, interrupts: &Receiver<()>) {
    let mut written = 0;
    let mut bytes = [0; 250];
    let mut held = 0..0;
    while written < LEN {
        if held.is_empty() {
            held = 0..channel.read(0, &mut bytes);
        }
        let count = channel.write(0, &bytes[held.clone()]);
        held.start += count;
        written += count;
        channel.poll();
        if count == 0 && channel.request_interrupts() == Arming::Sleep {
            let woken = interrupts.recv_timeout(Duration::from_secs(5));
            assert!(woken.is_ok(), "an interrupt was lost at {written}");
        }
    }
    channel.poll();
}

#[test]
fn no_wake_up_is_lost_between_two_sleepers() {
    for features in [ALL_FEATURES, ALL_FEATURES & !(1 << EVENT_IDX)] {
        let (mut bench, receive, transmit) = opened(features);
        let (interrupt, interrupts) = sync_channel(1);
        let hal = bench.hal.clone();
        thread::scope(|scope| {
            scope.spawn(|| run_device(&hal, receive, transmit, &interrupt));
            run_driver(&mut bench.channel, &interrupts);
        });
        assert_eq!(bench.channel.fault(), None);
    }
}
