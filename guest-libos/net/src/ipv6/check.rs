//! What is true of the interface between any two calls, whatever others on the link say. Tests and fuzzers ask, by the feature
//! `check`; nothing else does.

use super::{Interface, Ipv6Config, MIN_MTU};
use crate::config::Config;

impl Interface {
    /// # Panics
    /// If something is not as it must be.
    pub(crate) fn check(&self, config: &Config, ipv6: &Ipv6Config) {
        assert!(
            self.addresses.len() <= usize::from(ipv6.max_addresses),
            "{} addresses",
            self.addresses.len()
        );
        let mtu = self.link_mtu.now(config.mtu);
        let used = self.link_mtu.in_use();
        assert!(used >= MIN_MTU && used <= mtu, "segments in packets of {used} bytes where {mtu} fit");
        self.neighbours.check();
        // What was given does not count.
        let given = (usize::from(ipv6.gateway.is_some()), ipv6.addresses.len());
        let most = (usize::from(ipv6.max_routers) + given.0, usize::from(ipv6.max_prefixes) + given.1);
        self.routers.check(most);
        self.name_servers.check(ipv6.max_name_servers.into());
    }
}
