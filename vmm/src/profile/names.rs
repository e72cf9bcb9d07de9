//! Numbers for what samples are made of, with the names that are told once.

use super::stream::Frame;
use abi::layout::{GATE_VA, IMAGE_VA, KERNEL_VA, PAGE_BYTES, RESUME_VA, WINDOW_VA};
use exovm_image::container::Image;
use std::collections::HashMap;

/// The numbers that one client knows.
#[derive(Default)]
pub(super) struct Names {
    by_va: HashMap<u64, u32>,
    of_buckets: HashMap<&'static str, u32>,
    next: u32,
}

impl Names {
    /// The number of a place in the guest's code; `tell` is called with one that is new.
    pub(super) fn of_va(&mut self, image: &Image, va: u64, tell: impl FnOnce(Frame)) -> u32 {
        *self.by_va.entry(va).or_insert_with(|| {
            let id = self.next;
            self.next += 1;
            tell(frame(image, id, va));
            id
        })
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

/// A place in the guest's code; one without a name is called by its address.
fn frame(image: &Image, id: u32, va: u64) -> Frame {
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
        (None, _) => (format!("{va:#x}"), String::new(), va),
    };
    Frame { id, va, function_va, name, symbol }
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
}
