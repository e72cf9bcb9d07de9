//! `exovm image`: the built-in images, and what is in an image.

use super::Failure;
use super::style::{HEADING, columns, print, styled};
use crate::images;
use abi::trace::{KIND_COUNTER, KIND_SPAN};
use exovm_image::container::Image;
use exovm_image::program::{Access, Program};
use serde::Serialize;
use std::process::ExitCode;

/// Arguments of `image`.
#[derive(clap::Args, Debug)]
pub(super) struct ImageArguments {
    #[command(subcommand)]
    what: What,
}

#[derive(clap::Subcommand, Debug)]
enum What {
    /// List the built-in images.
    #[command(after_long_help = "Examples:
  exovm image list
  exovm image list --json | jq -r '.images[].name'")]
    List {
        /// Print JSON (schema exovm-images/1).
        #[arg(long)]
        json: bool,
    },
    /// Print what an image is made of.
    #[command(after_long_help = "Examples:
  exovm image info cheetah
  exovm image info ./webby.image --json")]
    Info {
        /// A built-in image, or the path of an image file (with a '/').
        image: String,
        /// Print JSON (schema exovm-image/1).
        #[arg(long)]
        json: bool,
    },
}

/// The JSON form of the list.
#[derive(Serialize)]
struct List {
    schema: &'static str,
    images: Vec<Summary>,
}

/// An image in one line.
#[derive(Serialize)]
struct Summary {
    name: String,
    description: String,
    file_bytes: u64,
    memory_bytes: u64,
    docroot: bool,
}

/// The JSON form of one image.
#[derive(Serialize)]
struct Details {
    schema: &'static str,
    #[serde(flatten)]
    summary: Summary,
    abi_version: u32,
    kernel: Part,
    program: Part,
    spans: Vec<String>,
    counters: Vec<String>,
    events: Vec<String>,
}

/// What a program takes in memory.
#[derive(Serialize)]
struct Part {
    code_bytes: u64,
    constant_bytes: u64,
    data_bytes: u64,
    functions: usize,
}

pub(super) fn image(arguments: ImageArguments) -> Result<ExitCode, Failure> {
    match arguments.what {
        What::List { json } => list(json),
        What::Info { image, json } => info(&image, json),
    }
}

fn list(json: bool) -> Result<ExitCode, Failure> {
    let images = images::names()
        .map(|name| Ok(Summary::of(&images::load(name)?, images::file_bytes(name)?)))
        .collect::<Result<Vec<_>, images::LoadError>>()?;
    if json {
        print(&serde_json::to_string_pretty(&List { schema: "exovm-images/1", images })?)?;
        return Ok(ExitCode::SUCCESS);
    }
    let row = |image: &Summary| {
        [
            image.name.clone(),
            kib(image.file_bytes),
            format!("{} MiB", image.memory_bytes >> 20),
            image.description.clone(),
        ]
    };
    let rows: Vec<_> = images.iter().map(row).collect();
    print(&columns(["NAME", "FILE", "MEMORY", "WHAT IT IS"], &rows))?;
    Ok(ExitCode::SUCCESS)
}

fn info(name: &str, json: bool) -> Result<ExitCode, Failure> {
    let details = Details::of(&images::load(name)?, images::file_bytes(name)?);
    if json {
        print(&serde_json::to_string_pretty(&details)?)?;
        return Ok(ExitCode::SUCCESS);
    }
    let Details { summary, abi_version, kernel, program, spans, counters, events, .. } = &details;
    let memory = summary.memory_bytes >> 20;
    let served = if summary.docroot { ", and what it serves on top (--docroot)" } else { "" };
    let names = |names: &[String]| if names.is_empty() { "none".to_owned() } else { names.join(", ") };
    let rows = [
        ("file", format!("{}, ABI version {abi_version}", kib(summary.file_bytes))),
        ("memory", format!("{memory} MiB{served}")),
        ("kernel", kernel.to_string()),
        ("program", program.to_string()),
        ("spans", names(spans)),
        ("counters", names(counters)),
        ("events", names(events)),
    ];
    let mut text = format!("{}: {}", styled(&summary.name, HEADING), summary.description);
    for (key, value) in rows {
        text.push_str(&format!("\n  {key:<9} {value}"));
    }
    print(&text)?;
    Ok(ExitCode::SUCCESS)
}

impl Summary {
    fn of(image: &Image, file_bytes: u64) -> Self {
        let manifest = &image.manifest;
        Self {
            name: manifest.name.clone(),
            description: manifest.description.clone(),
            file_bytes,
            memory_bytes: manifest.memory_mib << 20,
            docroot: manifest.docroot,
        }
    }
}

impl Details {
    fn of(image: &Image, file_bytes: u64) -> Self {
        let named = |wanted: fn(u32) -> bool| {
            let sites = image.program.sites.iter().filter(|site| wanted(site.kind));
            let mut names: Vec<String> = sites.map(|site| site.name.clone()).collect();
            names.sort_unstable();
            names.dedup();
            names
        };
        Self {
            schema: "exovm-image/1",
            summary: Summary::of(image, file_bytes),
            // Images of other versions are refused.
            abi_version: abi::VERSION,
            kernel: Part::of(&image.kernel),
            program: Part::of(&image.program),
            spans: named(|kind| kind == KIND_SPAN),
            counters: named(|kind| kind == KIND_COUNTER),
            events: named(|kind| kind != KIND_SPAN && kind != KIND_COUNTER),
        }
    }
}

impl Part {
    fn of(program: &Program) -> Self {
        let bytes = |access| {
            let segments = program.segments.iter().filter(|segment| segment.access == access);
            segments.map(|segment| segment.len_bytes).sum()
        };
        Self {
            code_bytes: bytes(Access::Execute),
            constant_bytes: bytes(Access::Read),
            data_bytes: bytes(Access::Write),
            functions: program.symbols.iter().filter(|symbol| symbol.len_bytes > 0).count(),
        }
    }
}

impl std::fmt::Display for Part {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { code_bytes, constant_bytes, data_bytes, functions } = self;
        let [code, constants, data] = [code_bytes, constant_bytes, data_bytes].map(|bytes| kib(*bytes));
        write!(f, "{code} code in {functions} functions, {constants} constants, {data} data")
    }
}

fn kib(bytes: u64) -> String {
    format!("{:.1} KiB", bytes as f64 / 1024.0)
}
