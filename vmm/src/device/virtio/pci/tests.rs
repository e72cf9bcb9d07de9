//! The function as a driver sees it: through the bus, by configuration space and registers.

use std::sync::{Arc, Mutex};

use super::*;
use crate::backend::fake::Fake;
use crate::device::pci::{Bus, BusError, ECAM_BYTES, MmioWrite, MsiMessage};
use crate::device::virtio::firmware;
use crate::device::virtio::net::Net;
use crate::device::virtio::test_utils::Piece;
use crate::device::virtio::test_utils::nic::{BAR_GPA, Nic, buffer_gpa, with_header};
use crate::device::virtio::{features, pci::offset as register};
use crate::tables::DmaDomain;

const ECAM_GPA: u64 = 0xE000_0000;
/// The function's configuration space: 00:03.0.
const CONFIG_GPA: u64 = ECAM_GPA + (3 << 15);

type Function = Arc<Mutex<VirtioPci<Net<DmaDomain, Fake>>>>;

/// The function on a bus.
fn bus(nic: Nic) -> (Bus, Function) {
    let function = Arc::new(Mutex::new(nic.function));
    let mut bus = Bus::new(ECAM_GPA);
    bus.attach(3, function.clone()).expect("free");
    (bus, function)
}

fn read<const LEN: usize>(bus: &Bus, gpa: u64) -> u64 {
    let mut bytes = [0; 8];
    bus.mmio_read(gpa, &mut bytes[..LEN]);
    u64::from_le_bytes(bytes)
}

fn write<const LEN: usize>(bus: &Bus, gpa: u64, value: u64) -> MmioWrite {
    bus.mmio_write(gpa, &value.to_le_bytes()[..LEN])
}

#[test]
fn enumeration_finds_the_function_and_nothing_else() {
    let (bus, _function) = bus(Nic::stopped(Fake::default()));
    assert_eq!(read::<4>(&bus, CONFIG_GPA), 0x1041_1AF4);
    assert_eq!(read::<4>(&bus, CONFIG_GPA + 8), 0x0200_0001);
    for gpa in [ECAM_GPA, CONFIG_GPA + 4096, ECAM_GPA + ECAM_BYTES - 4, BAR_GPA.into(), 0xC000_0000] {
        assert_eq!(read::<4>(&bus, gpa), 0xFFFF_FFFF, "{gpa:#x}");
    }
    assert_eq!(read::<8>(&bus, CONFIG_GPA + 4092), u64::MAX, "across the end of a function");
    assert_eq!(write::<4>(&bus, 0xC000_0000, 1), MmioWrite::Unclaimed);
    assert_eq!(bus.unclaimed(), 7);
}

#[test]
fn attach_twice_or_beyond_returns_error() {
    let (mut bus, function) = bus(Nic::stopped(Fake::default()));
    assert_eq!(bus.attach(3, function.clone()), Err(BusError::Taken { device_number: 3 }));
    assert_eq!(bus.attach(32, function), Err(BusError::NoSuchNumber { device_number: 32 }));
}

#[test]
fn capabilities_lead_to_the_structures() {
    let (bus, _function) = bus(Nic::stopped(Fake::default()));
    let mut at = read::<1>(&bus, CONFIG_GPA + 0x34);
    let mut structures = Vec::new();
    let mut msix = None;
    while at != 0 {
        let gpa = CONFIG_GPA + at;
        match read::<1>(&bus, gpa) {
            0x09 => structures.push((
                read::<1>(&bus, gpa + 3),
                read::<4>(&bus, gpa + 8),
                read::<4>(&bus, gpa + 12),
            )),
            0x11 => {
                msix = Some((read::<2>(&bus, gpa + 2), read::<4>(&bus, gpa + 4), read::<4>(&bus, gpa + 8)))
            }
            other => panic!("capability {other:#x}"),
        }
        if read::<1>(&bus, gpa + 3) == 2 {
            assert_eq!(read::<4>(&bus, gpa + 16), 4096, "notify_off_multiplier");
        }
        at = read::<1>(&bus, gpa + 1);
    }
    let expected = [(1, 0, 0x40), (2, 0x1_0000, 0x2_0000), (3, 0x1000, 1), (4, 0x2000, 0x100), (5, 0, 0)];
    assert_eq!(structures, expected);
    assert_eq!(msix, Some((9, 0x3000, 0x3800)), "ten vectors");
}

#[test]
fn window_decodes_where_it_was_put_and_moves() {
    let (bus, _function) = bus(Nic::stopped(Fake::default()));
    write::<4>(&bus, CONFIG_GPA + 0x10, 0xD000_0000);
    assert_eq!(read::<2>(&bus, 0xD000_0012), 0xFFFF, "memory decoding is off");
    write::<2>(&bus, CONFIG_GPA + 4, 2);
    assert_eq!(read::<2>(&bus, 0xD000_0012), 9, "num_queues");
    write::<4>(&bus, CONFIG_GPA + 0x10, 0xD004_0000);
    assert_eq!(read::<2>(&bus, 0xD000_0012), 0xFFFF);
    assert_eq!(read::<2>(&bus, 0xD004_0012), 9);
    assert_eq!(read::<8>(&bus, 0xD004_0000 + u64::from(BAR_BYTES) - 4), u64::MAX, "across the end");
}

#[test]
fn firmware_start_leaves_a_running_device() {
    let (mut nic, _fake) = Nic::new();
    assert_eq!(nic.features, nic.function.device().features());
    assert_eq!(nic.get::<1>(register::DEVICE_STATUS), 15);
    for queue in 0..9 {
        nic.set::<2>(register::QUEUE_SELECT, queue);
        assert_eq!(nic.get::<2>(register::QUEUE_MSIX_VECTOR), queue);
        assert_eq!(nic.get::<2>(register::QUEUE_NOTIFY_OFF), queue);
        assert_eq!(nic.get::<2>(register::QUEUE_SIZE), 256);
        assert_eq!(nic.get::<2>(register::QUEUE_ENABLE), 0);
    }
    let entry = nic.function.device_entry();
    assert_eq!(entry.common_gpa, u64::from(BAR_GPA));
    assert_eq!(entry.doorbell_gpa, u64::from(BAR_GPA) + 0x1_0000);
    assert_eq!(entry.msix_table_gpa, u64::from(BAR_GPA) + 0x3000);
    assert_eq!((entry.requester_id, entry.queues, entry.queue_size_max), (3 << 3, 9, 256));
    assert_eq!((entry.features, entry.mtu_bytes), (nic.features, 1500));
    assert_eq!(entry.mac, [2, 0, 0, 0, 0, 1, 0, 0]);
    let doorbells = nic.function.doorbells();
    assert_eq!((doorbells.len(), doorbells[3]), (9, (u64::from(BAR_GPA) + 0x1_3000, 3)));
}

#[test]
fn start_with_few_features_takes_their_requirements_away() {
    let (nic, _fake) = Nic::with_features(features::NET_MQ | features::NET_HOST_TSO4 | features::NET_MAC);
    assert_eq!(nic.features, features::VERSION_1 | features::NET_MAC);
}

#[test]
fn status_bits_come_in_order_only() {
    let mut nic = Nic::stopped(Fake::default());
    let driver = nic.guest.driver(1, 0, 64);
    nic.guest.own(0, Some(1));
    nic.set::<1>(register::DEVICE_STATUS, 4);
    assert_eq!(nic.get::<1>(register::DEVICE_STATUS), 0, "DRIVER_OK before anything");
    nic.set::<1>(register::DEVICE_STATUS, 1);
    nic.set::<1>(register::DEVICE_STATUS, 3);
    nic.set::<1>(register::DEVICE_STATUS, 11);
    assert_eq!(nic.get::<1>(register::DEVICE_STATUS), 3, "no VERSION_1: features are refused");
    nic.enable(0, &driver);
    assert!(!nic.is_enabled(0), "before FEATURES_OK");
    nic.set::<4>(register::DRIVER_FEATURE_SELECT, 1);
    nic.set::<4>(register::DRIVER_FEATURE, 1 | 1 << 30);
    nic.set::<1>(register::DEVICE_STATUS, 11);
    assert_eq!(nic.get::<1>(register::DEVICE_STATUS), 3, "a feature that was not offered");
    nic.set::<4>(register::DRIVER_FEATURE, 1);
    nic.set::<1>(register::DEVICE_STATUS, 11);
    assert_eq!(nic.get::<1>(register::DEVICE_STATUS), 11);
    nic.set::<4>(register::DRIVER_FEATURE, 0);
    assert_eq!(nic.get::<4>(register::DRIVER_FEATURE), 1, "features are settled");
    nic.enable(0, &driver);
    assert!(nic.is_enabled(0), "before DRIVER_OK");
    nic.set::<1>(register::DEVICE_STATUS, 15);
    nic.set::<1>(register::DEVICE_STATUS, 1);
    assert_eq!(nic.get::<1>(register::DEVICE_STATUS), 15, "bits are not cleared one by one");
    nic.set::<1>(register::DEVICE_STATUS, 0);
    assert_eq!(nic.get::<1>(register::DEVICE_STATUS), 0);
    assert!(!nic.is_enabled(0));
}

#[test]
fn device_reset_ends_all_queues_and_forgets_the_features() {
    let (mut nic, fake) = Nic::new();
    let mut transmit = nic.bind(1, 1);
    nic.set::<1>(register::DEVICE_STATUS, 0);
    nic.guest.write(buffer_gpa(1, 0), &with_header(&[1; 60]));
    transmit.add(&[Piece::out(buffer_gpa(1, 0), 72)]);
    nic.work();
    assert_eq!(fake.wire().sent.len(), 0);
    assert_eq!(nic.function.accepted_features(), 0);
    assert!(firmware::start(&mut nic.function, !0).is_ok());
}

#[test]
fn registers_of_an_enabled_queue_do_not_change() {
    let (mut nic, _fake) = Nic::new();
    let driver = nic.bind(0, 1);
    nic.set::<2>(register::QUEUE_SIZE, 2);
    nic.set::<8>(register::QUEUE_DESC, 0x1000);
    nic.set::<4>(0x24, 1);
    nic.set::<2>(register::QUEUE_ENABLE, 0);
    assert_eq!(nic.get::<2>(register::QUEUE_SIZE), u64::from(driver.config.size));
    assert_eq!(nic.get::<8>(register::QUEUE_DESC), driver.config.descriptors_gpa);
    assert!(nic.is_enabled(0));
    nic.reset_queue(0);
    assert_eq!(nic.get::<2>(register::QUEUE_SIZE), 256);
    assert_eq!(nic.get::<8>(register::QUEUE_DESC), 0);
    assert_eq!(nic.get::<2>(register::QUEUE_MSIX_VECTOR), 0xFFFF);
    nic.set::<4>(register::QUEUE_DESC, 0x1000);
    nic.set::<4>(0x24, 2);
    assert_eq!(nic.get::<8>(register::QUEUE_DESC), 0x2_0000_1000, "by halves");
}

#[test]
fn vector_and_queue_that_do_not_exist_read_as_such() {
    let (mut nic, _fake) = Nic::new();
    nic.set::<2>(register::CONFIG_MSIX_VECTOR, 10);
    assert_eq!(nic.get::<2>(register::CONFIG_MSIX_VECTOR), 0xFFFF);
    nic.set::<2>(register::CONFIG_MSIX_VECTOR, 9);
    assert_eq!(nic.get::<2>(register::CONFIG_MSIX_VECTOR), 9);
    nic.set::<2>(register::QUEUE_SELECT, 9);
    nic.set::<2>(register::QUEUE_ENABLE, 1);
    nic.set::<2>(register::QUEUE_RESET, 1);
    assert_eq!((nic.get::<2>(register::QUEUE_SIZE), nic.get::<2>(register::QUEUE_ENABLE)), (0, 0));
}

#[test]
fn kernel_routes_a_vector_by_two_writes() {
    let (mut nic, _fake) = Nic::new();
    nic.routes.take();
    nic.bind(1, 1);
    let message = MsiMessage { address: 0xFEE0_0000, data: 0x41 };
    assert_eq!(nic.routes.take(), vec![(1, Some(message))]);
}

#[test]
fn doorbell_as_an_exit_is_reported_and_queue_changes_too() {
    let (mut nic, fake) = Nic::new();
    let mut transmit = nic.bind(1, 1);
    nic.guest.write(buffer_gpa(1, 0), &with_header(&[1; 60]));
    transmit.add(&[Piece::out(buffer_gpa(1, 0), 72)]);
    let ledger = crate::account::ledger::Ledger::default();
    let (bus, function) = bus(nic);
    let bar = u64::from(BAR_GPA);
    assert_eq!(write::<2>(&bus, bar + 0x1_1000, 1), MmioWrite::Doorbell { device_number: 3, queue: 1 });
    function.lock().expect("not poisoned").work(&ledger, crate::device::virtio::net::Budget::default());
    assert_eq!(fake.wire().sent.len(), 1);
    assert_eq!(write::<2>(&bus, bar + 0x1_0000 + 9 * 4096, 1), MmioWrite::Register, "no such queue");
    assert_eq!(write::<2>(&bus, bar + register::QUEUE_SELECT as u64, 1), MmioWrite::Register);
    assert_eq!(
        write::<2>(&bus, bar + register::QUEUE_RESET as u64, 1),
        MmioWrite::Queues { device_number: 3 }
    );
    assert_eq!(
        write::<2>(&bus, bar + register::QUEUE_ENABLE as u64, 1),
        MmioWrite::Queues { device_number: 3 }
    );
}

#[test]
fn device_configuration_and_isr_read_through_either_window() {
    let (nic, _fake) = Nic::new();
    let (bus, _function) = bus(nic);
    let bar = u64::from(BAR_GPA);
    assert_eq!(read::<8>(&bus, bar + 0x2000), 0x0100_0000_0002);
    assert_eq!((read::<2>(&bus, bar + 0x2008), read::<2>(&bus, bar + 0x200A)), (4, 1500));
    assert_eq!(read::<1>(&bus, bar + 0x1000), 0);
    // The window in configuration space (4.1.4.9): the MTU.
    let mut at = read::<1>(&bus, CONFIG_GPA + 0x34);
    while read::<1>(&bus, CONFIG_GPA + at + 3) != 5 {
        at = read::<1>(&bus, CONFIG_GPA + at + 1);
    }
    write::<4>(&bus, CONFIG_GPA + at + 8, 0x200A);
    write::<4>(&bus, CONFIG_GPA + at + 12, 2);
    assert_eq!(read::<2>(&bus, CONFIG_GPA + at + 16), 1500);
}

#[test]
fn interrupt_without_msix_shows_in_the_isr_status() {
    let (mut nic, _fake) = Nic::new();
    // MSI-X off.
    let at = (0..256).step_by(4).find(|&at| {
        let mut id = [0; 4];
        nic.function.config_read(at, &mut id);
        at >= 0x40 && id[0] == 0x11
    });
    nic.function.config_write(at.expect("there is MSI-X") + 2, &[0, 0]);
    let mut transmit = nic.bind(1, 1);
    nic.guest.write(buffer_gpa(1, 0), &with_header(&[1; 60]));
    transmit.add(&[Piece::out(buffer_gpa(1, 0), 72)]);
    nic.work();
    let mut isr = [0];
    nic.function.bar_read(0x1000, &mut isr);
    assert_eq!(isr, [1]);
    nic.function.bar_read(0x1000, &mut isr);
    assert_eq!(isr, [0], "reading clears it");
    assert_eq!(nic.interrupts[1].count(), 0);
}

#[test]
fn new_with_wrong_window_or_vectors_returns_error() {
    let make = |bar_gpa, vectors| {
        let nic = Nic::stopped(Fake::default());
        let config = *nic.function.device().config();
        let net = Net::new(config, nic.guest.tables.clone(), nic.guest.tables.flows(), Fake::default());
        let interrupts =
            nic.interrupts.iter().take(vectors).map(|counter| Arc::clone(counter) as Arc<dyn Interrupt>);
        let place = PciPlace { device_number: 1, bar_gpa };
        VirtioPci::new(net.expect("possible"), place, interrupts.collect(), nic.routes).err()
    };
    assert_eq!(make(BAR_GPA, 10), None);
    assert_eq!(make(BAR_GPA, 9), Some(PciError::Vectors { wanted: 10, given: 9 }));
    assert_eq!(make(0xC010_1000, 10), Some(PciError::Window { bar_gpa: 0xC010_1000 }));
    assert_eq!(make(0, 10), Some(PciError::Window { bar_gpa: 0 }));
}

proptest::proptest! {
    /// Any accesses to any register: no panic, and the device can be started afterwards.
    #[test]
    fn random_accesses_never_panic(
        accesses in proptest::collection::vec(
            (proptest::prelude::any::<bool>(), proptest::prop_oneof![0u64..0x40, 0x1000u64..0x1010, 0x2000u64..0x2010,
                0x3000u64..0x3810, 0u64..0x4_0000, 0x8000_0000u64..0x8000_0100], 0usize..4, proptest::prelude::any::<u64>()), 0..200),
    ) {
        let (mut nic, _fake) = Nic::new();
        for (is_write, at, len, value) in accesses {
            let len = [1, 2, 4, 8][len];
            let mut bytes = value.to_le_bytes();
            // Above the window: configuration space.
            match (is_write, at.checked_sub(0x8000_0000)) {
                (true, None) => { nic.function.bar_write(at, &bytes[..len]); }
                (false, None) => nic.function.bar_read(at, &mut bytes[..len]),
                (true, Some(at)) => nic.function.config_write(at as usize, &bytes[..len]),
                (false, Some(at)) => nic.function.config_read(at as usize, &mut bytes[..len]),
            }
            nic.work();
        }
        nic.set::<1>(register::DEVICE_STATUS, 0);
        proptest::prop_assert_eq!(firmware::start(&mut nic.function, !0), Ok(nic.features));
    }
}
