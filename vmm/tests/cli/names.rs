//! Names from the command line: webswamp finds its server by one, with the name servers that `--net` says, or the host's.

use crate::scene;
use exovm_ci::dnsmasq::Dnsmasq;
use exovm_ci::scene::{Outcome, finish};
use exovm_ci::swamp::{Manners, Server};
use exovm_netns::{Interface, in_namespace};
use std::path::Path;

fn assert_answered(outcome: &Outcome) {
    assert_eq!(outcome.status.code(), Some(0), "{outcome:?}");
    assert!(outcome.stdout.contains(r#""answered":5"#), "{outcome:?}");
}

#[test]
fn run_webswamp_on_a_tap_asks_the_name_server_that_net_says() {
    in_namespace!(|| {
        let scene = scene();
        let server = Server::start(Manners::Good(64));
        let _dnsmasq = Dnsmasq::start(&["--host-record=www.test,10.80.0.1"]);
        let target = format!("http://www.test:{}/", server.port);
        let words = ["--target", &target, "-c", "1", "-n", "5", "--json"];
        let run = |net| scene.play(&[&["run", "--quiet", "webswamp", "--net", net], &words[..]].concat());
        assert_answered(&run("tap=auto,dns=10.80.0.1"));
        let outcome = run("tap=auto");
        assert_eq!(outcome.status.code(), Some(1), "{outcome:?}");
        assert!(outcome.stdout.contains("dns=ADDRESS"), "{outcome:?}");
        scene.assert_clean();
    });
}

#[test]
fn run_webswamp_on_the_user_network_asks_the_hosts_name_server_if_it_may_go_out() {
    in_namespace!(|| {
        let scene = scene();
        Interface::named("lo").unwrap().up().unwrap();
        let server = Server::start(Manners::Good(64));
        // As the guest finds its host.
        let _dnsmasq = Dnsmasq::start(&["--host-record=www.test,10.0.2.2"]);
        let scratch = scene.dir();
        let resolv_conf = scratch.path().join("resolv.conf");
        std::fs::write(&resolv_conf, "nameserver 127.0.0.1\n").unwrap();
        let run = |net: &str| {
            let script = format!(
                "mount --bind {} /etc/resolv.conf && exec {} run --quiet webswamp --net {net} \
                 --target http://www.test:{}/ -c 1 -n 5 --json",
                resolv_conf.display(),
                env!("CARGO_BIN_EXE_exovm"),
                server.port
            );
            finish(&mut scene.command_of(Path::new("unshare"), &["--mount", "sh", "-c", &script]))
        };
        assert_answered(&run(&format!("user,outbound,allow-host={}", server.port)));
        let outcome = run(&format!("user,allow-host={}", server.port));
        assert_eq!(outcome.status.code(), Some(1), "{outcome:?}");
        assert!(outcome.stdout.contains("--net user,outbound has the host's"), "{outcome:?}");
    });
}
