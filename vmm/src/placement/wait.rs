//! Waiting for the backend, a doorbell, or to be kicked.

use std::os::fd::RawFd;
use std::time::Duration;

/// What a descriptor is watched for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Interest {
    /// Something to read.
    Readable,
    /// Room to write, or something to read.
    ReadableOrWritable,
}

/// Blocks until one of the descriptors is ready or the time is over. Returns which are ready, as bits in the order of
/// the list. A signal ends the wait early, with none ready.
pub fn wait(descriptors: &[(RawFd, Interest)], timeout: Option<Duration>) -> u32 {
    const MOST: usize = 4;
    let mut polls = [libc::pollfd { fd: -1, events: 0, revents: 0 }; MOST];
    let count = descriptors.len().min(MOST);
    for (poll, (fd, interest)) in polls.iter_mut().zip(descriptors) {
        poll.fd = *fd;
        poll.events = match interest {
            Interest::Readable => libc::POLLIN,
            Interest::ReadableOrWritable => libc::POLLIN | libc::POLLOUT,
        };
    }
    let timeout = timeout.map(|time| libc::timespec {
        tv_sec: time.as_secs() as libc::time_t,
        tv_nsec: libc::c_long::from(time.subsec_nanos()),
    });
    let timeout = timeout.as_ref().map_or(std::ptr::null(), |time| time);
    // SAFETY: `polls` has `count` valid entries, and `timeout` is null or points at a value that lives until the return.
    let ready = unsafe { libc::ppoll(polls.as_mut_ptr(), count as libc::nfds_t, timeout, std::ptr::null()) };
    if ready <= 0 {
        return 0;
    }
    polls[..count]
        .iter()
        .enumerate()
        .fold(0, |bits, (index, poll)| bits | u32::from(poll.revents != 0) << index)
}
