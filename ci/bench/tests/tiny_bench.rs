//! A whole benchmark in small, in a private network, with real wrk and nginx and the bare responder. A program of its own
//! instead of libtest's: it is started again in the roles that the `exovm` binary plays.

use exovm_bench::{BenchError, Contender, HttpOptions, Mode, run_http};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

fn main() -> ExitCode {
    if let Some(code) = exovm_bench::run_role() {
        return code;
    }
    if std::env::args().any(|argument| argument == "--list") {
        return ExitCode::SUCCESS;
    }
    // As the guest of `guest_that_ends_at_once_is_a_clear_error`.
    if std::env::args().nth(1).as_deref() == Some("run") {
        eprintln!("a guest's last words");
        return ExitCode::from(3);
    }
    // Told to run a long benchmark, to be interrupted by `interrupted_bench_leaves_nothing_behind`.
    if std::env::var_os(INTERRUPT_ME).is_some() {
        let error =
            run_http(HttpOptions { rounds: 1000, ..tiny(vec![Contender::Nginx]) }, &own_path()).unwrap_err();
        assert!(matches!(error, BenchError::Interrupted), "{error}");
        return ExitCode::SUCCESS;
    }
    // As libtest does: words without dashes choose tests by parts of their names.
    let words: Vec<String> = std::env::args().skip(1).filter(|word| !word.starts_with('-')).collect();
    for (name, test) in TESTS {
        if words.is_empty() || words.iter().any(|word| name.contains(word.as_str())) {
            test();
            println!("test {name} ... ok");
        }
    }
    ExitCode::SUCCESS
}

const TESTS: [(&str, fn()); 5] = [
    ("tiny_bench_measures_bare_and_peers", tiny_bench_measures_bare_and_peers),
    ("tiny_bench_measures_a_relay", tiny_bench_measures_a_relay),
    ("guest_that_ends_at_once_is_a_clear_error", guest_that_ends_at_once_is_a_clear_error),
    ("missing_tools_are_named", missing_tools_are_named),
    ("interrupted_bench_leaves_nothing_behind", interrupted_bench_leaves_nothing_behind),
];

const INTERRUPT_ME: &str = "TINY_BENCH_INTERRUPT_ME";

fn own_path() -> PathBuf {
    std::env::current_exe().expect("the path of this program")
}

fn tiny(contenders: Vec<Contender>) -> HttpOptions {
    HttpOptions {
        sizes_bytes: vec![64, 65_536],
        connections: vec![1],
        modes: vec![Mode::KeepAlive, Mode::Close],
        rounds: 1,
        contenders,
        ..HttpOptions::default()
    }
}

fn tiny_bench_measures_bare_and_peers() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let json_path = folder.path().join("report.json");
    let contenders = vec![Contender::Bare, Contender::Nginx, Contender::Lighttpd];
    let options = HttpOptions { json_path: Some(json_path.clone()), ..tiny(contenders) };
    let report = run_http(options, &own_path()).unwrap_or_else(|error| panic!("{error}"));

    assert_eq!(report.points.len(), 3, "64 KiB are not worth a connection each");
    for point in &report.points {
        for (series, summary) in point.series.iter().zip(&point.summaries) {
            let context = format!("{}, {}: {summary:?}", point.point, series.contender);
            assert_eq!(summary.errors.total(), 0, "{context}");
            assert!(summary.requests_per_s > 100.0 && summary.process_us_per_request > 0.0, "{context}");
            assert!(summary.server_core_us_per_request >= 0.5 * summary.process_us_per_request, "{context}");
            assert!(summary.busy_percent[report.options.server_cpu] > 5.0, "{context}");
        }
        assert!(point.ratio(Contender::Bare).is_some());
    }
    let json = std::fs::read_to_string(json_path).expect("the JSON file");
    assert!(json.contains("\"schema\": \"exovm-bench-http/1\"") && json.contains("nginx/"), "{json}");
    let text = report.to_string();
    assert!(text.contains("nginx (sendfile off)") && text.contains("nginx (sendfile on)"), "{text}");
    println!("{text}");
}

fn tiny_bench_measures_a_relay() {
    let report =
        run_http(tiny(vec![Contender::Haproxy]), &own_path()).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(report.points.len(), 3);
    for point in &report.points {
        let summary = point.summary(Contender::Haproxy).expect("it took part");
        let context = format!("{}: {summary:?}", point.point);
        assert_eq!(summary.errors.total(), 0, "{context}");
        // nginx answers on the other CPU, so a relay that was left out would cost its process nothing.
        assert!(summary.requests_per_s > 10.0 && summary.process_us_per_request > 1.0, "{context}");
    }
    assert!(report.machine.versions.contains_key("haproxy") && report.machine.versions.contains_key("nginx"));
}

fn guest_that_ends_at_once_is_a_clear_error() {
    let error = run_http(tiny(vec![Contender::Cheetah]), &own_path()).expect_err("there is no guest");
    let text = error.to_string();
    assert!(text.contains("cheetah does not serve: it ended at once (exit status: 3)"), "{text}");
    assert!(text.ends_with("a guest's last words"), "{text}");

    let error =
        run_http(tiny(vec![Contender::Nginx]), Path::new("/bin/false")).expect_err("false measures nothing");
    assert!(matches!(error, BenchError::Ended(_)), "{error}");
}

fn missing_tools_are_named() {
    let output = Command::new(own_path())
        .env_clear()
        .env(INTERRUPT_ME, "1")
        .env("PATH", "/nowhere")
        .stderr(Stdio::piped())
        .output()
        .expect("this program");
    // Servers are found in /usr/sbin without PATH, wrk is not.
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(text.contains("wrk is not installed; install with: apt-get install wrk"), "{text}");
}

fn interrupted_bench_leaves_nothing_behind() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut bench = Command::new(own_path())
        .env(INTERRUPT_ME, "1")
        .env("TMPDIR", folder.path())
        .spawn()
        .expect("this program");
    let children = format!("/proc/{0}/task/{0}/children", bench.id());
    let deadline = Instant::now() + Duration::from_secs(20);
    let measuring = loop {
        assert!(Instant::now() < deadline, "no measuring process came");
        std::thread::sleep(Duration::from_millis(20));
        let text = std::fs::read_to_string(&children).unwrap_or_default();
        if let Some(pid) = text.split_whitespace().next() {
            break pid.to_owned();
        }
    };
    // Into the middle of it: nginx serves, wrk runs.
    let grandchildren = format!("/proc/{measuring}/task/{measuring}/children");
    let started = loop {
        assert!(Instant::now() < deadline, "no server and client came");
        std::thread::sleep(Duration::from_millis(20));
        let text = std::fs::read_to_string(&grandchildren).unwrap_or_default();
        if text.split_whitespace().count() >= 3 {
            break text;
        }
    };
    let pid = rustix::process::Pid::from_child(&bench);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).expect("a signal to our child");
    assert!(bench.wait().expect("the bench's end").success());
    for pid in started.split_whitespace().chain([measuring.as_str()]) {
        assert!(!Path::new(&format!("/proc/{pid}")).exists(), "process {pid} is still there");
    }
    let left: Vec<_> =
        std::fs::read_dir(folder.path()).expect("the folder").flatten().map(|e| e.path()).collect();
    assert!(left.is_empty(), "{left:?}");
}
