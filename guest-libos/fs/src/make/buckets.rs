//! Chooses the hash table of a directory: the number of buckets and the seed for which the entries of each bucket fit
//! into its block.

use std::vec::Vec;

use crate::format::NameHash;
use crate::format::directory::CAPACITY_BYTES;

/// A hash table whose buckets do not overflow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Table {
    pub(super) hash_seed: u64,
    pub(super) bucket_count: u32,
}

/// Each size that is tried has a seed of its own, so names that somebody chose to collide do so for one size only.
const TRIES: u64 = 200;
/// A table may have this many times the blocks that the entries need; more is no longer chance.
const MAX_SPREAD: u64 = 256;

/// `None` where none is found; for names that nobody chose for that, this does not happen. Entries are names with the bytes
/// that their entries take.
pub(super) fn choose<'a>(entries: impl Iterator<Item = (&'a [u8], usize)> + Clone) -> Option<Table> {
    let total_bytes: u64 = entries.clone().map(|(_, bytes)| bytes as u64).sum();
    let least = total_bytes.div_ceil(CAPACITY_BYTES as u64);
    if least <= 1 {
        return Some(Table { hash_seed: 0, bucket_count: least as u32 });
    }
    let mut used = Vec::new();
    let mut bucket_count = least + least.div_ceil(4);
    for hash_seed in 0..TRIES {
        let count = u32::try_from(bucket_count).ok().filter(|_| bucket_count <= least * MAX_SPREAD)?;
        used.clear();
        used.resize(count as usize, 0usize);
        let fits = entries.clone().all(|(name, bytes)| {
            let bucket = &mut used[NameHash::of(name, hash_seed).bucket(count) as usize];
            *bucket += bytes;
            *bucket <= CAPACITY_BYTES
        });
        if fits {
            return Some(Table { hash_seed, bucket_count: count });
        }
        bucket_count += bucket_count.div_ceil(16);
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::format;

    fn table(names: &[std::string::String], bytes: usize) -> Table {
        choose(names.iter().map(|name| (name.as_bytes(), bytes))).unwrap()
    }

    #[test]
    fn choose_for_no_entries_takes_no_bucket() {
        assert_eq!(table(&[], 0).bucket_count, 0);
    }

    #[test]
    fn choose_for_entries_that_fit_a_block_takes_one() {
        let names: Vec<_> = (0..CAPACITY_BYTES / 96).map(|number| format!("{number}")).collect();
        assert_eq!(table(&names, 96).bucket_count, 1);
    }

    #[test]
    fn choose_for_many_entries_wastes_less_than_three_quarters() {
        for (count, bytes) in [(100usize, 120usize), (10_000, 120), (200_000, 120), (10_000, 400)] {
            let names: Vec<_> = (0..count).map(|number| format!("{number}.html")).collect();
            let least = (count * bytes).div_ceil(CAPACITY_BYTES);
            let buckets = table(&names, bytes).bucket_count as usize;
            assert!(
                buckets < 4 * least,
                "{count} entries of {bytes} bytes: {buckets} buckets, at least {least}"
            );
        }
    }

    /// Names that all fall into one bucket with the first seed: what somebody would send who knows how it begins.
    #[test]
    fn choose_for_names_that_collide_under_the_first_seed_finds_another() {
        let names: Vec<_> = (0u32..)
            .map(|number| format!("{number}"))
            .filter(|name| NameHash::of(name.as_bytes(), 0).bucket(1 << 10) == 0)
            .take(200)
            .collect();
        assert!((table(&names, 96).bucket_count as usize) < 3 * (200usize * 96).div_ceil(CAPACITY_BYTES));
    }
}
