//! What the forwarder's large frames say of themselves, for whoever cuts them: the host's own sockets take them as they are.

use crate::{LISTEN, SERVER_PORT, forwarder_to, pattern, servers};
use exovm::backend::iovec::gather;
use exovm::backend::{Backend, BackendError, HEADER_BYTES, IoVec, IoVecMut, Offloads, Written};
use exovm_ci::routed::{Routed, Version, guest};
use exovm_netns::in_namespace;
use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::os::fd::RawFd;
use std::sync::{Arc, Mutex};
use std::thread;

/// Types of segmentation (VIRTIO 1.3 5.1.6) and the bit that they are ored with where ECN is used.
const TCP_IPV4: u8 = 1;
const TCP_IPV6: u8 = 4;
const ECN: u8 = 0x80;

/// How many large frames there were of each EtherType and type of segmentation.
type Kinds = Arc<Mutex<BTreeMap<([u8; 2], u8), usize>>>;

/// Looks at the headers of what the guest sends.
struct Watched {
    inner: Box<dyn Backend>,
    kinds: Kinds,
}

impl Backend for Watched {
    fn write_frame(&mut self, frame: &[IoVec<'_>]) -> Written {
        let mut header = [0; HEADER_BYTES + 14];
        gather(frame, 0, &mut header);
        let kind = header[1] & !ECN;
        if kind != 0 {
            let ether_type = [header[HEADER_BYTES + 12], header[HEADER_BYTES + 13]];
            *self.kinds.lock().unwrap().entry((ether_type, kind)).or_default() += 1;
        }
        self.inner.write_frame(frame)
    }

    fn read_frame(&mut self, buffers: &[IoVecMut<'_>]) -> Result<Option<usize>, BackendError> {
        self.inner.read_frame(buffers)
    }

    fn set_offloads(&mut self, offloads: Offloads) -> Result<(), BackendError> {
        self.inner.set_offloads(offloads)
    }

    fn event_fd(&self) -> Option<RawFd> {
        self.inner.event_fd()
    }
}

#[test]
fn large_frames_say_which_version_they_are_of() {
    in_namespace!(|| {
        const BYTES: usize = 4 << 20;
        let kinds = Kinds::default();
        let routed = Routed::build();
        let listener = routed.listen(SERVER_PORT);
        let watching = Arc::clone(&kinds);
        let forwarder = forwarder_to(servers())
            .wrap_backend(move |inner| Box::new(Watched { inner, kinds: watching }))
            .start();
        for version in Version::ALL {
            let mut client = routed.connect(guest(version, 0, LISTEN)).expect("a connection");
            let (mut server, _) = listener.accept().unwrap();
            let sent = pattern(9, BYTES);
            let mut got = vec![0; BYTES];
            thread::scope(|scope| {
                scope.spawn(|| server.write_all(&sent).expect("the client reads"));
                client.read_exact(&mut got).expect("bytes");
            });
            assert!(got == sent);
        }
        forwarder.stop();
        let kinds = kinds.lock().unwrap();
        let seen: Vec<_> = kinds.keys().copied().collect();
        assert_eq!(seen, [([0x08, 0x00], TCP_IPV4), ([0x86, 0xdd], TCP_IPV6)], "{kinds:?}");
    });
}
