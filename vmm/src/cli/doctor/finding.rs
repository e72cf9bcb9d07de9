//! What was found out about the host: in words for people, in numbers for programs.

use serde::Serialize;
use std::collections::BTreeMap;

/// How good that is for machines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Grade {
    /// As it should be.
    Good,
    /// Machines run, but something is slower or missing.
    Odd,
    /// Machines do not run.
    Bad,
}

/// One thing found out.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Finding {
    /// Which of the topics.
    pub(super) topic: &'static str,
    /// How good it is.
    pub(super) grade: Grade,
    /// What was seen.
    pub(super) found: String,
    /// What that means.
    pub(super) means: String,
    /// What will be slow or missing because of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) slow: Option<String>,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) todo: Option<String>,
    /// What was measured.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) values: BTreeMap<&'static str, serde_json::Value>,
}

impl Finding {
    fn new(topic: &'static str, grade: Grade, found: impl Into<String>, means: impl Into<String>) -> Self {
        let (found, means) = (found.into(), means.into());
        Self { topic, grade, found, means, slow: None, todo: None, values: BTreeMap::new() }
    }

    pub(super) fn good(topic: &'static str, found: impl Into<String>, means: impl Into<String>) -> Self {
        Self::new(topic, Grade::Good, found, means)
    }

    pub(super) fn odd(topic: &'static str, found: impl Into<String>, means: impl Into<String>) -> Self {
        Self::new(topic, Grade::Odd, found, means)
    }

    pub(super) fn bad(topic: &'static str, found: impl Into<String>, means: impl Into<String>) -> Self {
        Self::new(topic, Grade::Bad, found, means)
    }

    pub(super) fn slow(self, slow: impl Into<String>) -> Self {
        Self { slow: Some(slow.into()), ..self }
    }

    pub(super) fn todo(self, todo: impl Into<String>) -> Self {
        Self { todo: Some(todo.into()), ..self }
    }

    pub(super) fn value(mut self, key: &'static str, value: impl Into<serde_json::Value>) -> Self {
        self.values.insert(key, value.into());
        self
    }
}
