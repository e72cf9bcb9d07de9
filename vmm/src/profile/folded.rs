//! Folded stacks: a line a stack, outermost frame first, as flame-graph tools read them.
//!
//! The outermost frames are the thread and, in the guest, the environment; frames of the kernel end with `_[k]`.

use super::collect::{Profile, Stack};
use std::collections::BTreeMap;
use std::fmt::Write;

/// All stacks. Places in the same functions are one.
pub fn print(profile: &Profile) -> String {
    let mut counts = BTreeMap::<String, u64>::new();
    for (stack, count) in &profile.stacks {
        *counts.entry(line(profile, stack)).or_default() += count;
    }
    let mut text = String::new();
    for (line, count) in counts {
        let _ = writeln!(text, "{line} {count}");
    }
    text
}

/// One, without its count.
fn line(profile: &Profile, stack: &Stack) -> String {
    let mut line = plain(profile.thread(stack));
    if let Some(environment) = stack.environment {
        let _ = write!(line, ";environment {environment}");
    } else if stack.ring.is_some() {
        line.push_str(";no environment");
    }
    for &id in stack.frames.iter().rev() {
        let frame = profile.frame(id);
        line.push(';');
        line.push_str(&plain(&frame.name));
        if frame.is_kernel() {
            line.push_str("_[k]");
        }
    }
    line
}

/// A name without what separates names.
fn plain(name: &str) -> String {
    name.replace(';', ",")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::profile::collect::example;

    #[test]
    fn stacks_are_printed_from_the_outside_in() {
        let text = print(&example());
        assert_eq!(
            text.lines().collect::<Vec<_>>(),
            [
                "io;[vmm] net receive 1",
                "vcpu;environment 0;app::main;<[u8, 4] as app::Leaf>::leaf 2",
                "vcpu;environment 0;app::main;xok::call_[k] 1",
                "vcpu;environment 1;app::main 1",
            ]
        );
    }
}
