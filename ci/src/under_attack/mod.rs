//! A guest of the harness under the attacks of `exovm bench attack`: the tests look at a moment of each.

pub use exovm_bench::attack::{Attack, Outcome, Span};

use crate::Guest;
use exovm::stat::StatSnapshot;
use exovm_bench::attack::{Count, Subject, Victim};
use std::io;

/// Serves for a while, attacked or not. `small` is what the honest ask for, `large` what attackers do.
///
/// # Panics
/// If the honest connection that stays is not served at the beginning, or the host lets nobody make frames.
pub fn serve(guest: &Guest, attack: Option<Attack>, small: &str, large: &str, span: Span) -> Outcome {
    exovm_bench::attack::serve(&Attacked(guest), attack, small, large, span)
        .unwrap_or_else(|error| panic!("{attack:?}: {error}"))
}

struct Attacked<'a>(&'a Guest);

fn counts(statistics: &StatSnapshot) -> Vec<Count> {
    let families = statistics.families.iter().filter(|family| ["tcp", "ip"].contains(&family.layer.as_str()));
    let count = |family: &exovm::stat::Family| Count {
        layer: family.layer.clone(),
        name: family.name.clone(),
        count: family.sum(&[]),
    };
    families.map(count).collect()
}

impl Subject for Attacked<'_> {
    fn victim(&self) -> Victim {
        let network = self.0.network();
        Victim {
            interface: network.interface().name().to_owned(),
            host: network.host_address(),
            guest: network.guest_address(),
            guest_mac: network.guest_mac(),
        }
    }

    fn counted(&self) -> io::Result<Vec<Count>> {
        Ok(counts(&self.0.machine().statistics()))
    }

    fn counted_at_rest(&self) -> io::Result<Vec<Count>> {
        Ok(counts(&self.0.statistics()))
    }

    /// Of this process, in which the machine is.
    fn resident_kib(&self) -> io::Result<i64> {
        let text = std::fs::read_to_string("/proc/self/statm")?;
        let pages = text.split(' ').nth(1).and_then(|pages| pages.parse::<i64>().ok());
        Ok(4 * pages.ok_or(io::ErrorKind::InvalidData)?)
    }
}
