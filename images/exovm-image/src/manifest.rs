//! `image.toml`: what an image is made of.

use crate::options::{self, ImageOption, OptionError};
use abi::boot::VCPUS_MAX;
use abi::domain::DOMAINS;
use abi::flow::{NODES, NODES_MAX};
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
    /// What is spoken on the port that it serves, for whoever is told where that is.
    #[serde(default)]
    pub serves: Serves,
    /// Environments that run the program from the start.
    #[serde(default = "one")]
    pub environments: u32,
    /// Number of the environment that is the parent of the others: it can ask for their memory, control and end them, and they end
    /// with it. Without that they are siblings.
    #[serde(default)]
    pub parent: Option<u32>,
    /// Places for further environments, which those that run may create.
    #[serde(default)]
    pub spare_environments: u32,
    /// vCPUs of the machine.
    #[serde(default = "one")]
    pub vcpus: u32,
    /// Nodes of the flow table, a power of two; one is the root.
    #[serde(default = "flows")]
    pub flows: u32,
    /// Whether the first environment is the guardian of the others: it holds all flows, they may call it, and it may give them
    /// something. Otherwise each has a flow of its own and knows nobody.
    #[serde(default)]
    pub guardian: bool,
    /// Options of its own on `exovm run`'s command line.
    #[serde(default)]
    pub options: Vec<ImageOption>,
}

/// What is spoken on a port.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Serves {
    /// HTTP: a browser can go there.
    #[default]
    Http,
    /// TCP, and what above it is not known.
    Tcp,
}

fn flows() -> u32 {
    NODES
}

fn one() -> u32 {
    1
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
        let (environments, spare) = (manifest.environments, manifest.spare_environments);
        if environments == 0 || environments.saturating_add(spare) as usize > DOMAINS {
            return Err(ManifestError::Environments { environments, spare });
        }
        if manifest.parent.is_some_and(|parent| parent >= environments) {
            return Err(ManifestError::Parent { environments });
        }
        if !(1..=VCPUS_MAX as u32).contains(&manifest.vcpus) {
            return Err(ManifestError::Vcpus { vcpus: manifest.vcpus });
        }
        if !manifest.flows.is_power_of_two() || manifest.flows > NODES_MAX {
            return Err(ManifestError::Flows { flows: manifest.flows });
        }
        options::check(&manifest.options)?;
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
    /// None, or too many.
    #[error(
        "image.toml: environments must be at least 1, and at most {DOMAINS} together with spare_environments (they are \
         {environments} and {spare})"
    )]
    Environments {
        /// Environments that run from the start.
        environments: u32,
        /// Places for further ones.
        spare: u32,
    },
    /// There is none of that number.
    #[error("image.toml: parent must be one of the {environments} environments, which are counted from 0")]
    Parent {
        /// Environments that run from the start.
        environments: u32,
    },
    /// None, or too many.
    #[error("image.toml: vcpus must be between 1 and {VCPUS_MAX} (is {vcpus})")]
    Vcpus {
        /// What was given.
        vcpus: u32,
    },
    /// An option cannot be declared so.
    #[error("image.toml: {0}")]
    Option(#[from] OptionError),
    /// Not so many.
    #[error("image.toml: flows must be a power of two up to {NODES_MAX} (is {flows})")]
    Flows {
        /// What was given.
        flows: u32,
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
        assert_eq!((manifest.environments, manifest.spare_environments, manifest.guardian), (1, 0, false));
        assert!(Manifest::parse(&format!("{GOOD}guardian = true\n")).expect("good").guardian);
        let serves = |keys: &str| Manifest::parse(&format!("{GOOD}{keys}")).map(|manifest| manifest.serves);
        assert_eq!(
            (serves("").ok(), serves("serves = \"tcp\"\n").ok()),
            (Some(Serves::Http), Some(Serves::Tcp))
        );
        assert!(matches!(serves("serves = \"gopher\"\n"), Err(ManifestError::Syntax(_))));
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

    #[test]
    fn parse_environments_none_or_too_many_returns_environments_error() {
        for keys in ["environments = 0", "environments = 65", "environments = 60\nspare_environments = 5"] {
            let error = Manifest::parse(&format!("{GOOD}{keys}\n")).expect_err(keys);
            assert!(matches!(error, ManifestError::Environments { .. }), "{keys}");
        }
        let most =
            Manifest::parse(&format!("{GOOD}environments = 60\nspare_environments = 4\n")).expect("64");
        assert_eq!((most.environments, most.spare_environments), (60, 4));
    }

    #[test]
    fn parse_parent_that_is_not_there_returns_parent_error() {
        let two = format!("{GOOD}environments = 2\n");
        let error = Manifest::parse(&format!("{two}parent = 2\n")).expect_err("refused");
        assert!(matches!(error, ManifestError::Parent { environments: 2 }));
        assert_eq!(Manifest::parse(&format!("{two}parent = 1\n")).expect("good").parent, Some(1));
        assert_eq!(Manifest::parse(&two).expect("good").parent, None);
    }

    #[test]
    fn parse_vcpus_none_or_too_many_returns_vcpus_error() {
        for vcpus in [0, 9, u32::MAX] {
            let error = Manifest::parse(&format!("{GOOD}vcpus = {vcpus}\n")).expect_err("refused");
            assert!(matches!(error, ManifestError::Vcpus { .. }), "{vcpus}");
        }
        assert_eq!(Manifest::parse(&format!("{GOOD}vcpus = 8\n")).expect("good").vcpus, 8);
        assert_eq!(Manifest::parse(GOOD).expect("good").vcpus, 1);
    }

    #[test]
    fn parse_flows_not_a_power_of_two_or_too_many_returns_flows_error() {
        for flows in [0, 1000, NODES_MAX + 1, 2 * NODES_MAX] {
            let error = Manifest::parse(&format!("{GOOD}flows = {flows}\n")).expect_err("refused");
            assert!(matches!(error, ManifestError::Flows { .. }), "{flows}");
        }
        assert_eq!(Manifest::parse(&format!("{GOOD}flows = {NODES_MAX}\n")).expect("good").flows, NODES_MAX);
        assert_eq!(Manifest::parse(GOOD).expect("good").flows, NODES);
    }
}
