//! Whose port is whose. Decides; what has to be done for that in the kernel is behind [`Flows`].

use crate::request::{Port, Refusal};
use alloc::vec::Vec;

/// Ports at a time. The guardian holds a capability for each, and has a table of 255.
pub const PORTS_MAX: usize = 128;

/// How many of them each of so many clients may have.
pub const fn share_of_ports(clients: usize) -> usize {
    match clients {
        0 | 1 => PORTS_MAX,
        _ => PORTS_MAX / clients,
    }
}

/// What the kernel does for a guardian.
pub trait Flows {
    /// Names a flow that was carved.
    type Flow: Copy;

    /// Carves the flow of a port out of the guardian's own.
    fn carve(&mut self, port: Port) -> Result<Self::Flow, Refusal>;
    /// Puts a capability for it into a client's table, whose handle there it answers.
    fn give(&mut self, flow: Self::Flow, client: u32) -> Result<u64, Refusal>;
    /// Takes it back from whoever has it, and the flow is no more.
    fn take_back(&mut self, flow: Self::Flow);
}

/// One that is somebody's.
#[derive(Clone, Copy, Debug)]
struct Owned<F> {
    port: Port,
    client: u32,
    flow: F,
    handle: u64,
}

/// All that are somebody's.
#[derive(Debug)]
pub struct Ports<K: Flows> {
    kernel: K,
    /// Ports of one client at most.
    share: usize,
    owned: Vec<Owned<K::Flow>>,
}

impl<K: Flows> Ports<K> {
    /// None yet. So many clients share them.
    pub fn new(kernel: K, clients: usize) -> Self {
        Self { kernel, share: share_of_ports(clients), owned: Vec::with_capacity(PORTS_MAX) }
    }

    /// A client wants a port: the handle of its flow, in the client's table. Asking again for one's own is no mistake.
    pub fn reserve(&mut self, client: u32, port: Port) -> Result<u64, Refusal> {
        if let Some(owned) = self.owned.iter().find(|owned| owned.port == port) {
            return if owned.client == client { Ok(owned.handle) } else { Err(Refusal::Taken) };
        }
        if self.owned.iter().filter(|owned| owned.client == client).count() >= self.share {
            return Err(Refusal::Quota);
        }
        // Together the shares are no more than that; this is for one that is not counted among the clients.
        if self.owned.len() == PORTS_MAX {
            return Err(Refusal::NoSpace);
        }
        let flow = self.kernel.carve(port)?;
        match self.kernel.give(flow, client) {
            Ok(handle) => {
                self.owned.push(Owned { port, client, flow, handle });
                Ok(handle)
            }
            Err(refusal) => {
                self.kernel.take_back(flow);
                Err(refusal)
            }
        }
    }

    /// A client gives a port back.
    pub fn release(&mut self, client: u32, port: Port) -> Result<(), Refusal> {
        let own = |owned: &Owned<_>| owned.port == port && owned.client == client;
        let at = self.owned.iter().position(own).ok_or(Refusal::NotYours)?;
        let owned = self.owned.swap_remove(at);
        self.kernel.take_back(owned.flow);
        Ok(())
    }

    /// A client has ended: its ports are free. Whether it had any.
    pub fn ended(&mut self, client: u32) -> bool {
        let before = self.owned.len();
        while let Some(at) = self.owned.iter().position(|owned| owned.client == client) {
            let owned = self.owned.swap_remove(at);
            self.kernel.take_back(owned.flow);
        }
        self.owned.len() != before
    }

    /// Every port with its owner.
    pub fn iter(&self) -> impl Iterator<Item = (Port, u32)> {
        self.owned.iter().map(|owned| (owned.port, owned.client))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;
    use std::vec::Vec;

    /// Flows that are carved, and who holds each.
    #[derive(Default)]
    struct Fake {
        live: BTreeMap<u64, (Port, Option<u32>)>,
        next: u64,
        full: bool,
    }

    impl Flows for Fake {
        type Flow = u64;

        fn carve(&mut self, port: Port) -> Result<u64, Refusal> {
            assert!(self.live.values().all(|(live, _)| *live != port), "siblings are disjoint");
            self.next += 1;
            self.live.insert(self.next, (port, None));
            Ok(self.next)
        }

        fn give(&mut self, flow: u64, client: u32) -> Result<u64, Refusal> {
            if self.full {
                return Err(Refusal::NoSpace);
            }
            self.live.get_mut(&flow).expect("carved").1 = Some(client);
            Ok(flow + 1000)
        }

        fn take_back(&mut self, flow: u64) {
            self.live.remove(&flow).expect("carved");
        }
    }

    fn ports() -> Ports<Fake> {
        Ports::new(Fake::default(), 2)
    }

    #[test]
    fn port_is_one_clients_until_it_is_given_back() {
        let mut ports = ports();
        let first = ports.reserve(1, Port::tcp(80));
        assert_eq!(first, Ok(1001));
        assert_eq!(ports.reserve(2, Port::tcp(80)), Err(Refusal::Taken));
        assert_eq!(ports.reserve(1, Port::tcp(80)), first, "asked again");
        assert!(ports.reserve(2, Port::udp(80)).is_ok(), "another protocol's");
        assert_eq!(ports.release(2, Port::tcp(80)), Err(Refusal::NotYours));
        assert_eq!(ports.release(1, Port::tcp(81)), Err(Refusal::NotYours));
        assert_eq!(ports.release(1, Port::tcp(80)), Ok(()));
        assert_eq!(ports.release(1, Port::tcp(80)), Err(Refusal::NotYours));
        assert!(ports.reserve(2, Port::tcp(80)).is_ok());
        assert_eq!(ports.kernel.live.len(), 2);
    }

    #[test]
    fn ports_of_one_that_ended_are_free_and_others_stay() {
        let mut ports = ports();
        for number in 1..=10 {
            ports.reserve(u32::from(number) % 2, Port::tcp(number)).expect("free");
        }
        assert!(ports.ended(1));
        assert!(!ports.ended(1));
        assert_eq!(ports.iter().filter(|(_, client)| *client == 1).count(), 0);
        assert_eq!(ports.iter().count(), 5);
        assert_eq!(ports.kernel.live.len(), 5);
        assert!(ports.reserve(0, Port::tcp(1)).is_ok());
    }

    #[test]
    fn client_without_room_gets_nothing_and_leaves_nothing() {
        let mut ports = ports();
        ports.kernel.full = true;
        assert_eq!(ports.reserve(1, Port::tcp(80)), Err(Refusal::NoSpace));
        assert_eq!((ports.kernel.live.len(), ports.iter().count()), (0, 0));
    }

    #[test]
    fn greedy_client_gets_its_share_of_ports_and_the_modest_one_its_own() {
        let mut ports = ports();
        let got = (1..=200u16).filter(|&number| ports.reserve(1, Port::tcp(number)).is_ok()).count();
        assert_eq!(got, PORTS_MAX / 2);
        assert_eq!(ports.reserve(1, Port::tcp(200)), Err(Refusal::Quota));
        assert_eq!(ports.reserve(1, Port::tcp(1)), Ok(1001), "its own");
        for number in 301..301 + PORTS_MAX as u16 / 2 {
            assert!(ports.reserve(2, Port::tcp(number)).is_ok(), "{number}");
        }
        assert_eq!(ports.reserve(2, Port::tcp(1)), Err(Refusal::Taken));
        assert_eq!(ports.reserve(3, Port::tcp(400)), Err(Refusal::NoSpace), "one more than was said");
        assert_eq!(ports.release(1, Port::tcp(1)), Ok(()));
        assert!(ports.reserve(1, Port::tcp(200)).is_ok());
    }

    #[test]
    fn every_client_of_a_full_machine_has_a_share() {
        for clients in 0..64 {
            let share = share_of_ports(clients);
            assert!(share >= 2 && share * clients <= PORTS_MAX, "{clients} clients, {share} each");
        }
    }

    proptest::proptest! {
        /// Whatever is asked, each port has one owner, who holds its flow, and nobody holds anything else.
        #[test]
        fn any_requests_leave_each_port_with_one_owner(
            steps in proptest::collection::vec((0u8..3, 0u32..4, 1u16..6), 0..200),
        ) {
            let mut ports = ports();
            let mut model = BTreeMap::new();
            for (what, client, number) in steps {
                let port = Port::tcp(number);
                match what {
                    0 => {
                        let owner = *model.entry(port).or_insert(client);
                        proptest::prop_assert_eq!(ports.reserve(client, port).is_ok(), owner == client);
                    }
                    1 => {
                        let own = model.get(&port) == Some(&client);
                        proptest::prop_assert_eq!(ports.release(client, port).is_ok(), own);
                        if own {
                            model.remove(&port);
                        }
                    }
                    _ => {
                        let had = model.values().any(|owner| *owner == client);
                        proptest::prop_assert_eq!(ports.ended(client), had);
                        model.retain(|_, owner| *owner != client);
                    }
                }
                let held: BTreeMap<Port, u32> =
                    ports.kernel.live.values().map(|(port, owner)| (*port, owner.expect("given"))).collect();
                proptest::prop_assert_eq!(&held, &model);
                let mut said: Vec<_> = ports.iter().collect();
                said.sort_unstable();
                proptest::prop_assert_eq!(said, model.clone().into_iter().collect::<Vec<_>>());
            }
        }
    }
}
