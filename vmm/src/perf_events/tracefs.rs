//! Tracepoints as tracefs describes them: a number, the fields of what is recorded, and the words that stand for their values. It is
//! only read, where it is mounted already. What is said there differs from kernel to kernel and is not believed beyond its form.

use super::Unavailable;
use std::collections::BTreeMap;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

/// Where it is mounted, the newer place first.
const ROOTS: [&str; 2] = ["/sys/kernel/tracing", "/sys/kernel/debug/tracing"];
/// No description is longer; the longest there is has 8 KiB.
const FORMAT_BYTES_MAX: u64 = 1 << 20;

/// A tracepoint.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tracepoint {
    /// Its number, which is also the first field of what it records.
    pub(crate) id: u16,
    fields: BTreeMap<String, Field>,
    /// Tables of values and words, in the order in which they are used for printing.
    pub(crate) words: Vec<Vec<(i64, String)>>,
}

/// Where a field lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Field {
    offset: usize,
    bytes: usize,
}

impl Field {
    /// Its value in what was recorded; 0 if it is not there.
    pub(crate) fn read(self, recorded: &[u8]) -> u64 {
        let Some(bytes) = recorded.get(self.offset..).and_then(|rest| rest.get(..self.bytes)) else {
            return 0;
        };
        let mut value = [0; 8];
        value[..self.bytes].copy_from_slice(bytes);
        u64::from_le_bytes(value)
    }
}

/// Where the tracepoints of a subsystem are described, in `root` if there is one.
pub(crate) fn subsystem(name: &str) -> Result<PathBuf, Unavailable> {
    find(&ROOTS.map(Path::new), name)
}

fn find(roots: &[&Path], name: &str) -> Result<PathBuf, Unavailable> {
    let mut why = Unavailable::NoTracefs;
    for root in roots {
        let dir = root.join("events").join(name);
        match fs::read_dir(&dir) {
            Ok(_) => return Ok(dir),
            Err(error) if error.kind() == ErrorKind::PermissionDenied => {
                if !matches!(why, Unavailable::Unreadable(_)) {
                    why = Unavailable::Unreadable(root.to_path_buf());
                }
            }
            Err(_) if matches!(why, Unavailable::NoTracefs) && root.join("events").exists() => {
                why = Unavailable::NoTracepoints;
            }
            Err(_) => {}
        }
    }
    Err(why)
}

/// A tracepoint of a subsystem; `None`: this kernel does not have it.
pub(crate) fn tracepoint(subsystem: &Path, name: &str) -> Result<Option<Tracepoint>, Unavailable> {
    let path = subsystem.join(name).join("format");
    let mut text = String::new();
    let read = fs::File::open(&path).and_then(|file| {
        use std::io::Read;
        file.take(FORMAT_BYTES_MAX).read_to_string(&mut text)
    });
    match read {
        Ok(_) => Ok(Tracepoint::parse(&text)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) if error.kind() == ErrorKind::PermissionDenied => {
            let root = subsystem.parent().and_then(Path::parent).unwrap_or(subsystem);
            Err(Unavailable::Unreadable(root.to_path_buf()))
        }
        Err(error) => Err(Unavailable::Other(error)),
    }
}

impl Tracepoint {
    /// The text of a `format` file.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let mut tracepoint = Self::default();
        let mut id = None;
        for line in text.lines() {
            let line = line.trim();
            if let Some(number) = line.strip_prefix("ID:") {
                id = number.trim().parse().ok();
            } else if line.starts_with("field:") {
                tracepoint.fields.extend(field(line));
            } else if let Some(print) = line.strip_prefix("print fmt:") {
                tracepoint.words = tables(print);
            }
        }
        tracepoint.id = id?;
        Some(tracepoint)
    }

    /// A field by name, if it is a number.
    pub(crate) fn field(&self, name: &str) -> Option<Field> {
        self.fields.get(name).copied()
    }
}

/// `field:unsigned int exit_reason; offset:8; size:4; signed:0;`
fn field(line: &str) -> Option<(String, Field)> {
    let mut parts = line.split(';').map(str::trim);
    let declaration = parts.next()?.strip_prefix("field:")?;
    let (mut offset, mut bytes) = (None, None);
    for part in parts {
        match part.split_once(':') {
            Some(("offset", number)) => offset = number.parse().ok(),
            Some(("size", number)) => bytes = number.parse().ok(),
            _ => {}
        }
    }
    let name = declaration.rsplit(' ').next()?;
    let field = Field { offset: offset?, bytes: bytes? };
    // Arrays are not numbers.
    (matches!(field.bytes, 1 | 2 | 4 | 8) && !name.contains('[')).then(|| (name.to_owned(), field))
}

/// The tables of `__print_symbolic(expression, { value, "word" }, ...)`, each as far as it is understood.
fn tables(print: &str) -> Vec<Vec<(i64, String)>> {
    let uses = print.split("__print_symbolic(").skip(1);
    uses.map(|text| {
        let mut words = Vec::new();
        let mut rest = text;
        // Pairs follow each other, with a comma in between; whatever else comes is the table's end.
        while let Some((before, from)) = rest.split_once('{') {
            let separator = if words.is_empty() {
                before.rsplit(',').next()
            } else {
                Some(before.trim_start_matches(','))
            };
            let (true, Some((pair, behind))) =
                (separator.is_some_and(|text| text.trim().is_empty()), from.split_once('}'))
            else {
                break;
            };
            words.extend(word(pair));
            rest = behind.trim_start();
            if !rest.starts_with(',') {
                break;
            }
        }
        words
    })
    .collect()
}

/// `0x040 + 14, "PF excp"`; words may come in several literals.
fn word(pair: &str) -> Option<(i64, String)> {
    let (value, literals) = pair.split_once(',')?;
    let value = value.split('+').map(|part| number(part.trim())).sum::<Option<i64>>()?;
    let word: String = literals.split('"').skip(1).step_by(2).collect();
    (!word.is_empty()).then_some((value, word))
}

fn number(text: &str) -> Option<i64> {
    match text.strip_prefix("0x") {
        Some(digits) => i64::from_str_radix(digits, 16).ok(),
        None => text.parse().ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// In the form of Linux 6.x.
    const EXIT: &str = r#"name: kvm_exit
ID: 103
format:
	field:unsigned short common_type;	offset:0;	size:2;	signed:0;
	field:int common_pid;	offset:4;	size:4;	signed:1;

	field:unsigned int exit_reason;	offset:8;	size:4;	signed:0;
	field:unsigned long guest_rip;	offset:16;	size:8;	signed:0;
	field:u32 isa;	offset:24;	size:4;	signed:0;
	field:__u8 insn[15];	offset:28;	size:15;	signed:0;

print fmt: "vcpu %u reason %s%s%s", REC->vcpu_id, (REC->isa == 1) ? __print_symbolic(REC->exit_reason & 0xffff, { 0, "EXCEPTION_NMI" }, { 12, "HLT" }) : __print_symbolic(REC->exit_reason, { 0x000, "read_cr0" }, { 0x040 + 14, "PF excp" }, { -1, "invalid_guest_state" }), (REC->isa == 1 && REC->exit_reason & ~0xffff) ? " " : "", __print_flags(REC->exit_reason & ~0xffff, " ", { 0x80000000, "FAILED_VMENTRY" }), REC->guest_rip
"#;
    const USER_SPACE: &str = r#"ID: 42
	field:__u32 reason;	offset:8;	size:4;	signed:0;
	field:int errno;	offset:12;	size:4;	signed:1;
print fmt: "reason %s (%d)", REC->errno < 0 ? (REC->errno == -4 ? "restart" : "error") : __print_symbolic(REC->reason, { 0, "KVM_EXIT_" "UNKNOWN" }, { 6, "KVM_EXIT_" "MMIO" }), REC->errno
"#;

    fn named(table: &[(i64, String)]) -> Vec<(i64, &str)> {
        table.iter().map(|(value, word)| (*value, word.as_str())).collect()
    }

    #[test]
    fn format_says_number_fields_and_words() {
        let exit = Tracepoint::parse(EXIT).expect("a format");
        assert_eq!(exit.id, 103);
        assert_eq!(exit.field("guest_rip"), Some(Field { offset: 16, bytes: 8 }));
        assert_eq!((exit.field("insn"), exit.field("insn[15]"), exit.field("nothing")), (None, None, None));
        let [vmx, svm] = &exit.words[..] else { panic!("{:?}", exit.words) };
        assert_eq!(named(vmx), [(0, "EXCEPTION_NMI"), (12, "HLT")]);
        assert_eq!(named(svm), [(0, "read_cr0"), (0x4E, "PF excp"), (-1, "invalid_guest_state")]);
        let user_space = Tracepoint::parse(USER_SPACE).expect("a format");
        let [reasons] = &user_space.words[..] else { panic!("{:?}", user_space.words) };
        assert_eq!(named(reasons), [(0, "KVM_EXIT_UNKNOWN"), (6, "KVM_EXIT_MMIO")]);
    }

    #[test]
    fn value_beyond_what_was_recorded_is_0() {
        let field = Field { offset: 2, bytes: 4 };
        assert_eq!(field.read(&[9, 9, 1, 2, 0, 0, 9]), 0x201);
        for len in 0..6 {
            assert_eq!(field.read(&[9; 6][..len]), 0, "{len}");
        }
        assert_eq!(Field { offset: usize::MAX, bytes: 8 }.read(&[1; 16]), 0);
    }

    #[test]
    fn where_tracefs_is_decides_what_is_said() {
        let roots = tempfile::tempdir().expect("a directory");
        let [new, old] = ["tracing", "debug"].map(|name| roots.path().join(name));
        let find = || find(&[&new, &old], "kvm");
        assert!(matches!(find(), Err(Unavailable::NoTracefs)));
        fs::create_dir_all(&new).expect("new");
        assert!(matches!(find(), Err(Unavailable::NoTracefs)), "an empty place to mount it");
        fs::create_dir_all(new.join("events/sched")).expect("new");
        assert!(matches!(find(), Err(Unavailable::NoTracepoints)));
        fs::create_dir_all(old.join("events/kvm/kvm_exit")).expect("new");
        let kvm = find().expect("there");
        assert_eq!(kvm, old.join("events/kvm"));
        assert!(matches!(tracepoint(&kvm, "kvm_exit"), Ok(None)));
        fs::write(kvm.join("kvm_exit/format"), EXIT).expect("new");
        assert_eq!(tracepoint(&kvm, "kvm_exit").expect("readable").map(|exit| exit.id), Some(103));
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_read_or_not(text in "[\\PC\n]{0,200}", cut in 0usize..700) {
            let _ = Tracepoint::parse(&text);
            let _ = Tracepoint::parse(&format!("ID: 1\nfield:{text}\nprint fmt: __print_symbolic({text}"));
            let _ = EXIT.get(..cut).map(Tracepoint::parse);
        }
    }
}
