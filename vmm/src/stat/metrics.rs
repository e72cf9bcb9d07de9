//! How a device or a thread of the VMM counts: a structure of plain numbers, whose doc comments are the help texts that users read. One
//! list makes both, so they cannot differ.

/// A number with its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Metric {
    /// Name, words joined by `_`.
    pub name: &'static str,
    /// A sentence for people.
    pub help: &'static str,
    /// Value.
    pub value: u64,
}

impl Metric {
    /// The name for people.
    pub fn words(&self) -> String {
        self.name.replace('_', " ")
    }
}

/// Declares a structure of counters with [`Metric`]s.
macro_rules! metrics {
    ($(#[$meta:meta])* pub struct $name:ident { $($(#[doc = $help:literal])+ pub $field:ident: u64,)* }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub struct $name {
            $($(#[doc = $help])+ pub $field: u64,)*
        }

        impl $name {
            /// All counters with their names and what they count.
            pub fn entries(&self) -> Vec<$crate::stat::metrics::Metric> {
                vec![$($crate::stat::metrics::Metric {
                    name: stringify!($field),
                    help: concat!($($help),+).trim_ascii(),
                    value: self.$field,
                }),*]
            }
        }
    };
}

pub(crate) use metrics;
