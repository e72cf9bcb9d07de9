//! Taking what the machine says, until there is enough of it.

use super::super::supervise::Signals;
use crate::profile::collect::{Ending, Profile};
use rustix::event::{PollFd, PollFlags, Timespec};
use std::io::{ErrorKind, Read};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

/// A machine that says nothing for so long hangs.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long it may take to say its last words.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// Why there is no more than there is.
#[derive(Debug)]
pub(super) enum Lost {
    /// The connection ended without a word.
    Gone,
    /// Nothing came any more.
    Silent,
}

/// Takes what the machine says for so long, or until a signal, or the machine's end.
pub(super) fn receive(
    socket: &UnixStream,
    first: Vec<u8>,
    signals: &Signals,
    time: Duration,
    profile: &mut Profile,
) -> Result<(), Lost> {
    let begun = Instant::now();
    let (mut line, mut heard) = (Vec::new(), Instant::now());
    let mut asked_to_end: Option<Instant> = None;
    take(&first, &mut line, profile);
    while profile.ending == Ending::Open {
        if asked_to_end.is_none() && begun.elapsed() >= time {
            let _ = socket.shutdown(Shutdown::Write);
            asked_to_end = Some(Instant::now());
        }
        let left = match asked_to_end {
            Some(since) => LAST_WORDS.saturating_sub(since.elapsed()),
            None => PATIENCE.saturating_sub(heard.elapsed()),
        };
        if left.is_zero() {
            return Err(Lost::Silent);
        }
        let left = if asked_to_end.is_some() { left } else { left.min(time.saturating_sub(begun.elapsed())) };
        let timeout = Timespec { tv_sec: left.as_secs() as i64, tv_nsec: left.subsec_nanos().into() };
        let mut polled =
            [PollFd::new(socket, PollFlags::IN), PollFd::from_borrowed_fd(signals.fd(), PollFlags::IN)];
        // One signal ends it; those that follow wait for the end.
        let watched = if asked_to_end.is_some() { 1 } else { 2 };
        let _ = rustix::event::poll(&mut polled[..watched], Some(&timeout));
        if watched == 2 && !polled[1].revents().is_empty() {
            let _ = socket.shutdown(Shutdown::Write);
            asked_to_end = Some(Instant::now());
        }
        if polled[0].revents().is_empty() {
            continue;
        }
        let mut part = [0; 64 << 10];
        let mut reader = socket;
        match reader.read(&mut part) {
            Ok(0) => return Err(Lost::Gone),
            Ok(count) => {
                heard = Instant::now();
                take(&part[..count], &mut line, profile);
            }
            Err(error) if matches!(error.kind(), ErrorKind::Interrupted | ErrorKind::WouldBlock) => {}
            Err(_) => return Err(Lost::Gone),
        }
    }
    Ok(())
}

/// Takes the lines that are complete.
fn take(bytes: &[u8], line: &mut Vec<u8>, profile: &mut Profile) {
    for &byte in bytes {
        match byte {
            b'\n' => profile.take_line(&std::mem::take(line)),
            byte => line.push(byte),
        }
    }
}
