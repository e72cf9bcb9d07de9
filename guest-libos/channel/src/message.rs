//! Control messages: `struct virtio_console_control`, bytes to meaning and back (VIRTIO 1.3 5.3.6.2).

use crate::channel::Terminal;

/// Bytes of the structure.
pub(crate) const MESSAGE_BYTES: usize = 8;

mod event {
    pub(super) const DEVICE_READY: u16 = 0;
    pub(super) const DEVICE_ADD: u16 = 1;
    pub(super) const DEVICE_REMOVE: u16 = 2;
    pub(super) const PORT_READY: u16 = 3;
    pub(super) const CONSOLE_PORT: u16 = 4;
    pub(super) const RESIZE: u16 = 5;
    pub(super) const PORT_OPEN: u16 = 6;
    pub(super) const PORT_NAME: u16 = 7;
}

/// What the device says of a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FromDevice<'a> {
    Add,
    Remove,
    Console,
    Resize(Terminal),
    Open,
    Closed,
    Name(&'a [u8]),
    /// Something that this driver does not know, from a newer device perhaps.
    Unknown,
}

impl<'a> FromDevice<'a> {
    /// The port and what is said of it; `None`: shorter than a message.
    pub(crate) fn parse(bytes: &'a [u8]) -> Option<(u32, Self)> {
        let (&[p0, p1, p2, p3, e0, e1, v0, v1], rest) = bytes.split_first_chunk::<MESSAGE_BYTES>()?;
        let port = u32::from_le_bytes([p0, p1, p2, p3]);
        let message = match (u16::from_le_bytes([e0, e1]), u16::from_le_bytes([v0, v1])) {
            (event::DEVICE_ADD, _) => Self::Add,
            (event::DEVICE_REMOVE, _) => Self::Remove,
            (event::CONSOLE_PORT, 1) => Self::Console,
            (event::PORT_OPEN, 1) => Self::Open,
            (event::PORT_OPEN, 0) => Self::Closed,
            (event::PORT_NAME, _) => Self::Name(rest),
            (event::RESIZE, _) => match *rest {
                [c0, c1, r0, r1, ..] => Self::Resize(Terminal {
                    columns: u16::from_le_bytes([c0, c1]),
                    rows: u16::from_le_bytes([r0, r1]),
                }),
                _ => return None,
            },
            _ => Self::Unknown,
        };
        Some((port, message))
    }
}

/// What the driver says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ToDevice {
    /// It is there.
    Ready,
    /// It is ready for a port.
    PortReady { port: u32 },
    /// It opens a port.
    PortOpen { port: u32 },
    /// It closes a port.
    PortClosed { port: u32 },
}

impl ToDevice {
    pub(crate) fn encode(self) -> [u8; MESSAGE_BYTES] {
        let (port, event, value) = match self {
            Self::Ready => (0, event::DEVICE_READY, 1),
            Self::PortReady { port } => (port, event::PORT_READY, 1),
            Self::PortOpen { port } => (port, event::PORT_OPEN, 1),
            Self::PortClosed { port } => (port, event::PORT_OPEN, 0u16),
        };
        let mut bytes = [0; MESSAGE_BYTES];
        bytes[..4].copy_from_slice(&port.to_le_bytes());
        bytes[4..6].copy_from_slice(&event.to_le_bytes());
        bytes[6..].copy_from_slice(&value.to_le_bytes());
        bytes
    }
}
