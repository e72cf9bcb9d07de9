//! What the image of `../image` does, seen from outside the machine that runs it.

use exovm_test::{Guest, GuestBuilder, in_namespace};

/// The image, built as `exovm build` does: before a test enters its own network, in which cargo could fetch nothing.
fn greeter() -> GuestBuilder {
    Guest::file(exovm_test::build("../image"))
}

#[test]
fn greets_who_asks_and_nobody_else() {
    let greeter = greeter();
    in_namespace!(|| {
        // Boots it on a network of this test's own and waits until it serves.
        let guest = greeter.start();
        guest.wait_for_log("good morning on port 80");
        guest.get("/").assert_status(200).assert_field("content-type", "text/plain").assert_text("good morning");
        guest.get("/elsewhere").assert_status(404);
        // Ends it: with status 0 and without warnings, or the test fails.
        guest.stop();
    });
}

#[test]
fn answer_costs_next_to_nothing() {
    let greeter = greeter();
    in_namespace!(|| {
        let guest = greeter.start();
        let cost = guest.cost_of(|| (0..50).for_each(|_| drop(guest.get("/"))));
        // A generous bound: what counts is that it does not grow tenfold unseen.
        cost.assert_requests(50).assert_span_at_most("answer", 100_000.0);
        guest.stop();
    });
}

#[test]
fn conversation_is_in_the_capture() {
    let greeter = greeter();
    in_namespace!(|| {
        // To look at with Wireshark; here it only has to be there.
        let frames = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join("frames.pcapng");
        let guest = greeter.pcap(&frames).start();
        guest.get("/").assert_status(200);
        guest.stop();
        assert!(frames.metadata().unwrap().len() > 500, "a conversation takes more than {frames:?} has");
    });
}
