//! Numbers for what samples are made of, with the names that are told once.
//!
//! A place is an address, and a guest has as many of them on its stacks as it likes, at no cost. So only so many are told apart. After
//! that what has a name is its function, of which the image has as many as it has, and what has none is one thing.

use super::stream::Frame;
use abi::layout::{GATE_VA, IMAGE_VA, KERNEL_VA, PAGE_BYTES, RESUME_VA, WINDOW_VA};
use exovm_image::container::Image;
use std::collections::HashMap;

/// Places that are told apart: more than an image has on its stacks. 4 MB for each client.
const PLACES_MAX: usize = 1 << 17;
/// The name of all others.
const OTHER: &str = "[other places]";

/// The numbers that one client knows.
#[derive(Default)]
pub(super) struct Names {
    by_va: HashMap<u64, u32>,
    /// By their first address, when there are too many places.
    of_functions: HashMap<u64, u32>,
    /// What is neither.
    other: Option<u32>,
    of_buckets: HashMap<&'static str, u32>,
    next: u32,
}

impl Names {
    /// The number of a place in the guest's code; `tell` is called with one that is new.
    pub(super) fn of_va(&mut self, image: &Image, va: u64, tell: impl FnOnce(Frame)) -> u32 {
        if let Some(id) = self.by_va.get(&va) {
            return *id;
        }
        let id = self.next;
        let frame = match named(image, va) {
            named if self.by_va.len() < PLACES_MAX => {
                self.by_va.insert(va, id);
                named.unwrap_or_else(|| Frame {
                    va,
                    function_va: va,
                    name: format!("{va:#x}"),
                    ..Frame::default()
                })
            }
            Some(named) => {
                let known = *self.of_functions.entry(named.function_va).or_insert(id);
                if known != id {
                    return known;
                }
                Frame { va: named.function_va, ..named }
            }
            None => {
                let known = *self.other.get_or_insert(id);
                if known != id {
                    return known;
                }
                Frame { name: OTHER.to_owned(), ..Frame::default() }
            }
        };
        self.next += 1;
        tell(Frame { id, ..frame });
        id
    }

    /// The number of what a thread of the VMM does.
    pub(super) fn of_bucket(&mut self, bucket: &'static str, tell: impl FnOnce(Frame)) -> u32 {
        *self.of_buckets.entry(bucket).or_insert_with(|| {
            let id = self.next;
            self.next += 1;
            tell(Frame { id, name: format!("[vmm] {bucket}"), ..Frame::default() });
            id
        })
    }
}

/// A place in the guest's code that has a name.
fn named(image: &Image, va: u64) -> Option<Frame> {
    let symbol = match va {
        KERNEL_VA.. => image.kernel.symbol(va),
        IMAGE_VA..WINDOW_VA => image.program.symbol(va),
        _ => None,
    };
    let (name, symbol, function_va) = match (symbol, va & !(PAGE_BYTES - 1)) {
        (Some((symbol, _)), _) => {
            (format!("{:#}", rustc_demangle::demangle(&symbol.name)), symbol.name.clone(), symbol.va)
        }
        (None, GATE_VA) => ("[gate]".to_owned(), String::new(), GATE_VA),
        (None, RESUME_VA) => ("[resume]".to_owned(), String::new(), RESUME_VA),
        (None, _) => return None,
    };
    Some(Frame { id: 0, va, function_va, name, symbol })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn place_has_the_name_of_its_function_and_is_told_once() {
        let image = crate::images::load("hello").expect("built in");
        let symbols = &image.program.symbols;
        let symbol = symbols.iter().find(|symbol| symbol.len_bytes > 16).expect("a function");
        let mut names = Names::default();
        let mut told = Vec::new();
        for _ in 0..2 {
            for va in [symbol.va + 3, symbol.va + 4, 0x1234, GATE_VA + 1] {
                names.of_va(&image, va, |frame| told.push(frame));
            }
            names.of_bucket("wait", |frame| told.push(frame));
        }
        assert_eq!(told.iter().map(|frame| frame.id).collect::<Vec<_>>(), [0, 1, 2, 3, 4]);
        assert_eq!((told[0].function_va, told[0].va), (symbol.va, symbol.va + 3));
        assert_eq!(told[0].name, told[1].name);
        let names: Vec<_> = told[2..].iter().map(|frame| frame.name.as_str()).collect();
        assert_eq!(names, ["0x1234", "[gate]", "[vmm] wait"]);
    }
    #[test]
    fn places_that_a_guest_makes_up_are_one_and_functions_keep_their_names() {
        let image = crate::images::load("hello").expect("built in");
        let symbol = image.program.symbols.iter().find(|symbol| symbol.len_bytes > 16).expect("a function");
        let mut names = Names::default();
        let mut told = Vec::new();
        let mut of_va = |names: &mut Names, va| names.of_va(&image, va, |frame| told.push(frame));
        for va in 0..2 * PLACES_MAX as u64 {
            of_va(&mut names, va);
        }
        let own = [symbol.va + 3, symbol.va + 4].map(|va| of_va(&mut names, va));
        assert_eq!(own[0], own[1]);
        assert_ne!(own[0], of_va(&mut names, u64::MAX));
        assert!(names.by_va.len() <= PLACES_MAX && told.len() == PLACES_MAX + 2);
        assert_eq!(told[PLACES_MAX].name, OTHER);
        assert_eq!(told[PLACES_MAX + 1].function_va, symbol.va);
        assert!(told.iter().enumerate().all(|(place, frame)| frame.id as usize == place));
    }
}
