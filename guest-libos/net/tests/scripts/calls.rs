//! The calls of RFC 9293 3.10.1 to 3.10.6 in each state of 3.3.2: what scripts call where is noted as they run, and a table is made
//! of it.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use crate::parse::{Call, STATES};
use crate::run::{Called, Run};

const CALLS: [&str; 6] = ["OPEN", "SEND", "RECEIVE", "CLOSE", "ABORT", "STATUS"];

/// What cannot be called: state, call, and why.
const NOT_APPLICABLE: [(&str, &str, &str); 4] = [
    ("LISTEN", "SEND", "a port is no connection that something could be sent on"),
    ("LISTEN", "RECEIVE", "or received on"),
    ("LISTEN", "ABORT", "as CLOSE: nothing is outstanding"),
    ("LISTEN", "STATUS", "`Counters` and `Stack::half_open` are of all ports"),
];

impl Run<'_> {
    /// The state of a peer's connection, or what has become of it.
    pub(crate) fn state(&self, peer: usize) -> &'static str {
        let state = &self.peers[peer];
        match state.conn.and_then(|conn| self.stack.state_name(conn)) {
            Some(name) => name,
            None if state.gone.is_some() && self.stack.time_wait() > 0 => "TIME-WAIT",
            None => "CLOSED",
        }
    }

    /// A peer's connection is no more.
    pub(crate) fn ended(&mut self, peer: usize) {
        let state = &mut self.peers[peer];
        state.gone = state.conn.take().or(state.gone);
    }

    /// Notes a call that is about to be made.
    pub(crate) fn note_call(&mut self, peer: usize, call: &Call) {
        let state = self.state(peer);
        let called = match call {
            // One that names the connection that there is.
            Call::Connect(_, Some(port)) if *port == self.peers[peer].local_port && state != "CLOSED" => {
                (state, "OPEN")
            }
            Call::Listen(port, _) if self.listens.contains(port) => ("LISTEN", "OPEN"),
            Call::Unlisten(..) => ("LISTEN", "CLOSE"),
            // From a port that is listened on: RFC 9293 3.10.1 calls that a change from passive to active.
            Call::Connect(_, Some(port)) if self.listens.contains(port) => ("LISTEN", "OPEN"),
            Call::Listen(..) | Call::Connect(..) => ("CLOSED", "OPEN"),
            Call::Send(_) | Call::Queue(_) | Call::SendUrgent(_) => (state, "SEND"),
            Call::Consume(_) => (state, "RECEIVE"),
            Call::Close => (state, "CLOSE"),
            Call::Abort => (state, "ABORT"),
            _ => return,
        };
        self.called.insert(called);
        match call {
            Call::Listen(port, _) => drop(self.listens.insert(*port)),
            Call::Unlisten(port, _) => drop(self.listens.remove(port)),
            _ => {}
        }
    }
}

/// The table, of what each script called.
pub(crate) fn table(called: &BTreeMap<String, Called>) -> Result<String, String> {
    let mut rows = format!("| state | {} |\n|{} --- |\n", CALLS.join(" | "), " --- |".repeat(CALLS.len()));
    let (mut reasons, mut missing) = (String::new(), Vec::new());
    for state in STATES {
        let _ = write!(rows, "| {state} |");
        for call in CALLS {
            let scripts: Vec<&String> = called
                .iter()
                .filter(|(_, called)| called.contains(&(state, call)))
                .map(|(path, _)| path)
                .collect();
            let reason =
                NOT_APPLICABLE.iter().find(|&&(of_state, of_call, _)| (of_state, of_call) == (state, call));
            match (reason, &scripts[..]) {
                (None, [first, rest @ ..]) => {
                    let _ = write!(rows, " [{}](tests/scripts/{first})", first.trim_end_matches(".pkt"));
                    if !rest.is_empty() {
                        let _ = write!(rows, " and {} more", rest.len());
                    }
                    rows.push_str(" |");
                }
                (Some((.., reason)), []) => {
                    rows.push_str(" no |");
                    let _ = writeln!(reasons, "- {call} in {state}: {reason}");
                }
                (None, []) => missing.push(format!("{call} in {state}")),
                (Some(_), [first, ..]) => {
                    return Err(format!("{first} calls {call} in {state}, where it cannot be called"));
                }
            }
        }
        rows.push('\n');
    }
    if !missing.is_empty() {
        return Err(format!("no script calls {}, and no reason says why", missing.join(", ")));
    }
    Ok(format!("{rows}\nWhere there is none:\n\n{reasons}"))
}
