//! `image.toml`: what an image is made of.

use serde::Deserialize;

/// A manifest. Unknown keys are refused.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// Name under which the image is run.
    pub name: String,
    /// One line for people.
    pub description: String,
    /// Cargo package (and binary) of the environment's program.
    pub program: String,
    /// Memory of the machine in MiB, unless the user says otherwise; what is loaded with the image comes on top.
    pub memory_mib: u64,
    /// Whether the image serves a document root given with `--docroot`.
    #[serde(default)]
    pub docroot: bool,
}

impl Manifest {
    /// Reads a manifest.
    pub fn parse(text: &str) -> Result<Self, ManifestError> {
        let manifest: Self = toml::from_str(text)?;
        let plain = |name: &str| {
            !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
        };
        if !plain(&manifest.name) || !plain(&manifest.program) {
            return Err(ManifestError::Name { name: manifest.name });
        }
        if !(1..=1 << 20).contains(&manifest.memory_mib) {
            return Err(ManifestError::Memory { memory_mib: manifest.memory_mib });
        }
        Ok(manifest)
    }
}

/// Why a manifest was refused.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// Not TOML, or not our keys.
    #[error("image.toml: {0}")]
    Syntax(#[from] toml::de::Error),
    /// `name` and `program` are file and package names.
    #[error("image.toml: name and program take letters, digits, '-' and '_' (name is {name:?})")]
    Name {
        /// What was given.
        name: String,
    },
    /// Out of range.
    #[error("image.toml: memory_mib must be between 1 and 1048576 (is {memory_mib})")]
    Memory {
        /// What was given.
        memory_mib: u64,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "name = \"hello\"\ndescription = \"x\"\nprogram = \"hello\"\nmemory_mib = 32\n";

    #[test]
    fn parse_good_manifest() {
        let manifest = Manifest::parse(GOOD).expect("good");
        assert_eq!((manifest.name.as_str(), manifest.memory_mib, manifest.docroot), ("hello", 32, false));
    }

    #[test]
    fn parse_unknown_key_returns_syntax_error() {
        assert!(matches!(Manifest::parse(&format!("{GOOD}colour = 1\n")), Err(ManifestError::Syntax(_))));
    }

    #[test]
    fn parse_path_as_name_returns_name_error() {
        let text = GOOD.replace("name = \"hello\"", "name = \"../hello\"");
        assert!(matches!(Manifest::parse(&text), Err(ManifestError::Name { .. })));
    }

    #[test]
    fn parse_no_memory_returns_memory_error() {
        let text = GOOD.replace("32", "0");
        assert!(matches!(Manifest::parse(&text), Err(ManifestError::Memory { .. })));
    }
}
