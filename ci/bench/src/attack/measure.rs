//! The measuring side, in the private network: a guest for each attack, served a while without it and a while with it.

use super::honest::{Count, Span, Subject, serve};
use super::raw::Victim;
use super::report::{AttackReport, Report};
use super::{Attack, AttackOptions};
use crate::machine::Machine;
use crate::network::{Network, PREFIX_BITS, TapLink};
use crate::process::{Background, wait_until_ready};
use crate::{BenchError, document};
use serde::Deserialize;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

const LINK: TapLink =
    TapLink { name: "attacked", client: Ipv4Addr::new(10, 96, 0, 1), server: Ipv4Addr::new(10, 96, 0, 2) };
const GUEST_MAC: [u8; 6] = [0x02, 0x78, 10, 96, 0, 2];
/// What the honest ask for, and what attackers do.
const SMALL_BYTES: u64 = 64;
const LARGE_BYTES: u64 = 1 << 20;
/// How long a guest may take to come to rest after an attack.
const REST_ATTEMPTS: u32 = 100;
const REST: Duration = Duration::from_millis(20);
/// How much longer the honest may wait for their first answer beside an attack.
const PATIENCE: Duration = Duration::from_secs(60);

/// Measures everything that `options` ask for. `folder` is scratch; `exovm` is this program.
pub(crate) fn measure(options: &AttackOptions, exovm: &Path, folder: &Path) -> Result<Report, BenchError> {
    // It stays while this process does.
    let _network = Network::build(&[LINK])?;
    document::write_all(&folder.join("docroot"), &[SMALL_BYTES, LARGE_BYTES])?;
    let mut reports = Vec::new();
    for (number, &attack) in options.attacks.iter().enumerate() {
        let report = attacked(attack, options, exovm, folder)?;
        eprintln!("bench attack: [{}/{}] {}", number + 1, options.attacks.len(), report.summary());
        reports.push(report);
    }
    Ok(Report::new(options.clone(), Machine::describe(&[]), reports))
}

/// One attack, on a guest of its own.
fn attacked(
    attack: Attack,
    options: &AttackOptions,
    exovm: &Path,
    folder: &Path,
) -> Result<AttackReport, BenchError> {
    let guest = Running::start(exovm, folder)?;
    let (small, large) = (document::path(SMALL_BYTES), document::path(LARGE_BYTES));
    let duration = Duration::from_millis(options.milliseconds.into());
    let failed = |source| BenchError::System { action: format!("serve beside {attack}"), source };
    let before = serve(&guest, None, &small, &large, duration).map_err(failed)?;
    // A flood that takes the whole line loses segments of the honest: longer, until somebody new is answered in spite of it.
    let span = Span { least: duration, answered: [1, 1], most: duration + PATIENCE };
    let during = serve(&guest, Some(attack), &small, &large, span).map_err(failed)?;
    // It has recovered.
    let after = serve(&guest, None, &small, &large, Duration::from_millis(100)).map_err(failed)?;
    Ok(AttackReport::new(attack, &before, &during, &after))
}

/// Cheetah in a process of its own.
struct Running {
    process: Background,
    exovm: PathBuf,
}

impl Running {
    fn start(exovm: &Path, folder: &Path) -> Result<Self, BenchError> {
        let mut command = Command::new(exovm);
        let mac = GUEST_MAC.map(|byte| format!("{byte:02x}")).join(":");
        command.args(["run", "cheetah", "--docroot"]).arg(folder.join("docroot"));
        command.args(["--net", &format!("tap={},ip={}/{PREFIX_BITS},mac={mac}", LINK.name, LINK.server)]);
        command.args(["--name", LINK.name]);
        let mut process = Background::start(&mut command, &folder.join("cheetah.log"))?;
        wait_until_ready(&mut process, "cheetah", SocketAddr::from((LINK.server, 80)))?;
        Ok(Self { process, exovm: exovm.to_owned() })
    }
}

/// What is read of `exovm stat --json`.
#[derive(Deserialize)]
struct Statistics {
    families: Vec<Family>,
}

#[derive(Deserialize)]
struct Family {
    layer: String,
    name: String,
    #[serde(default)]
    samples: Vec<Sample>,
}

#[derive(Deserialize)]
struct Sample {
    #[serde(default)]
    value: u64,
}

impl Subject for Running {
    fn victim(&self) -> Victim {
        let (interface, host, guest) = (LINK.name.to_owned(), LINK.client, LINK.server);
        Victim { interface, host, guest, guest_mac: GUEST_MAC }
    }

    fn counted(&self) -> io::Result<Vec<Count>> {
        let mut command = Command::new(&self.exovm);
        command.args(["stat", LINK.name, "--total", "--json", "--layer", "tcp,ip"]);
        let output = command.output()?;
        if !output.status.success() {
            return Err(io::Error::other(String::from_utf8_lossy(&output.stderr).trim().to_owned()));
        }
        let statistics: Statistics = serde_json::from_slice(&output.stdout)?;
        let counts = statistics.families.into_iter().map(|family| Count {
            layer: family.layer,
            name: family.name,
            count: family.samples.iter().map(|sample| sample.value).sum(),
        });
        Ok(counts.collect())
    }

    fn counted_at_rest(&self) -> io::Result<Vec<Count>> {
        let mut last = self.counted()?;
        for _ in 0..REST_ATTEMPTS {
            std::thread::sleep(REST);
            let now = self.counted()?;
            if now == last {
                break;
            }
            last = now;
        }
        Ok(last)
    }

    fn resident_kib(&self) -> io::Result<i64> {
        let path = format!("/proc/{}/statm", self.process.pid().as_raw_nonzero());
        let text = std::fs::read_to_string(path)?;
        let pages = text.split(' ').nth(1).and_then(|pages| pages.parse::<i64>().ok());
        Ok(4 * pages.ok_or(io::ErrorKind::InvalidData)?)
    }
}
