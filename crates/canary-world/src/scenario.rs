//! A scenario as text: what the world is like, what people and the world do and when, how it must end. What is printed
//! of a run can be read again and gives the same run.
//!
//! ```text
//! # A bad candidate is reverted in its second stage.
//! version v2: errors 20%
//! armed: push v2
//! Bake/2 +3s: command pause
//! end: RolledBack
//! serves: v1
//! fault write 17: crash after
//! ```
//!
//! A line `<when>: <action>` waits for its `when` once the line above it is done.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use canary_api::Step;
use serde_json::{Map, Value, json};

use crate::cluster::Fate;
use crate::fault::{Answer, Fault, Planned, Struck};
use crate::run::Outcome;
use crate::text;

/// A scenario.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Scenario {
    /// Its first comment: what it is about.
    pub about: Vec<String>,
    /// Fields laid over the usual spec.
    pub spec: Map<String, Value>,
    /// What happens, in order; what stands before the first `when` is done at the start.
    pub script: Vec<Line>,
    /// How it must end; any of these.
    pub ends: Vec<String>,
    /// The versions that may serve then.
    pub serves: Vec<String>,
    /// Whether requests may find no pod.
    pub outage: bool,
    /// Whether the API server may refuse what the script does: then the script goes on.
    pub refusals: bool,
    /// Objects, as `plural name`, that a fault may have written once more or less, to the same end; the reason is in the
    /// file.
    pub once_more_or_less: Vec<String>,
    /// Ends that a fault of a kind may bring instead, with the reason in the file.
    pub allowed: Vec<Allowed>,
    /// What goes wrong.
    pub faults: Vec<Planned>,
}

/// Another end than the usual one. Every promise holds on the way to it.
#[derive(Debug, Clone, PartialEq)]
pub struct Allowed {
    /// Of which faults.
    pub of: Kin,
    /// How it may end.
    pub ends: Vec<String>,
    /// The versions that may serve then.
    pub serves: Vec<String>,
}

/// Faults after which the operator can't but believe what it is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kin {
    /// A read of another object than the CanaryRelease is answered 404: the object is gone for all that one can know.
    Absent,
    /// A read of another object than the CanaryRelease is answered from the past, which an API server does not do for
    /// reads like the operator's.
    Stale,
    /// An answer that never comes, a death, a second leader, a watch that is away, another's write that wakes: what the
    /// script does at a moment that is short meets the release at another.
    Late,
    /// A process stands still with a write under way, which comes when all is over.
    Frozen,
    /// The metrics can't be asked for ten minutes or more: no stage passes.
    Metrics,
    /// The operator's clock is off: it looks at other moments.
    Clock,
    /// The API server is away for ten minutes or more.
    Outage,
    /// A write is refused, and what the script does next comes before it is tried again.
    Refused,
    /// Two faults struck: what each leaves time for, both may not.
    Two,
}

impl Kin {
    const ALL: [(&'static str, Self); 9] = [
        ("absent", Self::Absent),
        ("stale", Self::Stale),
        ("late", Self::Late),
        ("frozen", Self::Frozen),
        ("metrics", Self::Metrics),
        ("clock", Self::Clock),
        ("outage", Self::Outage),
        ("refused", Self::Refused),
        ("two", Self::Two),
    ];

    fn word(self) -> &'static str {
        text::word(&Self::ALL, &self)
    }

    /// Whether what came to pass has this kind.
    #[must_use]
    pub fn among(self, struck: &[Struck]) -> bool {
        match self {
            Self::Two => struck.len() > 1,
            kin => struck.iter().any(|struck| kin.has(struck)),
        }
    }

    pub(crate) fn has(self, struck: &Struck) -> bool {
        let other = struck.reads && struck.plural != "canaryreleases";
        match (self, struck.fault) {
            (Self::Absent, Fault::Answer(Answer::NotFound)) | (Self::Stale, Fault::Stale(_)) => other,
            (
                Self::Late,
                Fault::Answer(Answer::Timeout)
                | Fault::LostReply
                | Fault::CrashBefore
                | Fault::CrashAfter
                | Fault::Freeze(_)
                | Fault::ServerDown(_)
                | Fault::WatchCut
                | Fault::Corrupt(_)
                | Fault::Act(_),
            ) => true,
            (Self::Frozen, Fault::Freeze(_)) => true,
            (Self::Refused, Fault::Answer(_)) => !struck.reads,
            (Self::Metrics, Fault::MetricsDown(time)) | (Self::Outage, Fault::ServerDown(time)) => {
                time >= Duration::from_secs(600)
            }
            (Self::Clock, Fault::ClockJumps(_) | Fault::ClockRate(_)) => true,
            _ => false,
        }
    }
}

/// A line of the script.
#[derive(Debug, Clone, PartialEq)]
pub struct Line {
    /// When.
    pub when: When,
    /// What.
    pub action: Action,
}

/// When something happens.
#[derive(Debug, Clone, PartialEq)]
pub struct When {
    /// The moment.
    pub moment: Moment,
    /// So much later.
    pub after: Duration,
}

/// A moment of a run.
#[derive(Debug, Clone, PartialEq)]
pub enum Moment {
    /// Before the operator starts.
    Start,
    /// The target is armed.
    Armed,
    /// The line above is done.
    Then,
    /// The release is in this step, of this stage from 1.
    Place(Step, Option<i32>),
    /// The clock of the release is stopped.
    Paused,
    /// The release is over.
    Over,
}

/// What happens.
#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    /// A version behaves so from now on.
    Version(String, Trait),
    /// Jane applies a version.
    Push(String),
    /// Jane gives a command; the release's id is added.
    Command(String),
    /// Jane scales the target.
    Scale(i64),
    /// There is an autoscaler, from so many pods to so many.
    Autoscaler(i64, i64),
    /// The autoscaler finds so many pods right.
    Load(i64),
    /// There is a CronJob of this name, whose program ends with this code after so many seconds; one that is there is another
    /// from now on.
    CronJob(String, i32, u64),
    /// An object is deleted: kind and name.
    Delete(String, String),
    /// An object is made again as its owner wrote it.
    Restore(String, String),
    /// The gateway looks at no route any more, or does again.
    Gateway(bool),
    /// The operator is ended and started again at once.
    Restart,
    /// A JSON patch by somebody: user, kind, name, operations.
    Patch(String, String, String, Value),
    /// A field is written past all rules, as it may be from another build or a backup: kind, name, pointer, value.
    Forge(String, String, String, Value),
    /// Git's tool applies the target's or the route's manifest again.
    Sync(String),
    /// This goes wrong at the next request of a tick, or the next write where it is a write that it needs.
    Strike(Fault),
}

/// A trait of a version.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Trait {
    /// So many bad answers of a thousand.
    Errors(u32),
    /// What its gauge shows.
    Gauge(u32),
    /// What becomes of its pods.
    Fate(Fate),
    /// It counts no requests.
    Silent,
}

const FATES: [(&str, Fate); 6] = [
    ("ready", Fate::Ready),
    ("unschedulable", Fate::Unschedulable),
    ("crashes", Fate::CrashLoop),
    ("never ready", Fate::NeverReady),
    ("no image", Fate::NoImage),
    ("quota", Fate::Quota),
];

impl Scenario {
    /// Whether a run ended otherwise than usual in a way that is declared for what went wrong in it.
    #[must_use]
    pub fn allows(&self, outcome: &Outcome) -> bool {
        let served = outcome.serves.join("+");
        let fits = |allowed: &Allowed| {
            allowed.of.among(&outcome.struck) && allowed.ends.contains(&outcome.end) && allowed.serves.contains(&served)
        };
        self.allowed.iter().any(fits)
    }
}

impl FromStr for Scenario {
    type Err = String;

    fn from_str(file: &str) -> Result<Self, String> {
        let mut scenario = Self::default();
        for (number, line) in file.lines().enumerate() {
            let line = line.trim();
            scenario.take(line).map_err(|why| format!("line {}: {why}", number + 1))?;
        }
        Ok(scenario)
    }
}

impl Scenario {
    fn take(&mut self, line: &str) -> Result<(), String> {
        if line.is_empty() {
            return Ok(());
        }
        if let Some(comment) = line.strip_prefix('#') {
            self.about.push(comment.trim().to_owned());
            return Ok(());
        }
        if let Some(fault) = line.strip_prefix("fault ") {
            self.faults.push(fault.parse()?);
            return Ok(());
        }
        let (head, rest) = line.split_once(':').ok_or_else(|| format!("no colon in {line:?}"))?;
        let (head, rest) = (head.trim(), rest.trim());
        let words = |text: &str| -> Vec<String> { text.split(" or ").map(|word| word.trim().to_owned()).collect() };
        match head {
            "end" => self.ends = words(rest),
            "serves" => self.serves = words(rest),
            "once more or less" => self.once_more_or_less = words(rest),
            _ if head.starts_with("allow ") => {
                let kin = head.trim_start_matches("allow ").trim();
                let of = text::named(&Kin::ALL, kin);
                let of = of.ok_or_else(|| format!("unknown kind of fault {kin:?}"))?;
                let (ends, serves) = rest.split_once(';').ok_or_else(|| format!("no semicolon in {rest:?}"))?;
                self.allowed.push(Allowed { of, ends: words(ends), serves: words(serves) });
            }
            "unanswered" => self.outage = rest == "some",
            "refusals" => self.refusals = rest == "some",
            "spec" => {
                let over: Map<String, Value> = serde_json::from_str(rest).map_err(|error| format!("spec: {error}"))?;
                self.spec.extend(over);
            }
            _ => {
                let when: When = head.parse()?;
                self.script.push(Line { when, action: rest.parse()? });
            }
        }
        Ok(())
    }
}

impl fmt::Display for Scenario {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for line in &self.about {
            writeln!(f, "# {line}")?;
        }
        if !self.spec.is_empty() {
            writeln!(f, "spec: {}", Value::Object(self.spec.clone()))?;
        }
        for Line { when, action } in &self.script {
            writeln!(f, "{when}: {action}")?;
        }
        if !self.ends.is_empty() {
            writeln!(f, "end: {}", self.ends.join(" or "))?;
            writeln!(f, "serves: {}", self.serves.join(" or "))?;
        }
        if !self.once_more_or_less.is_empty() {
            writeln!(f, "once more or less: {}", self.once_more_or_less.join(" or "))?;
        }
        for Allowed { of, ends, serves } in &self.allowed {
            writeln!(f, "allow {}: {}; {}", of.word(), ends.join(" or "), serves.join(" or "))?;
        }
        if self.outage {
            writeln!(f, "unanswered: some")?;
        }
        if self.refusals {
            writeln!(f, "refusals: some")?;
        }
        for fault in &self.faults {
            writeln!(f, "fault {fault}")?;
        }
        Ok(())
    }
}

impl FromStr for When {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (moment, after) = match text.split_once('+') {
            Some((moment, after)) => {
                let after = text::parse_duration(after.trim()).ok_or_else(|| format!("no duration in {text:?}"))?;
                (moment.trim(), after)
            }
            None => (text, Duration::ZERO),
        };
        let moment = match moment {
            "start" => Moment::Start,
            "armed" => Moment::Armed,
            "then" => Moment::Then,
            "paused" => Moment::Paused,
            "over" => Moment::Over,
            place => {
                let (step, stage) = match place.split_once('/') {
                    Some((step, stage)) => (step, Some(stage.parse().map_err(|_| format!("no stage in {place:?}"))?)),
                    None => (place, None),
                };
                let step = serde_json::from_value(json!(step)).map_err(|_| format!("unknown moment {place:?}"))?;
                Moment::Place(step, stage)
            }
        };
        Ok(Self { moment, after })
    }
}

impl fmt::Display for When {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.moment {
            Moment::Start => f.write_str("start")?,
            Moment::Armed => f.write_str("armed")?,
            Moment::Then => f.write_str("then")?,
            Moment::Paused => f.write_str("paused")?,
            Moment::Over => f.write_str("over")?,
            Moment::Place(step, Some(stage)) => write!(f, "{step:?}/{stage}")?,
            Moment::Place(step, None) => write!(f, "{step:?}")?,
        }
        if self.after > Duration::ZERO { write!(f, " +{}", text::duration(self.after)) } else { Ok(()) }
    }
}

/// Three words, and JSON to the end of the line.
fn three_and_json(text: &str) -> Result<([String; 3], Value), String> {
    let parts: Vec<&str> = text.splitn(4, ' ').collect();
    let [a, b, c, json] = parts.as_slice() else { return Err(format!("no three words and JSON in {text:?}")) };
    let json = serde_json::from_str(json).map_err(|error| format!("{text:?}: {error}"))?;
    Ok(([a, b, c].map(|word| (*word).to_owned()), json))
}

impl FromStr for Action {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let unknown = || format!("unknown action {text:?}");
        let (verb, rest) = text.split_once(' ').unwrap_or((text, ""));
        let rest = rest.trim();
        let two = || rest.split_once(' ').map(|(a, b)| (a.to_owned(), b.trim().to_owned())).ok_or_else(unknown);
        let number = |text: &str| text.parse::<i64>().map_err(|_| unknown());
        Ok(match verb {
            "push" => Self::Push(rest.to_owned()),
            "command" => Self::Command(rest.to_owned()),
            "scale" => Self::Scale(number(rest)?),
            "load" => Self::Load(number(rest)?),
            "restart" => Self::Restart,
            "sync" => Self::Sync(rest.to_owned()),
            "strike" => Self::Strike(rest.parse()?),
            "autoscaler" => {
                let (least, most) = rest.split_once("..").ok_or_else(unknown)?;
                Self::Autoscaler(number(least)?, number(most)?)
            }
            "cronjob" => {
                let parts: Vec<&str> = rest.split(' ').collect();
                let [name, "exits", code, "after", seconds] = parts.as_slice() else { return Err(unknown()) };
                let seconds = text::parse_duration(seconds).ok_or_else(unknown)?.as_secs();
                Self::CronJob((*name).to_owned(), code.parse().map_err(|_| unknown())?, seconds)
            }
            "gateway" => Self::Gateway(rest == "works"),
            "delete" => {
                let (kind, name) = two()?;
                Self::Delete(kind, name)
            }
            "restore" => {
                let (kind, name) = two()?;
                Self::Restore(kind, name)
            }
            "patch" => {
                let ([user, kind, name], operations) = three_and_json(rest)?;
                Self::Patch(user, kind, name, operations)
            }
            "forge" => {
                let ([kind, name, pointer], value) = three_and_json(rest)?;
                Self::Forge(kind, name, pointer, value)
            }
            version if version.starts_with('v') && version[1..].parse::<u32>().is_ok() => {
                Self::Version(version.to_owned(), rest.parse()?)
            }
            _ => return Err(unknown()),
        })
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Version(version, of) => write!(f, "{version} {of}"),
            Self::Push(version) => write!(f, "push {version}"),
            Self::Command(command) => write!(f, "command {command}"),
            Self::Scale(pods) => write!(f, "scale {pods}"),
            Self::Autoscaler(least, most) => write!(f, "autoscaler {least}..{most}"),
            Self::Load(pods) => write!(f, "load {pods}"),
            Self::CronJob(name, code, after) => write!(f, "cronjob {name} exits {code} after {after}s"),
            Self::Delete(kind, name) => write!(f, "delete {kind} {name}"),
            Self::Restore(kind, name) => write!(f, "restore {kind} {name}"),
            Self::Gateway(works) => f.write_str(if *works { "gateway works" } else { "gateway stops" }),
            Self::Restart => f.write_str("restart"),
            Self::Patch(user, kind, name, operations) => write!(f, "patch {user} {kind} {name} {operations}"),
            Self::Forge(kind, name, pointer, value) => write!(f, "forge {kind} {name} {pointer} {value}"),
            Self::Sync(what) => write!(f, "sync {what}"),
            Self::Strike(fault) => write!(f, "strike {fault}"),
        }
    }
}

impl FromStr for Trait {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let unknown = || format!("unknown trait {text:?}");
        if let Some(share) = text.strip_prefix("errors ") {
            let percent: f64 = share.trim_end_matches('%').parse().map_err(|_| unknown())?;
            return Ok(Self::Errors((percent * 10.0).round() as u32));
        }
        if let Some(value) = text.strip_prefix("gauge ") {
            return value.parse().map(Self::Gauge).map_err(|_| unknown());
        }
        if text == "silent" {
            return Ok(Self::Silent);
        }
        text::named(&FATES, text).map(Self::Fate).ok_or_else(unknown)
    }
}

impl fmt::Display for Trait {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Errors(thousandths) => write!(f, "errors {}%", f64::from(*thousandths) / 10.0),
            Self::Gauge(value) => write!(f, "gauge {value}"),
            Self::Silent => f.write_str("silent"),
            Self::Fate(fate) => f.write_str(text::word(&FATES, fate)),
        }
    }
}
