//! The contenders as running processes: how each is started, where it serves, and which of its configurations is the
//! best for a point.

use crate::network::{Network, PEERS_ADDRESS, PREFIX_BITS, RELAY_ADDRESS, TapLink};
use crate::options::{Contender, Mode, Point};
use crate::process::{Background, pin, wait_until_ready};
use crate::{BenchError, role};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::Command;

/// Where the same program as in the guest is, on Linux.
const PLAIN_LINUX_PORT: u16 = 8083;

/// From this size on nginx is better with sendfile.
const NGINX_SENDFILE_FROM_BYTES: u64 = 32 << 10;

const CHEETAH_LINK: TapLink =
    TapLink { name: "cheetah", client: Ipv4Addr::new(10, 80, 0, 1), server: Ipv4Addr::new(10, 80, 0, 2) };
const CHEETAH_BOTH_CPUS_LINK: TapLink = TapLink {
    name: "cheetah-both",
    client: Ipv4Addr::new(10, 83, 0, 1),
    server: Ipv4Addr::new(10, 83, 0, 2),
};
const fn guest_link(name: &'static str, network: u8) -> TapLink {
    TapLink { name, client: Ipv4Addr::new(10, network, 0, 1), server: Ipv4Addr::new(10, network, 0, 2) }
}
const WITHOUT_SPANS_LINK: TapLink = guest_link("without-spans", 84);
const ACCOUNTS_LINK: TapLink = guest_link("accounts", 85);
const SAMPLE_LINK: TapLink = guest_link("sample", 86);
const TRACE_LINK: TapLink = guest_link("trace", 87);
const PLAIN_LINK: TapLink = guest_link("plain", 88);
/// nginx behind those that stand between: on the client's CPU, the same for all.
const BEHIND: Peer = NGINX_SENDFILE;
const FORWARDER_LINK: TapLink = guest_link("forwarder", 94);
const BARE_LINK: TapLink =
    TapLink { name: "bare", client: Ipv4Addr::new(10, 82, 0, 1), server: Ipv4Addr::new(10, 82, 0, 2) };

/// The TAP that a contender needs.
pub(crate) fn tap_link(contender: Contender) -> Option<TapLink> {
    match contender {
        Contender::Cheetah => Some(CHEETAH_LINK),
        Contender::CheetahBothCpus => Some(CHEETAH_BOTH_CPUS_LINK),
        Contender::CheetahWithoutSpans => Some(WITHOUT_SPANS_LINK),
        Contender::CheetahAccounts => Some(ACCOUNTS_LINK),
        Contender::CheetahSample => Some(SAMPLE_LINK),
        Contender::CheetahTrace => Some(TRACE_LINK),
        Contender::Bare => Some(BARE_LINK),
        Contender::Plain => Some(PLAIN_LINK),
        Contender::Forwarder => Some(FORWARDER_LINK),
        Contender::PlainLinux | Contender::Haproxy | Contender::Nginx | Contender::Lighttpd => None,
    }
}

/// The server behind those that stand between client and server; it is never paused.
pub(crate) fn start_behind(setting: &Setting<'_>) -> Result<Server, BenchError> {
    setting.network.route()?;
    let mut server = start_peer(Contender::Nginx, &BEHIND, setting, setting.client_cpu)?;
    wait_until_ready(&mut server.process, "nginx", server.address)?;
    Ok(server)
}

fn forwarder_command(setting: &Setting<'_>) -> Command {
    let mut command = Command::new(setting.exovm);
    let TapLink { name, client, server } = FORWARDER_LINK;
    command.args(["run", "forwarder", "--listen", "80", "--to", &format!("{PEERS_ADDRESS}:{}", BEHIND.port)]);
    command.args(["--net", &format!("tap={name},ip={server}/{PREFIX_BITS},gw={client}"), "--name", name]);
    command.args(["--vcpu-cpu", &setting.server_cpu.to_string()]);
    command
}

fn start_haproxy(setting: &Setting<'_>) -> Result<Server, BenchError> {
    const FILE: &str = "haproxy.cfg";
    let path = setting.folder.join(FILE);
    std::fs::write(&path, include_str!("../peers/haproxy.cfg"))
        .map_err(|source| BenchError::system(format!("write {FILE}"), source))?;
    let relay = setting.network.add_relay()?;
    let mut command = Command::new("haproxy");
    command.args(["-db", "-f"]).arg(&path).env("PATH", crate::machine::search_path());
    relay.start_here(&mut command);
    pin(&mut command, &[setting.server_cpu]);
    let process = Background::start(&mut command, &setting.folder.join("haproxy.log"))?;
    let address = SocketAddr::from((RELAY_ADDRESS, 80));
    Ok(Server { contender: Contender::Haproxy, configuration: "", address, process })
}

/// One server process.
#[derive(Debug)]
pub(crate) struct Server {
    pub(crate) contender: Contender,
    /// What tells it from other configurations of the same contender.
    pub(crate) configuration: &'static str,
    pub(crate) address: SocketAddr,
    pub(crate) process: Background,
}

/// What starting needs to know.
pub(crate) struct Setting<'a> {
    pub(crate) network: &'a Network,
    /// Holds configuration files, logs, and the documents in `docroot`.
    pub(crate) folder: &'a Path,
    /// The `exovm` program.
    pub(crate) exovm: &'a Path,
    /// That of [`Contender::CheetahWithoutSpans`].
    pub(crate) without_spans: Option<&'a Path>,
    pub(crate) client_cpu: usize,
    pub(crate) server_cpu: usize,
}

/// The command line of a guest. All flags of `exovm` that the benchmark relies on are here and nowhere else.
fn guest_command(setting: &Setting<'_>, link: &TapLink, contender: Contender) -> Command {
    let other = setting.without_spans.filter(|_| contender == Contender::CheetahWithoutSpans);
    let mut command = Command::new(other.unwrap_or(setting.exovm));
    let image = if contender == Contender::Plain { "plain" } else { "cheetah" };
    command.args(["run", image, "--docroot"]).arg(setting.folder.join("docroot"));
    command.args(["--net", &format!("tap={},ip={}/{PREFIX_BITS}", link.name, link.server)]);
    // Two guests may run at once, and each wants a name of its own.
    command.args(["--name", link.name]);
    // The vCPU stays where the peers are; only device work may go to another CPU, where the process may use one.
    command.args(["--vcpu-cpu", &setting.server_cpu.to_string()]);
    command
}

/// A configuration of a Linux server: a file of peers/, which says the reason of each setting.
struct Peer {
    program: &'static str,
    configuration: &'static str,
    file: &'static str,
    text: &'static str,
    port: u16,
}

const NGINX_MEMORY: Peer = Peer {
    program: "nginx",
    configuration: "sendfile off",
    file: "nginx-memory.conf",
    text: include_str!("../peers/nginx-memory.conf"),
    port: 8080,
};
const NGINX_SENDFILE: Peer = Peer {
    program: "nginx",
    configuration: "sendfile on",
    file: "nginx-sendfile.conf",
    text: include_str!("../peers/nginx-sendfile.conf"),
    port: 8081,
};
const LIGHTTPD: Peer = Peer {
    program: "lighttpd",
    configuration: "",
    file: "lighttpd.conf",
    text: include_str!("../peers/lighttpd.conf"),
    port: 8082,
};

/// The configuration of `contender` that is best for `point`, by its name. Measured: README.md has the numbers.
pub(crate) fn best_configuration(contender: Contender, point: &Point) -> &'static str {
    match contender {
        Contender::Nginx if point.mode == Mode::Pipelined => NGINX_SENDFILE.configuration,
        Contender::Nginx if point.size_bytes >= NGINX_SENDFILE_FROM_BYTES => NGINX_SENDFILE.configuration,
        Contender::Nginx => NGINX_MEMORY.configuration,
        _ => "",
    }
}

/// Has a tool look at a guest for so long, if the contender is about that. It runs where it likes, as a user's would.
pub(crate) fn look(
    contender: Contender,
    seconds: u32,
    exovm: &Path,
    folder: &Path,
) -> Result<Option<Background>, BenchError> {
    let (Some(arguments), Some(link)) = (contender.looker(), tap_link(contender)) else { return Ok(None) };
    let mut command = Command::new(exovm);
    command.args(arguments).args(["--for", &seconds.to_string(), link.name]).current_dir(folder);
    Background::start(&mut command, &folder.join("looker.log")).map(Some)
}

/// Starts `contender` in each configuration that one of `points` wants, and waits until it accepts connections.
pub(crate) fn start(
    contender: Contender,
    points: &[Point],
    setting: &Setting<'_>,
) -> Result<Vec<Server>, BenchError> {
    let mut servers = match contender {
        Contender::Cheetah
        | Contender::Plain
        | Contender::CheetahWithoutSpans
        | Contender::CheetahAccounts
        | Contender::CheetahSample
        | Contender::CheetahTrace => {
            let link = tap_link(contender).unwrap_or(CHEETAH_LINK);
            let mut command = guest_command(setting, &link, contender);
            vec![start_on_tap(contender, &link, pin(&mut command, &[setting.server_cpu]), setting)?]
        }
        Contender::CheetahBothCpus => {
            let mut command = guest_command(setting, &CHEETAH_BOTH_CPUS_LINK, contender);
            let cpus = [setting.client_cpu, setting.server_cpu];
            vec![start_on_tap(contender, &CHEETAH_BOTH_CPUS_LINK, pin(&mut command, &cpus), setting)?]
        }
        Contender::Bare => {
            let mut command = role::bare_command(setting.exovm, BARE_LINK.name, BARE_LINK.server);
            vec![start_on_tap(contender, &BARE_LINK, pin(&mut command, &[setting.server_cpu]), setting)?]
        }
        Contender::Forwarder => {
            let mut command = forwarder_command(setting);
            vec![start_on_tap(contender, &FORWARDER_LINK, pin(&mut command, &[setting.server_cpu]), setting)?]
        }
        Contender::Haproxy => vec![start_haproxy(setting)?],
        Contender::Nginx => [NGINX_MEMORY, NGINX_SENDFILE]
            .iter()
            .filter(|peer| {
                points.iter().any(|point| best_configuration(contender, point) == peer.configuration)
            })
            .map(|peer| start_peer(contender, peer, setting, setting.server_cpu))
            .collect::<Result<_, _>>()?,
        Contender::PlainLinux => vec![start_plain(setting)?],
        Contender::Lighttpd => vec![start_peer(contender, &LIGHTTPD, setting, setting.server_cpu)?],
    };
    for server in &mut servers {
        wait_until_ready(&mut server.process, &server.contender.to_string(), server.address)?;
    }
    Ok(servers)
}

fn start_on_tap(
    contender: Contender,
    link: &TapLink,
    command: &mut Command,
    setting: &Setting<'_>,
) -> Result<Server, BenchError> {
    let process = Background::start(command, &setting.folder.join(format!("{}.log", link.name)))?;
    Ok(Server { contender, configuration: "", address: SocketAddr::from((link.server, 80)), process })
}

/// The program of the image `plain`, beside the other Linux servers.
fn start_plain(setting: &Setting<'_>) -> Result<Server, BenchError> {
    let address = SocketAddr::from((PEERS_ADDRESS, PLAIN_LINUX_PORT));
    let mut command = role::plain_command(setting.exovm, &setting.folder.join("docroot"), address);
    setting.network.peers.start_here(&mut command);
    pin(&mut command, &[setting.server_cpu]);
    let process = Background::start(&mut command, &setting.folder.join("plain-linux.log"))?;
    Ok(Server { contender: Contender::PlainLinux, configuration: "", address, process })
}

fn start_peer(
    contender: Contender,
    peer: &Peer,
    setting: &Setting<'_>,
    cpu: usize,
) -> Result<Server, BenchError> {
    let failed = |source| BenchError::system(format!("write {}", peer.file), source);
    std::fs::write(setting.folder.join(peer.file), peer.text).map_err(failed)?;
    let mut command = Command::new(peer.program);
    match contender {
        Contender::Nginx => {
            let temporary = setting.folder.join(peer.file.replace(".conf", "-temp"));
            std::fs::create_dir_all(temporary).map_err(failed)?;
            command
                .arg("-p")
                .arg(setting.folder)
                .args(["-e", "stderr", "-c"])
                .arg(setting.folder.join(peer.file));
        }
        _ => {
            command.args(["-D", "-f", peer.file]);
        }
    }
    command.current_dir(setting.folder).env("PATH", crate::machine::search_path());
    setting.network.peers.start_here(&mut command);
    pin(&mut command, &[cpu]);
    let process = Background::start(&mut command, &setting.folder.join(format!("{}.log", peer.file)))?;
    let address = SocketAddr::from((PEERS_ADDRESS, peer.port));
    Ok(Server { contender, configuration: peer.configuration, address, process })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn point(mode: Mode, size_bytes: u64) -> Point {
        Point { mode, size_bytes, connections: 64 }
    }

    #[test]
    fn best_configuration_of_nginx_depends_on_size_and_mode() {
        let best = |mode, size| best_configuration(Contender::Nginx, &point(mode, size));
        assert_eq!(best(Mode::KeepAlive, 64), "sendfile off");
        assert_eq!(best(Mode::Close, 8192), "sendfile off");
        assert_eq!(best(Mode::KeepAlive, 65536), "sendfile on");
        assert_eq!(best(Mode::Pipelined, 64), "sendfile on");
    }

    #[test]
    fn peers_listen_where_they_are_looked_for() {
        for peer in [NGINX_MEMORY, NGINX_SENDFILE] {
            assert!(peer.text.contains(&format!("listen {PEERS_ADDRESS}:{} ", peer.port)), "{}", peer.file);
            assert!(peer.text.contains(&format!("{};", peer.configuration)), "{}", peer.file);
        }
        let relay = include_str!("../peers/haproxy.cfg");
        assert!(relay.contains(&format!("bind {RELAY_ADDRESS}:80 ")));
        assert!(relay.contains(&format!("server nginx {PEERS_ADDRESS}:{}\n", BEHIND.port)));
        assert!(LIGHTTPD.text.contains(&format!("server.port = {}\n", LIGHTTPD.port)));
        assert!(LIGHTTPD.text.contains(&format!("server.bind = \"{PEERS_ADDRESS}\"\n")));
    }
}
