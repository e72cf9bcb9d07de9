//! The proof of zero copy, over the whole path: what is changed in a file's page after the response was queued is on
//! the wire, because the page is read when the device sends it.

use exovm_ci::{Guest, Site};
use exovm_netns::in_namespace;
use std::io::Read;
use std::os::fd::AsRawFd;
use std::time::Duration;
use vm_memory::{Bytes, GuestAddress, GuestMemoryBackend, GuestMemoryRegion};

/// Less than cheetah queues at once.
const LEN_BYTES: usize = 768 << 10;
const MARK: &[u8] = b"<this mark is in the file>";
const CHANGED: &[u8] = b"<this mark is on the wire>";

/// Where `pattern` lies in guest memory, once.
fn find(guest: &Guest, pattern: &[u8]) -> GuestAddress {
    let memory = guest.machine().memory();
    let mut found = Vec::new();
    for region in memory.iter() {
        let mut bytes = vec![0; region.len() as usize];
        memory.read_slice(&mut bytes, region.start_addr()).unwrap();
        let mut at = 0;
        while let Some(next) = bytes[at..].windows(pattern.len()).position(|window| window == pattern) {
            found.push(GuestAddress(region.start_addr().0 + (at + next) as u64));
            at += next + pattern.len();
        }
    }
    assert_eq!(found.len(), 1, "the file lies in guest memory once: nothing has copied it");
    found[0]
}

#[test]
fn page_changed_after_queueing_is_seen_on_the_wire() {
    in_namespace!(|| {
        let mut content = vec![b'x'; LEN_BYTES - MARK.len()];
        content.extend_from_slice(MARK);
        let guest = Guest::image("cheetah").site(&Site::new().file("large.bin", &content)).start();
        // Brings the file into the cache.
        assert!(guest.get("/large.bin").body == content);
        let mark = find(&guest, MARK);

        let mut client = guest.connect();
        let small: libc::c_int = 16 << 10;
        // SAFETY: SO_RCVBUF reads one int, which lives on this stack.
        let result = unsafe {
            libc::setsockopt(
                client.socket().as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_RCVBUF,
                (&raw const small).cast(),
                size_of::<libc::c_int>() as libc::socklen_t,
            )
        };
        assert_eq!(result, 0);
        // The whole response is queued at once; the window lets only its beginning through.
        client.request("GET", "/large.bin", "").unwrap();
        let head = client.response_head().unwrap();
        assert_eq!(head.content_length().unwrap(), LEN_BYTES as u64);
        std::thread::sleep(Duration::from_millis(200));
        guest.machine().memory().write_slice(CHANGED, mark).unwrap();

        let mut body = vec![0; LEN_BYTES];
        client.body().read_exact(&mut body).unwrap();
        assert!(body.ends_with(CHANGED), "the end is {:?}", String::from_utf8_lossy(&body[LEN_BYTES - 26..]));
        assert!(body[..LEN_BYTES - MARK.len()].iter().all(|&byte| byte == b'x'));
        guest.stop();
    });
}
