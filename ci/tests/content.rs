//! What arrives is what was put in: a real documentation tree, file by file, and a body of 1 GiB.

use exovm::placement::IoMode;
use exovm_ci::corpus::{self, Document};
use exovm_ci::site::{Pattern, compare};
use exovm_ci::{Client, Guest, Site};
use exovm_netns::in_namespace;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Connections that crawl at once.
const CRAWLERS: usize = 8;
const GIB: u64 = 1 << 30;

#[test]
fn documentation_of_ten_thousand_files_is_served_byte_for_byte() {
    // Outside the namespace, where it may be fetched.
    let tree = corpus::documentation();
    in_namespace!(|| {
        let documents = corpus::documents(&tree);
        assert!(documents.len() >= 10_000, "only {} files", documents.len());
        let guest = Guest::image("cheetah").docroot(&tree).io(IoMode::Auto).start();
        let next = AtomicUsize::new(0);
        let requests = guest.requests_during(|| {
            std::thread::scope(|scope| {
                for _ in 0..CRAWLERS {
                    scope.spawn(|| crawl(guest.address(), &documents, &next));
                }
            });
        });
        assert_eq!(requests as usize, documents.len());
        println!("{requests} files compared");
        guest.stop();
    });
}

/// Fetches documents, one after the other, on one connection.
fn crawl(server: SocketAddr, documents: &[Document], next: &AtomicUsize) {
    let mut client = Client::connect(server).unwrap();
    while let Some(document) = documents.get(next.fetch_add(1, Ordering::Relaxed)) {
        let Document { path, target } = document;
        let response = client.get(target).unwrap_or_else(|error| panic!("{target}: {error}"));
        assert_eq!(response.status(), 200, "{target}");
        assert!(response.body == std::fs::read(path).unwrap(), "{target} differs from {}", path.display());
    }
}

fn body_of_one_gib_arrives_in(mode: IoMode) {
    let site = Site::new().pattern_file("gigabyte", 42, GIB);
    let guest = Guest::image("cheetah").site(&site).io(mode).start();
    let mut client = guest.connect();
    client.request("GET", "/gigabyte", "").unwrap();
    let head = client.response_head().unwrap();
    assert_eq!((head.status, head.content_length().unwrap()), (200, GIB));
    compare(client.body(), Pattern::new(42), GIB).unwrap();
    guest.stop();
}

#[test]
fn one_gib_is_bit_identical_with_device_work_in_turns() {
    in_namespace!(|| body_of_one_gib_arrives_in(IoMode::Turn));
}

#[test]
fn one_gib_is_bit_identical_with_device_work_on_a_thread() {
    in_namespace!(|| body_of_one_gib_arrives_in(IoMode::Thread));
}
