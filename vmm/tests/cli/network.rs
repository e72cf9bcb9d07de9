//! The tap: missing, busy, something else, down, without an address; and the one that exovm makes itself.

use crate::scene;
use exovm_ci::Client;
use exovm_ci::scene::interfaces;
use exovm_netns::{Interface, TapQueues, create_tap, in_namespace};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::process::Command;

const HOST: Ipv4Addr = Ipv4Addr::new(10, 80, 0, 1);

/// A tap as the help says to make it.
fn tap(name: &str) -> Interface {
    let tap = Interface::named(name).unwrap();
    create_tap(&tap, TapQueues::Single).unwrap();
    tap.add_address(IpAddr::V4(HOST), 24).unwrap();
    tap.up().unwrap();
    tap
}

#[test]
fn run_on_a_missing_tap_prints_the_commands_that_make_it() {
    in_namespace!(|| {
        let scene = scene();
        let outcome = scene.play(&["run", "hello", "--net", "tap=tap7"]);
        outcome.assert_error(&[
            "no interface tap7",
            "ip tuntap add dev tap7 mode tap user $USER",
            "dev tap7",
            "ip link set",
            "up",
        ]);
        scene.assert_clean();
    });
}

#[test]
fn run_on_a_busy_tap_says_so_and_does_not_disturb_who_has_it() {
    in_namespace!(|| {
        tap("tap0");
        let scene = scene();
        let first = scene.start(&["run", "hello", "--net", "tap=tap0"]);
        let outcome = scene.play(&["run", "hello", "--net", "tap=tap0"]);
        outcome.assert_error(&["interface tap0 is in use by another process", "ip tuntap add"]);
        assert_eq!(Client::connect(first.address()).unwrap().get("/").unwrap().status(), 200);
        first.stop();
        scene.assert_clean();
    });
}

#[test]
fn run_on_something_that_is_no_tap_says_so() {
    in_namespace!(|| {
        let (near, far) = (Interface::named("near").unwrap(), Interface::named("far").unwrap());
        Interface::create_veth_pair(&near, &far).unwrap();
        create_tap(&Interface::named("multi").unwrap(), TapQueues::Multi).unwrap();
        let scene = scene();
        for name in ["near", "lo", "multi"] {
            let outcome = scene.play(&["run", "hello", "--net", &format!("tap={name}")]);
            outcome.assert_error(&[&format!("interface {name} is not a single-queue TAP"), "ip tuntap add"]);
        }
        scene.assert_clean();
    });
}

#[test]
fn run_on_a_tap_that_is_down_prints_the_command_that_switches_it_on() {
    in_namespace!(|| {
        tap("tap0").down().unwrap();
        let scene = scene();
        scene.assert_refused(
            &["run", "hello", "--net", "tap=tap0"],
            &["tap0 is down", "ip link set dev tap0 up"],
        );
    });
}

#[test]
fn run_on_a_tap_without_an_address_says_both_ways_out() {
    in_namespace!(|| {
        let tap = Interface::named("tap0").unwrap();
        create_tap(&tap, TapQueues::Single).unwrap();
        tap.up().unwrap();
        let scene = scene();
        let outcome = scene.play(&["run", "hello", "--net", "tap=tap0"]);
        outcome.assert_error(&["no IPv4 address", "ip addr add", "--net tap=tap0,ip="]);
        // The second way works.
        let running = scene.start(&["run", "hello", "--net", "tap=tap0,ip=10.80.0.2/24"]);
        running.stop();
        scene.assert_clean();
    });
}

#[test]
fn run_with_a_bad_net_is_wrong_usage() {
    in_namespace!(|| {
        let scene = scene();
        for (net, expected) in [
            ("tun=x", "tap=NAME"),
            ("tap=tap0,ip=10.0.0.1", "ADDRESS/BITS"),
            ("tap=tap0,mac=x", "six bytes"),
            ("", "tap=NAME"),
        ] {
            let outcome = scene.play(&["run", "hello", "--net", net]);
            assert_eq!(outcome.status.code(), Some(2), "{outcome:?}");
            assert!(outcome.stderr.contains(expected), "{outcome:?}");
        }
        for name in ["a/b", "sixteen-bytes-xx", "with space"] {
            let net = format!("tap={name}");
            scene.assert_refused(&["run", "hello", "--net", &net], &["cannot be an interface name"]);
        }
        scene.assert_clean();
    });
}

#[test]
fn run_on_a_tap_of_the_user_leaves_it_as_it_was() {
    in_namespace!(|| {
        tap("tap0");
        let scene = scene();
        for _ in 0..2 {
            let running = scene.start(&["run", "hello", "--net", "tap=tap0"]);
            assert_eq!(running.address().ip(), IpAddr::from([10, 80, 0, 2]));
            assert_eq!(Client::connect(running.address()).unwrap().get("/").unwrap().status(), 200);
            running.stop();
        }
        assert!(interfaces().contains(&"tap0".to_owned()));
        scene.assert_clean();
    });
}

#[test]
fn run_takes_the_address_it_is_given() {
    in_namespace!(|| {
        tap("tap0");
        let scene = scene();
        let running =
            scene.start(&["run", "hello", "--net", "tap=tap0,ip=10.80.0.77/24,mac=02:00:00:00:00:09"]);
        assert_eq!(running.address().ip(), IpAddr::from([10, 80, 0, 77]));
        assert_eq!(Client::connect(running.address()).unwrap().get("/").unwrap().status(), 200);
        let neighbours = std::fs::read_to_string("/proc/net/arp").unwrap();
        assert!(neighbours.contains("02:00:00:00:00:09"), "{neighbours}");
        running.stop();
        scene.assert_clean();
    });
}

#[test]
fn run_with_ipv6_says_where_it_serves_and_the_machine_has_the_addresses() {
    in_namespace!(|| {
        let tap = tap("tap0");
        tap.add_address("2001:db8::1".parse().unwrap(), 64).unwrap();
        let scene = scene();
        let net = "tap=tap0,ip6=2001:db8::2/64,gw6=2001:db8::1,mac=02:00:00:00:00:09";
        let running = scene.start(&["run", "hello", "--net", net]);
        for url in ["http://10.80.0.2/", "http://[fe80::ff:fe00:9%tap0]/", "http://[2001:db8::2]/"] {
            assert!(running.said.contains(&format!("serving {url}\n")), "{url}: {}", running.said);
            let arguments = ["--silent", "--show-error", "--fail", "--globoff", "--max-time", "30", url];
            let output = std::process::Command::new("curl").args(arguments).output();
            assert!(output.expect("this test needs curl").status.success(), "{url}");
        }
        let ps = scene.play(&["ps", "--json"]);
        assert!(ps.stdout.contains("2001:db8::2") && ps.stdout.contains("fe80::ff:fe00:9"), "{ps:?}");
        running.stop();
        scene.assert_clean();
    });
}

#[test]
fn run_with_ipv6_alone_needs_no_ipv4_address_of_the_tap() {
    in_namespace!(|| {
        let tap = Interface::named("tap0").unwrap();
        create_tap(&tap, TapQueues::Single).unwrap();
        tap.add_address("2001:db8::1".parse().unwrap(), 64).unwrap();
        tap.up().unwrap();
        let scene = scene();
        let running = scene.start(&["run", "hello", "--net", "tap=tap0,ip6=2001:db8::2/64"]);
        assert!(!running.said.contains("serving http://1"), "{}", running.said);
        let server = SocketAddr::new("2001:db8::2".parse().unwrap(), 80);
        assert_eq!(Client::connect(server).unwrap().get("/").unwrap().status(), 200);
        running.stop();
        let running = scene.start(&["run", "hello", "--net", "tap=auto,ip6=2001:db8:1::2/64,ip=none"]);
        let server = SocketAddr::new("2001:db8:1::2".parse().unwrap(), 80);
        assert_eq!(Client::connect(server).unwrap().get("/").unwrap().status(), 200);
        running.stop();
        scene.assert_clean();
    });
}

#[test]
fn run_says_which_address_another_host_has() {
    in_namespace!(|| {
        let tap = tap("tap0");
        tap.add_address("2001:db8::2".parse().unwrap(), 64).unwrap();
        let scene = scene();
        let running = scene.start(&["run", "hello", "--net", "tap=tap0,ip6=2001:db8::2/64"]);
        assert!(running.said.contains("not serving 2001:db8::2: another host on the link has it"));
        running.stop();
        tap.add_address(IpAddr::from([10, 80, 0, 2]), 24).unwrap();
        let outcome = scene.play(&["run", "hello", "--net", "tap=tap0,ip=10.80.0.2/24,probe"]);
        assert_eq!(outcome.status.code(), Some(1), "{outcome:?}");
        let said = outcome.stdout + &outcome.stderr;
        assert!(said.contains("has our address 10.80.0.2") && said.contains("none is left"), "{said}");
        let running =
            scene.start(&["run", "hello", "--net", "tap=tap0,ip=10.80.0.2/24,ip6=2001:db8::3/64,probe"]);
        assert!(running.said.contains("serving http://[2001:db8::3]/"), "{}", running.said);
        assert!(!running.said.contains("serving http://10.80.0.2/"), "{}", running.said);
        running.stop();
        scene.assert_clean();
    });
}

#[test]
fn machine_that_is_given_the_address_of_another_on_its_link_says_so() {
    in_namespace!(|| {
        let ip = |words: &str| {
            let status = Command::new("ip").args(words.split_whitespace()).status().expect("ip runs");
            assert!(status.success(), "ip {words}");
        };
        ip("link add br0 type bridge");
        for name in ["br0", "tap0", "tap1"] {
            let interface = Interface::named(name).unwrap();
            if name != "br0" {
                create_tap(&interface, TapQueues::Single).unwrap();
                ip(&format!("link set {name} master br0"));
            }
            interface.up().unwrap();
        }
        let scene = scene();
        let first = scene.start(&["run", "hello", "--net", "tap=tap0,ip=10.80.0.2/24"]);
        let outcome = scene.play(&["run", "hello", "--net", "tap=tap1,ip=10.80.0.2/24,probe"]);
        assert_eq!(outcome.status.code(), Some(1), "{outcome:?}");
        let said = outcome.stdout + &outcome.stderr;
        assert!(said.contains("has our address 10.80.0.2"), "{said}");
        first.stop();
        scene.assert_clean();
    });
}

#[test]
fn run_forwarder_says_where_it_serves_and_not_where_no_server_is_behind_it() {
    in_namespace!(|| {
        tap("tap0").add_address("2001:db8::1".parse().unwrap(), 64).unwrap();
        let scene = scene();
        let net = "tap=tap0,ip=10.80.0.2/24,ip6=2001:db8::2/64";
        let (ipv4, ipv6) =
            (["10.80.0.9:81", "tcp://10.80.0.2:80"], ["[2001:db8::9]:81", "tcp://[2001:db8::2]:80"]);
        for ([to, url], [_, other]) in [(ipv4, ipv6), (ipv6, ipv4)] {
            let running = scene.start(&["run", "forwarder", "--net", net, "--listen", "80", "--to", to]);
            assert!(running.said.contains(&format!("serving {url}\n")), "{url}: {}", running.said);
            assert!(!running.said.contains(other), "{other}: {}", running.said);
            assert_eq!(running.said.matches("serving ").count(), 1, "{}", running.said);
            running.stop();
        }
        scene.assert_clean();
    });
}

#[test]
fn run_with_ipv6_where_there_can_be_none_says_what_to_do() {
    in_namespace!(|| {
        let tap = tap("tap0");
        let scene = scene();
        let run = |image, net| ["run", image, "--net", net];
        tap.set_mtu(1_000).unwrap();
        let small = ["MTU of 1000", "ip link set dev tap0 mtu 1500"];
        scene.assert_refused(&run("hello", "tap=tap0,ip6=auto"), &small);
    });
}

#[test]
fn run_help_prints_the_commands_that_work() {
    in_namespace!(|| {
        let scene = scene();
        let outcome = scene.play(&["run", "--help"]);
        assert_eq!(outcome.status.code(), Some(0));
        let script: Vec<_> = outcome
            .stdout
            .lines()
            .filter_map(|line| line.trim().strip_prefix("sudo ip "))
            .map(|line| line.split("   ").next().unwrap_or(line).replace("$USER", "0"))
            .collect();
        assert_eq!(script.len(), 5, "three make the tap, one removes it, one is for IPv6: {script:?}");
        let ip = |arguments: &str| {
            let status = std::process::Command::new("ip").args(arguments.split_whitespace()).status();
            assert!(status.expect("the ip tool is there").success(), "ip {arguments}");
        };
        script[..3].iter().for_each(|command| ip(command));
        let running = scene.start(&["run", "hello", "--net", "tap=tap0"]);
        assert_eq!(Client::connect(running.address()).unwrap().get("/").unwrap().status(), 200);
        running.stop();
        ip(&format!("{} nodad", script[4]));
        let running = scene.start(&["run", "hello", "--net", "tap=tap0,ip6=2001:db8::2/64"]);
        let server = SocketAddr::new("2001:db8::2".parse().unwrap(), 80);
        assert_eq!(Client::connect(server).unwrap().get("/").unwrap().status(), 200);
        running.stop();
        ip(&script[3]);
        scene.assert_clean();
    });
}
