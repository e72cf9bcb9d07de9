//! `--docroot`: a directory becomes a read-only disk image.

use super::Failure;
use super::disk_image::{human_bytes, show};
use super::progress::ProgressLine;
use super::style::counted;
use crate::backend::disk::Access;
use crate::cache_dir::cache_dir;
use crate::docroot_image::{self, Event, Origin};
use crate::machine::DiskSetup;
use crate::sample_site;
use std::path::Path;

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

/// The image of a directory: the one that is kept from an earlier run if nothing has changed since, or else a new one.
pub(super) fn image(dir: &Path) -> Result<Docroot, Failure> {
    let cache = docroot_image::cache_dir()?;
    let mut line = ProgressLine::new();
    let prepared = docroot_image::prepare(dir, &cache, &mut |event| match event {
        // Nobody knows for how long.
        Event::Waiting => complain!("exovm: waiting for another run that makes an image of this directory"),
        Event::Making(progress) => show(&mut line, progress),
    })?;
    drop(line);
    for warning in &prepared.warnings {
        complain!("exovm: {warning}");
    }
    let (files, size) = (counted(prepared.files, "file", "files"), human_bytes(prepared.image_bytes));
    let origin = match prepared.origin {
        Origin::Reused => "kept from an earlier run".to_owned(),
        Origin::Made => format!("made in {:.1} s", prepared.took.as_secs_f64()),
        Origin::Remade => format!("made anew in {:.1} s: something had changed", prepared.took.as_secs_f64()),
    };
    let disk = DiskSetup::open(&prepared.path, Access::ReadOnly)?;
    Ok(Docroot { disk, summary: format!("{files}, disk image of {size} {origin}") })
}
