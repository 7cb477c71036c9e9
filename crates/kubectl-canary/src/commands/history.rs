//! `history`: how the last releases ended, as the status keeps it, newest last.

use serde::Serialize;

use super::list::tone;
use crate::args;
use crate::cluster::Cluster;
use crate::output::{Output, Paint, Tone};
use crate::table::Table;
use crate::{Error, Exit};

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
}

/// Runs `history`.
///
/// # Errors
/// Where it cannot be read.
pub async fn run(named: &args::Named, cluster: &Cluster, output: &Output) -> Result<Exit, Error> {
    let release = cluster.release(&named.name).await?;
    let ended: Vec<Ended> = release.status()?.history.iter().map(|line| parse(line)).collect();
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
        },
        _ => whole(),
    }
}

/// The releases as text.
#[must_use]
pub fn render(ended: &[Ended], paint: Paint) -> String {
    let mut table = Table::new(&["ENDED", "OUTCOME", "RELEASE", "WHAT HAPPENED"]);
    for one in ended {
        let short: String = one.release.chars().take(19).collect();
        let release = if one.release.starts_with("sha256:") { short } else { one.release.clone() };
        table.row([
            (Tone::Plain, one.at.clone()),
            (tone(&one.outcome), one.outcome.clone()),
            (Tone::Plain, release),
            (Tone::Plain, one.what.clone()),
        ]);
    }
    table.render("", paint)
}

#[cfg(test)]
mod tests {
    use super::*;

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
