//! The flame graph: an SVG that a browser zooms and searches.

use super::collect::Profile;
use super::folded;
use inferno::flamegraph::color::{MultiPalette, Palette};
use inferno::flamegraph::{Options, from_lines};

/// Draws it. An empty profile has nothing to draw and is an error of its caller.
pub fn draw(profile: &Profile, title: &str) -> std::io::Result<Vec<u8>> {
    let folded = folded::print(profile);
    let mut options = Options::default();
    options.title = title.to_owned();
    options.count_name = "samples".to_owned();
    options.colors = Palette::Multi(MultiPalette::Rust);
    // The same function has the same colour in each graph.
    options.hash = true;
    let mut svg = Vec::new();
    from_lines(&mut options, folded.lines(), &mut svg)
        .map_err(|error| std::io::Error::other(format!("the flame graph cannot be drawn: {error}")))?;
    Ok(svg)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::profile::collect::example;

    #[test]
    fn every_function_is_in_the_drawing_with_its_share() {
        let svg = String::from_utf8(draw(&example(), "a <title>").expect("drawn")).expect("text");
        for text in [
            "a &lt;title&gt;",
            "app::main (3 samples, 60.00%)",
            "app::main (1 samples, 20.00%)",
            // It leaves out what marks the kernel in folded stacks.
            "xok::call (1 samples, 20.00%)",
            "[vmm] net receive (1 samples, 20.00%)",
        ] {
            assert!(svg.contains(text), "{text}: {svg}");
        }
    }
}
