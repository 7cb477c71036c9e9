//! `history`: how the last releases ended, newest last: as their records have it, and of those without a record as the
//! status keeps it.

use serde::Serialize;
use serde_json::Value;

use super::list::tone;
use crate::args;
use crate::cluster::Cluster;
use crate::output::{Output, Paint, Tone};
use crate::table::Table;
use crate::{Error, Exit, clean, records};

/// How one release ended.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Ended {
    /// When, UTC.
    pub at: String,
    /// How, in a word.
    pub outcome: String,
    /// The release's id, or the template's digest where there was no release.
    pub release: String,
    /// What happened, in a sentence.
    pub what: String,
    /// Name of its ReleaseRecord, where there is one.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub record: String,
    /// SUCCESS, PARTIAL or FAILED, by its record.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub result: String,
    /// The version, by its record.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub version: String,
}

/// Runs `history`.
///
/// # Errors
/// Where it cannot be read.
pub async fn run(named: &args::Named, cluster: &Cluster, output: &Output) -> Result<Exit, Error> {
    let release = cluster.release(&named.name).await?;
    let told: Vec<Ended> = release.status()?.history.iter().map(|line| parse(line)).collect();
    // An operator of before the records has none, and not everyone may read them: the status tells enough.
    let found = cluster.records(Some(&records::label(&named.name))).await.unwrap_or_default();
    let ended = together(told, &found, &release.uid);
    output.answer(&ended, |paint| {
        if ended.is_empty() {
            format!("no release of {} has ended yet", release.place())
        } else {
            render(&ended, paint)
        }
    })?;
    Ok(Exit::Done)
}

/// A line such as `2026-11-21T12:23:26Z Aborted orders-1: aborted by jane`. Of another form it is kept whole.
#[must_use]
pub fn parse(line: &str) -> Ended {
    let whole = || Ended { what: line.to_owned(), ..Ended::default() };
    let Some((head, what)) = line.split_once(": ") else { return whole() };
    let words: Vec<&str> = head.split(' ').collect();
    match words.as_slice() {
        // An outcome may have a remark of several words before the colon.
        [at, outcome, release, remark @ ..] if at.parse::<jiff::Timestamp>().is_ok() => Ended {
            at: (*at).to_owned(),
            outcome: (*outcome).to_owned(),
            release: (*release).to_owned(),
            what: if remark.is_empty() { what.to_owned() } else { format!("{}: {what}", remark.join(" ")) },
            ..Ended::default()
        },
        _ => whole(),
    }
}

/// What the records say of releases of this CanaryRelease that are over; of others what the status says.
#[must_use]
pub fn together(told: Vec<Ended>, records: &[Value], uid: &str) -> Vec<Ended> {
    let mut all: Vec<Ended> = records.iter().filter_map(|record| by_record(record, uid)).collect();
    for one in told {
        if !all.iter().any(|known| known.release == one.release) {
            all.push(one);
        }
    }
    // Moments of one form; a line that has none stays where it is told best: at the end.
    all.sort_by(|one, other| (one.at.is_empty(), &one.at).cmp(&(other.at.is_empty(), &other.at)));
    all
}

fn by_record(record: &Value, uid: &str) -> Option<Ended> {
    let text = |pointer: &str| clean::text(record.pointer(pointer).and_then(Value::as_str).unwrap_or_default());
    let over = record.pointer("/status/frozen").and_then(Value::as_bool).unwrap_or(false);
    (over && text("/status/releaseUid") == uid).then(|| Ended {
        at: text("/status/ended"),
        outcome: text("/status/outcome"),
        release: text("/status/id"),
        what: text("/status/message"),
        record: text("/metadata/name"),
        result: text("/status/result"),
        version: text("/status/version"),
    })
}

/// The releases as text.
#[must_use]
pub fn render(ended: &[Ended], paint: Paint) -> String {
    let recorded = ended.iter().any(|one| !one.record.is_empty());
    let head: &[&str] = if recorded {
        &["ENDED", "OUTCOME", "RESULT", "VERSION", "RELEASE", "WHAT HAPPENED"]
    } else {
        &["ENDED", "OUTCOME", "RELEASE", "WHAT HAPPENED"]
    };
    let mut table = Table::new(head);
    for one in ended {
        let short: String = one.release.chars().take(19).collect();
        let release = if one.release.starts_with("sha256:") { short } else { one.release.clone() };
        let by_record = [(result(&one.result), one.result.clone()), (Tone::Plain, one.version.clone())];
        let first = [(Tone::Plain, one.at.clone()), (tone(&one.outcome), one.outcome.clone())];
        let last = [(Tone::Plain, release), (Tone::Plain, one.what.clone())];
        table.row(first.into_iter().chain(by_record.into_iter().filter(|_| recorded)).chain(last));
    }
    table.render("", paint)
}

fn result(result: &str) -> Tone {
    match result {
        "SUCCESS" => Tone::Good,
        "PARTIAL" => Tone::Doubt,
        "FAILED" => Tone::Bad,
        _ => Tone::Plain,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn records_tell_more_and_the_status_what_has_none() {
        let told = vec![
            parse("2026-11-21T12:23:26Z Aborted orders-1: aborted by jane"),
            parse("2026-11-21T12:25:53Z Ungated sha256:bcda154d2bc5deb898dca4a147b8b553b718: went past the stages"),
        ];
        let record = |id: &str, uid: &str, frozen: bool| {
            json!({"metadata": {"name": format!("{id}-abcde")}, "status": {"id": id, "releaseUid": uid, "frozen": frozen,
                "ended": "2026-11-21T12:23:26Z", "outcome": "Aborted", "result": "FAILED", "version": "v2\u{1b}", "message": "aborted"}})
        };
        let records =
            [record("orders-1", "u", true), record("orders-2", "u", false), record("orders-9", "other", true)];
        assert_eq!(
            render(&together(told, &records, "u"), Paint::NONE),
            "\
ENDED                 OUTCOME  RESULT  VERSION  RELEASE              WHAT HAPPENED
2026-11-21T12:23:26Z  Aborted  FAILED  v2\u{fffd}      orders-1             aborted
2026-11-21T12:25:53Z  Ungated                   sha256:bcda154d2bc5  went past the stages
"
        );
    }

    #[test]
    fn lines_of_the_status_are_read_as_the_operator_writes_them() {
        let lines = [
            "2026-11-21T12:23:26Z Aborted orders-1: aborted by lab-admin; all traffic on stable 0s after it was seen",
            "2026-11-21T12:24:29Z Promoted orders-2: docker.io/lab/shop:dev is live",
            "2026-11-21T12:25:53Z Ungated sha256:bcda154d2bc5deb898dca4a147b8b553b718: Deployment orders runs a template that was not released in stages",
            "something of an operator to come",
        ];
        let ended: Vec<Ended> = lines.into_iter().map(parse).collect();
        assert_eq!(ended[0].release, "orders-1");
        assert_eq!(ended[3], Ended { what: lines[3].to_owned(), ..Ended::default() });
        assert_eq!(
            render(&ended, Paint::NONE),
            "\
ENDED                 OUTCOME   RELEASE              WHAT HAPPENED
2026-11-21T12:23:26Z  Aborted   orders-1             aborted by lab-admin; all traffic on stable 0s after it was seen
2026-11-21T12:24:29Z  Promoted  orders-2             docker.io/lab/shop:dev is live
2026-11-21T12:25:53Z  Ungated   sha256:bcda154d2bc5  Deployment orders runs a template that was not released in stages
                                                     something of an operator to come
"
        );
    }
}
