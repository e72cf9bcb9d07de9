//! Which function is meant: names as people write them, of the functions that are left after inlining.

use super::ProbeError;
use exovm_image::container::Image;
use exovm_image::program::{Program, Symbol};
use serde::{Deserialize, Serialize};

/// Names that an error lists at most.
const LISTED: usize = 20;

/// Whose function it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Ring {
    /// The image's, in ring 3.
    Image,
    /// The kernel's.
    Kernel,
}

impl Ring {
    /// As in JSON.
    pub fn name(self) -> &'static str {
        match self {
            Self::Image => "image",
            Self::Kernel => "kernel",
        }
    }
}

/// A function, for people and programs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Function {
    /// Its name, without the hash.
    pub name: String,
    /// Whose it is.
    pub ring: Ring,
    /// Its first address.
    pub va: u64,
    /// Bytes of code.
    pub bytes: u64,
}

/// A function with its symbol.
#[derive(Clone, Debug)]
pub(crate) struct Named {
    pub(crate) function: Function,
    /// With the length that it has or seems to have.
    pub(crate) symbol: Symbol,
    /// Whether it is assembly, of which only the beginning is known.
    pub(crate) is_label: bool,
}

/// A program of an image.
pub(crate) fn program(image: &Image, ring: Ring) -> &Program {
    match ring {
        Ring::Image => &image.program,
        Ring::Kernel => &image.kernel,
    }
}

/// All functions, each once, by address.
pub(crate) fn all(image: &Image) -> impl Iterator<Item = Named> {
    [Ring::Image, Ring::Kernel].into_iter().flat_map(move |ring| {
        let symbols = &program(image, ring).symbols;
        // Equal functions are often one, with several names.
        let groups = symbols.chunk_by(|a, b| a.va == b.va);
        let next_va = groups.clone().skip(1).map(|group| Some(group[0].va)).chain([None]);
        groups.zip(next_va).filter_map(move |(group, next_va)| {
            let symbol = group.iter().find(|symbol| symbol.len_bytes > 0).or(group.first())?;
            let is_label = symbol.len_bytes == 0;
            let mut symbol = symbol.clone();
            if is_label {
                // As far as the next one, if there is one.
                symbol.len_bytes = next_va?.checked_sub(symbol.va)?;
            }
            let name = format!("{:#}", rustc_demangle::demangle(&symbol.name));
            let function = Function { name, ring, va: symbol.va, bytes: symbol.len_bytes };
            Some(Named { function, symbol, is_label })
        })
    })
}

/// The functions whose name has `pattern` in it, whatever the case.
pub(crate) fn list(image: &Image, pattern: &str) -> Vec<Function> {
    let pattern = pattern.to_lowercase();
    let can_be = |named: &Named| named.function.ring == Ring::Image || !named.is_label;
    let named = all(image).filter(can_be).map(|named| named.function);
    named.filter(|function| function.name.to_lowercase().contains(&pattern)).collect()
}

/// The one function that `wanted` means: its address, its whole name, or so much of its end or of its middle that no other
/// has it; where one of the image and one of the kernel are meant, the image's. `image:` or `kernel:` before that says whose.
pub(crate) fn find(image: &Image, wanted: &str) -> Result<Named, ProbeError> {
    let (ring, name) = match (wanted.strip_prefix("image:"), wanted.strip_prefix("kernel:")) {
        (Some(name), _) if !name.starts_with(':') => (Some(Ring::Image), name),
        (_, Some(name)) if !name.starts_with(':') => (Some(Ring::Kernel), name),
        _ => (None, wanted),
    };
    let candidates: Vec<Named> =
        all(image).filter(|named| ring.is_none_or(|ring| ring == named.function.ring)).collect();
    if let Some(va) = name.strip_prefix("0x").and_then(|hex| u64::from_str_radix(hex, 16).ok()) {
        let found = candidates.into_iter().find(|named| named.function.va == va);
        return found.ok_or(ProbeError::NoFunctionAt { va });
    }
    let tail = format!("::{name}");
    let ways: [&dyn Fn(&str) -> bool; 3] =
        [&|known| known == name, &|known| known.ends_with(&tail), &|known| known.contains(name)];
    for way in ways.into_iter().filter(|_| !name.is_empty()) {
        let mut found: Vec<_> = candidates.iter().filter(|named| way(&named.function.name)).collect();
        // Kernel and image have functions of the same name; the image's is meant, if nothing else is said.
        let is_image = |named: &&Named| named.function.ring == Ring::Image;
        if found.iter().copied().filter(|named| is_image(named)).count() == 1 {
            found.retain(is_image);
        }
        match (found.pop(), found.is_empty()) {
            (Some(only), true) => return Ok(only.clone()),
            (None, _) => {}
            (Some(last), false) => {
                found.push(last);
                return Err(ProbeError::Several { name: name.to_owned(), matches: describe(&found) });
            }
        }
    }
    if image.program.symbols.is_empty() && ring != Some(Ring::Kernel) {
        return Err(ProbeError::Stripped { name: name.to_owned() });
    }
    let closest = closest(name, &candidates);
    Err(ProbeError::Unknown { name: name.to_owned(), closest })
}

fn describe(found: &[&Named]) -> String {
    let line = |named: &&Named| {
        let Function { name, ring, va, bytes } = &named.function;
        format!("\n  {va:#x}  {}  {name}  ({bytes} bytes)", ring.name())
    };
    let mut text: String = found.iter().take(LISTED).map(line).collect();
    if found.len() > LISTED {
        text.push_str(&format!("\n  and {} more", found.len() - LISTED));
    }
    text
}

/// `; did you mean ...?` by the last parts of names, which is what people write.
fn closest(name: &str, candidates: &[Named]) -> String {
    let last = |name: &str| name.rsplit("::").next().unwrap_or_default().to_owned();
    let wanted = last(name);
    let mut alike: Vec<(f64, &str)> = candidates
        .iter()
        .map(|named| (crate::closest::likeness(&wanted, &last(&named.function.name)), &*named.function.name))
        .collect();
    alike.sort_by(|(a, _), (b, _)| b.total_cmp(a));
    let mut names: Vec<&str> = Vec::new();
    for (_, name) in alike.iter().take_while(|(likeness, _)| *likeness >= 0.8) {
        if names.len() < 3 && !names.contains(name) {
            names.push(name);
        }
    }
    if names.is_empty() { String::new() } else { format!("; did you mean {}?", names.join(", or ")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image() -> Image {
        crate::images::load("cheetah").expect("built in")
    }

    #[test]
    fn function_is_found_by_all_its_name_by_its_end_and_by_its_address() {
        let image = image();
        for name in ["cheetah::main", "memcpy", "image:memcpy", "close_if_done", "Service>::input"] {
            let found = find(&image, name).unwrap_or_else(|error| panic!("{name}: {error}"));
            assert_eq!(found.function.ring, Ring::Image);
            assert!(found.function.name.ends_with(name.trim_start_matches("image:")), "{found:?}");
            let again = find(&image, &format!("{:#x}", found.function.va)).expect("its address");
            assert_eq!(again.function, found.function);
        }
        // Both have one of that name: the program's is meant, unless somebody says otherwise.
        let kernels = find(&image, "kernel:memcpy").expect("there").function;
        assert_eq!((kernels.ring, kernels.name.as_str()), (Ring::Kernel, "memcpy"));
        assert_ne!(kernels.va, find(&image, "memcpy").expect("there").function.va);
        assert_eq!(find(&image, "xok::schedule::slice_end").expect("there").function.ring, Ring::Kernel);
        for name in ["kernel:close_if_done", "image:xok::schedule::slice_end"] {
            assert!(matches!(find(&image, name), Err(ProbeError::Unknown { .. })), "{name}");
        }
    }

    #[test]
    fn registers_that_a_function_reads_are_its_arguments() {
        let image = image();
        let reads = |name: &str| {
            let found = find(&image, name).unwrap_or_else(|error| panic!("{name}: {error}"));
            crate::probe::function::reads(&image.program, found.function.va)
        };
        assert_eq!(reads("memcpy"), ["rdi", "rsi", "rdx"], "assembly, too");
        assert_eq!(reads("memset"), ["rdi", "rsi", "rdx"]);
    }

    #[test]
    fn name_of_several_functions_lists_them() {
        let Err(ProbeError::Several { matches, .. }) = find(&image(), "drop_in_place") else {
            panic!("there are several")
        };
        assert!(matches.lines().count() > 2 && matches.contains("0x4"), "{matches}");
        let Err(error) = find(&image(), "memcpy_") else { panic!("there is none") };
        assert!(
            error.to_string().contains("did you mean") && error.to_string().contains("memcpy"),
            "{error}"
        );
    }

    #[test]
    fn unknown_and_impossible_names_are_errors_that_say_what_to_do() {
        for name in ["", "xyzzy", "image:", "kernel:", "0x5", "0xZ", "kernel:cheetah::main", "::"] {
            let error = find(&image(), name).expect_err(name).to_string();
            assert!(error.contains("--list") || error.contains("say which"), "{name}: {error}");
        }
    }

    #[test]
    fn stripped_image_is_said_to_be_that() {
        let mut image = image();
        image.program.symbols.clear();
        assert!(matches!(find(&image, "cheetah::main"), Err(ProbeError::Stripped { .. })));
        assert!(find(&image, "xok::schedule::slice_end").is_ok(), "the kernel is not");
    }
}
