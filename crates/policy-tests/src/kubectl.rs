//! One call of `kubectl` as a given user. It reports what the command said and never decides whether that is good.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::Error;

/// How long one call may take.
const LONGEST: &str = "120s";

/// A `kubectl` bound to a cluster.
#[derive(Debug)]
pub(crate) struct Kubectl {
    program: PathBuf,
    kubeconfig: PathBuf,
    cache: PathBuf,
}

/// What a call came to.
#[derive(Debug, Clone)]
pub(crate) struct Answer {
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Kubectl {
    pub(crate) fn new(kubeconfig: &Path, program: &Path) -> Result<Self, Error> {
        let cache = std::env::temp_dir().join(format!("policy-tests-{}", std::process::id()));
        std::fs::create_dir_all(&cache).map_err(Error::io("create a cache for kubectl"))?;
        Ok(Self { program: program.to_owned(), kubeconfig: kubeconfig.to_owned(), cache })
    }

    /// Runs `kubectl <args>`, as `user` unless that is empty, with `input` as its standard input.
    pub(crate) fn call(&self, user: &str, args: &[&str], input: Option<&str>, editor: Option<&str>) -> Answer {
        // What waits without end (a deletion that a finalizer holds) ends as a row that failed, not as a run that hangs.
        let mut command = Command::new("timeout");
        command.args(["--foreground", LONGEST]).arg(&self.program);
        command.arg("--kubeconfig").arg(&self.kubeconfig).arg("--cache-dir").arg(&self.cache);
        command.arg("--request-timeout=60s");
        if !user.is_empty() {
            command.args(["--as", user, "--as-group", "system:authenticated"]);
        }
        if let Some(editor) = editor {
            command.env("KUBE_EDITOR", editor);
        }
        command.args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let run = || -> std::io::Result<Answer> {
            let mut child = command.spawn()?;
            if let (Some(mut pipe), Some(input)) = (child.stdin.take(), input) {
                pipe.write_all(input.as_bytes())?;
            }
            let output = child.wait_with_output()?;
            Ok(Answer {
                code: output.status.code().unwrap_or(-1),
                out: String::from_utf8_lossy(&output.stdout).into_owned(),
                err: String::from_utf8_lossy(&output.stderr).into_owned(),
            })
        };
        let mut run = run;
        run().unwrap_or_else(|error| Answer {
            code: -1,
            out: String::new(),
            err: format!("cannot run {}: {error}", self.program.display()),
        })
    }
}

impl Drop for Kubectl {
    fn drop(&mut self) {
        // A cache: nothing is lost when it stays.
        let _ = std::fs::remove_dir_all(&self.cache);
    }
}

impl Answer {
    /// The answer, if the command succeeded.
    pub(crate) fn accepted(self) -> Result<Self, String> {
        if self.code == 0 { Ok(self) } else { Err(format!("refused (rc {}): {}", self.code, self.err.trim())) }
    }

    /// The object printed by `-o json`, if the command succeeded.
    pub(crate) fn object(self) -> Result<Value, String> {
        let answer = self.accepted()?;
        serde_json::from_str(&answer.out).map_err(|error| format!("no JSON ({error}): {}", answer.out))
    }

    /// That the command failed with a text that holds all of `words`.
    pub(crate) fn refused(&self, words: &[&str]) -> Result<(), String> {
        if self.code == 0 {
            return Err(format!("accepted: {}", self.out.trim()));
        }
        match words.iter().find(|word| !self.err.contains(**word)) {
            Some(word) => Err(format!("refused without the words {word:?}: {}", self.err.trim())),
            None => Ok(()),
        }
    }
}
