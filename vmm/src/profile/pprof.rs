//! The profile as `pprof` reads it: `profile.proto` of google/pprof, compressed. The messages are written by hand, with the
//! tags and the meaning that file gives them.

use super::collect::{Profile, Stack};
use super::stream::Frame;
use abi::layout::KERNEL_VA;
use flate2::Compression;
use flate2::write::GzEncoder;
use prost::Message;
use std::collections::HashMap;
use std::io::Write;

/// `Profile`.
#[derive(Clone, PartialEq, Message)]
struct ProfileMessage {
    #[prost(message, repeated, tag = "1")]
    sample_type: Vec<ValueType>,
    #[prost(message, repeated, tag = "2")]
    sample: Vec<SampleMessage>,
    #[prost(message, repeated, tag = "3")]
    mapping: Vec<Mapping>,
    #[prost(message, repeated, tag = "4")]
    location: Vec<Location>,
    #[prost(message, repeated, tag = "5")]
    function: Vec<Function>,
    #[prost(string, repeated, tag = "6")]
    string_table: Vec<String>,
    #[prost(int64, tag = "9")]
    time_nanos: i64,
    #[prost(int64, tag = "10")]
    duration_nanos: i64,
    #[prost(message, optional, tag = "11")]
    period_type: Option<ValueType>,
    #[prost(int64, tag = "12")]
    period: i64,
    #[prost(int64, tag = "14")]
    default_sample_type: i64,
}

/// `ValueType`: indices of strings.
#[derive(Clone, PartialEq, Message)]
struct ValueType {
    #[prost(int64, tag = "1")]
    kind: i64,
    #[prost(int64, tag = "2")]
    unit: i64,
}

/// `Sample`: the innermost location first, a value for each sample type.
#[derive(Clone, PartialEq, Message)]
struct SampleMessage {
    #[prost(uint64, repeated, tag = "1")]
    location_id: Vec<u64>,
    #[prost(int64, repeated, tag = "2")]
    value: Vec<i64>,
    #[prost(message, repeated, tag = "3")]
    label: Vec<Label>,
}

/// `Label`: a key, and a string or a number.
#[derive(Clone, PartialEq, Message)]
struct Label {
    #[prost(int64, tag = "1")]
    key: i64,
    #[prost(int64, tag = "2")]
    text: i64,
    #[prost(int64, tag = "3")]
    number: i64,
}

/// `Mapping`.
#[derive(Clone, PartialEq, Message)]
struct Mapping {
    #[prost(uint64, tag = "1")]
    id: u64,
    #[prost(uint64, tag = "2")]
    memory_start: u64,
    #[prost(uint64, tag = "3")]
    memory_limit: u64,
    #[prost(int64, tag = "5")]
    filename: i64,
    #[prost(bool, tag = "7")]
    has_functions: bool,
}

/// `Location`.
#[derive(Clone, PartialEq, Message)]
struct Location {
    #[prost(uint64, tag = "1")]
    id: u64,
    #[prost(uint64, tag = "2")]
    mapping_id: u64,
    #[prost(uint64, tag = "3")]
    address: u64,
    #[prost(message, repeated, tag = "4")]
    line: Vec<Line>,
}

/// `Line`.
#[derive(Clone, PartialEq, Message)]
struct Line {
    #[prost(uint64, tag = "1")]
    function_id: u64,
}

/// `Function`.
#[derive(Clone, PartialEq, Message)]
struct Function {
    #[prost(uint64, tag = "1")]
    id: u64,
    #[prost(int64, tag = "2")]
    name: i64,
    #[prost(int64, tag = "3")]
    system_name: i64,
    #[prost(int64, tag = "4")]
    filename: i64,
}

/// Ids of the mappings.
const IMAGE: u64 = 1;
const KERNEL: u64 = 2;
const VMM: u64 = 3;

/// The compressed file. `began_utc_ns`: when the first sample was taken, since the epoch.
pub fn encode(profile: &Profile, began_utc_ns: u64) -> std::io::Result<Vec<u8>> {
    let mut writer = Writer::default();
    writer.text("");
    let message = writer.profile(profile, began_utc_ns);
    let mut compressed = GzEncoder::new(Vec::new(), Compression::default());
    compressed.write_all(&message.encode_to_vec())?;
    compressed.finish()
}

/// Numbers for strings and functions.
#[derive(Default)]
struct Writer {
    texts: Vec<String>,
    numbers: HashMap<String, i64>,
    functions: Vec<Function>,
    by_name: HashMap<(u64, String), u64>,
}

impl Writer {
    fn text(&mut self, text: &str) -> i64 {
        if let Some(&number) = self.numbers.get(text) {
            return number;
        }
        let number = self.texts.len() as i64;
        self.texts.push(text.to_owned());
        self.numbers.insert(text.to_owned(), number);
        number
    }

    fn value_type(&mut self, kind: &str, unit: &str) -> ValueType {
        ValueType { kind: self.text(kind), unit: self.text(unit) }
    }

    fn profile(mut self, profile: &Profile, began_utc_ns: u64) -> ProfileMessage {
        let sample_type = vec![self.value_type("samples", "count"), self.value_type("time", "nanoseconds")];
        let period_type = Some(self.value_type("time", "nanoseconds"));
        let mapping = vec![
            self.mapping(IMAGE, (0, KERNEL_VA), &profile.begin.image),
            self.mapping(KERNEL, (KERNEL_VA, u64::MAX), "xok"),
            self.mapping(VMM, (0, 0), "exovm"),
        ];
        let location = profile.frames.iter().map(|frame| self.location(frame)).collect();
        let period_ns = profile.period_ns();
        let sample = profile
            .stacks
            .iter()
            .map(|(stack, &count)| SampleMessage {
                location_id: stack.frames.iter().map(|&frame| u64::from(frame) + 1).collect(),
                value: vec![count as i64, (count * period_ns) as i64],
                label: self.labels(profile, stack),
            })
            .collect();
        let default_sample_type = self.text("time");
        ProfileMessage {
            sample_type,
            sample,
            mapping,
            location,
            function: self.functions,
            string_table: self.texts,
            time_nanos: began_utc_ns as i64,
            duration_nanos: (profile.counts.elapsed_us * 1000) as i64,
            period_type,
            period: period_ns as i64,
            default_sample_type,
        }
    }

    fn mapping(&mut self, id: u64, (memory_start, memory_limit): (u64, u64), name: &str) -> Mapping {
        Mapping { id, memory_start, memory_limit, filename: self.text(name), has_functions: true }
    }

    /// The location of a frame; its id is the frame's and one, for 0 is none.
    fn location(&mut self, frame: &Frame) -> Location {
        let mapping_id = match frame.va {
            0 => VMM,
            _ if frame.is_kernel() => KERNEL,
            _ => IMAGE,
        };
        let known = self.by_name.get(&(mapping_id, frame.name.clone())).copied();
        let function_id = known.unwrap_or_else(|| {
            let id = self.functions.len() as u64 + 1;
            // Where both names are the same, pprof takes the name for one that it may shorten.
            let (name, system_name) = (self.text(&frame.name), self.text(&frame.symbol));
            self.functions.push(Function { id, name, system_name, filename: 0 });
            self.by_name.insert((mapping_id, frame.name.clone()), id);
            id
        });
        let line = vec![Line { function_id }];
        Location { id: u64::from(frame.id) + 1, mapping_id, address: frame.va, line }
    }

    fn labels(&mut self, profile: &Profile, stack: &Stack) -> Vec<Label> {
        let mut labels = Vec::new();
        let mut label = |key: &str, value: &str| {
            labels.push(Label { key: self.text(key), text: self.text(value), number: 0 });
        };
        label("thread", profile.thread(stack));
        if let Some(environment) = stack.environment {
            label("environment", &environment.to_string());
        }
        if let Some(ring) = stack.ring {
            label("ring", &ring.to_string());
        }
        labels
    }
}
