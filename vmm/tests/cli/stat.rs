//! `exovm stat`, and the metrics on the control socket as Prometheus asks for them.

use crate::machines::{cheetah_that_served, wait_for};
use crate::scene;
use exovm::stat::StatSnapshot;
use exovm_ci::scene::Scene;
use exovm_netns::in_namespace;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};

#[test]
fn stat_without_a_machine_or_with_nonsense_says_what_to_do() {
    let scene = scene();
    scene.assert_refused(&["stat"], &["no machine is running", "exovm run"]);
    scene.assert_refused(&["stat", "ghost"], &["no machine called \"ghost\""]);
    for (arguments, words) in [
        (&["stat", "--layer", "tpc"][..], &["tpc", "tcp"][..]),
        (&["stat", "--for", "0"], &["--for", "1ms"]),
        (&["stat", "--for", "soon"], &["--for"]),
        (&["stat", "--total", "--watch"], &["--watch"]),
        (&["stat", "--total", "--for", "2s"], &["--for"]),
    ] {
        let outcome = scene.play(arguments);
        assert_eq!(outcome.status.code(), Some(2), "{outcome:?}");
        assert!(words.iter().all(|word| outcome.stderr.contains(word)), "{outcome:?}");
    }
}

/// A request over the control socket, as bytes, and all that comes back.
fn ask(scene: &Scene, request: &[u8]) -> String {
    let mut stream = UnixStream::connect(scene.runtime_dir().join("exovm/cheetah.sock")).unwrap();
    stream.write_all(request).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

#[test]
fn stat_says_what_was_served_and_prometheus_gets_the_same() {
    in_namespace!(|| {
        let scene = scene();
        let (running, _client) = cheetah_that_served(&scene, 25);
        // The guest publishes its counts when it has nothing to do.
        wait_for("all of them to be counted", || {
            let json = scene.play(&["stat", "cheetah", "--total", "--layer", "http", "--json"]);
            let total: StatSnapshot = serde_json::from_str(&json.stdout).unwrap();
            (total.value("http", "responses_2xx") == Some(25)).then_some(())
        });

        let table = scene.play(&["stat", "--total", "--explain"]);
        assert!(table.status.success(), "{table:?}");
        for part in ["responses 2xx", "passive opens", "turns", "tap written frames", "# Handshakes", "--all"]
        {
            assert!(table.stdout.contains(part), "{part}: {}", table.stdout);
        }
        let json = scene.play(&["stat", "cheetah", "--total", "--layer", "http,tcp", "--json"]);
        let total: StatSnapshot = serde_json::from_str(&json.stdout).unwrap();
        assert_eq!(total.schema, "exovm-stat/1");
        assert_eq!(total.value("http", "responses_2xx"), Some(25));
        assert!(total.family("nic", "sent_frames").is_none(), "not asked for");
        // Nothing happens in that time.
        let json = scene.play(&["stat", "--for", "100ms", "--layer", "http", "--json"]);
        let difference: StatSnapshot = serde_json::from_str(&json.stdout).unwrap();
        assert_eq!(difference.value("http", "responses_2xx"), Some(0));
        assert_eq!(difference.value("http", "connections"), Some(1), "a gauge is what it is");
        assert!((0.1..10.0).contains(&difference.seconds()), "{}", difference.seconds());

        let answer = ask(&scene, b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nAccept: */*\r\n\r\n");
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.1 200 OK\r\nContent-Type: text/plain; version=0.0.4"), "{head}");
        assert!(head.contains(&format!("Content-Length: {}\r\n", body.len())), "{head}");
        assert!(body.contains("\nexovm_http_responses_2xx_total{environment=\"0\"} 25\n"), "{body}");
        assert!(body.contains("exovm_machine_info{image=\"cheetah\",name=\"cheetah\""), "{body}");
        let line = ask_and_close(&scene, b"{\"v\":1,\"request\":\"metrics\"}\n");
        assert!(line.contains("exovm_http_responses_2xx_total{environment=\\\"0\\\"} 25\\n"), "{line}");
        for (request, status) in [
            ("GET / HTTP/1.1\r\n\r\n", "404"),
            ("GET /metrics/x HTTP/1.0\r\n\r\n", "404"),
            ("POST /metrics HTTP/1.1\r\nContent-Length: 0\r\n\r\n", "405"),
            (&format!("GET /metrics HTTP/1.1\r\n{}\r\n", "A: b\r\n".repeat(200)), "431"),
        ] {
            assert!(ask(&scene, request.as_bytes()).starts_with(&format!("HTTP/1.1 {status} ")), "{request}");
        }
        let socket = scene.runtime_dir().join("exovm/cheetah.sock");
        let mut curl = Command::new("curl");
        curl.arg("-sS").arg("--unix-socket").arg(socket).arg("http://localhost/metrics");
        let curl = String::from_utf8(curl.output().unwrap().stdout).unwrap();
        assert!(curl.contains("# TYPE exovm_tcp_smoothed_rtt_seconds histogram\n"), "{curl}");
        running.stop();
        scene.assert_clean();
    });
}

/// The same for a request after whose answer the connection stays.
fn ask_and_close(scene: &Scene, request: &[u8]) -> String {
    let mut stream = UnixStream::connect(scene.runtime_dir().join("exovm/cheetah.sock")).unwrap();
    stream.write_all(request).unwrap();
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line).unwrap();
    line
}

#[test]
fn watch_goes_on_until_the_machine_ends() {
    in_namespace!(|| {
        let scene = scene();
        let running = scene.start(&["run", "hello", "--net", "tap=auto"]);
        let mut watch = scene.command(&["stat", "--watch", "--for", "50ms", "--layer", "vcpu", "--json"]);
        let mut watch = watch.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(watch.stdout.take().unwrap()).lines();
        for _ in 0..3 {
            let line = lines.next().unwrap().unwrap();
            let difference: StatSnapshot = serde_json::from_str(&line).unwrap();
            assert!(difference.value("vcpu", "exits").is_some());
        }
        running.stop();
        let rest = lines.count();
        let mut complaint = String::new();
        watch.stderr.take().unwrap().read_to_string(&mut complaint).unwrap();
        assert!(
            watch.wait().unwrap().success() && complaint.contains("machine hello ended"),
            "{rest} {complaint}"
        );
        scene.assert_clean();
    });
}
