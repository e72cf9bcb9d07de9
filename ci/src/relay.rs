//! What most TCP forwarders are: a relay that accepts a connection, makes another, and copies bytes between the two. For
//! comparison; it does what can be done on sockets.

use std::io;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::thread;

/// Relays connections to `listener` to `server`, until the process ends.
pub fn relay(listener: TcpListener, server: SocketAddr) {
    thread::spawn(move || {
        for client in listener.incoming().map_while(Result::ok) {
            thread::spawn(move || {
                // There is nothing that it could tell the client of a server that is not there but the end.
                let _ = both_ways(&client, server);
            });
        }
    });
}

fn both_ways(client: &TcpStream, server: SocketAddr) -> io::Result<()> {
    let server = TcpStream::connect(server)?;
    for socket in [client, &server] {
        socket.set_nodelay(true)?;
    }
    thread::scope(|scope| {
        scope.spawn(|| one_way(client, &server));
        one_way(&server, client);
    });
    Ok(())
}

/// Copies until the end, and passes that on.
fn one_way(mut from: &TcpStream, mut to: &TcpStream) {
    let _ = io::copy(&mut from, &mut to);
    let _ = to.shutdown(Shutdown::Write);
}
