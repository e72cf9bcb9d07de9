//! Paths that were looked up lately, with what they name. Four places for each value of the hash's lower bits, so its
//! memory is bounded whatever the number of files; a path that comes in drives one out that was not asked for since the
//! last time a place was sought there. Nothing is kept for paths that name nothing: anybody can invent those.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::cell::Cell;

use xxhash_rust::xxh3::xxh3_64_with_seed;

/// Places that a path can be in.
const WAYS: usize = 4;

#[derive(Debug)]
pub(crate) struct Names<T> {
    places: Vec<Option<Name<T>>>,
    sets: usize,
    /// Keeps strangers from aiming at one set.
    seed: u64,
}

#[derive(Debug)]
struct Name<T> {
    hash: u64,
    path: Box<[u8]>,
    value: T,
    used: Cell<bool>,
}

impl<T> Names<T> {
    /// Room for about `capacity` paths.
    pub(crate) fn new(capacity: usize, seed: u64) -> Names<T> {
        let sets = (capacity / WAYS).max(1).next_power_of_two();
        let mut places = Vec::new();
        places.resize_with(sets * WAYS, || None);
        Names { places, sets, seed }
    }

    #[inline]
    fn set(&self, hash: u64) -> core::ops::Range<usize> {
        let first = (hash as usize & (self.sets - 1)) * WAYS;
        first..first + WAYS
    }

    #[inline]
    pub(crate) fn get(&self, path: &[u8]) -> Option<&T> {
        let hash = xxh3_64_with_seed(path, self.seed);
        let name = self
            .places
            .get(self.set(hash))?
            .iter()
            .flatten()
            .find(|name| name.hash == hash && *name.path == *path)?;
        name.used.set(true);
        Some(&name.value)
    }

    pub(crate) fn insert(&mut self, path: &[u8], value: T) {
        let hash = xxh3_64_with_seed(path, self.seed);
        let set = self.set(hash);
        let Some(places) = self.places.get_mut(set) else { return };
        let same = places
            .iter()
            .position(|place| place.as_ref().is_some_and(|name| name.hash == hash && *name.path == *path));
        let free = || places.iter().position(Option::is_none);
        let unused = || places.iter().position(|place| place.as_ref().is_some_and(|name| !name.used.get()));
        let at = same.or_else(free).or_else(unused).unwrap_or(hash as usize >> 60 & (WAYS - 1));
        for name in places.iter().flatten() {
            name.used.set(false);
        }
        places[at] = Some(Name { hash, path: path.into(), value, used: Cell::new(true) });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_found_and_replaced_and_never_more_than_there_are_places() {
        let mut names = Names::new(64, 7);
        for number in 0..1_000u32 {
            let path = number.to_le_bytes();
            names.insert(&path, number);
            assert_eq!(names.get(&path), Some(&number));
            names.insert(&path, number + 1);
            assert_eq!(names.get(&path), Some(&(number + 1)));
        }
        let found = (0..1_000u32).filter(|number| names.get(&number.to_le_bytes()).is_some()).count();
        assert!((32..=64).contains(&found), "{found}");
    }

    #[test]
    fn name_in_use_outlives_names_that_pass_through() {
        let mut names = Names::new(64, 7);
        names.insert(b"hot", 0);
        for number in 0..1_000u32 {
            assert_eq!(names.get(b"hot"), Some(&0), "{number}");
            names.insert(&number.to_le_bytes(), number);
        }
    }
}
