//! How a program outside asks a lab's supervisor for something: one line of JSON each way, over a unix
//! socket in the lab's directory. It carries words; what they do is the supervisor's.

use crate::{Error, Gateway, Result};
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

const SOCKET: &str = "control.sock";

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "do")]
pub(crate) enum Request {
    Components,
    Start { component: String },
    Stop { component: String },
    Kill { component: String },
    Freeze { component: String },
    Thaw { component: String },
    AddGateway { name: String, namespaces: Vec<String> },
    RemoveGateway { name: String },
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "answer")]
pub(crate) enum Answer {
    Done,
    Components { phase: Phase, components: Vec<ComponentStatus> },
    Gateway { gateway: Gateway },
    Failed { component: String, reason: String },
    Command { command: String, reason: String },
    Refused { reason: String },
}

/// How far the start of the lab is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "phase")]
pub(crate) enum Phase {
    Starting,
    Ready,
    Failed { component: String, reason: String },
}

/// State of one component.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ComponentStatus {
    /// For example `kube-apiserver`; further steps of the start, such as `node`, count as components too.
    pub name: String,
    /// What it does now.
    pub state: ComponentState,
    /// How long it took from start to ready, in milliseconds; 0 while it is not.
    pub ready_after_ms: u64,
}

/// What a component does now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ComponentState {
    /// Its turn to start has not come.
    Waiting,
    /// It runs and does not answer yet.
    Starting,
    /// It has answered since it was started.
    Ready,
    /// It was stopped or killed on demand.
    Stopped,
    /// It ended by itself and will be started again in a second.
    Ended,
}

/// A path to the socket that is short whatever the directory's path is: a socket's path holds 107 bytes.
fn short(dir: &Path) -> Result<(File, PathBuf)> {
    let opened = File::open(dir).map_err(Error::io(format!("open {}", dir.display())))?;
    let path = PathBuf::from(format!("/proc/self/fd/{}/{SOCKET}", opened.as_raw_fd()));
    Ok((opened, path))
}

pub(crate) fn listen(dir: &Path) -> Result<UnixListener> {
    let (_open, path) = short(dir)?;
    UnixListener::bind(&path).map_err(Error::io(format!("listen on {}/{SOCKET}", dir.display())))
}

/// Answers one caller.
pub(crate) fn serve(stream: &UnixStream, handle: impl FnOnce(Request) -> Answer) -> std::io::Result<()> {
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line)?;
    let answer = match serde_json::from_str(&line) {
        Ok(request) => handle(request),
        Err(error) => Answer::Refused { reason: format!("not a request: {error}") },
    };
    let mut text = serde_json::to_string(&answer)?;
    text.push('\n');
    let mut stream = stream;
    stream.write_all(text.as_bytes())
}

pub(crate) fn call(dir: &Path, request: &Request) -> Result<Answer> {
    let doing = || format!("ask the supervisor of {}", dir.display());
    let (_open, path) = short(dir)?;
    let mut stream = UnixStream::connect(&path).map_err(Error::io(doing()))?;
    let mut text = serde_json::to_string(request).map_err(|error| Error::malformed("request", error))?;
    text.push('\n');
    stream.write_all(text.as_bytes()).map_err(Error::io(doing()))?;
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line).map_err(Error::io(doing()))?;
    let answer = serde_json::from_str(&line).map_err(|error| Error::malformed("the supervisor's answer", error))?;
    match answer {
        Answer::Refused { reason } => Err(Error::Usage(reason)),
        Answer::Command { command, reason } => Err(Error::Command { command, reason }),
        Answer::Failed { component, reason } => Err(failed(dir, component, reason)),
        other => Ok(other),
    }
}

pub(crate) fn failed(dir: &Path, component: String, reason: String) -> Error {
    let lab = dir.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    Error::Component { lab, component, reason }
}

pub(crate) fn ask(dir: &Path, request: &Request) -> Result<()> {
    call(dir, request).map(|_| ())
}

pub(crate) fn components(dir: &Path) -> Result<Vec<ComponentStatus>> {
    status(dir).map(|(_, components)| components)
}

pub(crate) fn status(dir: &Path) -> Result<(Phase, Vec<ComponentStatus>)> {
    match call(dir, &Request::Components)? {
        Answer::Components { phase, components } => Ok((phase, components)),
        other => Err(Error::malformed("the supervisor's answer", format!("{other:?}"))),
    }
}

pub(crate) fn add_gateway(dir: &Path, name: &str, namespaces: Vec<String>) -> Result<Gateway> {
    match call(dir, &Request::AddGateway { name: name.into(), namespaces })? {
        Answer::Gateway { gateway } => Ok(gateway),
        other => Err(Error::malformed("the supervisor's answer", format!("{other:?}"))),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_question_and_its_answer_cross_the_socket_whatever_the_length_of_the_path() {
        let dir = std::env::temp_dir().join(format!("lab-control-{}-{}", std::process::id(), "long".repeat(40)));
        std::fs::create_dir_all(&dir).unwrap();
        let listener = listen(&dir).unwrap();
        let server = std::thread::spawn(move || {
            for expected in [Request::Stop { component: "etcd".into() }, Request::Components] {
                let (stream, _) = listener.accept().unwrap();
                serve(&stream, |request| {
                    assert_eq!(request, expected);
                    Answer::Failed { component: "etcd".into(), reason: "is gone".into() }
                })
                .unwrap();
            }
        });
        let error = ask(&dir, &Request::Stop { component: "etcd".into() }).unwrap_err();
        assert!(error.to_string().starts_with("etcd of lab lab-control-"), "{error}");
        assert!(status(&dir).is_err());
        server.join().unwrap();
        std::fs::remove_dir_all(dir).unwrap();
    }
}
