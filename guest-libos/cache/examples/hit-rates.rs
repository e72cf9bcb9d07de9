//! Hit rates of the cache's policy beside LRU and CLOCK, for requests whose popularity is Zipf-distributed, alone and with a
//! crawler that reads everything once in between: `cargo run --release -p exos-cache --example hit-rates`.

use std::collections::{HashMap, VecDeque};

use exos_cache::{Fate, Policy};

/// Frames of the site: some 3 GiB.
const FRAMES: u64 = 50_000;
const REQUESTS: usize = 2_000_000;

trait Cache {
    /// Uses a key; says whether it was there.
    fn hit(&mut self, key: u64) -> bool;
}

struct S3Fifo {
    policy: Policy,
    place_of: HashMap<u64, u32>,
    key_at: Vec<u64>,
    capacity: usize,
}

impl Cache for S3Fifo {
    fn hit(&mut self, key: u64) -> bool {
        if let Some(place) = self.place_of.get(&key) {
            self.policy.used(*place);
            return true;
        }
        let place = if self.key_at.len() < self.capacity {
            self.key_at.push(key);
            self.key_at.len() as u32 - 1
        } else {
            let victim = self.policy.victim(|place| Fate::Key(self.key_at[place as usize]));
            let place = victim.expect("nothing is in use");
            self.place_of.remove(&self.key_at[place as usize]);
            place
        };
        self.key_at[place as usize] = key;
        self.place_of.insert(key, place);
        self.policy.inserted(place, key);
        false
    }
}

/// Least recently used, by time stamps in a queue whose outdated entries are skipped.
struct Lru {
    stamp_of: HashMap<u64, u64>,
    order: VecDeque<(u64, u64)>,
    now: u64,
    capacity: usize,
}

impl Cache for Lru {
    fn hit(&mut self, key: u64) -> bool {
        self.now += 1;
        self.order.push_back((key, self.now));
        let hit = self.stamp_of.insert(key, self.now).is_some();
        while self.stamp_of.len() > self.capacity
            && let Some((key, stamp)) = self.order.pop_front()
        {
            if self.stamp_of.get(&key) == Some(&stamp) {
                self.stamp_of.remove(&key);
            }
        }
        hit
    }
}

/// Second chance.
struct Clock {
    places: Vec<(u64, bool)>,
    place_of: HashMap<u64, usize>,
    hand: usize,
    capacity: usize,
}

impl Cache for Clock {
    fn hit(&mut self, key: u64) -> bool {
        if let Some(place) = self.place_of.get(&key) {
            self.places[*place].1 = true;
            return true;
        }
        if self.places.len() < self.capacity {
            self.place_of.insert(key, self.places.len());
            self.places.push((key, false));
            return false;
        }
        while std::mem::take(&mut self.places[self.hand].1) {
            self.hand = (self.hand + 1) % self.capacity;
        }
        self.place_of.remove(&self.places[self.hand].0);
        self.places[self.hand] = (key, false);
        self.place_of.insert(key, self.hand);
        self.hand = (self.hand + 1) % self.capacity;
        false
    }
}

/// Draws numbers below [`FRAMES`], small ones more often.
struct Zipf {
    sums: Vec<f64>,
    state: u64,
}

impl Zipf {
    fn new(exponent: f64) -> Zipf {
        let mut sum = 0.0;
        let weights = (1..=FRAMES).map(|rank| (rank as f64).powf(-exponent));
        Zipf {
            sums: weights
                .map(|weight| {
                    sum += weight;
                    sum
                })
                .collect(),
            state: 1,
        }
    }

    fn draw(&mut self) -> u64 {
        self.state =
            self.state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let unit = (self.state >> 11) as f64 / (1u64 << 53) as f64;
        let at = unit * self.sums.last().expect("more than none");
        let rank = self.sums.partition_point(|sum| *sum < at) as u64;
        // Popular files lie anywhere.
        rank.wrapping_mul(0x9e37_79b9_7f4a_7c15) % (1 << 62)
    }
}

/// The share of the requests that hit; of a crawler's reads, one for each `crawl_every` requests, only the effect counts.
fn rate(cache: &mut dyn Cache, exponent: f64, crawl_every: Option<usize>) -> f64 {
    let mut zipf = Zipf::new(exponent);
    let (mut hits, mut counted, mut crawled) = (0, 0, 0u64);
    for number in 0..REQUESTS {
        let hit = cache.hit(zipf.draw());
        // The first quarter fills the cache.
        if number > REQUESTS / 4 {
            counted += 1;
            hits += usize::from(hit);
        }
        if crawl_every.is_some_and(|every| number % every == 0) {
            crawled += 1;
            cache.hit((crawled % FRAMES).wrapping_mul(0x9e37_79b9_7f4a_7c15) % (1 << 62));
        }
    }
    hits as f64 / counted as f64
}

fn main() {
    println!("share of requests that hit, of {FRAMES} frames; Zipf exponent, frames of the cache, crawler");
    println!(
        "{:>8} {:>8} {:>10} {:>8} {:>8} {:>8}",
        "exponent", "frames", "crawler", "S3-FIFO", "LRU", "CLOCK"
    );
    for exponent in [0.7, 0.9, 1.1] {
        for capacity in [1_000, 3_200] {
            for (name, crawl) in [("none", None), ("1 of 2", Some(1))] {
                let place_of = HashMap::new;
                let mut s3 = S3Fifo {
                    policy: Policy::new(capacity),
                    place_of: place_of(),
                    key_at: Vec::new(),
                    capacity,
                };
                let mut lru = Lru { stamp_of: HashMap::new(), order: VecDeque::new(), now: 0, capacity };
                let mut clock = Clock { places: Vec::new(), place_of: HashMap::new(), hand: 0, capacity };
                let rates =
                    [&mut s3 as &mut dyn Cache, &mut lru, &mut clock].map(|c| rate(c, exponent, crawl));
                println!(
                    "{exponent:>8} {capacity:>8} {name:>10} {:>8.3} {:>8.3} {:>8.3}",
                    rates[0], rates[1], rates[2]
                );
            }
        }
    }
}
