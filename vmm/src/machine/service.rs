//! The machine's housekeeping thread: drains the log rings, keeps the time page true. An event loop on timers, so that an
//! idle machine costs next to nothing.

use super::start::spawn;
use super::{MachineError, Shared};
use crate::account::ledger::now_tsc;
use abi::time::TimePage;
use event_manager::{EventManager, EventOps, EventSet, Events, MutEventSubscriber, SubscriberOps};
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use vmm_sys_util::timerfd::TimerFd;

/// How often the log is drained.
const LOG_PERIOD: Duration = Duration::from_millis(50);
/// Every how many log periods the time page is set again.
const TIME_PERIODS: u32 = 20;

/// Starts the thread; it ends with the machine.
pub(super) fn start(shared: Arc<Shared>) -> Result<JoinHandle<()>, MachineError> {
    let mut timer = TimerFd::new().map_err(|error| MachineError::host("timer")(error.into()))?;
    timer.reset(LOG_PERIOD, Some(LOG_PERIOD)).map_err(|error| MachineError::host("timer")(error.into()))?;
    spawn("exovm-service", move || {
        let housekeeping = Housekeeping { shared: Arc::clone(&shared), timer, periods: 0 };
        let mut manager = match EventManager::new() {
            Ok(manager) => manager,
            Err(error) => return tracing::error!("no event loop for the machine: {error}"),
        };
        manager.add_subscriber(housekeeping);
        loop {
            // Once more after the end, so that the last words of the guest are read.
            let ended = shared.has_ended();
            if let Err(error) = manager.run() {
                return tracing::error!("the machine's event loop ended: {error}");
            }
            if ended {
                return;
            }
        }
    })
}

struct Housekeeping {
    shared: Arc<Shared>,
    timer: TimerFd,
    periods: u32,
}

impl MutEventSubscriber for Housekeeping {
    fn process(&mut self, events: Events, _: &mut EventOps) {
        if events.fd() == self.timer.as_raw_fd() {
            let _ = self.timer.wait();
            self.periods += 1;
            if self.periods.is_multiple_of(TIME_PERIODS) {
                refresh_time(&self.shared.pages[0].time, self.shared.tsc_khz);
            }
        }
        self.shared.logs.drain();
        self.shared.ledgers.iter().for_each(|(_, ledger)| ledger.make_room());
        if self.shared.has_ended() {
            self.shared.logs.flush();
        }
    }

    fn init(&mut self, ops: &mut EventOps) {
        let timer = ops.add(Events::new(&self.timer, EventSet::IN));
        let end = ops.add(Events::new(&self.shared.end_event, EventSet::IN));
        if let Err(error) = timer.and(end) {
            tracing::error!("the machine's event loop cannot watch its timer: {error}");
        }
    }
}

/// Maps the TSC to the host's UTC, from now.
pub(super) fn refresh_time(page: &TimePage, tsc_khz: u64) {
    let before = now_tsc();
    let utc = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let tsc = before + (now_tsc() - before) / 2;
    let scale = (1_000_000u128 << 32) / u128::from(tsc_khz.max(1));
    page.set(tsc, utc.as_nanos() as u64, scale as u64);
}
