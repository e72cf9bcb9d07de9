//! What is known of each machine that is looked at: asked once a tick, with its history. A machine that ends stays, and says so.

use crate::account::AccountSnapshot;
use crate::account::table::requests;
use crate::control::{Answer, ControlError, Info, Request, Session, StatRequest};
use crate::stat::StatSnapshot;
use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

/// Ticks that are remembered.
pub(super) const HISTORY: usize = 60;
/// How long a machine may take to answer.
const PATIENCE: Duration = Duration::from_secs(1);

/// How a machine does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Health {
    /// It answers; this is its state.
    Alive(String),
    /// It does not answer, or not as it should.
    Silent(String),
    /// It has ended.
    Ended,
}

impl Health {
    /// For the list.
    pub(super) fn word(&self) -> &str {
        match self {
            Self::Alive(state) => state,
            Self::Silent(_) => "silent",
            Self::Ended => "ended",
        }
    }
}

/// One line of the table of cycles.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Row {
    /// Thread and bucket, or environment and span.
    pub(super) name: String,
    /// Of the time, in percent; beyond 100 where several vCPUs ran it.
    pub(super) share: f64,
    /// How often a second it was entered.
    pub(super) entries: f64,
    /// Cycles a request; `None`: there were none.
    pub(super) per_request: Option<f64>,
    /// Shares of the last ticks, the newest last.
    pub(super) history: Vec<u64>,
}

/// What one tick brought.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Tick {
    /// Requests a second.
    pub(super) requests: f64,
    /// CPU time of the process a second, in percent.
    pub(super) cpu: f64,
    /// Bytes a second that the guest received and sent.
    pub(super) received_bytes: f64,
    pub(super) sent_bytes: f64,
    /// Where its cycles went.
    pub(super) rows: Vec<Row>,
}

/// A machine.
#[derive(Debug)]
pub(super) struct Watched {
    pub(super) name: String,
    pub(super) health: Health,
    pub(super) image: String,
    /// The last tick; `None` before the second answer.
    pub(super) tick: Option<Tick>,
    /// Requests a second of the last ticks, the newest last.
    pub(super) requests: VecDeque<u64>,
    session: Option<Session>,
    before: Option<(AccountSnapshot, StatSnapshot)>,
    shares: BTreeMap<String, VecDeque<u64>>,
}

impl Watched {
    /// A machine that was not asked yet.
    pub(super) fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            health: Health::Alive("...".to_owned()),
            image: String::new(),
            tick: None,
            requests: VecDeque::new(),
            session: None,
            before: None,
            shares: BTreeMap::new(),
        }
    }

    /// A copy to be shown while it is asked.
    pub(super) fn shown(&self) -> Self {
        Self {
            health: self.health.clone(),
            image: self.image.clone(),
            tick: self.tick.clone(),
            requests: self.requests.clone(),
            ..Self::new(&self.name)
        }
    }

    /// Asks it. The connection stays, and with it the guest's accounts go.
    pub(super) fn ask(&mut self) {
        match self.answers() {
            Ok((info, account, host)) => self.learn(&info, account, host),
            Err(error) => {
                self.session = None;
                self.before = None;
                self.tick = None;
                self.health = match error {
                    ControlError::Gone { .. } | ControlError::NotRunning { .. } => Health::Ended,
                    error => Health::Silent(error.to_string()),
                };
            }
        }
    }

    fn answers(&mut self) -> Result<(Info, AccountSnapshot, StatSnapshot), ControlError> {
        let mut session = match self.session.take() {
            Some(session) => session,
            None => Session::open(&self.name)?,
        };
        session.set_patience(Some(PATIENCE))?;
        let info = match session.ask(&Request::Info)? {
            Answer::Info(info) => *info,
            other => return Err(session.unexpected(&other)),
        };
        let account = match session.ask(&Request::Account)? {
            Answer::Account(account) => *account,
            other => return Err(session.unexpected(&other)),
        };
        let host = match session.ask(&Request::Stat(StatRequest { layers: vec!["host".to_owned()] }))? {
            Answer::Stat(host) => *host,
            other => return Err(session.unexpected(&other)),
        };
        self.session = Some(session);
        Ok((info, account, host))
    }

    /// Takes what it answered.
    pub(super) fn learn(&mut self, info: &Info, account: AccountSnapshot, host: StatSnapshot) {
        self.health = Health::Alive(info.state.name().to_owned());
        self.image.clone_from(&info.image);
        // Of another machine that has taken the name.
        let before = self.before.take().filter(|(before, _)| before.started_tsc == account.started_tsc);
        if let Some((account_before, host_before)) = before {
            let tick = self.difference(&account.since(&account_before), &host.since(&host_before));
            remember(&mut self.requests, tick.requests as u64);
            self.tick = Some(tick);
        }
        self.before = Some((account, host));
    }

    fn difference(&mut self, account: &AccountSnapshot, host: &StatSnapshot) -> Tick {
        let elapsed = account.tsc.max(1) as f64;
        let seconds = elapsed / (account.tsc_khz.max(1) as f64 * 1000.0);
        let sites = || account.sites.iter();
        let requests = requests(account);
        let nic = |name| account.nic_counter(name).unwrap_or(0) as f64 / seconds;
        let buckets = account.threads.iter().flat_map(|thread| {
            thread.buckets.iter().map(move |bucket| {
                (format!("{}: {}", thread.name, bucket.name), bucket.cycles, bucket.entries)
            })
        });
        let spans = sites().filter(|site| site.kind == "span").map(|site| {
            let environment = site.environment.map_or(String::new(), |number| format!("[{number}] "));
            (format!("  ring 3: {environment}{}", site.name), site.total, site.count)
        });
        let all: Vec<_> = buckets.chain(spans).collect();
        let mut rows = Vec::new();
        for (name, cycles, entries) in all {
            let share = 100.0 * cycles as f64 / elapsed;
            let known = self.shares.contains_key(&name);
            if !known && cycles == 0 && entries == 0 {
                continue;
            }
            let history = self.shares.entry(name.clone()).or_default();
            // Thousandths of a percent.
            remember(history, (share * 1000.0) as u64);
            rows.push(Row {
                name,
                share,
                entries: entries as f64 / seconds,
                per_request: (requests > 0).then(|| cycles as f64 / requests as f64),
                history: history.iter().copied().collect(),
            });
        }
        let cpu_ns = host.value("host", "process_cpu").unwrap_or(0) as f64;
        Tick {
            requests: requests as f64 / seconds,
            cpu: 100.0 * cpu_ns / 1e9 / host.seconds().max(1e-9),
            received_bytes: nic("received bytes"),
            sent_bytes: nic("sent bytes"),
            rows,
        }
    }
}

fn remember(history: &mut VecDeque<u64>, value: u64) {
    if history.len() == HISTORY {
        history.pop_front();
    }
    history.push_back(value);
}
