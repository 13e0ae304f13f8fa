//! Endpoints as a worker sees them, and plans made ready for use.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::flow::counters::Counters;
use crate::net::network::Networks;
use crate::plan::{AcceptProxy, EndpointPlan, ProxyProtocolPlan, RemotePlan, TcpPlan, UdpPlan};
use crate::relay::health::pool::{self, Pool};
use crate::relay::hook::Hook;
use crate::relay::listener::Listener;
use crate::relay::route::Rule;
use crate::relay::uot;
use crate::relay::wrap::Wraps;
use crate::resolve::Resolver;
use crate::shared::{Endpoint, Shared, Totals};

/// A plan that can't be carried out: the field, its value, and why.
#[derive(Debug)]
pub struct PlanError {
    pub field: &'static str,
    pub value: String,
    pub why: String,
}

impl fmt::Display for PlanError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} = {:?}: {}", self.field, self.value, self.why)
    }
}

impl std::error::Error for PlanError {}

/// Where flows go.
#[derive(Debug)]
pub enum Remote {
    Addr(SocketAddr),
    Name { host: String, port: u16 },
}

/// One configured remote.
#[derive(Debug)]
pub struct Target {
    pub remote: Remote,
    /// `host:port` as configured, for records.
    pub text: String,
}

impl Target {
    fn new(plan: &RemotePlan) -> Self {
        let RemotePlan { host, port } = plan;
        let addr = match host.parse::<IpAddr>() {
            Ok(ip) => Some(SocketAddr::new(ip, *port)),
            // An IPv6 address with a scope.
            Err(_) => format!("[{host}]:{port}").parse().ok(),
        };
        match addr {
            Some(addr) => Self {
                remote: Remote::Addr(addr),
                text: addr.to_string(),
            },
            None => Self {
                remote: Remote::Name {
                    host: host.clone(),
                    port: *port,
                },
                text: format!("{host}:{port}"),
            },
        }
    }

    pub fn port(&self) -> u16 {
        match &self.remote {
            Remote::Addr(addr) => addr.port(),
            Remote::Name { port, .. } => *port,
        }
    }
}

/// Where outgoing sockets come from.
#[derive(Debug)]
pub enum Through {
    Any,
    Addr(SocketAddr),
    Device(String),
}

/// Rules about clients' first words.
#[derive(Debug)]
pub struct Routing {
    pub rules: Vec<Rule>,
    pub timeout: Option<Duration>,
}

/// A plan, parsed once for all flows that go by it.
pub struct Route {
    pub plan: EndpointPlan,
    pub listen: SocketAddr,
    /// Never empty. Flows name their target by its place here.
    pub targets: Vec<Target>,
    /// Runs of targets among which flows are spread. The first is that of the plan's remotes.
    pub pools: Vec<Pool>,
    /// Rule number n sends flows to pool number n + 1.
    pub routing: Option<Routing>,
    pub hook: Option<Hook>,
    /// Whether flows take any of the optional steps (see `road`).
    pub has_steps: bool,
    /// Whether clients must speak before anything is done for them.
    pub hears_first: bool,
    /// Whether nothing wraps the legs.
    pub is_bare: bool,
    pub through: Through,
    pub resolver: Arc<Resolver>,
    pub tcp: TcpPlan,
    pub udp: UdpPlan,
    /// Whose PROXY headers count; empty trusts everybody.
    pub trusted: Networks,
    pub allow: Networks,
    pub deny: Networks,
    pub accept_proxy_timeout: Option<Duration>,
    pub wraps: Wraps,
    pub connect_timeout: Option<Duration>,
    pub idle_timeout: Option<Duration>,
    pub linger: Option<Duration>,
    pub udp_timeout: Option<Duration>,
}

impl Route {
    pub fn prepare(plan: EndpointPlan) -> Result<Arc<Self>, PlanError> {
        Self::succeed(plan, None)
    }

    /// What the former route of the endpoint knows of its remotes stays known.
    pub fn succeed(plan: EndpointPlan, former: Option<&Self>) -> Result<Arc<Self>, PlanError> {
        let listen = parse_addr("listen", &plan.listen)?;
        uot::check(&plan)?;
        let mut targets: Vec<_> = plan.remotes.iter().map(Target::new).collect();
        if targets.is_empty() {
            return Err(PlanError {
                field: "remotes",
                value: String::new(),
                why: "at least one remote is needed".to_owned(),
            });
        }
        pool::check_weights(&plan)?;
        let known = former.map_or(&[][..], |former| &former.pools);
        let own = 0..plan.remotes.len();
        let mut pools = vec![Pool::new(&plan, &targets, own, &plan.weights, known)?];
        let mut rules = Vec::new();
        for rule in plan.routing.iter().flat_map(|routing| &routing.rules) {
            rules.push(Rule::new(rule)?);
            let first = targets.len();
            targets.extend(rule.remotes.iter().map(Target::new));
            if targets.len() == first {
                return Err(PlanError {
                    field: "routing.rules.remotes",
                    value: rule.pattern.clone(),
                    why: "at least one remote is needed".to_owned(),
                });
            }
            let run = first..targets.len();
            pools.push(Pool::new(&plan, &targets, run, &[], known)?);
        }
        let routing = match &plan.routing {
            None => None,
            Some(routing) => Some(Routing {
                rules,
                timeout: limit("routing.timeout", routing.timeout)?,
            }),
        };
        let through = match (&plan.through, &plan.through_interface) {
            (Some(text), _) => Through::Addr(parse_addr("through", text)?),
            (None, Some(device)) => Through::Device(device.clone()),
            (None, None) => Through::Any,
        };
        let tcp = plan.tcp.unwrap_or_default();
        let udp = plan.udp.unwrap_or_default();
        Ok(Arc::new(Self {
            listen,
            has_steps: has_steps(&plan),
            hears_first: hears_first(&plan),
            is_bare: plan.listen_transport.is_none() && plan.remote_transport.is_none(),
            targets,
            pools,
            routing,
            hook: Hook::prepare(&plan, former.and_then(|former| former.hook.as_ref()))?,
            through,
            resolver: Resolver::shared(&plan.resolver),
            tcp,
            udp,
            trusted: networks("proxy.trusted", &plan.proxy.trusted)?,
            allow: networks("allow", &plan.allow)?,
            deny: networks("deny", &plan.deny)?,
            accept_proxy_timeout: limit("proxy.accept_timeout", plan.proxy.accept_timeout)?,
            wraps: Wraps::prepare(&plan)?,
            connect_timeout: limit("tcp.connect_timeout", tcp.connect_timeout)?,
            idle_timeout: limit("tcp.idle_timeout", tcp.idle_timeout)?,
            linger: limit("tcp.linger", tcp.linger)?,
            udp_timeout: limit("udp.timeout", udp.timeout)?,
            plan,
        }))
    }
}

impl Route {
    /// The pool that a target belongs to.
    pub fn pool_of(&self, target: usize) -> Option<&Pool> {
        self.pools
            .iter()
            .find(|pool| pool.range().contains(&target))
    }
}

/// Whether a plan asks for more than to dial and to pump.
fn has_steps(plan: &EndpointPlan) -> bool {
    plan.listen_transport.is_some()
        || plan.remote_transport.is_some()
        || plan.proxy != ProxyProtocolPlan::default()
        || pool::is_of_interest(plan)
        || plan.routing.is_some()
        || plan.hook.is_some()
}

/// Whether a plan asks for what clients say first, before a remote is dialled.
fn hears_first(plan: &EndpointPlan) -> bool {
    plan.proxy.accept != AcceptProxy::Off
        || plan.routing.is_some()
        || plan.hook.as_ref().is_some_and(|hook| hook.first_bytes > 0)
        || plan.listen_transport.is_some()
}

pub fn parse_addr(field: &'static str, text: &str) -> Result<SocketAddr, PlanError> {
    let failed = |why: &str| PlanError {
        field,
        value: text.to_owned(),
        why: why.to_owned(),
    };
    if let Ok(addr) = text.parse() {
        return Ok(addr);
    }
    // The kernel wants the scope as a number; people write the device's name.
    let (host, port) = text
        .rsplit_once("]:")
        .ok_or_else(|| failed("not ip:port"))?;
    let (ip, device) = host
        .trim_start_matches('[')
        .split_once('%')
        .ok_or_else(|| failed("not ip:port"))?;
    let name = std::ffi::CString::new(device).map_err(|_| failed("no such device"))?;
    // SAFETY: the name is NUL-terminated.
    let index = unsafe { libc::if_nametoindex(name.as_ptr()) };
    if index == 0 {
        return Err(failed("no such device"));
    }
    format!("[{ip}%{index}]:{port}")
        .parse()
        .map_err(|_| failed("not ip:port"))
}

fn networks(field: &'static str, entries: &[String]) -> Result<Networks, PlanError> {
    Networks::parse(entries).map_err(|entry| PlanError {
        field,
        value: entry.to_owned(),
        why: "not a network".to_owned(),
    })
}

/// 0 means no limit.
pub fn limit(field: &'static str, seconds: f64) -> Result<Option<Duration>, PlanError> {
    if seconds == 0.0 {
        return Ok(None);
    }
    match Duration::try_from_secs_f64(seconds) {
        // Instants can't be added to for longer than that.
        Ok(limit) if limit < Duration::from_secs(1 << 32) => Ok(Some(limit)),
        _ => Err(PlanError {
            field,
            value: seconds.to_string(),
            why: "not a number of seconds".to_owned(),
        }),
    }
}

/// One endpoint on one worker.
pub struct LocalEndpoint {
    pub shared: Arc<Endpoint>,
    route: RefCell<Arc<Route>>,
    pub tcp: Counters,
    pub udp: Counters,
    pub listener: RefCell<Option<Rc<Listener>>>,
    /// What the UDP side of this endpoint needs to be closed.
    pub udp_source: RefCell<Option<Rc<dyn UdpSide>>>,
    pub closed: Cell<bool>,
}

/// The UDP side of an endpoint, as far as others deal with it.
pub trait UdpSide {
    /// Stop reading the listening socket and close it here; associations live on.
    fn stop_listening(&self);

    /// There is another plan for new associations, maybe with another timeout for all.
    fn route_changed(&self);
}

impl LocalEndpoint {
    pub fn new(shared: Arc<Endpoint>, route: Arc<Route>) -> Rc<Self> {
        Rc::new(Self {
            shared,
            route: RefCell::new(route),
            tcp: Counters::default(),
            udp: Counters::default(),
            listener: RefCell::new(None),
            udp_source: RefCell::new(None),
            closed: Cell::new(false),
        })
    }

    /// The plan for new flows.
    pub fn route(&self) -> Arc<Route> {
        Arc::clone(&self.route.borrow())
    }

    pub fn set_route(&self, route: Arc<Route>) {
        *self.route.borrow_mut() = route;
        if let Some(udp) = &*self.udp_source.borrow() {
            udp.route_changed();
        }
    }

    /// What this worker counted for the endpoint.
    pub fn totals(&self) -> Totals {
        Totals {
            tcp: self.tcp.snapshot(),
            udp: self.udp.snapshot(),
        }
    }

    fn is_empty(&self) -> bool {
        self.tcp.open.get() + self.udp.open.get() == 0
    }

    /// Stops taking new flows.
    fn close(&self) {
        self.closed.set(true);
        if let Some(listener) = self.listener.borrow_mut().take() {
            listener.stop();
        }
        if let Some(udp) = self.udp_source.borrow_mut().take() {
            udp.stop_listening();
        }
    }
}

/// How often closed endpoints are looked at.
const SWEEP: Duration = Duration::from_millis(50);

/// The endpoints of a worker by handle. A closed one stays until its flows are gone.
#[derive(Default)]
pub struct Endpoints {
    all: RefCell<HashMap<u32, Rc<LocalEndpoint>>>,
    /// Handles of those that are closed and still have flows.
    closing: RefCell<Vec<u32>>,
    swept: Cell<Option<Instant>>,
}

impl Endpoints {
    pub fn insert(&self, endpoint: Rc<LocalEndpoint>) {
        self.all
            .borrow_mut()
            .insert(endpoint.shared.handle, endpoint);
    }

    pub fn get(&self, handle: u32) -> Option<Rc<LocalEndpoint>> {
        self.all.borrow().get(&handle).cloned()
    }

    /// Stops taking new flows for an endpoint, and forgets it when its flows are gone.
    pub fn close(&self, handle: u32) {
        if let Some(endpoint) = self.get(handle)
            && !endpoint.closed.get()
        {
            endpoint.close();
            self.closing.borrow_mut().push(handle);
            self.swept.set(None);
        }
    }

    pub fn list(&self) -> Vec<Rc<LocalEndpoint>> {
        self.all.borrow().values().cloned().collect()
    }

    /// Forgets closed endpoints without flows; their counters are kept in `shared`.
    pub fn sweep(&self, shared: &Shared, now: Instant) {
        if self.closing.borrow().is_empty() || self.swept.get().is_some_and(|at| now < at + SWEEP) {
            return;
        }
        self.swept.set(Some(now));
        self.closing.borrow_mut().retain(|handle| {
            let mut all = self.all.borrow_mut();
            match all.get(handle) {
                Some(endpoint) if endpoint.is_empty() => {}
                Some(_) => return true,
                None => return false,
            }
            if let Some(endpoint) = all.remove(handle) {
                let id = endpoint.route().plan.id.clone();
                shared.retire(&endpoint.shared.group, id, &endpoint.totals());
            }
            false
        });
    }

    /// Whether closed endpoints wait for their flows to end.
    pub fn is_closing(&self) -> bool {
        !self.closing.borrow().is_empty()
    }

    pub fn clear(&self) {
        let all = std::mem::take(&mut *self.all.borrow_mut());
        for endpoint in all.into_values() {
            endpoint.close();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(listen: &str, host: &str) -> EndpointPlan {
        EndpointPlan::new("test", listen, host, 80)
    }

    #[test]
    fn literals_are_addresses_and_the_rest_are_names() {
        let route = Route::prepare(plan("127.0.0.1:1", "::1")).expect("plan");
        assert!(matches!(route.targets[0].remote, Remote::Addr(addr) if addr.is_ipv6()));
        assert_eq!(route.targets[0].text, "[::1]:80");
        let route = Route::prepare(plan("[::%lo]:1", "example.com")).expect("plan");
        assert!(matches!(route.targets[0].remote, Remote::Name { .. }));
        assert_eq!(route.targets[0].text, "example.com:80");
    }

    #[test]
    fn a_wrong_plan_names_the_field_and_the_value() {
        let error = Route::prepare(plan("127.0.0.1", "::1"))
            .err()
            .expect("error");
        assert_eq!(error.to_string(), r#"listen = "127.0.0.1": not ip:port"#);
        let mut wrong = plan("127.0.0.1:1", "::1");
        wrong.tcp = Some(TcpPlan {
            linger: -1.0,
            ..TcpPlan::default()
        });
        let error = Route::prepare(wrong).err().expect("error");
        assert_eq!(error.field, "tcp.linger");
    }
}
