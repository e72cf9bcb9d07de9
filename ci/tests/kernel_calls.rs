//! No kernel on the data path: a loaded server's requests cost no kernel call. Counted twice: by the guest at the one function
//! through which it calls, and, where the host interprets ring 0, by KVM, which the guest cannot deceive.

use exovm::account::AccountSnapshot;
use exovm::placement::IoMode;
use exovm_ci::http::Content;
use exovm_ci::{Client, Guest, Site};
use exovm_netns::in_namespace;

const REQUESTS: u64 = 100_000;
const CONNECTIONS: usize = 64;
const THREADS: usize = 4;
/// Kernel calls that a request may cost.
const CALLS_PER_REQUEST: f64 = 0.001;
/// Ring 0 instructions that the cheapest kernel call takes, less a few. More of them than these calls would take, and somebody
/// calls who does not count.
const INSTRUCTIONS_OF_A_CALL: u64 = 40;
/// What a turn takes of KVM's emulator: the write of its register, and the interrupts that may come with one.
const INSTRUCTIONS_OF_A_TURN: u64 = 1;

/// Spans that are kernel calls.
const CALLS: [&str; 2] = ["kernel call", "asleep"];

fn calls(account: &AccountSnapshot) -> u64 {
    CALLS.iter().filter_map(|name| account.site(name)).map(|site| site.count).sum()
}

/// Requests over keep-alive connections, all of a thread's under way at once.
fn load(guest: &Guest) {
    let each = REQUESTS / CONNECTIONS as u64 + 1;
    std::thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                let mut clients: Vec<Client> = (0..CONNECTIONS / THREADS).map(|_| guest.connect()).collect();
                for _ in 0..each {
                    clients.iter_mut().for_each(|client| client.request("GET", "/a", "").expect("sent"));
                    for client in &mut clients {
                        assert_eq!(client.response(Content::Follows).expect("answered").text(), "a");
                    }
                }
            });
        }
    });
}

fn requests_cost_no_kernel_call_in(mode: IoMode) {
    let guest = Guest::image("cheetah").site(&Site::new().file("a", "a")).io(mode).start();
    let emulated = || {
        let statistics = guest.machine().kvm_statistics(0).expect("KVM counts");
        statistics.into_iter().find(|(name, _)| name == "insn_emulation").map_or(0, |(_, value)| value)
    };
    // Starts the clock after the first requests, which fill caches and make the connections' first pages.
    guest.get("/a");
    let before = emulated();
    let cost = guest.cost_of(|| load(&guest));
    let instructions = emulated() - before;
    let (requests, account) = (cost.requests(), cost.account());
    let calls = calls(account);
    let turns = account.nic_counter("turns").unwrap_or(0);
    eprintln!(
        "{mode:?}: {requests} requests, {calls} kernel calls, {turns} turns, {instructions} instructions emulated"
    );
    assert!(requests >= REQUESTS, "{requests}");
    assert!(
        (calls as f64) < CALLS_PER_REQUEST * requests as f64,
        "{calls} kernel calls for {requests} requests"
    );
    let counted = INSTRUCTIONS_OF_A_TURN * turns;
    let others = instructions.saturating_sub(counted) / INSTRUCTIONS_OF_A_CALL;
    assert!(
        (others as f64) < CALLS_PER_REQUEST * requests as f64,
        "{instructions} instructions in ring 0, {turns} turns"
    );
    guest.stop();
}

#[test]
fn requests_of_a_loaded_server_cost_no_kernel_call_in_turns() {
    in_namespace!(|| requests_cost_no_kernel_call_in(IoMode::Turn));
}

#[test]
fn requests_of_a_loaded_server_cost_no_kernel_call_wherever_the_load_says() {
    in_namespace!(|| requests_cost_no_kernel_call_in(IoMode::Auto));
}
