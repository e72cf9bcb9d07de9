//! What a client that takes all it can get leaves to the others.

use crate::{at, guarded, wait_for};
use exovm::machine::End;
use exovm_netns::in_namespace;
use std::net::{IpAddr, Ipv6Addr};

#[test]
fn greedy_client_gets_its_share_and_a_modest_one_does_not_notice() {
    in_namespace!(|| {
        let guest = guarded(&["greedy", "modest:80"]).launch();
        let host = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0x77);
        guest.network().interface().add_address(IpAddr::V6(host), 64).expect("an address");
        // 128 ports for two; 64 questions for three, of whom one is the guardian itself.
        guest.wait_for_log("[1] probe: 64 ports, then: Refused(Quota)");
        guest.wait_for_log("[1] probe: 21 questions, then: Refused(Quota)");
        guest.wait_for_log("[2] probe: taken: Err(Refused(Taken))");
        guest.wait_for_log("[2] probe: fe80::77 is at ");
        wait_for(at(&guest, 80), "environment 2\n");
        assert_eq!(guest.end(), End::PowerOff { status: 0 });
    });
}
