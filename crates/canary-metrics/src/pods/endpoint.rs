//! Where a pod's metrics are read: decided from the pod alone, without I/O. The address is always
//! the pod's own; annotations and spec name a port and a path on it and can name nothing else.

use std::net::{IpAddr, SocketAddr};

use reqwest::Url;
use serde_json::Value as Json;
use thiserror::Error;

use crate::envelope::shorten;

const PORT: &str = "prometheus.io/port";
const PATH: &str = "prometheus.io/path";
const SCHEME: &str = "prometheus.io/scheme";
const SCRAPE: &str = "prometheus.io/scrape";
const DEFAULT_PATH: &str = "/metrics";
/// Names of container ports that say by themselves what they are for.
const PORT_NAMES: [&str; 2] = ["metrics", "http-metrics"];
const MAX_PATH_BYTES: usize = 256;

/// One pod's metrics endpoint. Made by [`endpoint()`] only, so that no other address is ever read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PodEndpoint {
    namespace: String,
    pod: String,
    url: Url,
}

impl PodEndpoint {
    /// The pod's namespace.
    #[must_use]
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// The pod's name.
    #[must_use]
    pub fn pod(&self) -> &str {
        &self.pod
    }

    /// Its address, such as `http://10.0.0.7:8080/metrics`.
    #[must_use]
    pub fn url(&self) -> &str {
        self.url.as_str()
    }

    pub(super) fn address(&self) -> &Url {
        &self.url
    }

    /// Builds the address from its parts; texts are never pasted together.
    pub(crate) fn new(namespace: &str, pod: &str, at: SocketAddr, path: &str) -> Result<Self, EndpointError> {
        check_path(path)?;
        let refused = || EndpointError::Path(shorten(path));
        let mut url = Url::parse("http://pod/").map_err(|_| refused())?;
        url.set_ip_host(at.ip()).map_err(|()| refused())?;
        url.set_port(Some(at.port())).map_err(|()| refused())?;
        url.set_path(path);
        if url.path() != path {
            return Err(refused());
        }
        Ok(Self { namespace: namespace.to_owned(), pod: pod.to_owned(), url })
    }
}

/// Why a pod's metrics can't be read, and what would help.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum EndpointError {
    /// Not a pod as the API server returns it.
    #[error("the pod has no name or no namespace")]
    Nameless,
    /// Its processes have ended; the address may be another pod's by now.
    #[error("the pod has ended")]
    Ended,
    /// The node's address is also that of other people's ports.
    #[error("the pod uses the node's network, and the operator reads no ports of nodes; use a Prometheus provider")]
    HostNetwork,
    /// The owner does not want it.
    #[error("the pod's annotation prometheus.io/scrape is \"false\"; remove it, or use a Prometheus provider")]
    OptedOut,
    /// Only plain HTTP is read.
    #[error(
        "the pod's annotation prometheus.io/scheme is {0:?}, and the operator reads pods by http only; use a Prometheus provider"
    )]
    Scheme(String),
    /// Not scheduled or not started yet.
    #[error("the pod has no address yet")]
    NoAddress,
    /// Not the address of a pod.
    #[error("the pod's address {0:?} is not one that a pod can have")]
    Address(String),
    /// Not a port.
    #[error("the pod's annotation prometheus.io/port is {0:?}, not a number from 1 to 65535")]
    Port(String),
    /// Port 0 in the spec.
    #[error("port 0 can't be read; name one from 1 to 65535")]
    PortZero,
    /// The spec's port is none of the pod's.
    #[error("the pod declares no port {port}; name one that it declares in spec.podMetrics.port")]
    Undeclared {
        /// The spec's.
        port: u16,
    },
    /// No port is declared.
    #[error("the pod declares no port; set the annotation prometheus.io/port on the pod template")]
    NoPort,
    /// Several ports, and none that says it is for metrics.
    #[error(
        "the pod declares several ports ({0}), and not exactly one of them is named metrics or http-metrics; set the annotation prometheus.io/port on the pod template"
    )]
    SeveralPorts(String),
    /// Not a plain path.
    #[error(
        "the path {0:?} can't be used; it must begin with one /, have no query, no `.` or `..` segments and no unusual characters, and be at most 256 bytes long"
    )]
    Path(String),
}

impl EndpointError {
    /// A static word for metric labels.
    #[must_use]
    pub fn category(&self) -> &'static str {
        match self {
            Self::Nameless | Self::Ended => "pod",
            Self::HostNetwork => "host_network",
            Self::OptedOut => "opted_out",
            Self::Scheme(_) => "scheme",
            Self::NoAddress | Self::Address(_) => "address",
            Self::Port(_) | Self::PortZero | Self::Undeclared { .. } | Self::NoPort | Self::SeveralPorts(_) => "port",
            Self::Path(_) => "path",
        }
    }

    /// Whether it may well pass by itself.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Ended | Self::NoAddress)
    }
}

/// Where the metrics of this pod, as the API server returned it, are read. `port` and `path` are
/// the spec's, and go before the annotations `prometheus.io/port` and `prometheus.io/path`. Without
/// either the port is the one container port named `metrics` or `http-metrics`, else the only
/// one; the path is `/metrics`.
///
/// # Errors
/// Why it is not read; the pod's own refusals (`prometheus.io/scrape`, `prometheus.io/scheme`)
/// count whatever the spec says.
pub fn endpoint(pod: &Json, port: Option<u16>, path: Option<&str>) -> Result<PodEndpoint, EndpointError> {
    let name = text(pod, &["metadata", "name"]).ok_or(EndpointError::Nameless)?;
    let namespace = text(pod, &["metadata", "namespace"]).ok_or(EndpointError::Nameless)?;
    if matches!(text(pod, &["status", "phase"]), Some("Succeeded" | "Failed")) {
        return Err(EndpointError::Ended);
    }
    if at(pod, &["spec", "hostNetwork"]) == Some(&Json::Bool(true)) {
        return Err(EndpointError::HostNetwork);
    }
    if annotation(pod, SCRAPE).is_some_and(|scrape| scrape.trim().eq_ignore_ascii_case("false")) {
        return Err(EndpointError::OptedOut);
    }
    if let Some(scheme) = annotation(pod, SCHEME).filter(|scheme| *scheme != "http") {
        return Err(EndpointError::Scheme(shorten(scheme)));
    }
    let ip = address(pod)?;
    let port = match (port, annotation(pod, PORT)) {
        (Some(0), _) => return Err(EndpointError::PortZero),
        (Some(port), _) => port,
        (None, Some(port)) => number(port).ok_or_else(|| EndpointError::Port(shorten(port)))?,
        (None, None) => declared(pod)?,
    };
    let path = path.or_else(|| annotation(pod, PATH)).unwrap_or(DEFAULT_PATH);
    PodEndpoint::new(namespace, name, SocketAddr::new(ip, port), path)
}

/// The pod's own address, where it is one that only a pod has.
fn address(pod: &Json) -> Result<IpAddr, EndpointError> {
    let text = text(pod, &["status", "podIP"]).ok_or(EndpointError::NoAddress)?;
    let refused = || EndpointError::Address(shorten(text));
    // An IPv4 address in IPv6 clothes is judged as what it is.
    let ip = text.parse::<IpAddr>().map_err(|_| refused())?.to_canonical();
    let link_local = match ip {
        IpAddr::V4(ip) => ip.is_link_local() || ip.is_broadcast(),
        IpAddr::V6(ip) => ip.is_unicast_link_local(),
    };
    if ip.is_loopback() || ip.is_unspecified() || ip.is_multicast() || link_local {
        return Err(refused());
    }
    let is_host = |host: Option<&str>| host.and_then(|host| host.parse::<IpAddr>().ok()) == Some(ip);
    let hosts = at(pod, &["status", "hostIPs"]).and_then(Json::as_array).map(Vec::as_slice).unwrap_or_default();
    if is_host(self::text(pod, &["status", "hostIP"])) || hosts.iter().any(|host| is_host(self::text(host, &["ip"]))) {
        return Err(EndpointError::HostNetwork);
    }
    Ok(ip)
}

/// The port by the containers' own declarations.
fn declared(pod: &Json) -> Result<u16, EndpointError> {
    let containers = at(pod, &["spec", "containers"]).and_then(Json::as_array).map(Vec::as_slice).unwrap_or_default();
    let mut all = Vec::new();
    for port in containers.iter().filter_map(|one| one.get("ports")?.as_array()).flatten() {
        let Some(number) = port.get("containerPort").and_then(Json::as_u64) else { continue };
        let Some(number) = u16::try_from(number).ok().filter(|number| *number > 0) else { continue };
        if text(port, &["protocol"]).unwrap_or("TCP") == "TCP" {
            all.push((number, text(port, &["name"]).unwrap_or_default()));
        }
    }
    let mut named: Vec<u16> =
        all.iter().filter(|(_, name)| PORT_NAMES.contains(name)).map(|(number, _)| *number).collect();
    named.sort_unstable();
    named.dedup();
    let mut numbers: Vec<u16> = all.iter().map(|(number, _)| *number).collect();
    numbers.sort_unstable();
    numbers.dedup();
    match (named.as_slice(), numbers.as_slice()) {
        ([only], _) | ([], [only]) => Ok(*only),
        (_, []) => Err(EndpointError::NoPort),
        _ => {
            let shown: Vec<String> = numbers.iter().take(5).map(ToString::to_string).collect();
            let more = if numbers.len() > shown.len() { ", …" } else { "" };
            Err(EndpointError::SeveralPorts(format!("{}{more}", shown.join(", "))))
        }
    }
}

fn number(text: &str) -> Option<u16> {
    let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    digits.then(|| text.parse().ok())?.filter(|port| *port > 0)
}

/// Plain segments of the characters that a URL's path holds as they are.
fn check_path(path: &str) -> Result<(), EndpointError> {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:@/".contains(&b);
    let fits = path.len() <= MAX_PATH_BYTES
        && path.starts_with('/')
        && !path.starts_with("//")
        && path.bytes().all(plain)
        && !path.split('/').any(|segment| segment == "." || segment == "..");
    if fits { Ok(()) } else { Err(EndpointError::Path(shorten(path))) }
}

fn at<'a>(value: &'a Json, keys: &[&str]) -> Option<&'a Json> {
    keys.iter().try_fold(value, |value, key| value.get(key))
}

fn text<'a>(value: &'a Json, keys: &[&str]) -> Option<&'a str> {
    at(value, keys)?.as_str().filter(|text| !text.is_empty())
}

fn annotation<'a>(pod: &'a Json, name: &str) -> Option<&'a str> {
    at(pod, &["metadata", "annotations", name])?.as_str()
}
