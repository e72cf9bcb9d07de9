//! The table in `docs/stat-and-top.md` lists what there is, no more and no less.

use exovm::backend::link;
use exovm::stat::{Family, Kind, LAYERS, StatSnapshot, pmu_families, prometheus};
use exovm_ci::{Guest, Site};
use exovm_netns::in_namespace;
use std::fs;
use std::net::Ipv4Addr;
use std::path::Path;

/// Behind this the table begins.
const MARK: &str = "<!-- counters -->\n";

fn line(family: &Family) -> String {
    let kind = match family.kind {
        Kind::Counter => "counter",
        Kind::Gauge => "gauge",
        Kind::Histogram => "histogram",
    };
    format!("| `{}` | {kind} | {} |", prometheus::name(family), family.help)
}

/// The table of what these machines have, KVM's own left out. What the PMU counts is there, whatever this host has.
fn table(machines: &[StatSnapshot]) -> String {
    let mut text = "\n| name | kind | what |\n| --- | --- | --- |\n".to_owned();
    for (layer, _) in LAYERS.iter().filter(|(layer, _)| *layer != "kvm") {
        let pmu = pmu_families();
        let families = machines.iter().flat_map(|machine| &machine.families).chain(&pmu);
        let mut lines = Vec::new();
        for line in families.filter(|family| family.layer == *layer).map(line) {
            if !lines.contains(&line) {
                lines.push(line);
            }
        }
        assert!(!lines.is_empty(), "the layer {layer} has nothing");
        text.push_str(&(lines.join("\n") + "\n"));
    }
    text
}

#[test]
fn table_of_the_documentation_lists_every_statistic() {
    in_namespace!(|| {
        let site = Site::new().file("a", "a");
        let on_tap = Guest::serving(&site);
        let on_user_network = Guest::image("cheetah").site(&site).user_net().start();
        let [port, _] = link::pair().unwrap();
        let dir = tempfile::tempdir().unwrap();
        let on_link = Guest::image("cheetah")
            .site(&site)
            .link(&port, Ipv4Addr::new(10, 80, 0, 2))
            .impair("loss=1%")
            .pcap(dir.path().join("frames.pcapng"))
            .start();
        let machines = [&on_tap, &on_user_network, &on_link].map(|guest| guest.machine().statistics());
        let table = table(&machines);
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/stat-and-top.md");
        let text = fs::read_to_string(&path).unwrap();
        let (front, documented) = text.split_once(MARK).expect("the mark");
        if std::env::var_os("EXOVM_WRITE_DOCS").is_some() {
            fs::write(&path, format!("{front}{MARK}{table}")).unwrap();
            return;
        }
        let missing: Vec<_> = table.lines().filter(|line| !documented.contains(line)).collect();
        let stale: Vec<_> = documented.lines().filter(|line| !table.contains(line)).collect();
        assert!(missing.is_empty() && stale.is_empty(), "missing: {missing:#?}\nstale: {stale:#?}");
        on_tap.stop();
        on_user_network.stop();
        on_link.stop();
    });
}
