//! Control messages: `struct virtio_console_control`, bytes to meaning and back (VIRTIO 1.3 5.3.6.2).

/// Bytes of the structure.
pub(super) const MESSAGE_BYTES: usize = 8;
/// Longest message that is sent: a name follows the structure.
pub(super) const MESSAGE_BYTES_MAX: usize = MESSAGE_BYTES + super::NAME_BYTES_MAX;

/// Event numbers.
mod event {
    pub(super) const DEVICE_READY: u16 = 0;
    pub(super) const DEVICE_ADD: u16 = 1;
    pub(super) const PORT_READY: u16 = 3;
    pub(super) const CONSOLE_PORT: u16 = 4;
    pub(super) const RESIZE: u16 = 5;
    pub(super) const PORT_OPEN: u16 = 6;
    pub(super) const PORT_NAME: u16 = 7;
}

/// What a driver says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FromDriver {
    /// VIRTIO_CONSOLE_DEVICE_READY with value 1.
    Ready,
    /// VIRTIO_CONSOLE_DEVICE_READY with value 0.
    NotReady,
    /// VIRTIO_CONSOLE_PORT_READY with value 1.
    PortReady { port: u32 },
    /// VIRTIO_CONSOLE_PORT_READY with value 0.
    PortNotReady { port: u32 },
    /// VIRTIO_CONSOLE_PORT_OPEN with value 1.
    PortOpen { port: u32 },
    /// VIRTIO_CONSOLE_PORT_OPEN with value 0.
    PortClosed { port: u32 },
    /// Something that no driver says.
    Unknown { event: u16, value: u16 },
}

impl FromDriver {
    /// What these bytes mean.
    pub(super) fn parse(bytes: [u8; MESSAGE_BYTES]) -> Self {
        let [p0, p1, p2, p3, e0, e1, v0, v1] = bytes;
        let port = u32::from_le_bytes([p0, p1, p2, p3]);
        let (event, value) = (u16::from_le_bytes([e0, e1]), u16::from_le_bytes([v0, v1]));
        match (event, value) {
            (event::DEVICE_READY, 1) => Self::Ready,
            (event::DEVICE_READY, 0) => Self::NotReady,
            (event::PORT_READY, 1) => Self::PortReady { port },
            (event::PORT_READY, 0) => Self::PortNotReady { port },
            (event::PORT_OPEN, 1) => Self::PortOpen { port },
            (event::PORT_OPEN, 0) => Self::PortClosed { port },
            _ => Self::Unknown { event, value },
        }
    }
}

/// What the device says of a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ToDriver {
    /// There is such a port.
    Add,
    /// It is a console.
    Console,
    /// What it is called.
    Name(&'static str),
    /// The terminal behind it.
    Resize(super::TerminalSize),
    /// A client is there.
    Open,
    /// The client has gone.
    Closed,
}

impl ToDriver {
    /// Writes the message; returns its length.
    pub(super) fn encode(self, port: u32, bytes: &mut [u8; MESSAGE_BYTES_MAX]) -> usize {
        let (event, value) = match self {
            Self::Add => (event::DEVICE_ADD, 0),
            Self::Console => (event::CONSOLE_PORT, 1),
            Self::Name(_) => (event::PORT_NAME, 1),
            Self::Resize(_) => (event::RESIZE, 0),
            Self::Open => (event::PORT_OPEN, 1),
            Self::Closed => (event::PORT_OPEN, 0),
        };
        bytes[..4].copy_from_slice(&port.to_le_bytes());
        bytes[4..6].copy_from_slice(&event.to_le_bytes());
        bytes[6..8].copy_from_slice(&u16::to_le_bytes(value));
        let more = match self {
            Self::Name(name) => {
                bytes[MESSAGE_BYTES..][..name.len()].copy_from_slice(name.as_bytes());
                name.len()
            }
            Self::Resize(size) => {
                // struct virtio_console_resize: cols, rows.
                bytes[8..10].copy_from_slice(&size.columns.to_le_bytes());
                bytes[10..12].copy_from_slice(&size.rows.to_le_bytes());
                4
            }
            _ => 0,
        };
        MESSAGE_BYTES + more
    }
}
