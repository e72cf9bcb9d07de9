//! The host channel, used and misused: an echo, floods, ports that come and go, messages that no driver sends.

use crate::{BROKEN, Case, HELD, number};
use abi::boot::{DEVICE_CONSOLE, phase};
use abi::queue::RingLayout;
use alloc::vec;
use exos_channel::{Arming, Channel, Config, Host};
use exos_runtime::{clock, kernel, pages, turn};
use exos_virtqueue::guest::GuestHal;
use exos_virtqueue::ring::{self, Ring};
use exos_virtqueue::{Block, Contents, Hal, Place};

type Arguments<'a> = &'a mut dyn Iterator<Item = &'static str>;

pub(crate) const CASES: &[Case] = &[
    ("channel-echo", echo),
    ("channel-bye", bye),
    ("channel-flood", flood),
    ("channel-blink", blink),
    ("channel-nonsense", nonsense),
];

/// The names that cases may ask for, so that they live as long as the channel.
const CONSOLE: &[&str] = &["console"];
const CONTROL: &[&str] = &["control"];
/// The port in lists of one.
const PORT: usize = 0;

/// The machine's channel with the port that the next argument names.
fn open(arguments: Arguments<'_>) -> Option<Channel<GuestHal>> {
    let names = match arguments.next()? {
        "console" => CONSOLE,
        "control" => CONTROL,
        _ => return None,
    };
    let devices = &pages::environment().devices;
    let index = devices.iter().position(|device| device.kind == DEVICE_CONSOLE)?;
    match Channel::open(GuestHal, index as u32, &devices[index], Config::default(), names) {
        Ok(channel) => Some(channel),
        Err(error) => {
            log::error!("probe: {error}");
            None
        }
    }
}

/// Sleeps until the channel has something, or somebody wants the machine to end. No deadline: a wake-up that is lost shows.
fn sleep(channel: &mut Channel<GuestHal>) {
    if turn::wanted() {
        turn::take(0);
    } else if channel.request_interrupts() == Arming::Sleep && !turn::wanted() && !turn::stop_wanted() {
        kernel::halt(0);
    }
}

/// Whether the channel works.
fn is_sound(channel: &Channel<GuestHal>) -> bool {
    let fault = channel.fault();
    if let Some(fault) = fault {
        log::error!("probe: {fault}");
    }
    fault.is_none()
}

/// Waits until the port is open. False: it will not be.
fn wait_until_open(channel: &mut Channel<GuestHal>) -> bool {
    while !channel.is_open(PORT) && !turn::stop_wanted() {
        channel.poll();
        if channel.is_open(PORT) {
            break;
        }
        sleep(channel);
    }
    is_sound(channel)
}

/// Writes all of it, waiting for room. False: it cannot.
fn write_all(channel: &mut Channel<GuestHal>, mut bytes: &[u8]) -> bool {
    while !bytes.is_empty() && !turn::stop_wanted() {
        let count = channel.write(PORT, bytes);
        bytes = &bytes[count..];
        channel.poll();
        if !is_sound(channel) {
            return false;
        }
        if count == 0 {
            sleep(channel);
        }
    }
    bytes.is_empty()
}

/// `channel-echo PORT`: says everything back, until the machine is to end.
fn echo(arguments: Arguments<'_>) -> Option<u32> {
    let mut channel = open(arguments)?;
    let mut bytes = vec![0; 16 << 10];
    if !wait_until_open(&mut channel) {
        return Some(BROKEN);
    }
    log::info!("probe: the port is open");
    pages::stamp(phase::READY);
    let mut clients = 0;
    while !turn::stop_wanted() {
        channel.poll();
        if let Host::Attached { client, terminal } = channel.host(PORT)
            && client != clients
        {
            clients = client;
            match terminal {
                Some(size) => log::info!("probe: client {client}, {} by {}", size.columns, size.rows),
                None => log::info!("probe: client {client}"),
            }
        }
        let count = channel.read(PORT, &mut bytes);
        if count > 0 {
            if !write_all(&mut channel, &bytes[..count]) {
                break;
            }
        } else if is_sound(&channel) {
            sleep(&mut channel);
        } else {
            return Some(BROKEN);
        }
    }
    Some(if is_sound(&channel) { HELD } else { BROKEN })
}

/// `channel-bye PORT BYTES`: waits for one byte, writes so many, and ends the machine at once.
fn bye(arguments: Arguments<'_>) -> Option<u32> {
    let mut channel = open(arguments)?;
    let total = number(arguments.next())? as usize;
    if !wait_until_open(&mut channel) {
        return Some(BROKEN);
    }
    while channel.read(PORT, &mut [0]) == 0 {
        channel.poll();
        sleep(&mut channel);
    }
    let said = channel.write(PORT, &vec![b'.'; total]);
    channel.poll();
    Some(if said == total { HELD } else { BROKEN })
}

/// `channel-flood PORT BYTES`: writes so many bytes as fast as they are taken, byte `n` being `n mod 251`, and stays.
fn flood(arguments: Arguments<'_>) -> Option<u32> {
    let mut channel = open(arguments)?;
    let total = number(arguments.next())?;
    if !wait_until_open(&mut channel) {
        return Some(BROKEN);
    }
    let mut part = vec![0; 251 * 32];
    for (at, byte) in part.iter_mut().enumerate() {
        *byte = (at % 251) as u8;
    }
    let mut written = 0;
    while written < total && !turn::stop_wanted() {
        // Parts begin at multiples of 251.
        let count = part.len().min((total - written) as usize);
        if !write_all(&mut channel, &part[..count]) {
            return Some(if turn::stop_wanted() { HELD } else { BROKEN });
        }
        written += count as u64;
    }
    log::info!("probe: {written} bytes written");
    while is_sound(&channel) && !turn::stop_wanted() {
        channel.poll();
        sleep(&mut channel);
    }
    Some(if is_sound(&channel) { HELD } else { BROKEN })
}

/// `channel-blink ROUNDS`: opens the channel, writes a little, closes it and lets go of the queues, again and again; then
/// stays and echoes.
fn blink(arguments: Arguments<'_>) -> Option<u32> {
    let rounds = number(arguments.next())?;
    for round in 0..rounds {
        let mut channel = open(&mut ["console"].into_iter())?;
        if !wait_until_open(&mut channel) || turn::stop_wanted() {
            return Some(BROKEN);
        }
        channel.write(PORT, b".");
        channel.poll();
        if round % 2 == 0 {
            channel.close_port(PORT);
            channel.reopen_port(PORT);
            channel.close_port(PORT);
        }
        // Without waiting for any of it: the queues go with data in flight.
    }
    log::info!("probe: {rounds} rounds");
    echo(&mut ["console"].into_iter())
}

/// `channel-nonsense SEED ROUNDS`: messages of any content and length on the control queue, and chains of any shape on the
/// port's; the VMM must not mind. Queues that it stops are bound again.
fn nonsense(arguments: Arguments<'_>) -> Option<u32> {
    let mut random = number(arguments.next())? | 1;
    let rounds = number(arguments.next())?;
    let mut next = move || {
        // xorshift64
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        random
    };
    let devices = &pages::environment().devices;
    let index = devices.iter().position(|device| device.kind == DEVICE_CONSOLE)?;
    let (device, index) = (&devices[index], index as u32);
    let layout: RingLayout = ring::layout(device, 16).ok()?;
    let mut hal = GuestHal;
    for _ in 0..rounds {
        let mut rings = vec![];
        for queue in 0..4 {
            let mut ring = Ring::new(&hal, layout, device.features).ok()?;
            let place = Place { device: index, queue };
            if ring.bind(&mut hal, place).is_err() {
                return Some(BROKEN);
            }
            rings.push((ring, place));
        }
        let mut block = Block::new(&hal, 16 * 64, Contents::Zero).ok()?;
        for step in 0..16u16 {
            let offset = usize::from(step) * 64;
            let bytes = block.bytes_mut(offset, 64)?;
            let words = [next() as u32 % 4, (next() as u32 % 10) | (next() as u32 % 3) << 16];
            bytes[..4].copy_from_slice(&words[0].to_le_bytes());
            bytes[4..8].copy_from_slice(&words[1].to_le_bytes());
            let good = block.device_address() + offset as u64;
            for (ring, place) in &mut rings {
                let wild = next() % 32 == 0;
                let gpa = if wild { next() } else { good };
                let len_bytes = if wild { next() as u32 } else { 8 + (next() % 2) as u32 * 50 };
                let to_device = place.queue % 2 == 1;
                let flags = if wild { next() as u16 % 8 } else { u16::from(!to_device) * 2 };
                ring.set_descriptor(step, gpa, len_bytes, flags, next() as u16 % 20);
                ring.offer(step);
                let _ = ring.publish();
                hal.doorbell(place.device, place.queue);
            }
            turn::take(1);
        }
        for (ring, place) in &mut rings {
            if ring.unbind(&mut hal, *place).is_err() {
                return Some(BROKEN);
            }
        }
    }
    log::info!("probe: {rounds} rounds of nonsense at {}", clock::tsc());
    echo(&mut ["console"].into_iter())
}
