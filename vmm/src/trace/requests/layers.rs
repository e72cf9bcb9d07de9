//! The layers that a request's time is divided into: what the VMM does for it, each span of the guest, and what it waits for.

use super::super::stream::Header;
use serde::Serialize;
use std::collections::HashMap;

/// A layer of [`Layers`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LayerId(pub(super) u16);

/// Who has the time of a layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// The VMM: backends and devices.
    Vmm,
    /// The guest's code.
    Guest,
    /// Nobody works on the request.
    Wait,
    /// The client has it.
    Client,
}

impl LayerId {
    /// The system call that took the packet from the backend.
    pub const BACKEND_READ: Self = Self(0);
    /// From there until the guest could see it: the device's work, for the packets behind it in the batch as well.
    pub const RECEIVE: Self = Self(1);
    /// Until the guest took it, or went on with it after the disk.
    pub const WAIT_FOR_GUEST: Self = Self(2);
    /// From the guest's queue until the device took the disk request.
    pub const WAIT_FOR_DISK: Self = Self(3);
    /// Until it was done.
    pub const DISK: Self = Self(4);
    /// The guest does something else, and no device has anything of this request.
    pub const WAIT_IN_GUEST: Self = Self(5);
    /// An answer's frame lies in the transmit queue.
    pub const WAIT_FOR_DEVICE: Self = Self(6);
    /// The device's work for it.
    pub const TRANSMIT: Self = Self(7);
    /// The system call that gave it to the backend.
    pub const BACKEND_WRITE: Self = Self(8);
    /// Between the packets of one request.
    pub const WAIT_FOR_REST: Self = Self(9);
    /// All that could be sent is sent, and the client has not acknowledged enough of it.
    pub const WAIT_FOR_CLIENT: Self = Self(10);
    /// Guest code that no span covers.
    pub const NO_SPAN: Self = Self(11);
    /// Numbers that are no span of the image.
    pub const UNKNOWN_SPAN: Self = Self(12);

    /// Its place among [`Layers::all`].
    pub fn index(self) -> usize {
        usize::from(self.0)
    }
}

/// Those that do not depend on the image, in the order of their numbers.
const FIXED: [(&str, Kind); 13] = [
    ("backend read", Kind::Vmm),
    ("receive (device)", Kind::Vmm),
    ("wait for the guest", Kind::Wait),
    ("wait for the disk", Kind::Wait),
    ("disk", Kind::Vmm),
    ("wait in the guest", Kind::Wait),
    ("wait for the device", Kind::Wait),
    ("transmit (device)", Kind::Vmm),
    ("backend write", Kind::Vmm),
    ("wait for the request's rest", Kind::Client),
    ("wait for the client", Kind::Client),
    ("guest, no span", Kind::Guest),
    ("guest, unknown span", Kind::Guest),
];

/// A layer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layer {
    /// For people. What the image calls a span is what it likes.
    pub name: String,
    /// Whose time it is.
    pub kind: Kind,
}

/// The layers of one image's requests.
#[derive(Clone, Debug)]
pub struct Layers {
    all: Vec<Layer>,
    /// By site.
    spans: Vec<LayerId>,
}

impl Layers {
    pub(super) fn new(header: &Header) -> Self {
        let fixed = FIXED.iter().map(|(name, kind)| Layer { name: (*name).to_owned(), kind: *kind });
        let mut layers = Self { all: fixed.collect(), spans: vec![LayerId::NO_SPAN] };
        let mut known = HashMap::new();
        // One name may be several sites; two bytes hold more sites than an image can have.
        for site in header.sites.iter().take(usize::from(u16::MAX) - FIXED.len()) {
            if site.kind != "span" {
                layers.spans.push(LayerId::UNKNOWN_SPAN);
                continue;
            }
            let all = &mut layers.all;
            let id = *known.entry(site.name.as_str()).or_insert_with(|| {
                all.push(Layer { name: site.name.clone(), kind: Kind::Guest });
                LayerId((all.len() - 1) as u16)
            });
            layers.spans.push(id);
        }
        layers
    }

    /// All of them, by number.
    pub fn all(&self) -> &[Layer] {
        &self.all
    }

    /// One of them.
    pub fn get(&self, id: LayerId) -> &Layer {
        &self.all[id.index().min(self.all.len() - 1)]
    }

    /// The layer of a site of the guest.
    pub(super) fn of_span(&self, site: u32) -> LayerId {
        self.spans.get(site as usize).copied().unwrap_or(LayerId::UNKNOWN_SPAN)
    }
}
