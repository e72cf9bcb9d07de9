//! Feature bits (VIRTIO 1.3 6, 5.1.3 and 5.2.3), as masks.

/// A console has several ports, and control queues.
pub const CONSOLE_MULTIPORT: u64 = 1 << 1;
/// The device handles packets with partial checksums.
pub const NET_CSUM: u64 = 1 << 0;
/// The driver handles packets with partial checksums.
pub const NET_GUEST_CSUM: u64 = 1 << 1;
/// The device says the MTU.
pub const NET_MTU: u64 = 1 << 3;
/// The device has a hardware address.
pub const NET_MAC: u64 = 1 << 5;
/// The driver can receive TSOv4.
pub const NET_GUEST_TSO4: u64 = 1 << 7;
/// The driver can receive TSOv6.
pub const NET_GUEST_TSO6: u64 = 1 << 8;
/// The device can receive TSOv4.
pub const NET_HOST_TSO4: u64 = 1 << 11;
/// The device can receive TSOv6.
pub const NET_HOST_TSO6: u64 = 1 << 12;
/// The driver can merge receive buffers.
pub const NET_MRG_RXBUF: u64 = 1 << 15;
/// There is a control queue.
pub const NET_CTRL_VQ: u64 = 1 << 17;
/// There are several queue pairs.
pub const NET_MQ: u64 = 1 << 22;
/// The disk says the most pieces of a request.
pub const BLK_SEG_MAX: u64 = 1 << 2;
/// The disk is read-only.
pub const BLK_RO: u64 = 1 << 5;
/// The disk says its block size.
pub const BLK_BLK_SIZE: u64 = 1 << 6;
/// The disk has a write cache, and flushes it.
pub const BLK_FLUSH: u64 = 1 << 9;
/// The disk has several queues.
pub const BLK_MQ: u64 = 1 << 12;
/// The disk discards.
pub const BLK_DISCARD: u64 = 1 << 13;
/// The disk writes zeros by itself.
pub const BLK_WRITE_ZEROES: u64 = 1 << 14;
/// Indirect descriptors.
pub const INDIRECT_DESC: u64 = 1 << 28;
/// `used_event` and `avail_event`.
pub const EVENT_IDX: u64 = 1 << 29;
/// Not a legacy device.
pub const VERSION_1: u64 = 1 << 32;
/// The device reaches memory only as the platform lets it: here, through DMA domains.
pub const ACCESS_PLATFORM: u64 = 1 << 33;
/// Queues can be reset one by one.
pub const RING_RESET: u64 = 1 << 40;

/// A feature and what it requires.
pub type Requirement = (u64, u64);

/// What features of a network device require of each other (VIRTIO 1.3 5.1.3.1).
pub const NET_REQUIREMENTS: &[Requirement] = &[
    (NET_HOST_TSO4, NET_CSUM),
    (NET_HOST_TSO6, NET_CSUM),
    (NET_GUEST_TSO4, NET_GUEST_CSUM),
    (NET_GUEST_TSO6, NET_GUEST_CSUM),
    (NET_MQ, NET_CTRL_VQ),
];

/// Whether a set of features has all that its members require, and is not a legacy driver's. The numbers of features mean
/// other things for other kinds of devices, and so do `requirements`.
pub fn consistent(features: u64, requirements: &[Requirement]) -> bool {
    features & VERSION_1 != 0
        && requirements.iter().all(|(feature, required)| features & feature == 0 || features & required != 0)
}

/// Takes out what lacks something it requires.
pub fn make_consistent(features: u64, requirements: &[Requirement]) -> u64 {
    requirements.iter().fold(
        features,
        |features, (feature, required)| {
            if features & required == 0 { features & !feature } else { features }
        },
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tso_without_checksums_is_inconsistent() {
        assert!(consistent(VERSION_1 | NET_CSUM | NET_HOST_TSO4, NET_REQUIREMENTS));
        assert!(!consistent(VERSION_1 | NET_GUEST_CSUM | NET_HOST_TSO4, NET_REQUIREMENTS));
        assert!(!consistent(NET_CSUM, NET_REQUIREMENTS));
        assert_eq!(make_consistent(VERSION_1 | NET_HOST_TSO4 | NET_MQ, NET_REQUIREMENTS), VERSION_1);
    }
}
