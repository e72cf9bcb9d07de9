//! A whole comparison of stacks in small, in a private network. A program of its own instead of libtest's: it is started again
//! in the roles that the `exovm` binary plays.

use exovm_bench::run_tcp;
use exovm_bench::tcp::{Report, SCHEMA, Stack, TcpOptions, Test};
use std::process::ExitCode;

fn main() -> ExitCode {
    if let Some(code) = exovm_bench::run_role() {
        return code;
    }
    if std::env::args().any(|argument| argument == "--list") {
        return ExitCode::SUCCESS;
    }
    // As libtest does: words without dashes choose tests by parts of their names.
    let words: Vec<String> = std::env::args().skip(1).filter(|word| !word.starts_with('-')).collect();
    const NAME: &str = "every_stack_moves_bytes_in_every_test";
    if words.is_empty() || words.iter().any(|word| NAME.contains(word.as_str())) {
        every_stack_moves_bytes_in_every_test();
        println!("test {NAME} ... ok");
    }
    ExitCode::SUCCESS
}

fn every_stack_moves_bytes_in_every_test() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let json_path = folder.path().join("report.json");
    let options = TcpOptions {
        json_path: Some(json_path.clone()),
        milliseconds_per_test: 50,
        rounds: 1,
        ..TcpOptions::quick()
    };
    let own_path = std::env::current_exe().expect("the path of this program");
    let report = run_tcp(options, &own_path).unwrap_or_else(|error| panic!("{error}"));

    assert_eq!(report.tests.iter().map(|report| report.test).collect::<Vec<_>>(), Test::ALL);
    for test in &report.tests {
        assert_eq!(test.series.iter().map(|series| series.stack).collect::<Vec<_>>(), Stack::ALL);
        for series in &test.series {
            let context = format!("{}, {}: {series:?}", test.test, series.stack);
            let [round] = &series.rounds[..] else { panic!("{context}") };
            if test.test.is_bulk() {
                assert!(round.bytes >= 32 << 20 && round.requests == 0, "{context}");
            } else {
                let bytes = if test.test == Test::Exchange1 { 2 } else { 200 };
                assert!(round.requests > 0 && round.bytes == bytes * round.requests, "{context}");
                assert!(series.figure.p50_us <= series.figure.p99_us, "{context}");
            }
            assert!(round.client_cpu_ns > 0 && round.stack_cpu_ns.is_some_and(|ns| ns > 0), "{context}");
            assert!(series.figure.rate > 0.0, "{context}");
        }
    }
    assert!(report.bars.iter().all(|bar| bar.measured_ratio.is_some()), "{:?}", report.bars);
    let json = std::fs::read_to_string(json_path).expect("the JSON file");
    let read: Report = serde_json::from_str(&json).expect("JSON");
    assert_eq!((read.schema.as_str(), &read.tests), (SCHEMA, &report.tests));
    println!("{report}");
}
