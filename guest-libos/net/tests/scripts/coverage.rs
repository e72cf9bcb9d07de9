//! The table of RFC 9293's requirements (`RFC9293.md`): made of `requirements.txt`, the `covers` lines of all scripts and
//! the Rust tests that are named there.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use crate::{calls, run};

/// How many requirements of each kind appendix B has, numbered from 1 without a gap.
const KINDS: [(&str, usize); 4] = [("MUST", 69), ("SHLD", 31), ("MAY", 18), ("REC", 1)];
const COMMAND: &str = "EXOS_NET_WRITE_TABLE=1 cargo test -p exos-net --test scripts table";

struct Requirement<'t> {
    section: &'t str,
    asks: &'t str,
    /// What is said about it beside the scripts, as `(keyword, rest)`.
    remarks: Vec<(&'t str, &'t str)>,
}

fn crate_folder() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn requirements(text: &str) -> Result<BTreeMap<&str, Requirement<'_>>, String> {
    let mut all = BTreeMap::new();
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let fields: Vec<&str> = line.split('|').map(str::trim).collect();
        let [number, section, asks, remarks] = fields[..] else {
            return Err(format!("not four fields: {line}"));
        };
        let mut parsed = Vec::new();
        for remark in remarks.split("; ").filter(|remark| !remark.is_empty()) {
            let keyword = ["test ", "missing: ", "not chosen: ", "not applicable: ", "note: "]
                .into_iter()
                .find(|keyword| remark.starts_with(keyword));
            let keyword = keyword.ok_or_else(|| format!("{number}: no keyword begins {remark:?}"))?;
            parsed.push((keyword.trim_end_matches([' ', ':']), &remark[keyword.len()..]));
        }
        if all.insert(number, Requirement { section, asks, remarks: parsed }).is_some() {
            return Err(format!("{number} is there twice"));
        }
    }
    for (kind, count) in KINDS {
        for number in 1..=count {
            let number = format!("{kind}-{number}");
            if !all.contains_key(number.as_str()) {
                return Err(format!("{number} is not there"));
            }
        }
    }
    let expected: usize = KINDS.iter().map(|(_, count)| count).sum();
    if all.len() != expected {
        return Err(format!("{} requirements, but appendix B has {expected}", all.len()));
    }
    Ok(all)
}

/// Whether the file has a function with this name.
fn has_function(file: &str, name: &str) -> bool {
    let text = fs::read_to_string(crate_folder().join(file)).unwrap_or_default();
    let begins = [format!("fn {name}("), format!("fn {name}<")];
    let without_visibility = |line: &str| {
        let line = line.trim_start().trim_start_matches("pub");
        line.trim_start_matches("(crate)").trim_start_matches("(super)").trim_start().to_string()
    };
    text.lines().map(without_visibility).any(|line| begins.iter().any(|begin| line.starts_with(begin)))
}

/// The table. `covering` has the scripts of each requirement, `families` what is said about how they run.
fn table(
    text: &str,
    covering: &BTreeMap<String, Vec<String>>,
    (families, calls): (&str, &str),
) -> Result<String, String> {
    let all = requirements(text)?;
    if let Some(unknown) = covering.keys().find(|number| !all.contains_key(number.as_str())) {
        return Err(format!("{:?} covers {unknown}, which RFC 9293 does not have", covering[unknown]));
    }
    let (mut rows, mut open) = (String::new(), Vec::new());
    let (mut by_script, mut by_test) = (0, 0);
    for (kind, count) in KINDS {
        for number in (1..=count).map(|number| format!("{kind}-{number}")) {
            let requirement = &all[number.as_str()];
            let mut how = Vec::new();
            let scripts = covering.get(&number).map_or(&[][..], Vec::as_slice);
            for script in scripts {
                let name = script.trim_end_matches(".pkt");
                how.push(format!("[{name}](tests/scripts/{script})"));
            }
            let (mut tested, mut excused) = (!scripts.is_empty(), false);
            for &(keyword, rest) in &requirement.remarks {
                match keyword {
                    "test" => {
                        let (file, name) = rest.split_once(' ').ok_or_else(|| format!("{number}: {rest}"))?;
                        if !has_function(file, name) {
                            return Err(format!("{number}: {file} has no test {name}"));
                        }
                        how.push(format!("[`{name}`]({file})"));
                        tested = true;
                    }
                    "note" => how.push(rest.into()),
                    _ => {
                        how.push(format!("**{keyword}**: {rest}"));
                        excused = true;
                        open.push(format!("{number} ({keyword})"));
                    }
                }
            }
            if excused == tested {
                let what =
                    if tested { "is covered and excused" } else { "has neither script nor test nor reason" };
                return Err(format!("{number} {what}"));
            }
            by_script += usize::from(!scripts.is_empty());
            by_test += usize::from(scripts.is_empty() && tested);
            let row =
                format!("| {number} | {} | {} | {} |", requirement.section, requirement.asks, how.join("; "));
            let _ = writeln!(rows, "{row}");
        }
    }
    let total: usize = KINDS.iter().map(|(_, count)| count).sum();
    Ok(format!(
        "# RFC 9293, requirement by requirement\n\n\
         Generated from `tests/scripts/requirements.txt` and the `covers` lines of the scripts by\n\
         `{COMMAND}`; a test fails when this file is not what would be generated.\n\n\
         Of {total} requirements (appendix B), {by_script} are covered by scripts, {by_test} by Rust tests alone; \
         {} are not covered:\n{}.\n\n\
         {families}\n\
         | number | section | what it asks for | shown by, or why not |\n| --- | --- | --- | --- |\n{rows}\n\
         # Calls in each state\n\n\
         The calls of 3.10.1 to 3.10.6 in the states of 3.3.2, each by the first script that makes it there. `Stack` returns what they\n\
         return: an identifier, bytes, or the error; a connection that has ended is `Stale`.\n\n{calls}",
        open.len(),
        open.join(", "),
    ))
}

fn covering() -> BTreeMap<String, Vec<String>> {
    let mut covering = BTreeMap::<String, Vec<String>>::new();
    for script in crate::scripts() {
        // One that cannot be read fails in a test of its own.
        let Ok(script) = script else { continue };
        for number in script.covers {
            covering.entry(number).or_default().push(script.path.clone());
        }
    }
    covering
}

/// How many scripts run over both families, and why the others do not.
fn families() -> String {
    let scripts: Vec<_> = crate::scripts().into_iter().flatten().collect();
    let over_both = scripts.iter().filter(|script| script.only.is_none()).count();
    let mut text = format!(
        "Of {} scripts, {over_both} run over IPv4 and IPv6; over one of them only:\n\n",
        scripts.len()
    );
    for script in &scripts {
        let Some(why) = &script.only else { continue };
        let name = script.path.trim_end_matches(".pkt");
        let _ = writeln!(text, "- [{name}](tests/scripts/{}), {}: {why}", script.path, script.family);
    }
    text
}

/// The table of calls by state.
fn calls() -> Result<String, String> {
    let mut called = BTreeMap::new();
    for script in crate::scripts().into_iter().flatten() {
        // One that fails does so in a test of its own.
        if let Ok(calls) = run::run(&script) {
            called.insert(script.path, calls);
        }
    }
    calls::table(&called)
}

#[test]
fn table_of_calls_without_a_script_returns_error() {
    let error = calls::table(&BTreeMap::new()).unwrap_err();
    assert!(error.contains("no script calls OPEN in CLOSED"), "{error}");
    let impossible = BTreeMap::from([("x.pkt".to_string(), run::Called::from([("LISTEN", "SEND")]))]);
    assert!(calls::table(&impossible).is_err());
}

#[test]
fn table_in_the_repository_is_what_the_scripts_cover() {
    let text = fs::read_to_string(crate::folder().join("requirements.txt")).unwrap();
    let expected = table(&text, &covering(), (&families(), &calls().unwrap())).unwrap();
    let path = crate_folder().join("RFC9293.md");
    if std::env::var_os("EXOS_NET_WRITE_TABLE").is_some() {
        fs::write(&path, &expected).unwrap();
    }
    let actual = fs::read_to_string(&path).unwrap_or_default();
    assert!(actual == expected, "RFC9293.md is not up to date; write it with: {COMMAND}");
}

#[test]
fn table_invalid_input_returns_error() {
    let text = fs::read_to_string(crate::folder().join("requirements.txt")).unwrap();
    let good = covering();
    let error =
        |text: &str, covering: &BTreeMap<String, Vec<String>>| table(text, covering, ("", "")).unwrap_err();

    let without = text.replace("MUST-16 |", "# MUST-16 |");
    assert!(error(&without, &good).contains("MUST-16 is not there"));
    assert!(error(&format!("{text}MUST-16 | 1 | x |\n"), &good).contains("MUST-16 is there twice"));
    assert!(error(&format!("{text}MUST-70 | 1 | x |\n"), &good).contains("120 requirements"));
    let renamed = text.replace("tcp_garbage_does_not_panic", "no_such_test");
    assert!(error(&renamed, &good).contains("has no test no_such_test"));

    let mut more = good.clone();
    more.insert("MUST-99".into(), vec!["x.pkt".into()]);
    assert!(error(&text, &more).contains("covers MUST-99"));
    let mut contradicting = good.clone();
    contradicting.insert("MAY-1".into(), vec!["x.pkt".into()]);
    assert!(error(&text, &contradicting).contains("MAY-1 is covered and excused"));
    let mut less = good;
    less.remove("MUST-16");
    assert!(error(&text, &less).contains("MUST-16 has neither script nor test nor reason"));
}

/// The map from RFC 9293 3.10 to functions at the beginning of `src/tcp/mod.rs`.
#[test]
fn map_of_event_processing_names_functions_that_are_there() {
    let text = fs::read_to_string(crate_folder().join("src/tcp/mod.rs")).unwrap();
    let rows = text.lines().filter(|line| line.starts_with("//! | "));
    let places: Vec<&str> = rows.flat_map(|row| row.split('`').skip(1).step_by(2)).collect();
    assert!(places.len() > 30, "{places:?}");
    for place in places {
        let (file, name) = place.split_once(": ").unwrap_or_else(|| panic!("{place} is not FILE: FUNCTION"));
        assert!(has_function(&format!("src/{file}"), name), "src/{file} has no function {name}");
    }
    assert!(!has_function("src/tcp/open.rs", "no_such_function"));
}
