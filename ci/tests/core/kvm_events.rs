//! KVM's tracepoints in a recording: they are there exactly where the host offers them to this process, as many as KVM and the VMM count
//! by themselves, and on the same time line.

use abi::trace::{RECORD_ENTER, RECORD_EVENT, RECORD_LEAVE};
use exovm::placement::IoMode;
use exovm::trace::record::Record;
use exovm::trace::stream::{Header, Piece, Source};
use exovm::trace::{HostEvents, Records};
use exovm_ci::{Guest, Site, tracefs};
use std::collections::BTreeMap;
use std::time::Duration;

/// Clocks of the host's kernel and of the VMM agree to that, even if the thread that reads both is interrupted.
const CLOSE_US: u64 = 20;

/// What was recorded.
struct Recorded {
    header: Header,
    records: BTreeMap<u16, Vec<Record>>,
    /// What KVM counted of the vCPU meanwhile, by its own names.
    counted: BTreeMap<String, u64>,
    /// How often KVM_RUN returned, as the VMM counts.
    returned: u64,
    tsc_khz: u64,
}

impl Recorded {
    /// Of some requests to a guest that sleeps in between.
    fn of_requests(guest: &Guest) -> Self {
        let machine = guest.machine();
        let counted = || machine.kvm_statistics(0).expect("KVM has statistics");
        let returned = || machine.statistics().value("vcpu", "exits").expect("counted");
        assert_eq!(guest.get("/a").status(), 200);
        let (_, other) = machine.record(Records::All);
        let (header, listener) = machine.record_with(Records::All, HostEvents::Wanted);
        let mut pieces = listener.next(Duration::from_millis(1));
        let before = (counted(), returned());
        for _ in 0..30 {
            assert_eq!(guest.get("/a").status(), 200);
            // Long enough for it to sleep; then it is taken out of that.
            std::thread::sleep(Duration::from_millis(5));
            machine.ask(0, |_| ()).expect("it runs");
            pieces.extend(listener.next(Duration::from_millis(1)));
        }
        let after = (counted(), returned());
        pieces.extend(listener.last());
        let of_kvm = |source: u16| matches!(header.sources[usize::from(source)], Source::Kvm { .. });
        let is_kvms = |piece: &Piece| matches!(piece, Piece::Records { source, .. } if of_kvm(*source));
        assert!(!other.last().iter().any(is_kvms), "it did not ask for them");
        let mut records: BTreeMap<u16, Vec<Record>> = BTreeMap::new();
        for piece in pieces {
            if let Piece::Records { source, lost, records: more } = piece {
                assert_eq!(lost, 0, "of {:?}", header.sources[usize::from(source)]);
                records.entry(source).or_default().extend(more);
            }
        }
        let difference =
            |((name, after), (_, before)): ((String, u64), (String, u64))| (name, after - before);
        let counted = after.0.into_iter().zip(before.0).filter(|((_, after), (_, before))| after >= before);
        let counted = counted.map(difference).collect();
        Self { header, records, counted, returned: after.1 - before.1, tsc_khz: machine.tsc_khz() }
    }

    fn of(&self, is_it: impl Fn(&Source) -> bool) -> &[Record] {
        let source = self.header.sources.iter().position(is_it).expect("a source") as u16;
        self.records.get(&source).map_or(&[], Vec::as_slice)
    }

    /// What KVM says of the vCPU.
    fn kvm(&self) -> &[Record] {
        self.of(|source| matches!(source, Source::Kvm { thread } if thread == "vcpu"))
    }

    fn name(&self, record: &Record) -> &str {
        &self.header.kvm.names[record.parts().0 as usize]
    }

    /// How often something happened, by its name.
    fn times(&self, name: &str) -> u64 {
        let named = self.kvm().iter().filter(|record| record.parts().1 == RECORD_EVENT);
        named
            .filter(|record| self.name(record).starts_with(name))
            .map(|record| u64::from(record.parts().2))
            .sum()
    }

    /// The stretches that the vCPU's thread was in KVM_RUN, as the VMM stamped them.
    fn guest(&self) -> Vec<(u64, u64)> {
        let buckets = self.of(|source| matches!(source, Source::Thread { name } if name == "vcpu"));
        let guest = self.header.buckets.iter().position(|name| name == "guest").expect("a bucket") as u32;
        let is_bucket = |record: &&Record| matches!(record.parts(), (site, RECORD_ENTER, _) if (site as usize) < self.header.buckets.len());
        let buckets: Vec<_> = buckets.iter().filter(is_bucket).collect();
        let pairs = buckets.windows(2).filter(|pair| pair[0].parts().0 == guest);
        pairs.map(|pair| (pair[0].tsc, pair[1].tsc)).collect()
    }
}

/// Counts are read a moment apart, and the guest does not stop for it.
fn assert_close(what: &str, recorded: u64, counted: u64) {
    let slack = 5 + counted / 10;
    assert!(recorded.abs_diff(counted) <= slack, "{what}: {recorded} recorded, {counted} counted");
}

#[test]
fn core_kvm_events_are_as_many_as_are_counted_and_lie_within_the_guests_time() {
    tracefs::mounted(|| {
        for io in [IoMode::Turn, IoMode::Thread] {
            let site = Site::new().file("a", "a");
            let guest = Guest::image("cheetah").site(&site).user_net().io(io).start();
            let recorded = Recorded::of_requests(&guest);
            let missing = &recorded.header.kvm.missing;
            assert_eq!(missing.is_none(), tracefs::is_ours(), "{missing:?}");
            match missing {
                Some(missing) => {
                    assert!(!missing.why.is_empty() && !missing.todo.is_empty(), "{missing:?}");
                    assert!(recorded.kvm().is_empty());
                }
                None => {
                    assert_counts_agree(&recorded, io);
                    assert_times_agree(&recorded);
                }
            }
            // Nobody listens any more.
            let again = guest.machine().record(Records::All).0.kvm;
            assert_eq!((again.names.len(), again.missing), (0, None));
            guest.stop();
        }
    });
}

fn assert_counts_agree(recorded: &Recorded, io: IoMode) {
    let mut by_name: BTreeMap<&str, u64> = BTreeMap::new();
    for record in recorded.kvm().iter().filter(|record| record.parts().1 != RECORD_LEAVE) {
        *by_name.entry(recorded.name(record)).or_default() += 1;
    }
    println!("{io:?}: {by_name:?}, KVM: {} exits", recorded.counted["exits"]);
    // In turns the guest comes out to the VMM, else it halts in KVM and a signal ends that.
    let name = if io == IoMode::Turn { "to the VMM: MMIO" } else { "to the VMM: a signal" };
    assert!(recorded.times(name) >= 20, "{name}: {}", recorded.times(name));
    assert!(io == IoMode::Turn || recorded.times("halted") >= 10, "{}", recorded.times("halted"));
    assert_close("returns of KVM_RUN", recorded.times("to the VMM"), recorded.returned);
    let emulated = recorded.times("emulated instructions");
    assert_close("emulated instructions", emulated, recorded.counted["insn_emulation"]);
    let exits = recorded.kvm().iter().filter(|record| record.parts().1 == RECORD_ENTER).count() as u64;
    let entries = recorded.kvm().iter().filter(|record| record.parts().1 == RECORD_LEAVE).count() as u64;
    // Software-nested KVM has the tracepoint, and leaves guests without it.
    if exits > 0 {
        assert_close("exits", exits, recorded.counted["exits"]);
        assert!(exits.abs_diff(entries) <= 1, "{exits} exits, of which {entries} end");
    }
}

fn median(cycles: &mut [u64]) -> u64 {
    cycles.sort_unstable();
    cycles[cycles.len() / 2]
}

fn assert_times_agree(recorded: &Recorded) {
    let guests = recorded.guest();
    assert!(guests.len() > 20, "{}", guests.len());
    let close = CLOSE_US * recorded.tsc_khz / 1000;
    let (first, last) = (guests[0].0, guests[guests.len() - 1].1);
    let kvms: Vec<_> = recorded.kvm().iter().filter(|record| (first..last).contains(&record.tsc)).collect();
    assert!(kvms.len() > 20 && kvms.is_sorted_by_key(|record| record.tsc), "{}", kvms.len());
    let mut delays = Vec::new();
    for record in kvms {
        let name = recorded.name(record);
        let from = if record.parts().1 == RECORD_EVENT { record.argument } else { record.tsc };
        // The next time may begin that close behind the end of its own.
        let behind = guests.partition_point(|guest| guest.0 <= record.tsc + close);
        let around = &guests[behind.saturating_sub(2)..behind];
        let within = around.iter().find(|(begin, end)| from + close >= *begin && record.tsc <= end + close);
        // A turn's device work interrupts the guest from outside of it.
        let is_anytime = ["message-signalled interrupt", "interrupt accepted"].contains(&name);
        let to = record.tsc;
        assert!(
            is_anytime || within.is_some(),
            "{name} from {from} to {to} is not within the guest's times {around:?}"
        );
        if let (true, Some((_, end))) = (name.starts_with("to the VMM"), within) {
            delays.push(end.saturating_sub(to));
        }
    }
    // KVM_RUN returns right behind that, unless the thread loses its CPU in between. How long that takes depends on the host.
    let mut stays: Vec<_> = guests.iter().map(|(begin, end)| end - begin).collect();
    let (delay, stay) = (median(&mut delays), median(&mut stays));
    assert!(delays.len() >= 20 && delay < stay / 4, "{delay} behind a stay of {stay}: {delays:?}");
}

#[test]
fn core_kvm_events_without_tracefs_are_missing_for_a_reason_and_all_else_is_there() {
    tracefs::hidden(|| {
        let guest = Guest::image("cheetah").site(&Site::new().file("a", "a")).user_net().start();
        let recorded = Recorded::of_requests(&guest);
        let missing = recorded.header.kvm.missing.as_ref().expect("there is no tracefs");
        assert!(missing.todo.contains("tracefs") || missing.todo.contains("root"), "{missing:?}");
        assert!(recorded.kvm().is_empty() && recorded.guest().len() > 30);
        guest.stop();
    });
}
