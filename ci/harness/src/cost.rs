//! What something cost, by the machine's account: requests, cycles of the guest's spans and of the VMM's buckets.

use exovm::account::AccountSnapshot;

/// Name of the guest's counter of requests, which a service counts with `exos_trace::counter!("requests", 1)`.
const REQUESTS: &str = "requests";

/// The difference of two accounts.
#[derive(Clone, Debug)]
pub struct Cost {
    account: AccountSnapshot,
}

impl Cost {
    pub(crate) fn new(account: AccountSnapshot) -> Self {
        Self { account }
    }

    /// All of it.
    pub fn account(&self) -> &AccountSnapshot {
        &self.account
    }

    /// How much time passed, in cycles of the time stamp counter.
    pub fn elapsed_cycles(&self) -> u64 {
        self.account.tsc
    }

    /// Requests that the guest counted; none if it does not count.
    pub fn requests(&self) -> u64 {
        self.account.site(REQUESTS).map_or(0, |site| site.total)
    }

    /// Cycles in a span of the guest, without those of spans inside it.
    ///
    /// # Panics
    /// If there is no such span.
    pub fn span_cycles(&self, span: &str) -> u64 {
        match self.account.site(span) {
            Some(site) if site.kind == "span" => site.total,
            _ => panic!("no span {span:?}; there are {:?}", self.names("span")),
        }
    }

    /// What a counter of the guest has grown by, or how often an event happened.
    ///
    /// # Panics
    /// If there is none of that name.
    pub fn count(&self, counter: &str) -> u64 {
        match self.account.site(counter) {
            Some(site) if site.kind == "counter" => site.total,
            Some(site) if site.kind == "event" => site.count,
            _ => panic!("no counter or event {counter:?}; there are {:?}", self.names("counter")),
        }
    }

    /// Cycles in a bucket of a thread of the VMM: `("vcpu", "guest")` is all that was spent in the guest.
    ///
    /// # Panics
    /// If there is no such thread or bucket.
    pub fn bucket_cycles(&self, thread: &str, bucket: &str) -> u64 {
        let found = self.account.bucket(thread, bucket);
        found
            .unwrap_or_else(|| {
                panic!("no bucket {bucket:?} of thread {thread:?}: {:?}", self.account.threads)
            })
            .cycles
    }

    /// A span's cycles for each request.
    ///
    /// # Panics
    /// If there is no such span, or no request was counted.
    pub fn span_cycles_per_request(&self, span: &str) -> f64 {
        self.per_request(self.span_cycles(span))
    }

    /// A bucket's cycles for each request.
    ///
    /// # Panics
    /// If there is no such bucket, or no request was counted.
    pub fn bucket_cycles_per_request(&self, thread: &str, bucket: &str) -> f64 {
        self.per_request(self.bucket_cycles(thread, bucket))
    }

    /// The guest counted so many requests.
    pub fn assert_requests(&self, expected: u64) -> &Self {
        assert_eq!(self.requests(), expected, "requests that the guest counted");
        self
    }

    /// A span took at most so many cycles for each request. Such a bound belongs far above what is usual: a test shares its
    /// host with others.
    pub fn assert_span_at_most(&self, span: &str, cycles_per_request: f64) -> &Self {
        let found = self.span_cycles_per_request(span);
        assert!(
            found <= cycles_per_request,
            "{span}: {found:.0} cycles a request, at most {cycles_per_request} wanted"
        );
        self
    }

    fn per_request(&self, cycles: u64) -> f64 {
        let requests = self.requests();
        assert!(requests > 0, "the guest counted no request; it counts {:?}", self.names("counter"));
        cycles as f64 / requests as f64
    }

    fn names(&self, kind: &str) -> Vec<&str> {
        self.account.sites.iter().filter(|site| site.kind == kind).map(|site| site.name.as_str()).collect()
    }
}
