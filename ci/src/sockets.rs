//! What the kernel says of a TCP socket of this process.

use std::net::TcpStream;
use std::os::fd::AsRawFd;

/// States of `tcpi_state` (Linux `tcp_states.h`).
pub mod state {
    /// Both ways open.
    pub const ESTABLISHED: u8 = 1;
    /// Our FIN is on its way.
    pub const FIN_WAIT_1: u8 = 4;
    /// Our FIN was acknowledged.
    pub const FIN_WAIT_2: u8 = 5;
}

/// The socket's state.
pub fn state_of(socket: &TcpStream) -> u8 {
    // SAFETY: all-zero is a valid tcp_info: it is made of numbers.
    let mut info: libc::tcp_info = unsafe { std::mem::zeroed() };
    get(socket, libc::IPPROTO_TCP, libc::TCP_INFO, &mut info);
    info.tcpi_state
}

/// Whether the handshake agreed on explicit congestion notification (RFC 3168).
pub fn uses_ecn(socket: &TcpStream) -> bool {
    /// `TCPI_OPT_ECN` of Linux `tcp.h`.
    const ECN: u8 = 8;
    // SAFETY: all-zero is a valid tcp_info: it is made of numbers.
    let mut info: libc::tcp_info = unsafe { std::mem::zeroed() };
    get(socket, libc::IPPROTO_TCP, libc::TCP_INFO, &mut info);
    info.tcpi_options & ECN != 0
}

/// The path MTU that the socket goes by, in bytes.
pub fn path_mtu_bytes(socket: &TcpStream) -> u32 {
    let mut mtu: libc::c_int = 0;
    let is_ipv4 = socket.local_addr().expect("a socket with an address").is_ipv4();
    let (level, name) =
        if is_ipv4 { (libc::IPPROTO_IP, libc::IP_MTU) } else { (libc::IPPROTO_IPV6, libc::IPV6_MTU) };
    get(socket, level, name, &mut mtu);
    mtu as u32
}

/// Bytes that were written and that the other end has not acknowledged, a FIN counted as one (SIOCOUTQ).
pub fn unacknowledged_bytes(socket: &TcpStream) -> usize {
    ask(socket, libc::TIOCOUTQ)
}

/// Bytes that have arrived and were not read (SIOCINQ).
pub fn unread_bytes(socket: &TcpStream) -> usize {
    ask(socket, libc::FIONREAD)
}

/// Ends a connection by a RST: closes it with nothing to be waited for (SO_LINGER of 0).
pub fn reset(socket: TcpStream) {
    let linger = libc::linger { l_onoff: 1, l_linger: 0 };
    let len = size_of::<libc::linger>() as libc::socklen_t;
    // SAFETY: setsockopt reads the structure given.
    let set = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_LINGER,
            (&raw const linger).cast(),
            len,
        )
    };
    assert_eq!(set, 0, "{}", std::io::Error::last_os_error());
    drop(socket);
}

fn ask(socket: &TcpStream, what: libc::Ioctl) -> usize {
    let mut count: libc::c_int = 0;
    // SAFETY: both requests write one int.
    assert_eq!(unsafe { libc::ioctl(socket.as_raw_fd(), what, &raw mut count) }, 0);
    count as usize
}

fn get<T>(socket: &TcpStream, level: libc::c_int, name: libc::c_int, value: &mut T) {
    let mut len = size_of::<T>() as libc::socklen_t;
    // SAFETY: getsockopt writes at most `len` bytes to the value.
    let got =
        unsafe { libc::getsockopt(socket.as_raw_fd(), level, name, (&raw mut *value).cast(), &raw mut len) };
    assert_eq!(got, 0, "{}", std::io::Error::last_os_error());
}
