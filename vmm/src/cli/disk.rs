//! `--disk`: images to attach.

use crate::backend::disk::{Access, DiskError};
use crate::machine::DiskSetup;
use std::convert::Infallible;
use std::path::PathBuf;
use std::str::FromStr;

/// `FILE[,ro]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct DiskArgument {
    path: PathBuf,
    access: Access,
}

impl FromStr for DiskArgument {
    type Err = Infallible;

    /// Any name may be that of a file; whether it is one is seen when it is opened.
    fn from_str(text: &str) -> Result<Self, Infallible> {
        Ok(match text.strip_suffix(",ro") {
            Some(path) => Self { path: path.into(), access: Access::ReadOnly },
            None => Self { path: text.into(), access: Access::ReadWrite },
        })
    }
}

impl std::fmt::Display for DiskArgument {
    /// As it is given.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let suffix = match self.access {
            Access::ReadOnly => ",ro",
            Access::ReadWrite => "",
        };
        write!(f, "{}{suffix}", self.path.display())
    }
}

impl DiskArgument {
    /// Opens and locks the image.
    pub(super) fn open(&self) -> Result<DiskSetup, DiskError> {
        DiskSetup::open(&self.path, self.access)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn suffix_ro_is_the_access_and_everything_else_the_name() {
        for (text, path, access) in [
            ("a.img", "a.img", Access::ReadWrite),
            ("a.img,ro", "a.img", Access::ReadOnly),
            ("a,b.img", "a,b.img", Access::ReadWrite),
            ("a.img,rw", "a.img,rw", Access::ReadWrite),
        ] {
            assert_eq!(text.parse(), Ok(DiskArgument { path: path.into(), access }));
        }
    }
}
