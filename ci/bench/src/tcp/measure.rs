//! The measuring side, in the private network: starts the stacks' processes and lets them take turns.

use super::client;
use super::ends::{End, PORT};
use super::options::{Stack, TcpOptions, Test};
use super::report::{Report, Round, Series};
use super::table;
use crate::cpu::process_time;
use crate::machine::Machine;
use crate::network::{Network, PEERS_ADDRESS};
use crate::process::{Background, pin, wait_until_ready};
use crate::{BenchError, role};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::time::Duration;

/// How long each connection is used before what is measured begins: the windows open.
const WARM_UP: Duration = Duration::from_millis(20);

/// Measures everything that `options` ask for. `folder` is scratch; `exovm` is this program.
pub(crate) fn measure(options: &TcpOptions, exovm: &Path, folder: &Path) -> Result<Report, BenchError> {
    let taps: Vec<_> = options.stacks.iter().filter_map(|stack| stack.tap_link()).collect();
    let network = Network::build(&taps)?;
    let mut running = Vec::new();
    for &stack in &options.stacks {
        let mut stack = Running::start(stack, options, &network, exovm, folder)?;
        wait_until_ready(&mut stack.process, &stack.name, stack.address)?;
        stack.process.pause()?;
        running.push(stack);
    }
    let mut measured = Vec::new();
    for (number, &test) in options.tests.iter().enumerate() {
        let mut rounds: Vec<Vec<Round>> = running.iter().map(|_| Vec::new()).collect();
        for _ in 0..options.rounds {
            for (stack, rounds) in running.iter_mut().zip(&mut rounds) {
                rounds.push(stack.measure_once(test, options)?);
            }
        }
        let series = options.stacks.iter().zip(rounds).map(|(&stack, rounds)| Series::new(stack, rounds));
        let series: Vec<_> = series.collect();
        eprintln!("bench tcp: [{}/{}] {}", number + 1, options.tests.len(), table::summary(test, &series));
        measured.push((test, series));
    }
    Ok(Report::new(options.clone(), Machine::describe(&[]), measured))
}

/// A stack's process.
struct Running {
    name: String,
    address: SocketAddr,
    process: Background,
}

impl Running {
    fn start(
        stack: Stack,
        options: &TcpOptions,
        network: &Network,
        exovm: &Path,
        folder: &Path,
    ) -> Result<Self, BenchError> {
        let link = stack.tap_link();
        let address = match (stack, link) {
            (Stack::Loopback, _) => Ipv4Addr::LOCALHOST,
            (_, Some(link)) => link.server,
            (_, None) => PEERS_ADDRESS,
        };
        let tap = link.map(|link| link.name.to_owned());
        let end = End { stack, address, tap, buffer_bytes: options.buffer_bytes };
        let mut command = role::end_command(exovm, &end)?;
        pin(&mut command, &[options.stack_cpu]);
        if stack == Stack::Veth {
            network.peers.start_here(&mut command);
        }
        let log = folder.join(format!("{address}.log"));
        let process = Background::start(&mut command, &log)?;
        Ok(Running { name: stack.to_string(), address: SocketAddr::from((address, PORT)), process })
    }

    /// Only the stack that is measured runs; the others are stopped, so their polling and timers cost nothing.
    fn measure_once(&mut self, test: Test, options: &TcpOptions) -> Result<Round, BenchError> {
        self.process.resume()?;
        let time = Duration::from_millis(options.milliseconds_per_test.into());
        let pid = self.process.pid();
        let measured = client::measure(self.address, test, WARM_UP, options.client_cpu).and_then(|_| {
            let before = process_time(pid).map_err(std::io::Error::other)?;
            let round = client::measure(self.address, test, time, options.client_cpu)?;
            let stack = process_time(pid).map_err(std::io::Error::other)?.saturating_sub(before);
            Ok(Round { stack_cpu_ns: Some(stack.as_nanos() as u64), ..round })
        });
        let round = measured.map_err(|error| BenchError::ServerDown {
            server: self.name.clone(),
            reason: format!("{test}: {error}"),
            log: self.process.log_tail(),
        })?;
        self.process.pause()?;
        Ok(round)
    }
}
