//! CPUs of the host: where the vCPUs' threads are, and where the I/O thread had better be.

/// The vCPUs that the device work is done for.
#[derive(Clone, Debug)]
pub struct Vcpus {
    /// How many there are.
    pub count: u32,
    /// CPUs that their threads are bound to; empty: to none.
    pub cpus: Vec<u32>,
}

impl Vcpus {
    /// One, bound to no CPU.
    pub fn one() -> Self {
        Self { count: 1, cpus: Vec::new() }
    }

    /// Where an I/O thread is best, of the CPUs that it may use: not where a vCPU is bound, or ran last if there is but one,
    /// unless nothing else is left. Then, and where several vCPUs are bound to nothing, the host's scheduler knows best.
    pub(super) fn io_cpus(&self, allowed: &[u32], ran_last: u32) -> Vec<u32> {
        let is_taken = |cpu: &u32| match self.cpus.as_slice() {
            [] => self.count == 1 && *cpu == ran_last,
            bound => bound.contains(cpu),
        };
        let free: Vec<u32> = allowed.iter().copied().filter(|cpu| !is_taken(cpu)).collect();
        if free.is_empty() { allowed.to_vec() } else { free }
    }
}

/// CPUs that this process may use.
pub fn allowed_cpus() -> Vec<u32> {
    // SAFETY: an all-zero CPU set is a value; the kernel fills what fits.
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    // SAFETY: the set is writable and of the size given. The process (not thread) mask: the main thread's.
    let result =
        unsafe { libc::sched_getaffinity(libc::getpid(), size_of::<libc::cpu_set_t>(), &raw mut set) };
    if result != 0 {
        return vec![0];
    }
    // SAFETY: the numbers lie below CPU_SETSIZE.
    (0..libc::CPU_SETSIZE as u32).filter(|&cpu| unsafe { libc::CPU_ISSET(cpu as usize, &set) }).collect()
}

/// Restricts the calling thread to these CPUs. Failure leaves it where it is, which is only slower.
pub fn pin_this_thread(cpus: &[u32]) {
    // SAFETY: an all-zero CPU set is a value.
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    for &cpu in cpus.iter().filter(|&&cpu| cpu < libc::CPU_SETSIZE as u32) {
        // SAFETY: the number lies below CPU_SETSIZE.
        unsafe { libc::CPU_SET(cpu as usize, &mut set) };
    }
    // SAFETY: the set is readable and of the size given; 0 is the calling thread.
    if unsafe { libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &raw const set) } != 0 {
        tracing::debug!("cannot choose CPUs: {}", std::io::Error::last_os_error());
    }
}

/// The CPU that this thread runs on at the moment.
pub(super) fn current_cpu() -> u32 {
    // SAFETY: no arguments, no memory.
    unsafe { libc::sched_getcpu() }.try_into().unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vcpus(count: u32, cpus: &[u32]) -> Vcpus {
        Vcpus { count, cpus: cpus.to_vec() }
    }

    #[test]
    fn io_thread_goes_where_no_vcpu_is_while_there_is_such_a_cpu() {
        let nowhere = u32::MAX;
        for (vcpus, allowed, ran_last, expected) in [
            (vcpus(1, &[]), &[0, 1][..], 1, &[0][..]),
            (vcpus(1, &[]), &[0, 1], nowhere, &[0, 1]),
            (vcpus(1, &[]), &[1], 1, &[1]),
            (vcpus(1, &[1]), &[0, 1], nowhere, &[0]),
            (vcpus(2, &[0, 2]), &[0, 1, 2, 3], 1, &[1, 3]),
            (vcpus(2, &[0, 1]), &[0, 1], nowhere, &[0, 1]),
            (vcpus(2, &[]), &[0, 1], 1, &[0, 1]),
            (vcpus(4, &[]), &[0, 1, 2, 3, 4], 1, &[0, 1, 2, 3, 4]),
        ] {
            assert_eq!(vcpus.io_cpus(allowed, ran_last), expected, "{vcpus:?} of {allowed:?}");
        }
    }
}
