//! The words of a command line.

use exos_load::plan::{Host, MAX_CONNECTIONS, Output, Reuse, TargetError};
use exos_load::{Plan, PlanError};

const SECOND_NS: u64 = 1_000_000_000;

fn plan(words: &str) -> Result<Plan, PlanError> {
    Plan::from_words(words.split_whitespace())
}

#[test]
fn words_make_a_plan() {
    let good =
        plan("--target http://10.0.0.2:8080/a?b=c -c 64 -d 1500ms -n 7 --close --timeout=2s --json").unwrap();
    assert_eq!((&good.target.host, good.target.port), (&Host::Address("10.0.0.2".parse().unwrap()), 8080));
    assert_eq!((good.target.path.as_str(), good.connections, good.requests), ("/a?b=c", 64, Some(7)));
    assert_eq!((good.duration_ns, good.timeout_ns), (Some(SECOND_NS * 3 / 2), 2 * SECOND_NS));
    assert_eq!((good.reuse, good.output), (Reuse::Close, Output::Json));
    let same = plan(
        "--json --close --requests=7 --duration=1500ms --connections=64 --timeout 2000ms --target=http://10.0.0.2:8080/a?b=c",
    );
    assert_eq!(same.unwrap(), good);
}

#[test]
fn what_is_not_said_is_ten_connections_for_ten_seconds() {
    let plain = plan("--target http://10.0.0.2").unwrap();
    assert_eq!((plain.connections, plain.duration_ns, plain.requests), (10, Some(10 * SECOND_NS), None));
    assert_eq!(
        (plain.reuse, plain.output, plain.timeout_ns),
        (Reuse::KeepAlive, Output::Text, 5 * SECOND_NS)
    );
    assert_eq!(plan("--target http://10.0.0.2 -n 5").unwrap().duration_ns, None, "the number ends it");
}

#[test]
fn request_is_what_a_server_expects() {
    let request = |words: &str| String::from_utf8(plan(words).unwrap().request()).unwrap();
    assert_eq!(
        request("--target http://10.0.0.2:8080/a%20b#part"),
        "GET /a%20b HTTP/1.1\r\nHost: 10.0.0.2:8080\r\nUser-Agent: webswamp\r\n\r\n"
    );
    assert_eq!(
        request("--target http://[2001:db8::1]:8000/"),
        "GET / HTTP/1.1\r\nHost: [2001:db8::1]:8000\r\nUser-Agent: webswamp\r\n\r\n"
    );
    assert_eq!(
        request("--target http://[2001:DB8::1] -n 1"),
        "GET / HTTP/1.1\r\nHost: [2001:db8::1]\r\nUser-Agent: webswamp\r\n\r\n"
    );
    assert_eq!(
        request("--target HTTP://10.0.0.2:80?q --close"),
        "GET /?q HTTP/1.1\r\nHost: 10.0.0.2\r\nUser-Agent: webswamp\r\nConnection: close\r\n\r\n"
    );
}

#[test]
fn server_can_be_named_and_the_request_names_it_as_it_was() {
    let longest = ["a".repeat(63), "b".repeat(63), "c".repeat(63), "d".repeat(61)].join(".");
    for name in ["www.example.org", "Shop", "a-b.3com.test.", "_http.test", "xn--bcher-kva.test", &longest] {
        let named = plan(&format!("--target http://{name}:8080/a")).unwrap();
        assert_eq!((&named.target.host, named.target.port), (&Host::Name(name.to_owned()), 8080));
        let request = String::from_utf8(named.request()).unwrap();
        assert!(request.starts_with(&format!("GET /a HTTP/1.1\r\nHost: {name}:8080\r\n")), "{request}");
        assert_eq!(named.target.to_string(), format!("http://{name}:8080/a"));
    }
    assert!(
        plan("--target http://x.test").unwrap().request().starts_with(b"GET / HTTP/1.1\r\nHost: x.test\r\n")
    );
    let (label, name) =
        ("a".repeat(64), ["a".repeat(63), "b".repeat(63), "c".repeat(63), "d".repeat(62)].join("."));
    for host in [
        "a..b",
        ".",
        ".a",
        "a b",
        "-a.test",
        "a-.test",
        "bücher.test",
        "1.2.3",
        "10.0.0.2.3",
        "a.test.7",
        &label,
        &name,
    ] {
        let url = format!("http://{host}/");
        let words = ["--target", url.as_str()];
        let error = Plan::from_words(words.into_iter()).expect_err(host);
        assert_eq!(error, PlanError::Target(url.clone(), TargetError::Host));
    }
}

#[test]
fn wrong_targets_say_what_is_wrong() {
    for (url, error) in [
        ("https://10.0.0.2/", TargetError::Scheme),
        ("10.0.0.2", TargetError::Scheme),
        ("http:/", TargetError::Scheme),
        ("äöü://10.0.0.2", TargetError::Scheme),
        ("http://", TargetError::Host),
        ("http://[::1]/", TargetError::NotUnicast),
        ("http://[::]/", TargetError::NotUnicast),
        ("http://[ff02::1]/", TargetError::NotUnicast),
        ("http://[::ffff:10.0.0.2]/", TargetError::NotUnicast),
        ("http://[10.0.0.2]/", TargetError::Host),
        ("http://[2001:db8::1", TargetError::Host),
        ("http://[2001:db8::1]80/", TargetError::Host),
        ("http://2001:db8::1/", TargetError::Host),
        ("http://[2001:db8::1]:/", TargetError::Port),
        ("http://[2001:db8::1]:0/", TargetError::Port),
        ("http://[fe80::1%25tap0]/", TargetError::Zone),
        ("http://user@10.0.0.2/", TargetError::Host),
        ("http://10.0.0/", TargetError::Host),
        ("http://example.org:/", TargetError::Port),
        ("http://0.0.0.0/", TargetError::NotUnicast),
        ("http://224.0.0.1/", TargetError::NotUnicast),
        ("http://255.255.255.255/", TargetError::NotUnicast),
        ("http://10.0.0.2:/", TargetError::Port),
        ("http://10.0.0.2:0/", TargetError::Port),
        ("http://10.0.0.2:65536/", TargetError::Port),
        ("http://10.0.0.2:+80/", TargetError::Port),
        ("http://10.0.0.2/ä", TargetError::Path),
    ] {
        assert_eq!(plan(&format!("--target {url}")), Err(PlanError::Target(url.to_owned(), error)));
    }
    let long = format!("http://10.0.0.2/{}", "x".repeat(4096));
    assert_eq!(plan(&format!("--target {long}")), Err(PlanError::Target(long, TargetError::Path)));
}

#[test]
fn wrong_words_say_what_to_do() {
    for (words, part) in [
        ("", "--target http://"),
        ("-c 5", "--target http://"),
        ("--target http://10.0.0.2 --fast", "\"--fast\" means nothing here"),
        ("http://10.0.0.2", "means nothing here"),
        ("--target", "needs a value"),
        ("--target http://10.0.0.2 -c", "--connections needs a value"),
        ("--target http://10.0.0.2 --json=yes", "--json takes no value"),
        ("--target http://10.0.0.2 --close=1", "--close takes no value"),
        ("--target http://10.0.0.2 --json --json", "--json is given twice"),
        ("--target http://10.0.0.2 -c 1 --connections 2", "--connections is given twice"),
        ("--target http://10.0.0.2 -c 0", "a number from 1 to 16384"),
        ("--target http://10.0.0.2 -c +5", "a number from 1 to 16384"),
        ("--target http://10.0.0.2 -c 16385", "a number from 1 to 16384"),
        ("--target http://10.0.0.2 -n 0", "a number from 1 to"),
        ("--target http://10.0.0.2 -d 0s", "with ms, s, m or h"),
        ("--target http://10.0.0.2 -d 5d", "with ms, s, m or h"),
        ("--target http://10.0.0.2 -d s", "with ms, s, m or h"),
        ("--target http://10.0.0.2 -d 1.5s", "with ms, s, m or h"),
        ("--target http://10.0.0.2 --timeout 9999999h", "with ms, s, m or h"),
        ("--target https://10.0.0.2", "only http is spoken"),
    ] {
        let error = plan(words).unwrap_err().to_string();
        assert!(error.contains(part), "{words}: {error}");
    }
    assert_eq!(
        plan(&format!("--target http://10.0.0.2 -c {MAX_CONNECTIONS}")).unwrap().connections,
        MAX_CONNECTIONS
    );
}
