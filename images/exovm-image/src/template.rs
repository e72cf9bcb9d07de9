//! What `exovm new` writes: a project that builds on its own, with `images/hello` as its program.

use std::path::Path;

/// The program is that of `images/hello`, no copy.
const MAIN: &str = include_str!("../../hello/src/main.rs");
const CARGO: &str = include_str!("../template/Cargo.toml");
const IMAGE: &str = include_str!("../template/image.toml");
const README: &str = include_str!("../template/README.md");
const IGNORE: &str = include_str!("../template/gitignore");
const TOOLCHAIN: &str = include_str!("../template/rust-toolchain.toml");
/// The toolchain of this workspace.
const WORKSPACE_TOOLCHAIN: &str = include_str!("../../../rust-toolchain.toml");

/// Where a project's Cargo.toml finds the sources that it is built from: a link, so that the manifest is the same on all
/// machines and with all versions. Path dependencies of cargo need a path that exists when cargo loads them; patches on
/// the command line would serve `exovm build`, but leave plain cargo and editors without the library OS.
pub const SOURCES: &str = ".exovm/sources";
/// The name under which the template's lock is made.
pub const PLACEHOLDER: &str = "exovm-template";
/// A machine's name is not longer.
const NAME_BYTES_MAX: usize = 48;

/// A project's name: of its package, its program, its image, and the machine that runs it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProjectName(String);

/// Why a name cannot be a project's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Its shape.
    #[error(
        "{0:?} cannot be a project's name: that is a letter, then letters, digits, '-' or '_', at most 48 in all"
    )]
    Shape(String),
    /// Means something to Rust or to cargo.
    #[error("{0:?} cannot be a project's name: it is a word of Rust's or cargo's own; choose another")]
    Reserved(String),
    /// A package that the project depends on.
    #[error("{0:?} cannot be a project's name: it is a library that the project uses; choose another")]
    Dependency(String),
}

/// Keywords (Rust reference, 2024 edition), crates that are always there, and names that cargo keeps for itself.
const RESERVED: &[&str] = &[
    "abstract",
    "alloc",
    "as",
    "async",
    "await",
    "become",
    "box",
    "break",
    "build",
    "const",
    "continue",
    "core",
    "crate",
    "deps",
    "do",
    "dyn",
    "else",
    "enum",
    "examples",
    "extern",
    "false",
    "final",
    "fn",
    "for",
    "gen",
    "if",
    "impl",
    "in",
    "incremental",
    "let",
    "loop",
    "macro",
    "match",
    "mod",
    "move",
    "mut",
    "override",
    "priv",
    "proc_macro",
    "pub",
    "ref",
    "return",
    "self",
    "static",
    "std",
    "struct",
    "super",
    "test",
    "trait",
    "true",
    "try",
    "type",
    "typeof",
    "unsafe",
    "unsized",
    "use",
    "virtual",
    "where",
    "while",
    "yield",
];

impl ProjectName {
    /// Checks a name; `lock` says which packages the project depends on.
    pub fn parse(name: &str, lock: &str) -> Result<Self, NameError> {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
        let starts_well = name.bytes().next().is_some_and(|first| first.is_ascii_alphabetic());
        if !starts_well || name.len() > NAME_BYTES_MAX || !name.bytes().all(plain) {
            return Err(NameError::Shape(name.to_owned()));
        }
        if RESERVED.contains(&name.to_ascii_lowercase().as_str()) {
            return Err(NameError::Reserved(name.to_owned()));
        }
        let crate_name = |name: &str| name.replace('-', "_");
        if packages(lock).any(|package| crate_name(package_name(package)) == crate_name(name)) {
            return Err(NameError::Dependency(name.to_owned()));
        }
        Ok(Self(name.to_owned()))
    }

    /// The name of the project that the template's lock is made for.
    pub fn placeholder() -> Self {
        Self(PLACEHOLDER.to_owned())
    }

    /// As text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The files of a new project, with paths relative to it. `lock` is that of a project called [`PLACEHOLDER`].
pub fn files(name: &ProjectName, lock: &str) -> Vec<(&'static Path, String)> {
    let named = |text: &str| text.replace("{name}", name.as_str());
    vec![
        (Path::new("Cargo.toml"), named(CARGO)),
        (Path::new("Cargo.lock"), lock_for(name, lock)),
        (Path::new("image.toml"), named(IMAGE)),
        (Path::new("src/main.rs"), MAIN.to_owned()),
        (Path::new("README.md"), named(README)),
        (Path::new(".gitignore"), IGNORE.to_owned()),
        (Path::new("rust-toolchain.toml"), TOOLCHAIN.replace("{channel}", channel())),
    ]
}

/// The toolchain's version: what `channel = "..."` says.
fn channel() -> &'static str {
    let line = WORKSPACE_TOOLCHAIN.lines().find_map(|line| line.strip_prefix("channel = "));
    line.map_or("stable", |value| value.trim_matches('"'))
}

const PACKAGE: &str = "[[package]]\n";

/// The packages of a lock, as text without its `[[package]]`.
fn packages(lock: &str) -> impl Iterator<Item = &str> {
    lock.split(PACKAGE).skip(1)
}

fn package_name(package: &str) -> &str {
    let line = package.lines().find_map(|line| line.strip_prefix("name = "));
    line.map_or("", |value| value.trim_matches('"'))
}

/// The template's lock for a project of another name. Cargo keeps packages in the order of their names.
fn lock_for(name: &ProjectName, lock: &str) -> String {
    let head = lock.split(PACKAGE).next().unwrap_or_default();
    let renamed = |package: &str| {
        let old = format!("name = \"{PLACEHOLDER}\"\n");
        let package = package.replacen(&old, &format!("name = \"{}\"\n", name.as_str()), 1);
        package.trim_end().to_owned()
    };
    let mut packages: Vec<String> = packages(lock).map(renamed).collect();
    packages.sort_by(|a, b| package_name(a).cmp(package_name(b)));
    let packages: Vec<String> = packages.iter().map(|package| format!("{PACKAGE}{package}\n")).collect();
    format!("{head}{}", packages.join("\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOCK: &str = "# By cargo.\nversion = 4\n\n[[package]]\nname = \"exos-net\"\nversion = \"0.1.0\"\n\n\
        [[package]]\nname = \"exovm-template\"\nversion = \"0.1.0\"\ndependencies = [\n \"exos-net\",\n]\n\n\
        [[package]]\nname = \"log\"\nversion = \"0.4.1\"\n";

    #[test]
    fn parse_good_names() {
        for name in ["hello", "my-server", "a", "x_1", &"n".repeat(48)] {
            assert_eq!(ProjectName::parse(name, LOCK).unwrap().as_str(), name);
        }
    }

    #[test]
    fn parse_bad_names_returns_why() {
        for name in ["", "1st", "-a", "_a", "a b", "../a", "a/b", "ä", "a.b", &"n".repeat(49)] {
            assert_eq!(ProjectName::parse(name, LOCK), Err(NameError::Shape(name.to_owned())));
        }
        for name in ["fn", "core", "test", "Self"] {
            assert_eq!(ProjectName::parse(name, LOCK), Err(NameError::Reserved(name.to_owned())));
        }
        for name in ["log", "exos-net", "exos_net"] {
            assert_eq!(ProjectName::parse(name, LOCK), Err(NameError::Dependency(name.to_owned())));
        }
    }

    #[test]
    fn lock_has_the_project_in_its_place() {
        for (name, place) in [("a", 0), ("exovm-template", 1), ("zebra", 2)] {
            let name = ProjectName(name.to_owned());
            let lock = lock_for(&name, LOCK);
            let names: Vec<&str> = packages(&lock).map(package_name).collect();
            assert_eq!(names[place], name.as_str(), "{lock}");
            assert!(names.is_sorted() && names.len() == 3, "{lock}");
            assert_eq!(lock.len(), LOCK.len() - PLACEHOLDER.len() + name.as_str().len(), "{lock}");
        }
    }

    #[test]
    fn files_have_the_name_and_the_toolchain_and_no_placeholder() {
        for (path, text) in files(&ProjectName("webby".to_owned()), LOCK) {
            assert!(
                !text.contains(PLACEHOLDER) && !text.contains("{name}") && !text.contains("{channel}"),
                "{path:?}"
            );
        }
        assert!(channel().starts_with("1."), "{}", channel());
    }

    #[test]
    fn program_of_the_template_stays_small_enough_to_read() {
        assert!(MAIN.lines().count() < 60, "{} lines", MAIN.lines().count());
        assert!(MAIN.lines().any(|line| line.trim_start().starts_with("//")), "it is explained");
    }

    #[test]
    fn guest_profile_of_the_template_is_that_of_the_workspace() {
        let profile = |text: &str| toml::from_str::<toml::Table>(text).unwrap()["profile"]["guest"].clone();
        assert_eq!(profile(&CARGO.replace("{name}", "x")), profile(include_str!("../../../Cargo.toml")));
    }
}
