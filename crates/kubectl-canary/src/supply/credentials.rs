//! Which registries may be asked, how, and as whom: the flags of the command line, and the file in which `docker login`
//! keeps passwords. No credential helper is started.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;

use super::reference::host_name;
use crate::{Error, clean};

/// Bytes of the file that are read at most.
const MOST: u64 = 4 * 1024 * 1024;

/// A user and what proves it.
#[derive(Clone, PartialEq, Eq)]
pub struct Login {
    /// The user.
    pub user: String,
    /// The password, or a token in its place.
    pub password: String,
}

impl std::fmt::Debug for Login {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "Login({})", self.user)
    }
}

/// The registries that may be asked.
#[derive(Debug, Clone, Default)]
pub struct Allowed {
    /// Their hosts, and whether they are spoken to without TLS.
    hosts: BTreeMap<String, bool>,
    logins: BTreeMap<String, Login>,
}

impl Allowed {
    /// Those of the command line; with their passwords, where there are any.
    ///
    /// # Errors
    /// Where something is no host, or the file of passwords cannot be read.
    pub fn new(secure: &[String], insecure: &[String]) -> Result<Self, Error> {
        let mut hosts = BTreeMap::new();
        for host in secure {
            let host = host_name(host).map_err(Error::Usage)?;
            let plain = is_loopback(&host);
            hosts.insert(host, plain);
        }
        for host in insecure {
            hosts.insert(host_name(host).map_err(Error::Usage)?, true);
        }
        if hosts.is_empty() {
            return Ok(Self::default());
        }
        let logins = config_file().map_or_else(|| Ok(BTreeMap::new()), |file| read(&file))?;
        Ok(Self { hosts, logins })
    }

    /// With these passwords instead.
    #[must_use]
    pub fn with_logins(mut self, logins: BTreeMap<String, Login>) -> Self {
        self.logins = logins;
        self
    }

    /// Whether none may be asked.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.hosts.is_empty()
    }

    /// Whether a registry is spoken to without TLS; none where it may not be asked at all.
    #[must_use]
    pub fn plain(&self, host: &str) -> Option<bool> {
        self.hosts.get(host).copied()
    }

    /// As whom a registry is asked.
    #[must_use]
    pub fn login(&self, host: &str) -> Option<&Login> {
        self.logins.get(host)
    }
}

/// Whether a host can only be this machine.
fn is_loopback(host: &str) -> bool {
    let name = host.split_once(':').map_or(host, |(name, _)| name);
    name == "localhost" || name.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// Where `docker login` keeps its passwords.
fn config_file() -> Option<PathBuf> {
    let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let folder = set("DOCKER_CONFIG").or_else(|| set("HOME").map(|home| home.join(".docker")))?;
    Some(folder.join("config.json"))
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Config {
    auths: BTreeMap<String, Auth>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Auth {
    auth: String,
    username: String,
    password: String,
}

/// The passwords of a file; none where it is not there.
fn read(file: &Path) -> Result<BTreeMap<String, Login>, Error> {
    use std::io::Read as _;
    let unreadable = |why| Error::Unreadable { file: clean::text(&file.display().to_string()), why };
    let mut text = String::new();
    match std::fs::File::open(file) {
        Ok(open) => open.take(MOST).read_to_string(&mut text).map_err(unreadable)?,
        Err(why) if why.kind() == std::io::ErrorKind::NotFound => return Ok(BTreeMap::new()),
        Err(why) => return Err(unreadable(why)),
    };
    // What serde says may quote a password.
    parse(&text).map_err(|why| Error::Key { file: clean::text(&file.display().to_string()), why })
}

/// Passwords by host.
fn parse(text: &str) -> Result<BTreeMap<String, Login>, String> {
    let config: Config = serde_json::from_str(text)
        .map_err(|error| format!("is no docker config: line {} of its JSON is wrong", error.line()))?;
    let mut logins = BTreeMap::new();
    for (place, auth) in config.auths {
        let bare = place.trim_start_matches("https://").trim_start_matches("http://");
        let host = bare.split('/').next().unwrap_or_default();
        // A place that is no registry of ours, and one whose password is with a helper, are passed over.
        if let (Ok(host), Some(login)) = (host_name(host), login(&auth)) {
            logins.insert(host, login);
        }
    }
    Ok(logins)
}

fn login(auth: &Auth) -> Option<Login> {
    if !auth.username.is_empty() {
        return Some(Login { user: auth.username.clone(), password: auth.password.clone() });
    }
    let decoded = String::from_utf8(STANDARD.decode(auth.auth.trim()).ok()?).ok()?;
    let (user, password) = decoded.split_once(':')?;
    Some(Login { user: user.to_owned(), password: password.trim_end_matches('\0').to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_registry_is_plain_only_on_this_machine_or_where_it_was_said() {
        let secure = ["r.example.com", "127.0.0.1:5000", "localhost:5000"].map(str::to_owned);
        let allowed = Allowed::new(&secure, &["10.0.0.5:5000".to_owned()]).unwrap();
        let plain = ["r.example.com", "127.0.0.1:5000", "localhost:5000", "10.0.0.5:5000", "other.example.com"]
            .map(|host| allowed.plain(host));
        assert_eq!(plain, [Some(false), Some(true), Some(true), Some(true), None]);
        assert!(Allowed::new(&["https://r.example.com/x".to_owned()], &[]).is_err());
        assert!(Allowed::new(&[], &[]).unwrap().is_empty());
    }

    #[test]
    fn passwords_are_found_under_all_spellings_of_a_registry() {
        let encoded = STANDARD.encode("jane:pass:word");
        let text = format!(
            r#"{{"auths": {{"https://index.docker.io/v1/": {{"auth": "{encoded}"}},
                "r.example.com:5000": {{"username": "joe", "password": "secret"}},
                "helper.example.com": {{}}, "odd host/": {{"auth": "{encoded}"}}}}, "credsStore": "desktop"}}"#
        );
        let logins = parse(&text).unwrap();
        let named: Vec<(&str, &str, &str)> =
            logins.iter().map(|(host, login)| (host.as_str(), &*login.user, &*login.password)).collect();
        assert_eq!(named, [("docker.io", "jane", "pass:word"), ("r.example.com:5000", "joe", "secret")]);
        let wrong = parse(r#"{"auths": {"r.example.com": {"auth": 5, "password": "secret"}}}"#).unwrap_err();
        assert!(!wrong.contains("secret"), "{wrong}");
        assert!(!format!("{logins:?}").contains("secret"));
        assert!(read(Path::new("/nonexistent/config.json")).unwrap().is_empty());
    }
}
