//! What each environment that runs at boot gets of the devices and of the memory. Numbers in, numbers out.

use super::{Attached, BootConfig, Grant, HEAP_MIN_BYTES, MachineError, Placer};
use abi::boot::{DEVICES, MemoryRange};
use abi::layout::LARGE_PAGE_BYTES;
use abi::slice::SLICES;

/// The queues of one device that an environment gets; none: the device is not its.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Queues {
    pub(super) first: u32,
    pub(super) count: u32,
}

impl Queues {
    /// The first of its queue pairs, and how many it has, on a network device.
    pub(super) fn pairs(self) -> (u16, u16) {
        ((self.first / 2) as u16, (self.count / 2) as u16)
    }
}

/// Divides the devices' queues: a NIC's pairs evenly, as far as they go; one disk each if there are as many as environments that
/// get disks, from `disks_from` on, or else all are that one's; all else is the first environment's. By environment and device.
pub(super) fn queues(attached: &[Attached], environments: u32, disks_from: u32) -> Vec<[Queues; DEVICES]> {
    let disks_from = disks_from.min(environments.saturating_sub(1)) as usize;
    let mut shares = vec![[Queues::default(); DEVICES]; environments as usize];
    let is_disk = |attached: &&Attached| matches!(attached.grant, Grant::Extent { .. });
    let a_disk_each = attached.iter().filter(is_disk).count() == environments as usize - disks_from;
    let mut next = disks_from;
    for (device, attached) in attached.iter().enumerate() {
        let all = Queues { first: attached.entry.first_queue, count: attached.entry.queues };
        match attached.grant {
            // The control queue, which comes last, is nobody's: what it says holds for all pairs.
            Grant::Flows { .. } if environments > 1 => {
                let (pairs, mut first) = (all.count / 2, all.first);
                for (environment, share) in (0u32..).zip(&mut shares) {
                    let count = 2 * (pairs / environments + u32::from(environment < pairs % environments));
                    if count > 0 {
                        share[device] = Queues { first, count };
                    }
                    first += count;
                }
            }
            Grant::Extent { .. } if a_disk_each => {
                shares[next][device] = all;
                next += 1;
            }
            Grant::Extent { .. } => shares[disks_from][device] = all,
            _ => shares[0][device] = all,
        }
    }
    shares
}

/// The slices that an environment gets of a vCPU: the first of them, and how many. Those who begin on a vCPU divide it; a vCPU on
/// which nobody begins is the environment's whose turn it would be to get another one.
pub(super) fn slices(environment: u32, environments: u32, vcpu: u32, vcpus: u32) -> (u32, u32) {
    let all = SLICES as u32;
    if vcpu % environments == environment && vcpu >= environments {
        return (vcpu * all, all);
    }
    if environment % vcpus != vcpu {
        return (vcpu * all, 0);
    }
    let residents = environments / vcpus + u32::from(vcpu < environments % vcpus);
    let (nth, share) = (environment / vcpus, |nth| nth * all / residents);
    (vcpu * all + share(nth), share(nth + 1) - share(nth))
}

/// How many nodes of the flow table the environment in a place may use. Those that run from the start divide half of the nodes, and
/// those that may follow a quarter: the rest keeps the hash table fast. What a guardian's clients need it carves for them, so half of
/// that half is its.
pub(super) fn flows(place: u32, config: &BootConfig) -> u32 {
    let (environments, spare) = (config.environments, config.spare_environments);
    match place {
        0 if config.guardian && environments > 1 => config.flows / 4,
        _ if place >= environments => config.flows / 4 / spare.max(1),
        _ if config.guardian => config.flows / 4 / (environments - 1).max(1),
        _ => config.flows / 2 / environments,
    }
}

/// Divides the large pages of some ranges evenly, from the lowest on; who comes first gets what is over. A share has at most
/// as many pieces as there are ranges.
pub(super) fn heaps(free: &[MemoryRange], environments: u32) -> Vec<[MemoryRange; 4]> {
    let pages: u64 = free.iter().map(|range| range.len_bytes / LARGE_PAGE_BYTES).sum();
    let mut left: Vec<MemoryRange> = free.to_vec();
    let mut heaps = vec![[MemoryRange::default(); 4]; environments as usize];
    for (environment, heap) in (0u64..).zip(&mut heaps) {
        let over = u64::from(environment < pages % u64::from(environments));
        let mut wanted = (pages / u64::from(environments) + over) * LARGE_PAGE_BYTES;
        let mut pieces = heap.iter_mut();
        for range in left.iter_mut().filter(|range| range.len_bytes >= LARGE_PAGE_BYTES) {
            let taken = wanted.min(range.len_bytes / LARGE_PAGE_BYTES * LARGE_PAGE_BYTES);
            if taken == 0 {
                break;
            }
            let Some(piece) = pieces.next() else { break };
            *piece = MemoryRange { start_gpa: range.start_gpa, len_bytes: taken };
            range.start_gpa += taken;
            range.len_bytes -= taken;
            wanted -= taken;
        }
    }
    heaps
}

/// What is left of RAM, in large pages, for each environment.
pub(super) fn heaps_of(
    low: &Placer,
    high: &Placer,
    ram: &[MemoryRange; 4],
    environments: u32,
) -> Result<Vec<[MemoryRange; 4]>, MachineError> {
    let free: Vec<_> = [(low, ram[0]), (high, ram[1])]
        .into_iter()
        .map(|(placer, range)| {
            let start_gpa = placer.end().next_multiple_of(LARGE_PAGE_BYTES);
            MemoryRange { start_gpa, len_bytes: range.end_gpa().saturating_sub(start_gpa) }
        })
        .collect();
    let heaps = heaps(&free, environments);
    let least = heaps.iter().map(|heap| heap.iter().map(|range| range.len_bytes).sum()).min().unwrap_or(0);
    if least < HEAP_MIN_BYTES {
        let ram_bytes: u64 = ram.iter().map(|range| range.len_bytes).sum();
        let more = u64::from(environments) * (HEAP_MIN_BYTES - least);
        return Err(MachineError::MemoryTooSmall { needed_mib: (ram_bytes + more) >> 20 });
    }
    Ok(heaps)
}

#[cfg(test)]
mod tests {
    use super::*;
    use abi::boot::Device;

    #[test]
    fn slices_of_every_vcpu_are_given_once() {
        for environments in 1..=64 {
            for vcpus in 1..=8 {
                let mut given = vec![0; SLICES * vcpus as usize];
                for environment in 0..environments {
                    for vcpu in 0..vcpus {
                        let (first, count) = slices(environment, environments, vcpu, vcpus);
                        given[first as usize..(first + count) as usize]
                            .iter_mut()
                            .for_each(|times| *times += 1);
                    }
                }
                assert!(given.iter().all(|&times| times == 1), "{environments} environments, {vcpus} vCPUs");
            }
        }
    }

    #[test]
    fn slices_are_divided_among_those_who_begin_on_a_vcpu() {
        assert_eq!(slices(0, 1, 0, 1), (0, 32));
        assert_eq!(slices(0, 1, 1, 2), (32, 32));
        assert_eq!([slices(0, 2, 0, 1), slices(1, 2, 0, 1)], [(0, 16), (16, 16)]);
        assert_eq!(
            [slices(0, 3, 0, 2), slices(1, 3, 1, 2), slices(2, 3, 0, 2)],
            [(0, 16), (32, 32), (16, 16)]
        );
    }

    fn nic(pairs: u32) -> Attached {
        let entry = Device { kind: abi::boot::DEVICE_NET, queues: 2 * pairs + 1, ..Device::default() };
        Attached { entry, grant: Grant::Flows { queue_pairs: 1 } }
    }

    fn disk() -> Attached {
        let entry = Device { kind: abi::boot::DEVICE_BLOCK, queues: 4, ..Device::default() };
        Attached { entry, grant: Grant::Extent { blocks: 10, rights: 1 } }
    }

    fn console() -> Attached {
        let entry = Device { kind: abi::boot::DEVICE_CONSOLE, queues: 6, ..Device::default() };
        Attached { entry, grant: Grant::Queues }
    }

    fn of(attached: &[Attached], environments: u32, device: usize) -> Vec<(u32, u32)> {
        queues(attached, environments, 0)
            .iter()
            .map(|share| (share[device].first, share[device].count))
            .collect()
    }

    #[test]
    fn one_environment_gets_every_queue() {
        let attached = [nic(4), disk(), console()];
        assert_eq!([0, 1, 2].map(|device| of(&attached, 1, device)), [[(0, 9)], [(0, 4)], [(0, 6)]]);
    }

    #[test]
    fn pairs_are_divided_evenly_as_far_as_they_go() {
        assert_eq!(of(&[nic(4)], 2, 0), [(0, 4), (4, 4)]);
        assert_eq!(of(&[nic(4)], 3, 0), [(0, 4), (4, 2), (6, 2)]);
        assert_eq!(of(&[nic(2)], 3, 0), [(0, 2), (2, 2), (0, 0)]);
        assert_eq!(queues(&[nic(4)], 2, 0)[1][0].pairs(), (2, 2));
    }

    #[test]
    fn as_many_disks_as_environments_are_one_each_and_others_all_the_firsts() {
        let attached = [nic(4), disk(), disk(), console()];
        assert_eq!(of(&attached, 2, 1), [(0, 4), (0, 0)]);
        assert_eq!(of(&attached, 2, 2), [(0, 0), (0, 4)]);
        assert_eq!(of(&attached, 3, 2), [(0, 4), (0, 0), (0, 0)]);
        assert_eq!(of(&attached, 2, 3), [(0, 6), (0, 0)]);
    }

    #[test]
    fn guardian_of_a_full_machine_can_carve_a_port_for_each_share() {
        for (environments, spare_environments) in [(64, 0), (2, 62), (3, 0)] {
            let guardian = true;
            let config = BootConfig {
                environments,
                spare_environments,
                guardian,
                flows: 1024,
                ..BootConfig::default()
            };
            // 128 ports, and what they hang on: the address and two protocols.
            assert!(flows(0, &config) >= 128 + 3);
            let all: u32 = (0..environments + spare_environments).map(|place| flows(place, &config)).sum();
            assert!((1..=768).contains(&all), "a quarter is free: {all}");
        }
        let siblings = BootConfig { environments: 4, flows: 1024, ..BootConfig::default() };
        assert_eq!([0, 3].map(|place| flows(place, &siblings)), [128, 128]);
    }

    #[test]
    fn who_guards_gets_no_disk() {
        let attached = [nic(4), disk(), disk()];
        let of = |environments, device: usize| -> Vec<u32> {
            queues(&attached, environments, 1).iter().map(|share| share[device].count).collect()
        };
        assert_eq!([of(3, 1), of(3, 2)], [[0, 4, 0], [0, 0, 4]]);
        assert_eq!([of(2, 1), of(2, 2)], [[0, 4], [0, 4]], "not one each");
        assert_eq!(of(1, 1), [4], "nobody else is there");
        assert_eq!(of(3, 0), [4, 2, 2]);
    }

    const fn range(first: u64, pages: u64) -> MemoryRange {
        MemoryRange { start_gpa: first * LARGE_PAGE_BYTES, len_bytes: pages * LARGE_PAGE_BYTES }
    }

    #[test]
    fn heaps_are_disjoint_and_take_all_there_is() {
        let free = [range(3, 7), range(2048, 4)];
        let [none, rest] = [range(0, 0); 2];
        assert_eq!(heaps(&free, 1), [[range(3, 7), range(2048, 4), none, rest]]);
        assert_eq!(
            heaps(&free, 3),
            [
                [range(3, 4), none, none, rest],
                [range(7, 3), range(2048, 1), none, rest],
                [range(2049, 3), none, none, rest]
            ]
        );
    }

    #[test]
    fn who_comes_too_late_gets_no_heap() {
        assert_eq!(heaps(&[range(1, 1)], 2)[1], [range(0, 0); 4]);
    }
}
