//! Devices: PCI, and virtio on it. They know the shapes in `abi`, the tables, and guest memory; nothing of KVM.

pub mod pci;
pub mod virtio;
