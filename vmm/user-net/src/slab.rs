//! Numbered places with generations, so that what is remembered of a value that has gone (an event, a timer) never meets
//! the next one in its place.

/// Which value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Id {
    /// Its place.
    pub(crate) index: u32,
    /// How many were there before it, cut to 24 bits.
    pub(crate) generation: u32,
}

/// Generations wrap here: they share a word of 64 bits with an index and a kind.
const GENERATION_MASK: u32 = 0x00FF_FFFF;

/// The values.
#[derive(Debug)]
pub(crate) struct Slab<T> {
    places: Vec<(u32, Option<T>)>,
    free: Vec<u32>,
}

impl<T> Slab<T> {
    /// None yet.
    pub(crate) fn new() -> Self {
        Self { places: Vec::new(), free: Vec::new() }
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.places.len() - self.free.len()
    }

    /// Puts a value into a free place.
    pub(crate) fn insert(&mut self, value: T) -> Id {
        let index = self.free.pop().unwrap_or_else(|| {
            self.places.push((0, None));
            (self.places.len() - 1) as u32
        });
        let place = &mut self.places[index as usize];
        place.1 = Some(value);
        Id { index, generation: place.0 }
    }

    /// The value, unless it has gone.
    pub(crate) fn get_mut(&mut self, id: Id) -> Option<&mut T> {
        let (generation, value) = self.places.get_mut(id.index as usize)?;
        if *generation == id.generation { value.as_mut() } else { None }
    }

    /// Takes the value out, unless it has gone.
    pub(crate) fn remove(&mut self, id: Id) -> Option<T> {
        let (generation, value) = self.places.get_mut(id.index as usize)?;
        if *generation != id.generation {
            return None;
        }
        let value = value.take()?;
        *generation = (*generation + 1) & GENERATION_MASK;
        self.free.push(id.index);
        Some(value)
    }

    /// All values.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (Id, &T)> {
        self.places.iter().enumerate().filter_map(|(index, (generation, value))| {
            let id = Id { index: index as u32, generation: *generation };
            value.as_ref().map(|value| (id, value))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stale_id_finds_nothing() {
        let mut slab = Slab::new();
        let (first, second) = (slab.insert('a'), slab.insert('b'));
        assert_eq!(slab.remove(first), Some('a'));
        let third = slab.insert('c');
        assert_eq!((third.index, slab.len()), (first.index, 2));
        assert_eq!(slab.get_mut(first), None);
        assert_eq!(slab.remove(first), None);
        assert_eq!(slab.get_mut(third), Some(&mut 'c'));
        assert_eq!(
            slab.iter().map(|(id, value)| (id, *value)).collect::<Vec<_>>(),
            [(third, 'c'), (second, 'b')]
        );
    }
}
