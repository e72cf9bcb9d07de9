//! The application of a script: what it does with events, and its calls.

use std::net::SocketAddr;

use exos_net::{AckPolicy, ConnId, SegmentEvents};

use crate::packet::pattern;
use crate::parse::Call;
use crate::run::{Bytes, Run, owned, snake};

impl Run<'_> {
    /// The application handles a segment's events in their order, then lets the stack send.
    pub(crate) fn segment(&mut self, peer: usize, events: &SegmentEvents<'_>) -> Result<(), String> {
        if events.opened {
            self.peers[peer].conn = Some(events.conn);
            self.event(peer, "opened".into());
        }
        if let Some(problem) = events.problem {
            self.event(peer, format!("problem {}", snake(&format!("{problem:?}"))));
        }
        if events.acked_bytes > 0 {
            self.event(peer, format!("acked {}", events.acked_bytes));
        }
        if events.low_water {
            self.event(peer, "low_water".into());
        }
        if events.urgent {
            self.event(peer, "urgent".into());
        }
        self.take_data(peer, events)?;
        if events.peer_closed {
            self.event(peer, "peer_closed".into());
        }
        if let Some(ack) = &events.last_ack {
            self.device.frames.push_back(owned(ack));
        }
        if let Some(end) = events.ended {
            self.ended(peer);
            self.event(peer, format!("ended {}", snake(&format!("{end:?}"))));
            return Ok(());
        }
        let output = self.stack.output(events.conn, self.instant(), &mut self.device, AckPolicy::IfDue);
        output.map(|_| ()).map_err(|error| error.to_string())
    }

    /// Data that came is the peer's stream at its place, and nothing else.
    fn take_data(&mut self, peer: usize, events: &SegmentEvents<'_>) -> Result<(), String> {
        let state = &mut self.peers[peer];
        let new_at = state.taken_to + state.kept;
        let mut new = events.data.to_vec();
        if events.readable {
            new.extend(&self.stack.pending(events.conn)[state.kept as usize..]);
        }
        if let Some(at) = (0..new.len()).find(|&i| new[i] != pattern(true, new_at + i as u32)) {
            return Err(format!("byte {} that was received is not what the peer sent", new_at as usize + at));
        }
        if new.is_empty() {
            return if events.readable { Err("readable, but nothing is pending".into()) } else { Ok(()) };
        }
        let len = new.len() as u32;
        if state.keeps {
            state.kept += len;
            if !events.data.is_empty() && events.ended.is_none() {
                self.stack.keep(events.conn, events.data).map_err(|error| error.to_string())?;
            }
        } else {
            let pending = self.stack.pending(events.conn).len();
            // What was lent is consumed already.
            if pending > 0 {
                self.stack.consume(events.conn, pending).map_err(|error| error.to_string())?;
            }
            (state.taken_to, state.kept) = (new_at + len, 0);
        }
        self.event(peer, format!("data {len}"));
        Ok(())
    }

    /// The outer error is the script's, the inner one what the call returned.
    pub(crate) fn call(&mut self, peer: usize, call: &Call) -> Result<Result<(), String>, String> {
        match call {
            Call::Listen(port, at) => {
                return Ok(debug(match at {
                    None => self.stack.listen(*port),
                    Some(ip) => self.stack.listen_at((*ip).into(), *port),
                }));
            }
            Call::Unlisten(port, at) => {
                let was_open = match at {
                    None => self.stack.unlisten(*port),
                    Some(ip) => self.stack.unlisten_at((*ip).into(), *port),
                };
                return Ok(was_open.then_some(()).ok_or("NotOpen".into()));
            }
            Call::Connect(from, port) => {
                let named = &self.script.peers[peer];
                let (now, remote) = (self.instant(), SocketAddr::new(named.ip, named.port));
                let connected = match (from, port) {
                    (None, None) => self.stack.connect(now, remote),
                    _ => {
                        let local = SocketAddr::new(from.unwrap_or(named.host), port.unwrap_or(0));
                        self.stack.connect_from(now, local, remote)
                    }
                };
                if let Ok(conn) = connected {
                    self.peers[peer].conn = Some(conn);
                    let output = self.stack.output(conn, self.instant(), &mut self.device, AckPolicy::IfDue);
                    output.map_err(|error| error.to_string())?;
                }
                return Ok(debug(connected));
            }
            Call::Keep => self.peers[peer].keeps = true,
            Call::Take => self.peers[peer].keeps = false,
            Call::Isn(isn) => (self.peers[peer].isn, self.peers[peer].host_isn) = (*isn, None),
            Call::LocalPort(port) => self.peers[peer].local_port = *port,
            _ => {
                let state = &self.peers[peer];
                let conn = state.conn.or(state.gone).ok_or("there is no connection")?;
                return self.call_on(peer, conn, call);
            }
        }
        Ok(Ok(()))
    }

    fn call_on(&mut self, peer: usize, conn: ConnId, call: &Call) -> Result<Result<(), String>, String> {
        let mut policy = AckPolicy::IfDue;
        let result = match call {
            Call::Send(len) | Call::Queue(len) | Call::SendUrgent(len) => {
                let state = &mut self.peers[peer];
                let data: Bytes = (0..*len).map(|i| pattern(false, state.send_at + i)).collect();
                let queued = match call {
                    Call::SendUrgent(_) => debug(self.stack.send_urgent(conn, data)),
                    _ => debug(self.stack.send(conn, data)),
                };
                state.send_at += if queued.is_ok() { *len } else { 0 };
                queued
            }
            Call::Output(how) => {
                policy = match how.as_str() {
                    "merge" => AckPolicy::Merge,
                    "now" => AckPolicy::Now,
                    _ => AckPolicy::IfDue,
                };
                Ok(())
            }
            Call::Consume(len) => {
                let state = &mut self.peers[peer];
                if *len > state.kept {
                    return Err(format!("only {} bytes are kept", state.kept));
                }
                (state.taken_to, state.kept) = (state.taken_to + len, state.kept - len);
                debug(self.stack.consume(conn, *len as usize))
            }
            Call::LowWater(mark) => debug(self.stack.set_low_water(conn, *mark as usize)),
            Call::KeepAlive(keep_alive) => debug(self.stack.set_keep_alive(conn, *keep_alive)),
            Call::Coalesce(coalesce) => debug(self.stack.set_coalesce(conn, *coalesce)),
            Call::UserTimeout(timeout) => debug(self.stack.set_user_timeout(conn, *timeout)),
            Call::Dscp(dscp) => debug(self.stack.set_dscp(conn, *dscp)),
            Call::Ttl(ttl) => debug(self.stack.set_time_to_live(conn, *ttl)),
            Call::Close => debug(self.stack.close(conn)),
            Call::Abort => {
                if let Some(reset) = self.stack.abort(conn) {
                    self.device.frames.push_back(owned(&reset));
                }
                let was_alive = self.peers[peer].conn.is_some();
                self.ended(peer);
                return Ok(was_alive.then_some(()).ok_or("Stale".into()));
            }
            other => return Err(format!("{other:?} is no call on a connection")),
        };
        if result.is_ok() && !matches!(call, Call::Queue(_)) {
            let output = self.stack.output(conn, self.instant(), &mut self.device, policy);
            output.map_err(|error| error.to_string())?;
        }
        Ok(result)
    }

    /// A counter by its name, or what the stack has at present.
    pub(crate) fn gauge(&mut self, peer: usize, name: &str) -> Result<u64, String> {
        let conn = self.peers[peer].conn.or(self.peers[peer].gone);
        if matches!(name, "unsent" | "unacked" | "urgent_bytes" | "pending") {
            self.called.insert((self.state(peer), if name == "pending" { "RECEIVE" } else { "STATUS" }));
        }
        let of_conn =
            |what: &dyn Fn(ConnId) -> usize| conn.map(what).ok_or("there is no connection".to_string());
        Ok(match name {
            "connections" => self.stack.connections(),
            "half_open" => self.stack.half_open(),
            "opening" => self.stack.opening(),
            "established" => self.stack.established(),
            "time_wait" => self.stack.time_wait(),
            "buffered_bytes" => self.stack.buffered_bytes(),
            "urgent_bytes" => of_conn(&|conn| self.stack.urgent_bytes(conn) as usize)?,
            "unsent" => of_conn(&|conn| self.stack.unsent_bytes(conn))?,
            "unacked" => of_conn(&|conn| self.stack.unacked_bytes(conn))?,
            "pending" => of_conn(&|conn| self.stack.pending(conn).len())?,
            _ => {
                let counter = self.stack.counters().iter().find(|&(known, _)| known == name);
                return counter.map(|(_, value)| value).ok_or_else(|| format!("there is no counter {name}"));
            }
        } as u64)
    }
}

fn debug<T, E: std::fmt::Debug>(result: Result<T, E>) -> Result<(), String> {
    result.map(|_| ()).map_err(|error| format!("{error:?}"))
}
