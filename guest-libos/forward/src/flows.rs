//! The connections that are remembered. A connection lies at the port that it has towards the server, so what comes from the server
//! finds it without a search; what comes from a client finds it by a hash that only the forwarder can compute.
//!
//! Three lists, one for each [`State`], have the connections in the order of their last segments (to the second): the first of a list is the
//! next to expire, and the first to give way. All memory is taken at the start.

use crate::address::Address;
use crate::config::Mac;
use crate::wire::put_u16;
use alloc::vec;
use alloc::vec::Vec;
use siphasher::sip::SipHasher13;

/// The first port towards the server (RFC 6056 3.2).
const PORT_MIN: u16 = 1024;
/// How many there are.
const PORTS: u16 = u16::MAX - PORT_MIN + 1;
/// Connections at a time: a quarter of the ports stays free, so that a free one is found soon.
pub const FLOWS_MAX: u32 = PORTS as u32 / 4 * 3;
/// No connection.
const NONE: u16 = 0;
/// Bytes of an IPv6 address, a port and a purpose.
const HASHED_BYTES_MAX: usize = 16 + 2 + 1;

/// How far a connection is, as far as its segments tell (RFC 5382 5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum State {
    /// A SYN was seen, the handshake's end was not.
    HalfOpen,
    /// Data may go both ways, or one.
    Established,
    /// Ended by a RST, or by a FIN each way.
    Closing,
}

/// A client's end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Client<A> {
    pub(crate) address: A,
    pub(crate) port: u16,
}

/// A connection.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Flow<A> {
    pub(crate) client: Client<A>,
    /// Where its frames come from on the link, and so where those for it go: itself, or the gateway that it is behind.
    pub(crate) client_mac: Mac,
    pub(crate) state: State,
    /// What was seen: [`crate::state`].
    pub(crate) seen: u8,
    /// The server's first sequence number.
    pub(crate) server_isn: u32,
    /// When its last segment came, in seconds.
    last_s: u32,
    before: u16,
    after: u16,
}

/// Ends of a list.
#[derive(Clone, Copy, Debug, Default)]
struct List {
    first: u16,
    last: u16,
}

/// Whom a new connection took its place from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Evicted {
    Nobody,
    HalfOpen,
    Closing,
}

/// Connections over one version of IP, by port and by client.
#[derive(Debug)]
pub(crate) struct Flows<A> {
    /// By port, from [`PORT_MIN`] on; a client's port 0 is no connection.
    flows: Vec<Flow<A>>,
    /// Ports by the hash of their client, with open addressing; a power of two, at least twice as many as connections.
    index: Vec<u16>,
    lists: [List; 3],
    counts: [u32; 3],
    max: u32,
    /// The port that is no connection's, as clients connect to it.
    listen: u16,
    hasher: SipHasher13,
}

/// What a hash is for.
#[derive(Clone, Copy)]
enum Purpose {
    Index,
    Port,
}

impl<A: Address> Flows<A> {
    pub(crate) fn new(max: u32, listen: u16, secret: &[u8; 16]) -> Self {
        let vacant = Flow {
            client: Client { address: A::UNSPECIFIED, port: 0 },
            client_mac: [0; 6],
            state: State::Closing,
            seen: 0,
            server_isn: 0,
            last_s: 0,
            before: NONE,
            after: NONE,
        };
        Self {
            flows: vec![vacant; PORTS.into()],
            index: vec![NONE; (2 * max as usize).next_power_of_two()],
            lists: [List::default(); 3],
            counts: [0; 3],
            max,
            listen,
            hasher: SipHasher13::new_with_key(secret),
        }
    }

    /// Connections in a state.
    pub(crate) fn count(&self, state: State) -> u32 {
        self.counts[state as usize]
    }

    pub(crate) fn max(&self) -> u32 {
        self.max
    }

    fn len(&self) -> u32 {
        self.counts.iter().sum()
    }

    /// The connection at a port.
    #[inline(always)]
    pub(crate) fn at(&self, port: u16) -> Option<&Flow<A>> {
        let flow = self.flows.get(usize::from(port.checked_sub(PORT_MIN)?))?;
        (flow.client.port != 0).then_some(flow)
    }

    /// The port of a client's connection.
    #[inline]
    pub(crate) fn find(&self, client: Client<A>) -> Option<u16> {
        let mut place = self.home(client);
        loop {
            match self.index[place] {
                NONE => return None,
                port if self.flow(port).client == client => return Some(port),
                _ => place = self.next_place(place),
            }
        }
    }

    /// A segment of the connection at `port` was seen at `now_s`; what it says makes of the connection what `change` does.
    #[inline]
    pub(crate) fn seen(&mut self, port: u16, now_s: u32, change: impl FnOnce(&mut Flow<A>)) {
        let before = *self.flow(port);
        change(self.flow_mut(port));
        if self.flow(port).state != before.state || before.last_s != now_s {
            self.unlink(port, before.state);
            self.flow_mut(port).last_s = now_s;
            self.link(port);
        }
    }

    /// A place for a client's new connection, half-open: its port, and who gave way. `None`: all are established.
    pub(crate) fn insert(
        &mut self,
        client: Client<A>,
        client_mac: Mac,
        now_s: u32,
    ) -> Option<(u16, Evicted)> {
        let mut evicted = Evicted::Nobody;
        if self.len() >= self.max {
            // What has ended needs its place least; after that, what never began.
            let of = |state: State| Some(self.lists[state as usize].first).filter(|&port| port != NONE);
            let (port, how) = match (of(State::Closing), of(State::HalfOpen)) {
                (Some(port), _) => (port, Evicted::Closing),
                (None, Some(port)) => (port, Evicted::HalfOpen),
                (None, None) => return None,
            };
            self.remove(port);
            evicted = how;
        }
        let port = self.free_port(client);
        *self.flow_mut(port) = Flow {
            client,
            client_mac,
            state: State::HalfOpen,
            seen: 0,
            server_isn: 0,
            last_s: now_s,
            before: NONE,
            after: NONE,
        };
        self.link(port);
        let mut place = self.home(client);
        while self.index[place] != NONE {
            place = self.next_place(place);
        }
        self.index[place] = port;
        Some((port, evicted))
    }

    /// Forgets the next connection that had no segment for as long as its state allows; `timeout_s` says how long.
    pub(crate) fn expire(&mut self, now_s: u32, timeout_s: impl Fn(State) -> u32) -> bool {
        let over = self.firsts().find(|(_, flow)| flow.last_s.saturating_add(timeout_s(flow.state)) <= now_s);
        let Some((port, _)) = over else { return false };
        self.remove(port);
        true
    }

    /// When the next connection is forgotten if no segment comes.
    pub(crate) fn next_expiry_s(&self, timeout_s: impl Fn(State) -> u32) -> Option<u32> {
        self.firsts().map(|(_, flow)| flow.last_s.saturating_add(timeout_s(flow.state))).min()
    }

    /// The first of each list.
    fn firsts(&self) -> impl Iterator<Item = (u16, &Flow<A>)> {
        self.lists.iter().filter(|list| list.first != NONE).map(|list| (list.first, self.flow(list.first)))
    }

    /// A port that is not in use. The search begins where a hash of the client says (RFC 6056 3.3.3: the same client gets the same
    /// port again, and nobody else can tell which); a quarter of the ports is free at least, so it ends soon.
    fn free_port(&self, client: Client<A>) -> u16 {
        let start = (self.hash(client, Purpose::Port) % u64::from(PORTS)) as u16;
        let ports = (0..PORTS)
            .map(|step| PORT_MIN + ((u32::from(start) + u32::from(step)) % u32::from(PORTS)) as u16);
        let mut free = ports.filter(|&port| port != self.listen && self.at(port).is_none());
        free.next().unwrap_or(PORT_MIN)
    }

    fn remove(&mut self, port: u16) {
        let Flow { client, state, .. } = *self.flow(port);
        self.unlink(port, state);
        let mut hole = self.home(client);
        while self.index[hole] != port {
            hole = self.next_place(hole);
        }
        // Those behind it that a search would no longer reach move up.
        let mut place = self.next_place(hole);
        while self.index[place] != NONE {
            let home = self.home(self.flow(self.index[place]).client);
            let mask = self.index.len() - 1;
            if place.wrapping_sub(home) & mask >= place.wrapping_sub(hole) & mask {
                self.index[hole] = self.index[place];
                hole = place;
            }
            place = self.next_place(place);
        }
        self.index[hole] = NONE;
        self.flow_mut(port).client.port = 0;
    }

    fn link(&mut self, port: u16) {
        let state = self.flow(port).state as usize;
        self.counts[state] += 1;
        let last = core::mem::replace(&mut self.lists[state].last, port);
        (self.flow_mut(port).before, self.flow_mut(port).after) = (last, NONE);
        match last {
            NONE => self.lists[state].first = port,
            last => self.flow_mut(last).after = port,
        }
    }

    fn unlink(&mut self, port: u16, state: State) {
        let state = state as usize;
        self.counts[state] -= 1;
        let Flow { before, after, .. } = *self.flow(port);
        match before {
            NONE => self.lists[state].first = after,
            before => self.flow_mut(before).after = after,
        }
        match after {
            NONE => self.lists[state].last = before,
            after => self.flow_mut(after).before = before,
        }
    }

    #[inline(always)]
    fn flow(&self, port: u16) -> &Flow<A> {
        &self.flows[usize::from(port - PORT_MIN)]
    }

    #[inline(always)]
    fn flow_mut(&mut self, port: u16) -> &mut Flow<A> {
        &mut self.flows[usize::from(port - PORT_MIN)]
    }

    #[inline(always)]
    fn home(&self, client: Client<A>) -> usize {
        self.hash(client, Purpose::Index) as usize & (self.index.len() - 1)
    }

    #[inline(always)]
    fn next_place(&self, place: usize) -> usize {
        (place + 1) & (self.index.len() - 1)
    }

    #[inline(always)]
    fn hash(&self, Client { address, port }: Client<A>, purpose: Purpose) -> u64 {
        let mut bytes = [0; HASHED_BYTES_MAX];
        address.write(&mut bytes, 0);
        put_u16(&mut bytes, A::BYTES, port);
        bytes[A::BYTES + 2] = purpose as u8;
        self.hasher.hash(&bytes[..A::BYTES + 3])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::net::{Ipv4Addr, Ipv6Addr};
    use proptest::prelude::*;
    use std::collections::{BTreeMap, VecDeque};

    const LISTEN: u16 = 8080;

    fn client(number: u32) -> Client<Ipv6Addr> {
        Client { address: address(number / 4), port: 1 + (number % 4) as u16 }
    }

    /// Any bits of an address tell clients apart.
    fn address(number: u32) -> Ipv6Addr {
        Ipv6Addr::from_bits(0x2001_0db8 << 96 | u128::from(number) << (number % 3 * 40))
    }

    #[derive(Clone, Copy, Debug)]
    enum Step {
        Insert(u32),
        Become(u32, State),
        Expire,
        Later,
    }

    fn step() -> impl Strategy<Value = Step> {
        let number = 0..40u32;
        let state = prop_oneof![Just(State::HalfOpen), Just(State::Established), Just(State::Closing)];
        prop_oneof![
            4 => number.clone().prop_map(Step::Insert),
            3 => (number, state).prop_map(|(number, state)| Step::Become(number, state)),
            1 => Just(Step::Expire),
            2 => Just(Step::Later),
        ]
    }

    const MAX: u32 = 16;
    const TIMEOUT_S: u32 = 3;

    /// The same, told plainly: clients of each state in the order of their last segments.
    #[derive(Default)]
    struct Model {
        lists: [VecDeque<(u32, u32)>; 3],
    }

    impl Model {
        fn take(&mut self, number: u32) -> Option<(State, u32)> {
            for state in [State::HalfOpen, State::Established, State::Closing] {
                let list = &mut self.lists[state as usize];
                if let Some(at) = list.iter().position(|(other, _)| *other == number) {
                    return list.remove(at).map(|(_, last_s)| (state, last_s));
                }
            }
            None
        }
    }

    proptest! {
        #[test]
        fn table_is_what_the_model_says(steps in proptest::collection::vec(step(), 1..300), secret: [u8; 16]) {
            let (mut flows, mut model, mut now_s) = (Flows::new(MAX, LISTEN, &secret), Model::default(), 0);
            for step in steps {
                match step {
                    Step::Later => now_s += 1,
                    Step::Insert(number) if flows.find(client(number)).is_none() => {
                        let full = model.lists.iter().map(VecDeque::len).sum::<usize>() == MAX as usize;
                        let expected = match (full, model.lists[2].pop_front_if(|_| full), full) {
                            (false, ..) => Some(Evicted::Nobody),
                            (_, Some(_), _) => Some(Evicted::Closing),
                            _ => model.lists[0].pop_front().map(|_| Evicted::HalfOpen),
                        };
                        let got = flows.insert(client(number), [number as u8; 6], now_s);
                        prop_assert_eq!(got.map(|(_, evicted)| evicted), expected);
                        if let Some((port, _)) = got {
                            prop_assert!(port != LISTEN && port >= PORT_MIN);
                            model.lists[0].push_back((number, now_s));
                        }
                    }
                    Step::Insert(_) => {}
                    Step::Become(number, state) => {
                        let Some(port) = flows.find(client(number)) else { continue };
                        flows.seen(port, now_s, |flow| flow.state = state);
                        let (before, last_s) = model.take(number).expect("both know it");
                        if before == state && last_s == now_s {
                            // Its place in the list is that of the second.
                            let list = &mut model.lists[state as usize];
                            let order: Vec<u16> = list_of(&flows, state);
                            let at = order.iter().position(|&other| other == port).expect("listed");
                            list.insert(at, (number, now_s));
                        } else {
                            model.lists[state as usize].push_back((number, now_s));
                        }
                    }
                    Step::Expire => {
                        while flows.expire(now_s, |_| TIMEOUT_S) {}
                        for list in &mut model.lists {
                            list.retain(|(_, last_s)| last_s + TIMEOUT_S > now_s);
                        }
                    }
                }
                let mut ports = BTreeMap::new();
                for state in [State::HalfOpen, State::Established, State::Closing] {
                    let listed = list_of(&flows, state);
                    prop_assert_eq!(listed.len() as u32, flows.count(state));
                    let of_model = &model.lists[state as usize];
                    let clients: Vec<Client<Ipv6Addr>> = of_model.iter().map(|(number, _)| client(*number)).collect();
                    let found: Vec<Client<Ipv6Addr>> = listed.iter().map(|&port| flows.flow(port).client).collect();
                    prop_assert_eq!(&found, &clients);
                    for (port, client) in listed.into_iter().zip(clients) {
                        prop_assert_eq!(flows.find(client), Some(port));
                        prop_assert!(ports.insert(port, client).is_none(), "a port is one connection's");
                    }
                }
                for number in 0..40 {
                    let known = ports.values().any(|&known| known == client(number));
                    prop_assert_eq!(flows.find(client(number)).is_some(), known);
                }
                prop_assert_eq!(flows.index.iter().filter(|&&port| port != NONE).count(), ports.len());
            }
        }
    }

    fn list_of(flows: &Flows<Ipv6Addr>, state: State) -> Vec<u16> {
        let mut ports = Vec::new();
        let mut port = flows.lists[state as usize].first;
        while port != NONE {
            ports.push(port);
            port = flows.flow(port).after;
        }
        ports
    }

    #[test]
    fn most_connections_have_ports_of_their_own_that_others_cannot_foresee() {
        let ports_of = |secret| {
            let mut flows = Flows::new(FLOWS_MAX, LISTEN, &secret);
            let clients =
                (0..FLOWS_MAX).map(|number| Client { address: Ipv4Addr::from_bits(number), port: 7 });
            clients.map(|client| flows.insert(client, [0; 6], 0).expect("room").0).collect::<Vec<u16>>()
        };
        let (mut ports, others) = (ports_of([1; 16]), ports_of([2; 16]));
        let same = ports.iter().zip(&others).filter(|(a, b)| a == b).count();
        assert!(same < 20, "{same} of {FLOWS_MAX} ports are the same with another secret");
        let runs = ports.windows(2).filter(|pair| pair[1] == pair[0].wrapping_add(1)).count();
        assert!(runs < 20, "{runs} clients in a row have ports in a row");
        ports.sort_unstable();
        ports.dedup();
        assert_eq!((ports.len() as u32, ports.contains(&LISTEN)), (FLOWS_MAX, false));
    }

    #[test]
    fn connection_takes_28_bytes_over_ipv4_and_40_over_ipv6() {
        assert_eq!([size_of::<Flow<Ipv4Addr>>(), size_of::<Flow<Ipv6Addr>>()], [28, 40]);
    }

    #[test]
    fn same_client_gets_the_same_port_again() {
        let mut flows = Flows::new(4, LISTEN, &[9; 16]);
        let (port, _) = flows.insert(client(1), [0; 6], 0).expect("room");
        flows.remove(port);
        assert_eq!(flows.insert(client(1), [0; 6], 0), Some((port, Evicted::Nobody)));
    }
}
