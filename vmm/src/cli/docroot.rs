//! `--docroot`: a directory becomes a read-only disk image.

use super::Failure;
use crate::backend::disk::Access;
use crate::cache_dir::cache_dir;
use crate::machine::DiskSetup;
use crate::sample_site;
use exos_fs::make::{Options, Plan};
use std::path::Path;
use std::time::{Duration, Instant};

/// What takes longer gets a line of its own.
const PROGRESS_AFTER: Duration = Duration::from_secs(1);

/// An image of a directory, ready to be attached.
pub(super) struct Docroot {
    pub(super) disk: DiskSetup,
    /// What is in it, for people.
    pub(super) summary: String,
}

/// The image of the site that is served when none is given.
pub(super) fn sample_site() -> Result<Docroot, Failure> {
    let cache = cache_dir().ok_or("there is no directory for caches; set HOME, or XDG_CACHE_HOME")?;
    let dir = sample_site::unpack(&cache).map_err(|error| format!("{}: {error}", cache.display()))?;
    let docroot = image(&dir)?;
    Ok(Docroot { summary: "a sample site; --docroot DIR serves your own".to_owned(), ..docroot })
}

/// Makes the image. Its file has no name any more once it is open, so nothing is left behind.
pub(super) fn image(dir: &Path) -> Result<Docroot, Failure> {
    let started = Instant::now();
    let plan = Plan::scan(dir)?;
    for warning in plan.warnings() {
        eprintln!("exovm: {warning}");
    }
    if plan.file_count() == 0 {
        return Err(format!(
            "{} holds no file; put something into it, an index.html to begin with",
            dir.display()
        )
        .into());
    }
    let scratch = tempfile::tempdir().map_err(|error| format!("a temporary directory: {error}"))?;
    let path = scratch.path().join("docroot.img");
    let made = plan.write(&path, &Options::default(), &mut |_| {})?;
    if started.elapsed() > PROGRESS_AFTER {
        eprintln!("made an image of {} files in {:.1} s", made.files, started.elapsed().as_secs_f64());
    }
    let disk = DiskSetup::open(&path, Access::ReadOnly)?;
    Ok(Docroot { disk, summary: format!("{} files, {} bytes", made.files, made.file_bytes) })
}
