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
use std::path::{Path, PathBuf};

/// An image of a directory, ready to be attached.
struct Docroot {
    disk: DiskSetup,
    path: PathBuf,
    /// What is in it, for people.
    summary: String,
}

/// What the disks of document roots are, one for each environment that serves, and what is in them, for people. One root is
/// served by all of them.
pub(super) fn of_environments(
    roots: &[PathBuf],
    environments: usize,
) -> Result<(Vec<DiskSetup>, Vec<String>), Failure> {
    if roots.len() > 1 && roots.len() != environments {
        return Err(format!(
            "--docroot is given {} times, and there {}; give it once, or once for each (--environments says how many)",
            roots.len(),
            if environments == 1 { "is one environment that serves".to_owned() } else { format!("are {environments} environments that serve") }
        )
        .into());
    }
    let images = if roots.is_empty() {
        vec![sample_site()?]
    } else {
        roots.iter().map(|dir| image(dir)).collect::<Result<_, _>>()?
    };
    let summaries = images.iter().map(|image| image.summary.clone()).collect();
    let missing = environments.saturating_sub(images.len());
    let again = images.last().map(|image| image.path.clone());
    let mut disks: Vec<_> = images.into_iter().map(|image| image.disk).collect();
    for path in again.iter().cycle().take(missing) {
        disks.push(DiskSetup::open(path, Access::ReadOnly)?);
    }
    Ok((disks, summaries))
}

/// The image of the site that is served when none is given.
fn sample_site() -> Result<Docroot, Failure> {
    let cache = cache_dir().ok_or("there is no directory for caches; set HOME, or XDG_CACHE_HOME")?;
    let dir = sample_site::unpack(&cache).map_err(|error| format!("{}: {error}", cache.display()))?;
    let docroot = image(&dir)?;
    Ok(Docroot { summary: "a sample site; --docroot DIR serves your own".to_owned(), ..docroot })
}

/// The image of a directory: the one that is kept from an earlier run if nothing has changed since, or else a new one.
fn image(dir: &Path) -> Result<Docroot, Failure> {
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
    Ok(Docroot { disk, path: prepared.path, summary: format!("{files}, disk image of {size} {origin}") })
}
