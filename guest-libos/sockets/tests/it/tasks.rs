//! The tasks themselves.

use crate::wire::{CLIENT, Wire};
use exos_net::Duration;
use exos_sockets::Tasks;
use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::rc::Rc;
use std::task::Poll;

#[test]
fn task_that_is_not_woken_is_not_polled() {
    let mut tasks = Tasks::default();
    let polls = Rc::new(Cell::new(0));
    let (count, waker) = (polls.clone(), Rc::new(RefCell::new(None)));
    let slot = waker.clone();
    tasks.spawner().spawn(poll_fn(move |context| {
        count.set(count.get() + 1);
        *slot.borrow_mut() = Some(context.waker().clone());
        if count.get() == 3 { Poll::Ready(()) } else { Poll::Pending }
    }));
    assert!(tasks.is_ready());
    tasks.run();
    tasks.run();
    assert_eq!((polls.get(), tasks.len(), tasks.is_ready()), (1, 1, false));
    for expected in 2..4 {
        waker.borrow().as_ref().expect("polled").wake_by_ref();
        assert!(tasks.is_ready());
        tasks.run();
        assert_eq!(polls.get(), expected);
    }
    assert!(tasks.is_empty());
}

#[test]
fn task_that_wakes_itself_without_end_lets_the_round_end() {
    let mut tasks = Tasks::default();
    tasks.spawner().spawn(poll_fn(|context| {
        context.waker().wake_by_ref();
        Poll::Pending
    }));
    tasks.run();
    assert!(tasks.is_ready(), "it has its next turn with the next call");
}

#[test]
fn tasks_started_by_tasks_run_in_the_same_round() {
    let mut tasks = Tasks::default();
    let (spawner, ran) = (tasks.spawner(), Rc::new(Cell::new(0)));
    let count = ran.clone();
    tasks.spawner().spawn(async move {
        for _ in 0..5 {
            let count = count.clone();
            spawner.spawn(async move { count.set(count.get() + 1) });
        }
    });
    tasks.run();
    assert_eq!((ran.get(), tasks.len()), (5, 0));
}

#[test]
fn sleeps_end_in_their_order_and_not_before_their_time() {
    let mut wire = Wire::new();
    let ends = Rc::new(RefCell::new(Vec::new()));
    let start = wire.now;
    for milliseconds in [30, 10, 20, 10] {
        let (sockets, ends) = (wire.sockets(CLIENT), ends.clone());
        wire.spawner(CLIENT).spawn(async move {
            sockets.sleep(Duration::from_millis(milliseconds)).await;
            ends.borrow_mut().push((milliseconds, sockets.now().since(start).as_nanos() / 1_000_000));
        });
    }
    wire.run_for(Duration::from_millis(100));
    assert_eq!(*ends.borrow(), [(10, 10), (10, 10), (20, 20), (30, 30)]);
}

#[test]
fn dropped_sleep_leaves_no_deadline() {
    let wire = Wire::new();
    let sleep = wire.sockets(CLIENT).sleep(Duration::from_secs(1));
    let mut sleep = Box::pin(sleep);
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    assert!(sleep.as_mut().poll(&mut context).is_pending());
    assert!(wire.ends[CLIENT].next_deadline().is_some());
    drop(sleep);
    assert_eq!(wire.ends[CLIENT].next_deadline(), None);
}
