//! What the system says about names: resolv.conf and the hosts file, read again when they change,
//! and the DNS client made of them and of the plan.

use std::fs;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use hickory_resolver::config::{ResolveHosts, ResolverConfig, ResolverOpts};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::proto::op::Query;
use hickory_resolver::proto::rr::{Name, RecordType};
use hickory_resolver::system_conf::parse_resolv_conf;
use hickory_resolver::{Hosts, TokioResolver};

use super::servers::{self, Server};
use crate::plan::ResolverPlan;

/// How often the files are looked at, at most.
pub(super) const CHECK: Duration = Duration::from_secs(3);

/// Queries at once on one TCP connection to a name server.
const PIPELINED: usize = 1_024;

pub(super) struct SystemFiles {
    pub(super) resolv_conf: PathBuf,
    pub(super) hosts: PathBuf,
    /// Where the name servers of resolv.conf listen, which has no word for it.
    pub(super) port: u16,
}

impl Default for SystemFiles {
    fn default() -> Self {
        Self {
            resolv_conf: PathBuf::from("/etc/resolv.conf"),
            hosts: PathBuf::from("/etc/hosts"),
            port: 53,
        }
    }
}

/// The files as last seen, and what was made of them.
pub(super) struct System {
    files: SystemFiles,
    seen: Option<Seen>,
}

struct Seen {
    checked: Instant,
    generation: u64,
    resolv_conf: Stamp,
    hosts: Stamp,
    view: View,
}

#[derive(Clone)]
pub(super) struct View {
    pub(super) hosts: Arc<Hosts>,
    /// Or the sentence that says why there is none.
    pub(super) client: Result<Arc<Client>, Arc<str>>,
}

pub(super) struct Client {
    pub(super) resolver: TokioResolver,
    search: Vec<Name>,
    ndots: usize,
}

/// Changes whenever the file does, or appears, or goes.
type Stamp = Option<(u64, u64, SystemTime)>;

impl System {
    pub(super) fn new(files: SystemFiles) -> Self {
        Self { files, seen: None }
    }

    /// The present view, and whether it has just changed. Must be called on the DNS thread that
    /// `generation` names: a client's sockets belong to it.
    pub(super) fn view(
        &mut self,
        plan: &ResolverPlan,
        generation: u64,
        now: Instant,
    ) -> (View, bool) {
        if let Some(seen) = &mut self.seen
            && seen.generation == generation
        {
            let due = now.saturating_duration_since(seen.checked) >= CHECK;
            if due {
                seen.checked = now;
            }
            if !due
                || (stamp(&self.files.resolv_conf) == seen.resolv_conf
                    && stamp(&self.files.hosts) == seen.hosts)
            {
                return (seen.view.clone(), false);
            }
        }
        // Stamped before reading: a change in between is then seen at the next check.
        let (resolv_conf, hosts) = (stamp(&self.files.resolv_conf), stamp(&self.files.hosts));
        let view = View {
            hosts: Arc::new(read_hosts(&self.files.hosts)),
            client: Client::new(plan, &self.files)
                .map(Arc::new)
                .map_err(Arc::from),
        };
        let changed = self
            .seen
            .as_ref()
            .is_some_and(|seen| (seen.resolv_conf, seen.hosts) != (resolv_conf, hosts));
        self.seen = Some(Seen {
            checked: now,
            generation,
            resolv_conf,
            hosts,
            view: view.clone(),
        });
        (view, changed)
    }
}

impl View {
    /// What the hosts file says, without asking anybody.
    pub(super) fn hosts(&self, name: &Name, record: RecordType) -> Vec<IpAddr> {
        self.hosts
            .lookup_static_host(&Query::query(name.clone(), record))
            .map(|found| {
                let records = found.answers().iter();
                records.filter_map(|record| record.data.ip_addr()).collect()
            })
            .unwrap_or_default()
    }
}

impl Client {
    fn new(plan: &ResolverPlan, files: &SystemFiles) -> Result<Self, String> {
        let system = fs::read(&files.resolv_conf)
            .map_err(|error| error.to_string())
            .and_then(|text| parse_resolv_conf(text).map_err(|error| error.to_string()));
        let (servers, search, mut options) = if plan.nameservers.is_empty() {
            let (config, options) =
                system.map_err(|problem| format!("{}: {problem}", files.resolv_conf.display()))?;
            let (domain, search, servers) = config.into_parts();
            let servers = servers
                .iter()
                .map(|server| Server::plain(SocketAddr::new(server.ip, files.port)));
            // As glibc does it: the host's own domain only serves without a search list.
            let search = if search.is_empty() {
                domain
                    .into_iter()
                    .filter(|domain| !domain.is_root())
                    .collect()
            } else {
                search
            };
            (servers.collect(), search, options)
        } else {
            let mut options =
                system.map_or_else(|_| ResolverOpts::default(), |(_, options)| options);
            options.ndots = 1;
            let servers: Result<Vec<Server>, String> = plan
                .nameservers
                .iter()
                .map(|text| Server::parse(text))
                .collect();
            (servers?, Vec::new(), options)
        };
        options.edns0 = true;
        // Answers are kept, and their life bounded, in front of this client.
        options.cache_size = 0;
        options.positive_max_ttl = Some(Duration::from_secs(u32::MAX.into()));
        options.negative_max_ttl = options.positive_max_ttl;
        options.use_hosts_file = ResolveHosts::Never;
        options.max_active_requests = PIPELINED;
        let ndots = options.ndots;
        let config = ResolverConfig::from_name_servers(servers::configs(&servers, plan.protocol));
        let mut builder =
            TokioResolver::builder_with_config(config, TokioRuntimeProvider::default())
                .with_tls_config(servers::tls_config(&servers)?);
        *builder.options_mut() = options;
        let resolver = builder.build().map_err(|error| error.to_string())?;
        Ok(Self {
            resolver,
            search,
            ndots,
        })
    }

    /// The full names to ask for, in order.
    pub(super) fn candidates(&self, name: &Name) -> Vec<Name> {
        candidates(name, &self.search, self.ndots)
    }
}

fn candidates(name: &Name, search: &[Name], ndots: usize) -> Vec<Name> {
    let mut as_is = name.clone();
    as_is.set_fqdn(true);
    if name.is_fqdn() {
        return vec![as_is];
    }
    let mut names: Vec<Name> = search
        .iter()
        .filter_map(|domain| name.clone().append_domain(domain).ok())
        .collect();
    let dots = usize::from(name.num_labels()).saturating_sub(1);
    names.insert(if dots >= ndots { 0 } else { names.len() }, as_is);
    names
}

/// Without a readable hosts file there are no hosts in it: that is no error.
fn read_hosts(path: &Path) -> Hosts {
    let mut hosts = Hosts::default();
    let read = fs::read(path).and_then(|text| {
        let text = String::from_utf8_lossy(&text);
        hosts.read_hosts_conf(io::Cursor::new(text.as_bytes()))
    });
    match read {
        Ok(()) => hosts,
        Err(_) => Hosts::default(),
    }
}

fn stamp(path: &Path) -> Stamp {
    let status = fs::metadata(path).ok()?;
    Some((status.ino(), status.size(), status.modified().ok()?))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn names(host: &str, search: &[&str], ndots: usize) -> Vec<String> {
        let search: Vec<Name> = search
            .iter()
            .map(|domain| Name::from_ascii(domain).unwrap())
            .collect();
        candidates(&Name::from_ascii(host).unwrap(), &search, ndots)
            .iter()
            .map(Name::to_string)
            .collect()
    }

    #[test]
    fn dots_decide_whether_the_search_list_comes_first() {
        let search = ["corp.example", "example"];
        assert_eq!(
            names("db", &search, 1),
            ["db.corp.example.", "db.example.", "db."]
        );
        assert_eq!(
            names("db.west", &search, 1),
            ["db.west.", "db.west.corp.example.", "db.west.example."]
        );
        assert_eq!(names("a.b", &search, 3)[2], "a.b.");
    }

    #[test]
    fn a_trailing_dot_or_no_list_means_the_name_itself() {
        assert_eq!(names("db.", &["corp.example"], 1), ["db."]);
        assert_eq!(names("db", &[], 5), ["db."]);
    }

    #[test]
    fn a_name_too_long_for_a_domain_of_the_list_skips_it() {
        let label = "a".repeat(60);
        let host = [label.as_str(); 4].join(".");
        assert_eq!(names(&host, &["corp.example"], 1), [format!("{host}.")]);
    }
}
