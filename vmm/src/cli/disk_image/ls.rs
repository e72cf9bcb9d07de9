//! `exovm ls`: what is in an image.

use super::{absolute, find, open, shown, time_text};
use crate::cli::Failure;
use crate::cli::style::{Reader, print};
use exos_fs::image::Image;
use exos_fs::{FileId, Node};
use serde::Serialize;
use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

/// Arguments of `ls`.
#[derive(clap::Args, Debug)]
#[command(after_long_help = "Examples
  exovm ls site.img                 what is in the root
  exovm ls -l site.img /css         with kind, size, time (UTC) and media type
  exovm ls -R site.img              everything, a path a line
  exovm ls -R --json site.img | jq '.entries[] | select(.size_bytes > 1000000)'")]
pub(in crate::cli) struct LsArguments {
    /// The image.
    image: PathBuf,
    /// File or directory in it.
    #[arg(default_value = "/")]
    path: OsString,
    /// Also kind, size, time of modification (UTC) and media type.
    #[arg(long, short)]
    long: bool,
    /// Also what is in the directories below.
    #[arg(long, short = 'R')]
    recursive: bool,
    /// Print JSON (schema exovm-ls/1).
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct ListJson {
    schema: &'static str,
    entries: Vec<EntryJson>,
}

#[derive(Serialize)]
struct EntryJson {
    path: String,
    kind: &'static str,
    size_bytes: u64,
    mtime_unix_seconds: u64,
    /// `null` for a directory.
    media_type: Option<&'static str>,
    id: u64,
    extents: Vec<ExtentJson>,
}

#[derive(Serialize)]
struct ExtentJson {
    first_block: u64,
    blocks: u32,
}

pub(in crate::cli) fn ls(arguments: &LsArguments) -> Result<ExitCode, Failure> {
    let mut image = open(&arguments.image)?;
    let node = find(&mut image, &arguments.path)?;
    let path = absolute(&arguments.path);
    let mut entries = Vec::new();
    let mut printed = Ok(Reader::Listens);
    let mut print_entry = |path: &[u8], name: &[u8], node: &Node| match (arguments.json, &printed) {
        (true, _) => entries.push(json(path, node)),
        // A path where there are several directories, otherwise a name.
        (false, Ok(Reader::Listens)) => {
            printed = print(&line(arguments, if arguments.recursive { path } else { name }, node));
        }
        _ => {}
    };
    let complete = match node.is_directory() {
        true => list(&mut image, path, node, arguments.recursive, &mut print_entry),
        false => {
            print_entry(&path, &path, &node);
            true
        }
    };
    if arguments.json {
        printed = print(&serde_json::to_string_pretty(&ListJson { schema: "exovm-ls/1", entries })?);
    }
    printed?;
    Ok(if complete { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Takes the path, the name and what it names.
type Print<'a> = dyn FnMut(&[u8], &[u8], &Node) + 'a;

/// Gives `print` all that is in a directory, sorted. A directory that cannot be read is an error on the way and does not
/// keep the others from being listed; then this returns `false`.
fn list(image: &mut Image, path: Vec<u8>, node: Node, recursive: bool, print: &mut Print<'_>) -> bool {
    let mut complete = true;
    // With the ids of the directories above: an image may say that a directory is in itself.
    let mut waiting: Vec<(Vec<u8>, Node, Vec<FileId>)> = vec![(path, node, Vec::new())];
    while let Some((path, node, above)) = waiting.pop() {
        if above.contains(&node.id()) {
            complain!("exovm: {}: the directory is in itself (`exovm fsck` says more)", shown(&path));
            complete = false;
            continue;
        }
        let entries = match image.entries(&node) {
            Ok(entries) => entries,
            Err(error) => {
                complain!("exovm: {}: {error}", shown(&path));
                complete = false;
                continue;
            }
        };
        let mut below = Vec::new();
        for (name, entry) in entries {
            let path = [path.strip_suffix(b"/").unwrap_or(&path), b"/", &name].concat();
            print(&path, &name, &entry);
            if recursive && entry.is_directory() {
                below.push((path, entry, [&above[..], &[node.id()]].concat()));
            }
        }
        waiting.extend(below.into_iter().rev());
    }
    complete
}

fn line(arguments: &LsArguments, name: &[u8], node: &Node) -> String {
    let slash = if node.is_directory() && name != b"/" { "/" } else { "" };
    let name = shown(name);
    if !arguments.long {
        return format!("{name}{slash}");
    }
    let (kind, media_type) = if node.is_directory() { ("d", "-") } else { ("-", node.media_type()) };
    let (size, time) = (node.size_bytes(), time_text(node.mtime_unix_seconds()));
    format!("{kind} {size:>12}  {time}  {media_type:<30}  {name}{slash}")
}

fn json(path: &[u8], node: &Node) -> EntryJson {
    let is_directory = node.is_directory();
    EntryJson {
        path: shown(path),
        kind: if is_directory { "directory" } else { "file" },
        size_bytes: node.size_bytes(),
        mtime_unix_seconds: node.mtime_unix_seconds(),
        media_type: (!is_directory).then(|| node.media_type()),
        id: node.id().0,
        extents: node
            .extents()
            .iter()
            .map(|extent| ExtentJson { first_block: extent.first_block, blocks: extent.blocks })
            .collect(),
    }
}
