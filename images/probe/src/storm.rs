//! Sleeping and being woken, many times, by devices and by another environment at once, never with a deadline: a wake-up that
//! is lost leaves the machine where it is.

use crate::child::{Child, Code, DATA_VA};
use crate::{Case, HELD};
use abi::boot::{DEVICE_BLOCK, DEVICE_NET};
use abi::call::{Call, sleep};
use abi::capability::{Handle, rights};
use abi::layout::PAGE_BYTES;
use alloc::boxed::Box;
use alloc::vec;
use alloc::vec::Vec;
use exos_block::{Arming, DiskQueue};
use exos_nic::{Interest, QueuePair};
use exos_runtime::sleep::{Watch, alone};
use exos_runtime::{clock, kernel, pages, turn};
use exos_virtqueue::guest::GuestHal;

type Arguments<'a> = &'a mut dyn Iterator<Item = &'static str>;
type Disk = DiskQueue<GuestHal, Vec<Box<[u8]>>, u32>;
type Nic = QueuePair<GuestHal, Box<[u8]>>;

pub(crate) const CASES: &[Case] = &[("storm", storm)];

/// `storm ROUNDS`: a read from the disk and a wake-up of a child in each; what comes from the network is thrown away.
fn storm(arguments: Arguments<'_>) -> Option<u32> {
    let rounds = crate::number(arguments.next())?;
    let mut storm =
        Storm { disk: open_disk(), nic: open_nic(), child: child(), random: clock::tsc() | 1, frames: 0 };
    for round in 0..rounds {
        storm.round(round)?;
    }
    let Storm { disk, child, frames, .. } = &storm;
    log::info!(
        "probe: {rounds} rounds, disk: {}, child: {}, frames: {}",
        disk.is_some(),
        child.is_some(),
        *frames > 0
    );
    Some(HELD)
}

struct Storm {
    disk: Option<Disk>,
    nic: Option<Nic>,
    child: Option<Child>,
    random: u64,
    frames: u64,
}

/// The first device of a kind of which queues are ours.
fn device(kind: u32) -> Option<usize> {
    let environment = pages::environment();
    let queues = &environment.capabilities.queues;
    (0..environment.devices.len())
        .find(|&index| environment.devices[index].kind == kind && queues[index] != Handle::NONE)
}

fn open_disk() -> Option<Disk> {
    let index = device(DEVICE_BLOCK)?;
    Disk::open(GuestHal, index as u32, &pages::environment().devices[index], 0, 64).ok()
}

fn open_nic() -> Option<Nic> {
    let index = device(DEVICE_NET)?;
    let config = exos_nic::Config::default();
    QueuePair::open(GuestHal, index as u32, &pages::environment().devices[index], 0, &config).ok()
}

/// Sleeps, over nothing; counts how often it was woken.
fn child() -> Option<Child> {
    if pages::environment().capabilities.environments == Handle::NONE {
        return None;
    }
    let code = Code::new().call(Call::Sleep, [0; 5]).rax(DATA_VA).bytes(&[0xF0, 0x48, 0xFF, 0x00]); // lock inc [rax]
    let back = -(code.0.len() as i32 + 5);
    let child = Child::new(code.bytes(&[0xE9]).bytes(&back.to_le_bytes()), rights::WRITE).ok()?;
    child.start(0).ok()?;
    Some(child)
}

impl Storm {
    fn random(&mut self) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random
    }

    fn round(&mut self, round: u64) -> Option<()> {
        let block = self.random() % 1024;
        if let Some(disk) = &mut self.disk {
            let buffer = vec![vec![0; PAGE_BYTES as usize].into_boxed_slice()];
            disk.read(block, buffer, round as u32).ok()?;
            disk.publish();
        }
        let before = self.child.as_ref().map_or(0, Child::word);
        if let Some(child) = &self.child {
            kernel::raw(Call::Wake, [child.environment.0, 0, 0, 0, 0]).ok()?;
        }
        // Sometimes what we wait for is there already.
        let until = clock::tsc() + self.random() % (1 << 18);
        while clock::tsc() < until {
            core::hint::spin_loop();
        }
        let (mut read, mut counted) = (self.disk.is_none(), self.child.is_none());
        loop {
            let watch = Watch::now();
            read |= self.disk.as_mut().is_some_and(|disk| disk.poll().is_some());
            counted |= self.child.as_ref().is_some_and(|child| child.word() != before);
            self.throw_away();
            if read && counted {
                return Some(());
            }
            let watch = match &self.child {
                Some(child) if !counted => {
                    watch.and(sleep::word(child.part.slot(), PAGE_BYTES, before as u16))
                }
                _ => watch,
            };
            if alone() && turn::wanted() {
                turn::take(0);
                continue;
            }
            if self.arm() == Arming::Sleep {
                if !alone() {
                    watch.sleep(0);
                } else if !turn::wanted() {
                    kernel::halt(0);
                }
            }
            self.disarm();
        }
    }

    fn throw_away(&mut self) {
        while let Some(nic) = &mut self.nic
            && nic.receive.poll().is_some()
        {
            self.frames += 1;
        }
    }

    fn arm(&mut self) -> Arming {
        let disk = self.disk.as_mut().map_or(Arming::Sleep, Disk::request_interrupts);
        disk.and(self.nic.as_mut().map_or(Arming::Sleep, |nic| nic.request_interrupts(Interest::Receive)))
    }

    fn disarm(&mut self) {
        if let Some(disk) = &mut self.disk {
            disk.suppress_interrupts();
        }
        if let Some(nic) = &mut self.nic {
            nic.suppress_interrupts();
        }
    }
}
