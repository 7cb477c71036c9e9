//! The command line: names, flags, and help that teaches by example.

use std::path::{Path, PathBuf};
use std::str::FromStr;

use canary_api::{Duration, Percent};
use canary_sim::level::{Fault, Healthy};
use clap::builder::TypedValueParser;
use clap::{Args, CommandFactory as _, FromArgMatches as _, Parser, Subcommand, ValueEnum as _};
use clap_complete::Shell;

use crate::output::Format;

const EXIT_CODES: &str = "\
Exit codes:
  0   done; wait: the template is live
  1   wait: rolled back; commands: refused, by a policy, the operator or your answer;
      verify: not signed, or changed; evidence --to: a finished folder holds something else
  2   wait: aborted, superseded, or gone past the stages; plan, simulate, backtest: the
      spec is wrong; doctor: something is
  3   not within --timeout
  4   it could not be done: no cluster, no such object, no right, no such file
  64  wrong usage

Colours are used on a terminal only; NO_COLOR switches them off.";

/// The command line of `kubectl canary`.
#[derive(Debug, Parser)]
#[command(
    name = "kubectl-canary",
    version,
    about = "What a release can know, where it stands, the commands to it, and its notes",
    long_about = "Releases of CanaryReleases: what a spec can find out before it runs, where a release stands, the \
                  commands to it, and what is left of it: notes, report, evidence.",
    after_help = "Examples:
  kubectl canary plan orders.yaml --rps 100      # what each stage can know
  kubectl canary simulate orders.yaml --rps 100 --fault errors=5%@stage2
  kubectl canary status orders -n shop           # one screen
  kubectl canary abort orders -n shop            # all traffic back to stable
  kubectl canary wait orders -n shop             # in a pipeline, after kubectl apply
  kubectl canary notes orders -n shop            # Markdown, from the record of the newest release",
    after_long_help = long_help_end(),
    arg_required_else_help = true,
    subcommand_required = true
)]
pub struct Cli {
    /// Flags of every command.
    #[command(flatten)]
    pub global: Global,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

impl Cli {
    /// Reads the command line of this process. Its help speaks of `kubectl canary`, as people call it.
    ///
    /// # Errors
    /// What clap has to say: what is wrong with it, or the help that was asked for.
    pub fn read() -> Result<Self, clap::Error> {
        let mut command = Self::as_people_call_it();
        let matches = command.try_get_matches_from_mut(std::env::args_os())?;
        Self::from_arg_matches(&matches).map_err(|error| error.format(&mut command))
    }

    /// The command line by the name that kubectl gives it. (Completions are for the program's own name.)
    #[must_use]
    pub fn as_people_call_it() -> clap::Command {
        Self::command().bin_name("kubectl canary")
    }
}

/// The examples of the short help, and the exit codes.
fn long_help_end() -> String {
    format!(
        "Examples:
  kubectl canary plan orders.yaml --rps 100      # what each stage can know
  kubectl canary simulate orders.yaml --rps 100 --fault errors=5%@stage2
  kubectl canary status orders -n shop           # one screen
  kubectl canary abort orders -n shop            # all traffic back to stable
  kubectl canary wait orders -n shop             # in a pipeline, after kubectl apply
  kubectl canary notes orders -n shop            # Markdown, from the record of the newest release

{EXIT_CODES}"
    )
}

/// Flags of every command.
#[derive(Debug, Clone, Default, Args)]
pub struct Global {
    /// Context of the kubeconfig
    #[arg(long, global = true, value_name = "NAME", help_heading = "Cluster")]
    pub context: Option<String>,
    /// Namespace; otherwise that of the context
    #[arg(short, long, global = true, value_name = "NAME", help_heading = "Cluster")]
    pub namespace: Option<String>,
    /// Kubeconfig file; otherwise KUBECONFIG, ~/.kube/config, or the pod's service account
    #[arg(long, global = true, value_name = "FILE", help_heading = "Cluster")]
    pub kubeconfig: Option<PathBuf>,
    /// How the answer is written
    #[arg(short, long, global = true, default_value = "text", value_parser = TargetParser, value_name = "FORMAT")]
    pub output: Target,
}

/// What `-o` says: a format, or, for `report`, a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// To standard output, in this format.
    As(Format),
    /// Into this file.
    To(PathBuf),
}

impl Default for Target {
    fn default() -> Self {
        Self::As(Format::Text)
    }
}

impl Target {
    /// The format of an answer.
    #[must_use]
    pub const fn format(&self) -> Format {
        match self {
            Self::As(format) => *format,
            Self::To(_) => Format::Text,
        }
    }

    /// The file, where it is one.
    #[must_use]
    pub fn file(&self) -> Option<&Path> {
        match self {
            Self::As(_) => None,
            Self::To(file) => Some(file),
        }
    }
}

/// Knows the formats by name; anything else is a file.
#[derive(Debug, Clone)]
struct TargetParser;

impl TypedValueParser for TargetParser {
    type Value = Target;

    fn parse_ref(
        &self,
        command: &clap::Command,
        _: Option<&clap::Arg>,
        value: &std::ffi::OsStr,
    ) -> Result<Target, clap::Error> {
        if value.is_empty() {
            return Err(clap::Error::new(clap::error::ErrorKind::InvalidValue).with_cmd(command));
        }
        let format = value.to_str().and_then(|name| Format::from_str(name, false).ok());
        Ok(format.map_or_else(|| Target::To(value.into()), Target::As))
    }

    fn possible_values(&self) -> Option<Box<dyn Iterator<Item = clap::builder::PossibleValue> + '_>> {
        Some(Box::new(Format::value_variants().iter().filter_map(Format::to_possible_value)))
    }
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Show what each stage of a manifest can detect and prove
    Plan(Plan),
    /// Play many releases of a manifest on sampled traffic, with faults that you name
    Simulate(Simulate),
    /// Play releases of a manifest over the past of a Prometheus: how often would it have reverted?
    Backtest(Backtest),
    /// List CanaryReleases
    List(List),
    /// Show where a release stands, on one screen
    Status(Named),
    /// Show where a release stands, again at every change
    Watch(Named),
    /// Show how the last releases ended
    History(Named),
    /// Write the notes of a release as Markdown, from its record
    Notes(Notes),
    /// Write a release as one HTML file, from its record
    Report(Report),
    /// Write the evidence of releases into folders, from their records, here or in a bucket
    Evidence(Evidence),
    /// Sign an evidence folder with an SSH key
    Sign(Sign),
    /// Check that an evidence folder is signed and unchanged
    Verify(Verify),
    /// Wait until the Deployment's template is live, or is not going to be
    Wait(Wait),
    /// End a release: all traffic back to stable, the candidate rejected
    #[command(after_help = "Examples:
  kubectl canary abort orders -n shop
  kubectl canary abort orders -n shop --yes      # asks nothing")]
    Abort(Order),
    /// Stop the clock; the weight stays and the gates go on
    #[command(after_help = "Examples:
  kubectl canary pause orders -n shop")]
    Pause(Order),
    /// Start the clock of a paused release again
    #[command(after_help = "Examples:
  kubectl canary resume orders -n shop")]
    Resume(Order),
    /// Give the approval that the stage waits for
    #[command(after_help = "Examples:
  kubectl canary approve orders -n shop")]
    Approve(Order),
    /// Skip the stages that are left; a breach still reverts
    #[command(after_help = "Examples:
  kubectl canary promote orders -n shop")]
    Promote(Order),
    /// Release the rejected template that the target holds
    #[command(after_help = "Examples:
  kubectl canary retry orders -n shop")]
    Retry(Order),
    /// Look whether what releases need is there, and say how to mend what is not
    Doctor(Doctor),
    /// Print completions for a shell
    #[command(after_help = "Examples:
  source <(kubectl-canary completion bash)
  kubectl-canary completion zsh > \"${fpath[1]}/_kubectl-canary\"
  kubectl-canary completion fish > ~/.config/fish/completions/kubectl-canary.fish")]
    Completion {
        /// The shell
        shell: Shell,
    },
}

/// `plan`.
#[derive(Debug, Args)]
#[command(after_help = "\
A bad share is detected when a gate would call it a breach within the stage, in 80 (or 95) of 100
releases. A limit is proved when a good stage shows that the candidate is within it; what is not
proved has merely not been seen to break it. Nothing is asked of a cluster. With --prometheus the
traffic, and the events of relative gates, are those that the target's pods counted lately.

Examples:
  kubectl canary plan orders.yaml --rps 100
  kubectl canary plan orders.yaml --rps 100 --detect 5%
  kubectl canary plan orders.yaml --rps 100 --events-per-minute csp=12
  kubectl canary plan orders.yaml --prometheus http://127.0.0.1:9090 --since 1d
  kubectl get crel orders -n shop -o yaml | kubectl canary plan - --rps 100 -o json")]
pub struct Plan {
    /// Manifest with CanaryReleases, in one or more documents; - for standard input
    pub file: String,
    /// Requests a second of the whole service
    #[arg(long, value_name = "N", value_parser = rate, required_unless_present = "prometheus")]
    pub rps: Option<f64>,
    /// Address of a Prometheus, or of what speaks its API, that tells the traffic instead
    #[arg(long, value_name = "URL", conflicts_with = "rps")]
    pub prometheus: Option<String>,
    /// How far back its traffic is looked at
    #[arg(long, value_name = "DURATION", default_value = "1h")]
    pub since: Days,
    /// How to ask it
    #[command(flatten)]
    pub access: Access,
    /// Also show how long each stage must be to detect this bad share
    #[arg(long, value_name = "SHARE")]
    pub detect: Option<Percent>,
    /// Events a minute with all traffic on stable, for relative gates: of each, or GATE=N of one
    #[arg(long, value_name = "[GATE=]N")]
    pub events_per_minute: Vec<Events>,
}

/// `simulate`.
#[derive(Debug, Args)]
#[command(after_help = "\
Each release goes in virtual time from the change of the template to its end, decided by the operator's
own code on counts that are drawn at random: requests come evenly, each is bad with the same chance,
independently; events come by chance. Pods are ready at once, approvals given at once, and nothing fails
but what --fault names. Nothing is asked of a cluster.

NAME is a gate's name, or a kind: errors, latency, events, relative, value (then all gates of it).
LEVEL is a share of the requests (5%; latency: of slow ones), a rate for all of the traffic (3/min), a
multiple of what is healthy (x3), or for a value gate the number. BEGINNING is stageN or a time after the
release began (600s, 1h); stage1 where it is not given. Healthy is otherwise half of each limit, and for
relative gates one event in 1000 requests.

Examples:
  kubectl canary simulate orders.yaml --rps 100
  kubectl canary simulate orders.yaml --rps 100 --fault errors=5%@stage2
  kubectl canary simulate orders.yaml --rps 100 --fault latency=10%@stage1 --fault errors=50%@600s
  kubectl canary simulate orders.yaml --rps 20 --healthy errors=0.3% --runs 1000 --svg orders.svg")]
pub struct Simulate {
    /// Manifest with CanaryReleases, in one or more documents; - for standard input
    pub file: String,
    /// Requests a second of the whole service
    #[arg(long, value_name = "N", value_parser = rate)]
    pub rps: f64,
    /// What is wrong with the candidate, and from when on
    #[arg(long, value_name = "NAME=LEVEL[@BEGINNING]")]
    pub fault: Vec<Fault>,
    /// What a gate counts where nothing is wrong
    #[arg(long, value_name = "NAME=LEVEL")]
    pub healthy: Vec<Healthy>,
    /// Releases
    #[arg(long, value_name = "N", default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub runs: u32,
    /// Seed of all that is drawn; the same seed gives the same releases
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub seed: u64,
    /// Also draw where they end as SVG
    #[arg(long, value_name = "FILE")]
    pub svg: Option<PathBuf>,
}

/// `backtest`.
#[derive(Debug, Args)]
#[command(after_help = "\
As if a healthy release had begun at every full hour: the spec's own stages, decided tick by tick by the
operator's own code. A part of what the service's pods counted then, as large as the stage's weight,
stands for the canary: whole pods where some have that share of the requests, else a random part of
everybody's. So each revert is one that a candidate as good as the serving version would have met.
Gates on values have no counts and are left out. Pods are told by the shape of their names.

Raw samples are read, an hour at a time and with the manifest's selectors, of the pods of the target in
its namespace. Nothing is written, and no cluster is asked.

Examples:
  kubectl canary backtest orders.yaml --prometheus http://127.0.0.1:9090
  kubectl canary backtest orders.yaml --since 30d --every 6h --prometheus https://metrics.example.com \\
      --bearer-token-file token
  kubectl port-forward -n monitoring svc/prometheus 9090 &   # where it is inside the cluster")]
pub struct Backtest {
    /// Manifest with CanaryReleases, in one or more documents; - for standard input
    pub file: String,
    /// How far back
    #[arg(long, value_name = "DURATION", default_value = "7d")]
    pub since: Days,
    /// Address of a Prometheus, or of what speaks its API, without /api/v1
    #[arg(long, value_name = "URL")]
    pub prometheus: String,
    /// Time from one release to the next
    #[arg(long, value_name = "DURATION", default_value = "1h", value_parser = at_least_a_minute)]
    pub every: Duration,
    /// How to ask it
    #[command(flatten)]
    pub access: Access,
    /// Seed of all that is drawn
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub seed: u64,
}

/// How a Prometheus is asked.
#[derive(Debug, Clone, Args)]
pub struct Access {
    /// File with a bearer token for the Prometheus
    #[arg(long, value_name = "FILE")]
    pub bearer_token_file: Option<PathBuf>,
    /// File with the certificate authorities (PEM) to trust in place of the system's
    #[arg(long, value_name = "FILE")]
    pub ca_file: Option<PathBuf>,
    /// What the label with the pod's name is called
    #[arg(long, value_name = "LABEL", default_value = "pod")]
    pub pod_label: String,
    /// What the label with the namespace is called
    #[arg(long, value_name = "LABEL", default_value = "namespace")]
    pub namespace_label: String,
}

/// A long time: a duration, or whole days such as `7d`; at most 366 days.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Days(pub Duration);

impl Days {
    /// As a person writes it.
    #[must_use]
    pub fn text(self) -> String {
        const DAY: u64 = 86_400_000;
        match (self.0.millis().checked_div(DAY), self.0.millis().checked_rem(DAY)) {
            (Some(days), Some(0)) if days > 0 => format!("{days}d"),
            _ => self.0.to_string(),
        }
    }
}

impl FromStr for Days {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let days = text.strip_suffix('d').and_then(|days| days.parse::<u64>().ok()).filter(|days| *days <= 366);
        let days = days.map(|days| Duration::from_secs(days.saturating_mul(86_400)));
        days.or_else(|| text.parse().ok())
            .filter(|long| *long > Duration::ZERO)
            .map(Self)
            .ok_or_else(|| format!("{text:?} is no time to look back: write days or a duration, such as 7d or 12h"))
    }
}

fn at_least_a_minute(text: &str) -> Result<Duration, String> {
    let long: Duration = text.parse().map_err(|error: canary_api::UnitError| error.to_string())?;
    if long < Duration::from_secs(60) { Err("give a minute or more, such as 1h".to_owned()) } else { Ok(long) }
}

/// Events a minute of one gate, or of each that is not named.
#[derive(Debug, Clone, PartialEq)]
pub struct Events {
    /// The gate; none for each.
    pub gate: Option<String>,
    /// Events a minute.
    pub per_minute: f64,
}

impl FromStr for Events {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (gate, number) = text.split_once('=').map_or((None, text), |(gate, number)| (Some(gate), number));
        let per_minute = number
            .parse()
            .ok()
            .filter(|number: &f64| number.is_finite() && *number >= 0.0)
            .ok_or_else(|| format!("{number:?} is no number of events a minute, such as 12 or csp=0.5"))?;
        Ok(Self { gate: gate.map(str::to_owned), per_minute })
    }
}

fn rate(text: &str) -> Result<f64, String> {
    text.parse()
        .ok()
        .filter(|rate: &f64| rate.is_finite() && *rate > 0.0)
        .ok_or_else(|| "give requests a second, such as 100 or 0.5".to_owned())
}

/// `list`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  kubectl canary list -n shop
  kubectl canary list -A
  kubectl canary list -A -o json")]
pub struct List {
    /// In all namespaces
    #[arg(short = 'A', long)]
    pub all_namespaces: bool,
}

/// A command about one CanaryRelease.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  kubectl canary status orders -n shop           # one screen
  kubectl canary watch orders -n shop            # the same, at every change; end it with Ctrl-C
  kubectl canary watch orders -n shop -o json    # a line of JSON at every change
  kubectl canary history orders -n shop          # how the last releases ended")]
pub struct Named {
    /// The CanaryRelease
    pub name: String,
}

/// Which record.
#[derive(Debug, Clone, Default, Args)]
pub struct OfRecord {
    /// The CanaryRelease; the newest of its records is meant
    pub name: Option<String>,
    /// Another record, by its name or by the release's id, such as orders-3
    #[arg(long, value_name = "ID")]
    pub record: Option<String>,
    /// Read records from a file of YAML or JSON instead of the cluster; - for standard input
    #[arg(short, long = "filename", value_name = "FILE")]
    pub file: Option<String>,
}

/// Changes from elsewhere.
#[derive(Debug, Clone, Default, Args)]
pub struct MoreChanges {
    /// Also list the changes of this file; - for standard input
    #[arg(long, value_name = "FILE")]
    pub changes: Option<String>,
    /// Also list the Conventional Commits between two tags of the repository here
    #[arg(long, value_name = "OLD..NEW")]
    pub git: Option<String>,
}

/// `notes`.
#[derive(Debug, Args)]
#[command(after_help = "\
What people write, summary, changes, risks, root cause and so on, stands in the record's spec: kubectl
edit crec NAME. What is not known says so. -o json shows what a template of your own can use.

Examples:
  kubectl canary notes orders -n shop > notes.md
  kubectl canary notes orders -n shop --template guide --git v2.0.3..v2.1.0
  kubectl canary notes --record orders-3 -n shop --template ours.md --changes changes.md
  kubectl canary notes -f record.yaml              # without a cluster")]
pub struct Notes {
    /// The record.
    #[command(flatten)]
    pub of: OfRecord,
    /// The page of canary releases (canary), the notes of the release guide (guide), or a file of yours
    #[arg(long, value_name = "canary|guide|FILE", default_value = "canary")]
    pub template: String,
    /// More changes.
    #[command(flatten)]
    pub changes: MoreChanges,
}

/// `report`.
#[derive(Debug, Args)]
#[command(after_help = "\
The file needs nothing else: it opens from a disk, runs no script and loads nothing. Without -o FILE it
goes to standard output, where that is no terminal.

Examples:
  kubectl canary report orders -n shop -o report.html
  kubectl canary report --record orders-3 -n shop -o orders-3.html
  kubectl canary report -f record.yaml -o report.html    # without a cluster")]
pub struct Report {
    /// The record.
    #[command(flatten)]
    pub of: OfRecord,
    /// More changes.
    #[command(flatten)]
    pub changes: MoreChanges,
}

/// `evidence`.
#[derive(Debug, Default, Args)]
#[command(after_help = "\
MANIFEST.txt lists what is there, and why something is not. SHA256SUMS holds the digest of each file, as
sha256sum -c reads them; its own digest is that of the set.

With --to the folder is PLACE/NAMESPACE/RECORD, and the record must be over. A folder with SHA256SUMS is
finished: it is left as it is, and where the record was edited since, that is said and the exit code is 1.
One without is done again. What can't be collected is named, the others go on, and the exit code is 4.
For s3:// the AWS_* variables say who you are: AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, AWS_REGION.

SBOM and provenance are read from the registries of --registry, by what is attached to the images there,
with the passwords of docker login. No other registry is asked anything. A registry that is allowed and
does not answer makes the command fail.

Examples:
  kubectl canary evidence orders -n shop -d evidence
  kubectl canary evidence --record orders-3 -n shop -d orders-3 --registry registry.example.com
  kubectl canary evidence -f record.yaml -d evidence     # without a cluster
  kubectl canary evidence --all -n shop --to /mnt/evidence
  kubectl canary evidence --all -A --to s3://evidence/production --registry registry.example.com
  kubectl canary evidence --all -A --to s3://evidence --s3-endpoint https://minio.example.com:9000")]
pub struct Evidence {
    /// The record.
    #[command(flatten)]
    pub of: OfRecord,
    /// The folder; it must be new or empty
    #[arg(short = 'd', long = "directory", value_name = "FOLDER", required_unless_present = "to")]
    pub folder: Option<String>,
    /// A folder or s3://BUCKET/PREFIX that keeps the folders of many releases
    #[arg(long, value_name = "PLACE", conflicts_with = "folder")]
    pub to: Option<String>,
    /// Each record that is over and has no finished folder there yet
    #[arg(long, requires = "to", conflicts_with_all = ["name", "record", "changes", "git"])]
    pub all: bool,
    /// Records of all namespaces
    #[arg(short = 'A', long, requires = "all", conflicts_with = "file")]
    pub all_namespaces: bool,
    /// Of these only the ones whose record is signed off (spec.signOff), so that what people write is in them
    #[arg(long, requires = "all")]
    pub signed_off: bool,
    /// Address of an S3-compatible store; otherwise AWS_ENDPOINT, or that of Amazon
    #[arg(long, value_name = "URL", requires = "to")]
    pub s3_endpoint: Option<String>,
    /// A registry that may be asked for SBOM and provenance, such as ghcr.io or docker.io
    #[arg(long, value_name = "HOST", help_heading = "Registries")]
    pub registry: Vec<String>,
    /// The same, without TLS; a registry on this machine needs it not
    #[arg(long, value_name = "HOST", help_heading = "Registries")]
    pub insecure_registry: Vec<String>,
    /// More changes.
    #[command(flatten)]
    pub changes: MoreChanges,
}

/// `sign`.
#[derive(Debug, Args)]
#[command(after_help = "\
What is signed is SHA256SUMS, and so every file of the folder. The signature is the one of ssh-keygen, in
SHA256SUMS.sig. The key is of type ed25519 or ECDSA P-256 and has no passphrase; with any other, or with
an agent, ssh-keygen writes the same file:
  ssh-keygen -Y sign -n canaryrelease.dev/evidence -f KEY evidence/SHA256SUMS

Examples:
  kubectl canary sign -d evidence --key ~/.ssh/id_release")]
pub struct Sign {
    /// The folder that evidence wrote
    #[arg(short = 'd', long = "directory", value_name = "FOLDER")]
    pub folder: PathBuf,
    /// Private key, as ssh-keygen writes it
    #[arg(long, value_name = "FILE")]
    pub key: PathBuf,
}

/// `verify`.
#[derive(Debug, Args)]
#[command(after_help = "\
It exits with 1 where the signature is missing or is nobody's that --signers names, and where a file was
changed, added or taken away. The file of --signers is one of ssh-keygen: lines of a name and a public
key. ssh-keygen can check the signature too:
  ssh-keygen -Y verify -n canaryrelease.dev/evidence -f SIGNERS -I NAME -s evidence/SHA256SUMS.sig < evidence/SHA256SUMS

Examples:
  echo \"jane@example.com $(cat id_release.pub)\" > signers
  kubectl canary verify -d evidence --signers signers")]
pub struct Verify {
    /// The folder
    #[arg(short = 'd', long = "directory", value_name = "FOLDER")]
    pub folder: PathBuf,
    /// Who may sign
    #[arg(long, value_name = "FILE")]
    pub signers: PathBuf,
}

/// `doctor`.
#[derive(Debug, Args)]
#[command(after_help = "\
It reads the installation and asks what you may do; with a CanaryRelease also its hold, target, Service,
routes, provider and gates. It changes nothing. Exit code 2: something is wrong.

Examples:
  kubectl canary doctor -n shop
  kubectl canary doctor orders -n shop")]
pub struct Doctor {
    /// A CanaryRelease to look at too
    pub name: Option<String>,
    /// Where the operator is
    #[arg(long, value_name = "NAME", default_value = "canaryrelease-system")]
    pub operator_namespace: String,
}

/// `wait`.
#[derive(Debug, Args)]
#[command(after_help = "\
Call it right after the apply: it waits for the template that the Deployment has then, also where that
changes later. 0: that template serves. 1: it was rolled back. 2: the release was aborted, a newer
template superseded it, or it went past the stages. 3: neither within --timeout; a paused release is
neither.

Examples:
  kubectl apply -f orders.yaml && kubectl canary wait orders -n shop --timeout 4h
  kubectl canary wait orders -n shop --digest sha256:deb898dca4a1...")]
pub struct Wait {
    /// The CanaryRelease
    pub name: String,
    /// How long at most
    #[arg(long, value_name = "DURATION", default_value = "4h")]
    pub timeout: Duration,
    /// Wait for this template instead of the one that the Deployment has now
    #[arg(long, value_name = "SHA256")]
    pub digest: Option<String>,
}

/// A command to the operator.
#[derive(Debug, Args)]
pub struct Order {
    /// The CanaryRelease
    pub name: String,
    /// Do it without asking
    #[arg(short, long)]
    pub yes: bool,
    /// How long to wait until the operator has taken it; 0s: not at all
    #[arg(long, value_name = "DURATION", default_value = "30s")]
    pub timeout: Duration,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn each_command_has_an_example_of_itself() {
        let mut command = Cli::as_people_call_it();
        command.build();
        for sub in command.get_subcommands_mut().filter(|sub| sub.get_name() != "help") {
            let name = sub.get_name().to_owned();
            let help = sub.render_long_help().to_string();
            let example = if name == "completion" {
                "kubectl-canary completion".to_owned()
            } else {
                format!("kubectl canary {name} ")
            };
            assert!(help.contains(&format!("Usage: kubectl canary {name} ")), "{name}: {help}");
            assert!(help.contains("Examples:") && help.contains(&example), "{name}: {help}");
        }
    }

    #[test]
    fn the_long_help_documents_the_exit_codes() {
        use crate::Exit;
        let help = Cli::command().render_long_help().to_string();
        for exit in [Exit::Done, Exit::Refused, Exit::Wrong, Exit::Timeout, Exit::Failed, Exit::Usage] {
            assert!(help.contains(&format!("\n  {:<3} ", exit.code())), "{exit:?}: {help}");
        }
        assert!(help.contains("NO_COLOR"));
    }

    #[test]
    fn flags_of_the_cluster_may_stand_before_and_after_the_command() {
        for line in [
            &["kubectl-canary", "-n", "shop", "--context", "c", "status", "orders", "-o", "yaml"],
            &["kubectl-canary", "status", "orders", "-n", "shop", "--context", "c", "-o", "yaml"],
        ] {
            let cli = Cli::try_parse_from(line).unwrap();
            assert_eq!(cli.global.namespace.as_deref(), Some("shop"));
            assert_eq!(cli.global.context.as_deref(), Some("c"));
            assert_eq!(cli.global.output, Target::As(Format::Yaml));
        }
    }

    #[test]
    fn a_report_goes_to_a_file_and_every_other_answer_to_standard_output() {
        let output = |value: &str| Cli::try_parse_from(["k", "report", "orders", "-o", value]).unwrap().global.output;
        assert_eq!(output("report.html"), Target::To("report.html".into()));
        assert_eq!(output("json"), Target::As(Format::Json));
        assert_eq!(Target::default().format(), Format::Text);
        assert!(Cli::try_parse_from(["k", "report", "orders", "-o", ""]).is_err());
        let elsewhere = Cli::try_parse_from(["k", "notes", "-f", "x.yaml", "-o", "notes.md"]).unwrap();
        let error = crate::run(elsewhere).unwrap_err();
        assert!(matches!(&error, crate::Error::Usage(why) if why.contains("notes.md")), "{error}");
    }

    #[test]
    fn numbers_that_make_no_sense_are_refused_with_an_example() {
        for rps in ["0", "-1", "NaN", "inf", "many"] {
            let error = Cli::try_parse_from(["k", "plan", "f", &format!("--rps={rps}")]).unwrap_err();
            assert!(error.to_string().contains("such as 100"), "{rps}: {error}");
        }
        assert_eq!("csp=0.5".parse(), Ok(Events { gate: Some("csp".to_owned()), per_minute: 0.5 }));
        assert_eq!("12".parse(), Ok(Events { gate: None, per_minute: 12.0 }));
        assert!("csp=x".parse::<Events>().is_err() && "-1".parse::<Events>().is_err());
    }

    #[test]
    fn faults_and_times_are_read_or_refused_with_an_example() {
        let line = [
            "k",
            "simulate",
            "f",
            "--rps=1",
            "--fault=errors=5%@stage2",
            "--fault=latency=x3",
            "--healthy=errors=0.3%",
        ];
        let Command::Simulate(read) = Cli::try_parse_from(line).unwrap().command else { panic!("another command") };
        assert_eq!((read.fault.len(), read.healthy.len(), read.runs, read.seed), (2, 1, 200, 1));
        for (flag, says) in [
            ("--fault=errors", "such as errors=5%@stage2"),
            ("--healthy=errors", "such as errors=0.3%"),
            ("--runs=0", "1..=100000"),
        ] {
            let error = Cli::try_parse_from(["k", "simulate", "f", "--rps=1", flag]).unwrap_err().to_string();
            assert!(error.contains(says), "{error}");
        }
        assert_eq!(
            "7d".parse::<Days>().map(|days| (days.0.to_string(), days.text())),
            Ok(("168h".to_owned(), "7d".to_owned()))
        );
        assert_eq!("90m".parse::<Days>().map(Days::text), Ok("1h30m".to_owned()));
        for text in ["", "d", "0d", "-1d", "367d", "1d12h", "0s"] {
            assert!(text.parse::<Days>().is_err(), "{text}");
        }
        assert!(Cli::try_parse_from(["k", "backtest", "f", "--prometheus=http://p", "--every=1s"]).is_err());
    }

    #[test]
    fn completions_are_there_for_each_shell() {
        for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
            let text = crate::commands::completion::script(shell);
            assert!(text.contains("kubectl-canary") && text.contains("promote"), "{shell}");
        }
        let bash = crate::commands::completion::script(Shell::Bash);
        for part in ["cmd=\"kubectl__canary__subcmd__plan\"", "\n        kubectl__canary__subcmd__plan)\n"] {
            assert!(bash.contains(part), "{part:?} is not in {bash}");
        }
    }
}
