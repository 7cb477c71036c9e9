//! How a command ends: the exit codes, and the errors with what happened, to which object, and what to do.

use std::process::ExitCode;

/// The exit codes, one list for all commands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// It is done; `wait`: the template is live.
    Done,
    /// `wait`: rolled back. Commands: refused, by a policy, by the operator or by the answer at the prompt. `verify`: not
    /// signed, or changed. `evidence --to`: a finished folder holds something else.
    Refused,
    /// `wait`: aborted, superseded, or gone past the stages. `plan`, `simulate`, `backtest`: the spec is
    /// wrong. `doctor`: something is.
    Wrong,
    /// Not within `--timeout`.
    Timeout,
    /// It could not be done: no cluster, no such object, no right, no such file.
    Failed,
    /// Wrong usage.
    Usage,
}

impl Exit {
    /// The number.
    #[must_use]
    pub const fn code(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::Refused => 1,
            Self::Wrong => 2,
            Self::Timeout => 3,
            Self::Failed => 4,
            Self::Usage => 64,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}

/// Why a command could not be done.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file that cannot be read.
    #[error("cannot read {file}: {why}; give the path of a manifest, or - for standard input")]
    File {
        /// The path.
        file: String,
        /// What the system said.
        why: std::io::Error,
    },
    /// A file that is no YAML, or has nothing for us.
    #[error("{file}: {why}")]
    Manifest {
        /// The path.
        file: String,
        /// What is wrong, and what to do.
        why: String,
    },
    /// Flags that do not go together.
    #[error("{0}")]
    Usage(String),
    /// No way to a cluster.
    #[error("found no way to a cluster: {0}; see kubectl config get-contexts, and give --context or --kubeconfig")]
    Kubeconfig(String),
    /// The API server refused, or could not be reached.
    #[error("cannot {doing}: {why}")]
    Api {
        /// What was tried, with the object.
        doing: String,
        /// What came back, and what to do.
        why: String,
    },
    /// An object that is not there.
    #[error("{object} does not exist; {hint}")]
    NotFound {
        /// Kind, namespace and name.
        object: String,
        /// What to do.
        hint: String,
    },
    /// A CanaryRelease that this build does not understand.
    #[error(
        "CanaryRelease {object} cannot be read by this version of the plugin: {why}; use the plugin of the operator's version, or kubectl describe"
    )]
    Undecodable {
        /// Namespace and name.
        object: String,
        /// What could not be read.
        why: String,
    },
    /// A ReleaseRecord that this build does not understand.
    #[error(
        "ReleaseRecord {object} cannot be read by this version of the plugin: {why}; use the plugin of the operator's version"
    )]
    UndecodableRecord {
        /// Namespace and name.
        object: String,
        /// What could not be read.
        why: String,
    },
    /// A file or folder that cannot be read.
    #[error("cannot read {file}: {why}")]
    Unreadable {
        /// The path.
        file: String,
        /// What the system said.
        why: std::io::Error,
    },
    /// A file or folder that cannot be written.
    #[error("cannot write {file}: {why}; give a path that may be written")]
    Unwritable {
        /// The path.
        file: String,
        /// What the system said.
        why: std::io::Error,
    },
    /// Changes that are not in the format.
    #[error("changes in {place}: {why}; docs/notes.md has the format")]
    Changes {
        /// The file or ConfigMap.
        place: String,
        /// What is wrong, with its line.
        why: String,
    },
    /// Commits that cannot be read.
    #[error("cannot read the commits {range}: {why}; run it inside the repository, with both tags fetched")]
    Git {
        /// The range.
        range: String,
        /// What git said.
        why: String,
    },
    /// Notes or a report that could not be written from a record.
    #[error("{0}")]
    Rendering(String),
    /// A key or signature that cannot be used.
    #[error("{file}: {why}")]
    Key {
        /// The path.
        file: String,
        /// What is wrong, and what to do.
        why: String,
    },
    /// A registry that may be asked and does not answer.
    #[error("cannot read what is attached to the images: {0}; try again, or leave its --registry out")]
    Registry(String),
    /// A place for evidence that cannot be used.
    #[error("{place}: {why}")]
    Place {
        /// The folder or bucket.
        place: String,
        /// What is wrong, and what to do.
        why: String,
    },
    /// A metrics store that does not answer, or not what was asked.
    #[error("cannot read the metrics: {0}")]
    Metrics(String),
    /// Releases that could not be played.
    #[error("{0}")]
    Simulation(String),
    /// A picture that cannot be written.
    #[error("cannot write {file}: {why}; give a path that may be written")]
    Picture {
        /// The path.
        file: String,
        /// What the system said.
        why: std::io::Error,
    },
    /// Nothing can be written where the answer should go.
    #[error("cannot write the answer: {0}")]
    Output(#[from] std::io::Error),
    /// The answer is no JSON or YAML: a defect of ours.
    #[error("cannot write the answer as JSON or YAML: {0}")]
    Encode(String),
}

impl Error {
    /// The exit code.
    #[must_use]
    pub const fn exit(&self) -> Exit {
        match self {
            Self::Usage(_) => Exit::Usage,
            _ => Exit::Failed,
        }
    }

    /// A fixed word for what kind of error it is.
    #[must_use]
    pub const fn category(&self) -> &'static str {
        match self {
            Self::File { .. } => "file",
            Self::Manifest { .. } => "manifest",
            Self::Usage(_) => "usage",
            Self::Kubeconfig(_) => "kubeconfig",
            Self::Api { .. } => "api",
            Self::NotFound { .. } => "not_found",
            Self::Undecodable { .. } => "undecodable",
            Self::UndecodableRecord { .. } => "undecodable_record",
            Self::Unreadable { .. } => "unreadable",
            Self::Unwritable { .. } => "unwritable",
            Self::Changes { .. } => "changes",
            Self::Git { .. } => "git",
            Self::Rendering(_) => "rendering",
            Self::Key { .. } => "key",
            Self::Registry(_) => "registry",
            Self::Place { .. } => "place",
            Self::Metrics(_) => "metrics",
            Self::Simulation(_) => "simulation",
            Self::Picture { .. } => "picture",
            Self::Output(_) => "output",
            Self::Encode(_) => "encode",
        }
    }
}
