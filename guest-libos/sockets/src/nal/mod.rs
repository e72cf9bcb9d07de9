//! The traits of the ecosystem: `embedded-io(-async)` for streams, `edge-nal` for making them, for datagrams and for
//! names.

mod dns;
mod udp;

pub use udp::UdpGroups;

use crate::address::parse;
use crate::error::Error;
use crate::state::Sockets;
use crate::tcp::{ReadHalf, TcpListener, TcpStream, WriteHalf};
use core::net::SocketAddr;
use edge_nal::{Close, Readable, TcpAccept, TcpBind, TcpConnect, TcpShutdown, TcpSplit};
use embedded_io_async::{ErrorType, Read, ReadReady, Write, WriteReady};

/// Connections that may wait for a listener made through `edge-nal`, which does not say.
const BACKLOG: usize = 1_024;

impl ErrorType for TcpStream {
    type Error = Error;
}

impl ErrorType for ReadHalf<'_> {
    type Error = Error;
}

impl ErrorType for WriteHalf<'_> {
    type Error = Error;
}

/// Cancelling loses nothing.
impl Read for TcpStream {
    async fn read(&mut self, buf: &mut [u8]) -> Result<usize, Error> {
        Self::read(self, buf).await
    }
}

/// Cancelling loses nothing. There is nothing to flush: what was written leaves with the next round.
impl Write for TcpStream {
    async fn write(&mut self, buf: &[u8]) -> Result<usize, Error> {
        Self::write(self, buf).await
    }

    async fn flush(&mut self) -> Result<(), Error> {
        Ok(())
    }
}

impl ReadReady for TcpStream {
    fn read_ready(&mut self) -> Result<bool, Error> {
        Ok(self.is_readable())
    }
}

impl WriteReady for TcpStream {
    fn write_ready(&mut self) -> Result<bool, Error> {
        Ok(self.is_writable())
    }
}

impl Readable for TcpStream {
    async fn readable(&mut self) -> Result<(), Error> {
        Self::readable(self).await
    }
}

impl Read for ReadHalf<'_> {
    async fn read(&mut self, buf: &mut [u8]) -> Result<usize, Error> {
        Self::read(self, buf).await
    }
}

impl Readable for ReadHalf<'_> {
    async fn readable(&mut self) -> Result<(), Error> {
        Self::readable(self).await
    }
}

impl Write for WriteHalf<'_> {
    async fn write(&mut self, buf: &[u8]) -> Result<usize, Error> {
        Self::write(self, buf).await
    }

    async fn flush(&mut self) -> Result<(), Error> {
        Ok(())
    }
}

impl TcpSplit for TcpStream {
    type Read<'a> = ReadHalf<'a>;
    type Write<'a> = WriteHalf<'a>;

    fn split(&mut self) -> (ReadHalf<'_>, WriteHalf<'_>) {
        Self::split(self)
    }
}

/// Closing the writing side does not wait for the peer to acknowledge it; closing the reading side reads to its end.
impl TcpShutdown for TcpStream {
    async fn close(&mut self, what: Close) -> Result<(), Error> {
        if matches!(what, Close::Write | Close::Both) {
            self.close_write();
        }
        if matches!(what, Close::Read | Close::Both) {
            let mut rest = [0; 512];
            while Self::read(self, &mut rest).await? > 0 {}
        }
        Ok(())
    }

    async fn abort(&mut self) -> Result<(), Error> {
        Self::abort(self);
        Ok(())
    }
}

impl TcpConnect for Sockets {
    type Error = Error;
    type Socket<'a> = TcpStream;

    async fn connect(&self, remote: SocketAddr) -> Result<TcpStream, Error> {
        Self::connect(self, remote).await
    }
}

impl TcpBind for Sockets {
    type Error = Error;
    type Accept<'a> = TcpListener;

    async fn bind(&self, local: SocketAddr) -> Result<TcpListener, Error> {
        let local = parse(local)?;
        self.listen_at(local.ip().into(), local.port(), BACKLOG)
    }
}

impl TcpAccept for TcpListener {
    type Error = Error;
    type Socket<'a> = TcpStream;

    async fn accept(&self) -> Result<(SocketAddr, TcpStream), Error> {
        let (stream, peer) = Self::accept(self).await?;
        Ok((peer, stream))
    }
}
