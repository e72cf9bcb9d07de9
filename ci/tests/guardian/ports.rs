//! Ports: who has one serves it, who asks for another's is refused, and what somebody leaves behind goes to the next who asks.

use crate::{PATIENCE, at, guarded, wait_for, who};
use exovm::machine::End;
use exovm_netns::in_namespace;
use std::net::TcpStream;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

#[test]
fn clients_of_a_guardian_serve_their_ports_and_a_dead_ones_port_goes_to_the_next() {
    in_namespace!(|| {
        let guest = guarded(&["serve:80", "serve:81", "insist:80"]).launch();
        wait_for(at(&guest, 80), "environment 1\n");
        wait_for(at(&guest, 81), "environment 2\n");
        // Nobody's: the guardian says so at once.
        let refused = TcpStream::connect_timeout(&at(&guest, 82), PATIENCE).expect_err("nobody's port");
        assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
        guest.wait_for_log("[3] probe: port 80 is taken");
        for _ in 0..50 {
            assert_eq!(who(at(&guest, 80)).as_deref(), Some("environment 1\n"));
            assert_eq!(who(at(&guest, 81)).as_deref(), Some("environment 2\n"));
        }
        // Where the first goes on when it gets the CPU, as the kernel noted it: nowhere.
        let pages = guest.machine().environment_pages(1).expect("an environment");
        let begun = Instant::now();
        let died = || guest.log().iter().any(|line| line.contains("environment 1: page fault executing 0x0"));
        while !died() {
            assert!(begun.elapsed() < PATIENCE, "the first client does not end");
            pages.kernel.resume[0].store(0, Ordering::Relaxed);
            let _ = TcpStream::connect_timeout(&at(&guest, 80), Duration::from_millis(20));
        }
        guest.wait_for_log("[0] environment 1 has ended; its ports are free");
        guest.wait_for_log("[3] probe: got port 80, refused before: true");
        wait_for(at(&guest, 80), "environment 3\n");
        assert_eq!(who(at(&guest, 81)).as_deref(), Some("environment 2\n"), "the neighbour goes on");
        let log = guest.log();
        let host = guest.network().host_address();
        let said = |text: &str| log.iter().any(|line| line.contains(text));
        assert!(said("[3] probe: ports: 6/81=2 6/80=3"), "{log:#?}");
        assert!(said(&format!("[3] probe: neighbour {host} at ")), "learned from its ARP: {log:#?}");
        assert!(said("[3] probe: route 10.80.0.0/24 None"), "{log:#?}");
        assert_eq!(guest.end(), End::PowerOff { status: 0 });
    });
}

#[test]
fn guardian_refuses_what_is_no_port_and_takes_back_what_is_given_back() {
    in_namespace!(|| {
        let guest = guarded(&["ask:5000"]).launch();
        let begun = guest.wait_for_log("probe: 1 7: ");
        assert!(begun.contains("Err(Refused(NoSuchPort))"), "{begun}");
        guest.wait_for_log("probe: ports:");
        let log = guest.log();
        let said: Vec<&str> =
            log.iter().filter_map(|line| line.split_once("[1] probe: ").map(|(_, text)| text)).collect();
        assert_eq!(
            said[..8],
            [
                "6 5000: Ok(())",
                "and back: Ok(())",
                "twice: Err(Refused(NotYours))",
                "17 5000: Ok(())",
                "and back: Ok(())",
                "twice: Err(Refused(NotYours))",
                "6 0: Err(Refused(NoSuchPort))",
                "1 7: Err(Refused(NoSuchPort))",
            ]
        );
        assert!(said.contains(&"ports:"), "none is left: {said:#?}");
        // The guardian answers for the address, also when nobody has a port.
        let refused = TcpStream::connect_timeout(&at(&guest, 5000), PATIENCE).expect_err("nobody's port");
        assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
        assert_eq!(guest.end(), End::PowerOff { status: 0 });
    });
}

#[test]
fn tables_of_a_guardian_are_not_written_by_its_clients() {
    in_namespace!(|| {
        let guest = guarded(&["write", "serve:80"]).launch();
        guest.wait_for_log("[1] probe: the tables mapped to be written: Err(NotPermitted)");
        guest.wait_for_log("environment 1: page fault writing 0x80000000000: not permitted");
        wait_for(at(&guest, 80), "environment 2\n");
        assert_eq!(guest.end(), End::PowerOff { status: 0 });
    });
}
