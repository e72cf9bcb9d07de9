//! Which attacks, and for how long.

use super::Attack;
use crate::BenchError;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// What `exovm bench attack` does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AttackOptions {
    /// Which, in this order.
    pub attacks: Vec<Attack>,
    /// How long each lasts, and the time without it before.
    pub milliseconds: u32,
    /// Where the report is written as JSON.
    pub json_path: Option<PathBuf>,
}

impl Default for AttackOptions {
    /// All, five seconds each.
    fn default() -> Self {
        Self { attacks: Attack::ALL.to_vec(), milliseconds: 5_000, json_path: None }
    }
}

impl AttackOptions {
    /// The short form.
    pub fn quick() -> Self {
        Self { milliseconds: 1_500, ..Self::default() }
    }

    /// Says what is wrong with the options, before anything is started.
    pub(crate) fn check(&self) -> Result<(), BenchError> {
        if self.milliseconds < 100 {
            return Err(BenchError::InvalidOptions("an attack lasts 100 ms at least".into()));
        }
        if self.attacks.is_empty() {
            return Err(BenchError::InvalidOptions("name at least one attack".into()));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn check_invalid_options_returns_what_is_wrong() {
        let options = AttackOptions::default;
        for (options, words) in [
            (AttackOptions { milliseconds: 99, ..options() }, "100 ms"),
            (AttackOptions { attacks: vec![], ..options() }, "at least one attack"),
        ] {
            assert!(options.check().unwrap_err().to_string().contains(words));
        }
        assert!(options().check().is_ok() && AttackOptions::quick().check().is_ok());
    }

    #[test]
    fn from_str_knows_every_name_and_lists_them() {
        for attack in Attack::ALL {
            let name = serde_json::to_value(attack).unwrap();
            assert_eq!(name.as_str().unwrap().parse(), Ok(attack));
            assert!("smurf".parse::<Attack>().unwrap_err().contains(name.as_str().unwrap()));
        }
    }
}
