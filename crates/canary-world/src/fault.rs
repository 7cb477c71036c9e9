//! What can go wrong at a point of a run, and how it is written in a scenario file.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use crate::acts::Act;
use crate::corruption::Corruption;
use crate::text;

/// A point of a run: every count begins with 1 and goes on over restarts of the operator.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Point {
    /// When this request of a tick arrives, reads and writes counted alike.
    Request(usize),
    /// When this write of the operator arrives, Events and records included.
    Write(usize),
    /// When the object is changed that gets this resourceVersion.
    Change(u64),
}

/// How a request is answered instead.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Answer {
    /// 409.
    Conflict,
    /// 404.
    NotFound,
    /// 403.
    Forbidden,
    /// 429.
    TooMany,
    /// 500.
    Internal,
    /// None, until the caller gives up.
    Timeout,
    /// 403 in the words of admission.
    Refused,
}

impl Answer {
    /// Each of them.
    pub const ALL: [Self; 7] =
        [Self::Conflict, Self::NotFound, Self::Forbidden, Self::TooMany, Self::Internal, Self::Timeout, Self::Refused];

    const fn word(self) -> &'static str {
        match self {
            Self::Conflict => "409",
            Self::NotFound => "404",
            Self::Forbidden => "403",
            Self::TooMany => "429",
            Self::Internal => "500",
            Self::Timeout => "timeout",
            Self::Refused => "refused",
        }
    }
}

/// What goes wrong.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Fault {
    /// The operator dies; the request never arrives.
    CrashBefore,
    /// The request is carried out and the operator dies before it hears of it.
    CrashAfter,
    /// The request is carried out, and its answer is lost.
    LostReply,
    /// The request is answered so, and not carried out.
    Answer(Answer),
    /// The read is answered from before the last so many changes of what it asks for.
    Stale(usize),
    /// The process stands still before the request is sent, and another leads meanwhile.
    Freeze(Duration),
    /// Nobody reaches the metrics for so long.
    MetricsDown(Duration),
    /// Nobody reaches the API server for so long.
    ServerDown(Duration),
    /// The operator's clock is moved by so many seconds.
    ClockJumps(i64),
    /// The operator's clock goes at so many hundredths of its speed.
    ClockRate(u32),
    /// The watches of the changed kind break before they tell of the change, and list anew once the object was changed
    /// again, or after 30 s: what it was in between they never see.
    WatchCut,
    /// Another user writes a field that ties objects together.
    Corrupt(Corruption),
    /// A person does something that the scenario does not foresee.
    Act(Act),
}

/// A fault and where it strikes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Planned {
    /// Where.
    pub at: Point,
    /// What.
    pub fault: Fault,
}

/// A fault that came to pass.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Struck {
    /// What went wrong.
    pub fault: Fault,
    /// Whether a read was hit.
    pub reads: bool,
    /// The kind that was asked for.
    pub plural: &'static str,
}

impl fmt::Display for Point {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Request(number) => write!(f, "request {number}"),
            Self::Write(number) => write!(f, "write {number}"),
            Self::Change(number) => write!(f, "change {number}"),
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::CrashBefore => f.write_str("crash before"),
            Self::CrashAfter => f.write_str("crash after"),
            Self::LostReply => f.write_str("lose the reply"),
            Self::Answer(answer) => write!(f, "answer {}", answer.word()),
            Self::Stale(age) => write!(f, "stale by {age}"),
            Self::Freeze(time) => write!(f, "freeze for {}", text::duration(*time)),
            Self::MetricsDown(time) => write!(f, "metrics down for {}", text::duration(*time)),
            Self::ServerDown(time) => write!(f, "server down for {}", text::duration(*time)),
            Self::ClockJumps(seconds) => write!(f, "clock jumps {seconds}s"),
            Self::ClockRate(hundredths) => write!(f, "clock at {hundredths}%"),
            Self::WatchCut => f.write_str("watch cut"),
            Self::Corrupt(corruption) => write!(f, "corrupt {corruption}"),
            Self::Act(act) => write!(f, "jane: {act}"),
        }
    }
}

impl fmt::Display for Planned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.at, self.fault)
    }
}

impl FromStr for Planned {
    type Err = String;

    /// `write 17: crash after`
    fn from_str(line: &str) -> Result<Self, String> {
        let (at, what) = line.split_once(':').ok_or_else(|| format!("no colon in {line:?}"))?;
        let number = |text: &str| text.trim().parse::<usize>().map_err(|_| format!("no number in {at:?}"));
        let at = match at.trim().split_once(' ') {
            Some(("request", rest)) => Point::Request(number(rest)?),
            Some(("write", rest)) => Point::Write(number(rest)?),
            Some(("change", rest)) => Point::Change(number(rest)? as u64),
            _ => return Err(format!("{at:?} is neither `request N`, `write N` nor `change N`")),
        };
        Ok(Self { at, fault: what.trim().parse()? })
    }
}

impl FromStr for Fault {
    type Err = String;

    fn from_str(what: &str) -> Result<Self, String> {
        let unknown = || format!("unknown fault {what:?}");
        match what {
            "crash before" => return Ok(Self::CrashBefore),
            "crash after" => return Ok(Self::CrashAfter),
            "lose the reply" => return Ok(Self::LostReply),
            "watch cut" => return Ok(Self::WatchCut),
            _ => {}
        }
        let after = |start: &str| what.strip_prefix(start).map(str::trim);
        if let Some(word) = after("answer ") {
            let found = Answer::ALL.into_iter().find(|answer| answer.word() == word);
            return found.map(Self::Answer).ok_or_else(unknown);
        }
        if let Some(corruption) = after("corrupt ") {
            return corruption.parse().map(Self::Corrupt);
        }
        if let Some(act) = after("jane: ") {
            return act.parse().map(Self::Act);
        }
        if let Some(age) = after("stale by ") {
            return age.parse().map(Self::Stale).map_err(|_| unknown());
        }
        if let Some(seconds) = after("clock jumps ") {
            return seconds.trim_end_matches('s').parse().map(Self::ClockJumps).map_err(|_| unknown());
        }
        if let Some(rate) = after("clock at ") {
            return rate.trim_end_matches('%').parse().map(Self::ClockRate).map_err(|_| unknown());
        }
        type Lasting = fn(Duration) -> Fault;
        let times: [(&str, Lasting); 3] = [
            ("freeze for ", Self::Freeze),
            ("metrics down for ", Self::MetricsDown),
            ("server down for ", Self::ServerDown),
        ];
        for (start, make) in times {
            if let Some(time) = after(start) {
                return text::parse_duration(time).map(make).ok_or_else(unknown);
            }
        }
        Err(unknown())
    }
}
