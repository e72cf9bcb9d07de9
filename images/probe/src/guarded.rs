//! A guardian and its clients on one NIC: environment 0 guards, the others want ports and serve one page of text each. What
//! they are told is in the log.

use crate::{BROKEN, Case, HELD};
use abi::call::{Call, map};
use alloc::string::String;
use core::fmt::Write;
use core::net::{IpAddr, Ipv6Addr};
use exos_event_loop::{Io, Service};
use exos_guardian::client::{Error, Guardian};
use exos_guardian::neighbours::Neighbour;
use exos_guardian::ports::PORTS_MAX;
use exos_guardian::request::{Port, Refusal, Request};
use exos_guardian::tables::{Reader, Snapshot};
use exos_net::{ConnId, End};
use exos_runtime::{clock, kernel, message, pages, turn};

type Arguments<'a> = &'a mut dyn Iterator<Item = &'static str>;

pub(crate) const CASES: &[Case] = &[("guarded", guarded)];

const CONNECTIONS: u32 = 64;
/// How long somebody waits before it asks again.
const AGAIN_MS: u64 = 20;

/// Says who answers, in one page.
struct Who(&'static str);

impl Service for Who {
    type Data = &'static [u8];

    fn opened(&mut self, _: ConnId) {}

    fn input(&mut self, io: &mut Io<'_, Self::Data>, connection: ConnId, bytes: &[u8]) -> usize {
        if !bytes.windows(4).any(|window| window == b"\r\n\r\n") {
            return 0;
        }
        // Whoever has gone meanwhile needs no answer.
        let _ = io.send(connection, self.0.as_bytes());
        bytes.len()
    }

    fn peer_closed(&mut self, io: &mut Io<'_, Self::Data>, connection: ConnId) {
        let _ = io.close(connection);
    }

    fn ended(&mut self, _: ConnId, _: End) {}
}

/// `guarded WHAT WHAT ...`: environment 0 guards; the first of the others does the first, and so on. `serve:PORT` asks once and
/// serves; `insist:PORT` waits until somebody has it, asks until it gets it, and serves; `ask:PORT` asks, says what came, gives it
/// back and ends; `write` writes to the tables; `neighbour:ADDRESS` asks where that is, says it, and ends; `watch` says what the
/// tables show whenever they change; `greedy` takes all it gets, says how much that was, and keeps it; `modest:PORT` waits until the
/// greedy one has all, asks where fe80::77 is, and serves.
fn guarded(arguments: Arguments<'_>) -> Option<u32> {
    let number = pages::environment().environment;
    if number == 0 {
        return Some(match exos_guardian::server::serve() {
            Ok(()) => HELD,
            Err(error) => {
                log::error!("probe: {error}");
                BROKEN
            }
        });
    }
    let what = arguments.nth(number as usize - 1)?;
    let (what, of) = what.split_once(':').unwrap_or((what, "0"));
    let done = match of.parse() {
        Ok(port) => client(what, port),
        Err(_) => where_is(of.parse().ok()?),
    };
    match done {
        Ok(status) => status,
        Err(error) => {
            log::info!("probe: {what} {of}: {error}");
            Some(BROKEN)
        }
    }
}

fn client(what: &str, port: u16) -> Result<Option<u32>, Error> {
    let guardian = Guardian::find()?;
    let tables = guardian.tables()?;
    match what {
        "serve" => guardian.reserve(Port::tcp(port))?,
        "insist" => {
            while !tables
                .snapshot()
                .is_ok_and(|all| all.ports.iter().any(|(taken, _)| *taken == Port::tcp(port)))
            {
                kernel::sleep(soon(), [0; 4]);
            }
            let mut refused = 0;
            loop {
                match guardian.reserve(Port::tcp(port)) {
                    Ok(()) => break,
                    Err(Error::Refused(Refusal::Taken)) if !turn::stop_wanted() => {
                        if refused == 0 {
                            log::info!("probe: port {port} is taken");
                        }
                        refused += 1;
                        kernel::sleep(soon(), [0; 4]);
                    }
                    Err(error) => return Err(error),
                }
            }
            log::info!("probe: got port {port}, refused before: {}", refused > 0);
        }
        "ask" => {
            for port in [Port::tcp(port), Port::udp(port), Port::tcp(0), Port { protocol: 1, number: 7 }] {
                let got = guardian.reserve(port);
                log::info!("probe: {} {}: {got:?}", port.protocol, port.number);
                if got.is_ok() {
                    log::info!("probe: and back: {:?}", guardian.release(port));
                    log::info!("probe: twice: {:?}", guardian.release(port));
                }
            }
            say(tables);
            return Ok(Some(HELD));
        }
        "watch" => {
            let mut shown = None;
            while !turn::stop_wanted() {
                if shown != Some(tables.sequence()) {
                    shown = Some(tables.sequence());
                    say(tables);
                }
                kernel::sleep(soon(), [0; 4]);
            }
            return Ok(Some(HELD));
        }
        "greedy" => {
            greedy(guardian)?;
            return Ok(Some(HELD));
        }
        "modest" => {
            let greedy = |all: Snapshot| all.ports.iter().filter(|(_, owner)| *owner == 1).count();
            while tables.snapshot().map_or(0, greedy) < PORTS_MAX / 2 && !turn::stop_wanted() {
                kernel::sleep(soon(), [0; 4]);
            }
            log::info!("probe: taken: {:?}", guardian.reserve(Port::tcp(FIRST_TAKEN)));
            guardian.reserve(Port::tcp(port))?;
            where_is(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0x77).into())?;
        }
        "write" => {
            let guardian = pages::environment().capabilities.neighbours[0];
            let memory = message::call(guardian, Request::Tables.words()).map_err(Error::Kernel)?[1];
            let mapped = kernel::raw(Call::MemoryMap, [0, memory, 1 << 40 | map::WRITE, 0, 1]);
            log::info!("probe: the tables mapped to be written: {mapped:?}");
            let first: *const Reader<'_> = &tables;
            // SAFETY: a reader holds a reference to the page; writing there faults, or the test fails.
            unsafe { (*first.cast::<*mut u64>()).write_volatile(0) };
            return Ok(Some(BROKEN));
        }
        _ => return Ok(None),
    }
    say(tables);
    // One digit, and the line that it is in has fourteen bytes.
    let mut page = String::new();
    let head = "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 14\r\n\r\n";
    // A string takes everything.
    let _ = writeln!(page, "{head}environment {}", pages::environment().environment % 10);
    let served = exos_event_loop::serve(&mut Who(page.leak()), port, CONNECTIONS);
    if let Err(error) = served {
        log::error!("probe: {error}");
        return Ok(Some(BROKEN));
    }
    Ok(Some(HELD))
}

fn where_is(ip: IpAddr) -> Result<Option<u32>, Error> {
    match Guardian::find()?.resolve(ip) {
        Ok(mac) => log::info!("probe: {ip} is at {mac}"),
        Err(error) => log::info!("probe: {ip}: {error}"),
    }
    Ok(Some(HELD))
}

/// The first of the ports that the greedy one takes.
const FIRST_TAKEN: u16 = 1000;

/// Takes ports and asks questions until both are refused; keeps the ports and asks again and again.
fn greedy(guardian: Guardian) -> Result<(), Error> {
    let mut port = FIRST_TAKEN;
    let refused = loop {
        match guardian.reserve(Port::udp(port)).and_then(|()| guardian.reserve(Port::tcp(port))) {
            Ok(()) => port += 1,
            Err(refused) => break refused,
        }
    };
    log::info!("probe: {} ports, then: {refused:?}", 2 * (port - FIRST_TAKEN));
    let mut said = false;
    while !turn::stop_wanted() {
        // Nobody is there.
        let asked = (1..=1000u16)
            .map(|last| guardian.neighbour(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 1, 0, last).into()));
        let mut open = 0;
        for answer in asked {
            match answer {
                Ok(_) => open += 1,
                // Asked before, and not answered.
                Err(Error::Refused(Refusal::Unreachable)) => {}
                Err(refused) => {
                    if !said {
                        log::info!("probe: {open} questions, then: {refused:?}");
                    }
                    said = true;
                    break;
                }
            }
        }
        kernel::sleep(soon(), [0; 4]);
    }
    Ok(())
}

/// When somebody looks again.
fn soon() -> u64 {
    clock::tsc() + clock::Scale::new().ticks(AGAIN_MS * 1_000_000)
}

/// What the tables say.
fn say(tables: Reader<'_>) {
    for _ in 0..100 {
        let Ok(snapshot) = tables.snapshot() else {
            // The guardian writes: let it.
            let _ = kernel::yield_to(abi::capability::Handle::NONE);
            continue;
        };
        let mut ports = String::new();
        for (port, owner) in &snapshot.ports {
            let _ = write!(ports, " {}/{}={owner}", port.protocol, port.number);
        }
        log::info!("probe: ports:{ports}");
        for neighbour in &snapshot.neighbours {
            let Neighbour { ip, mac, reachability, .. } = neighbour;
            log::info!("probe: neighbour {ip} at {mac}, {reachability:?}");
        }
        for route in &snapshot.routes {
            log::info!("probe: route {}/{} {:?}", route.prefix, route.prefix_len, route.gateway);
        }
        log::info!("probe: {} {:?}, {:?}", snapshot.ipv6, snapshot.ipv6_state, snapshot.counters);
        return;
    }
}
