//! What is said of the soak of faults: whether every promise was kept, and the page for docs/. It formats and adds up; it
//! measures nothing.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::moment::Moment;
use super::{Figures, Trial, kills, odd};
use crate::report::Made;

impl Figures {
    /// Every promise that was not kept, one sentence each.
    #[must_use]
    pub fn broken(&self) -> Vec<String> {
        let trials = self.outages.iter().chain(&self.deletions).chain(&self.upgrade).chain(&self.odd.others);
        let trials = trials
            .filter_map(|one| Some(format!("{} at {}: {}", one.fault, one.moment, first_line(one.wrong.as_ref()?))));
        let kills = self.kills.releases.iter();
        let kills = kills.filter_map(|one| Some(format!("{}: {}", one.name, first_line(one.wrong.as_ref()?))));
        let odd = self.odd.wrong.iter().map(|wrong| format!("the hostile CanaryRelease: {}", first_line(wrong)));
        kills.chain(trials).chain(odd).collect()
    }

    /// One section for each part that was played: what made it, whether every promise was kept, and its figures.
    #[must_use]
    pub fn sections(&self, made: &Made) -> Vec<String> {
        let minutes = self.took.as_secs().div_ceil(60);
        let broken = self.broken();
        let told = if broken.is_empty() {
            "Every promise was kept.".to_owned()
        } else {
            format!("**{} promises were broken:**\n\n- {}", broken.len(), broken.join("\n- "))
        };
        let head =
            |head: &str| format!("{}\n\n{} The run took {minutes} minutes. {told}\n\n", heading(head), made.text());
        let mut sections = Vec::new();
        if !self.kills.releases.is_empty() {
            let mut section = head(KILLS);
            of_kills(&self.kills, &mut section);
            sections.push(section);
        }
        for (name, about, trials) in [
            ("Outages", OUTAGES, &self.outages),
            ("Deletions", DELETIONS, &self.deletions),
            ("Upgrade", UPGRADE, &self.upgrade),
        ] {
            if !trials.is_empty() {
                let mut section = head(name);
                let _ = writeln!(section, "{about}\n");
                of_trials(trials, made, &mut section);
                sections.push(section);
            }
        }
        if !self.odd.others.is_empty() {
            let mut section = head(ODD);
            of_odd(&self.odd, &mut section);
            sections.push(section);
        }
        sections
    }
}

/// The page with these sections in the place of those of the same heading; all others stay, and rows of faults that were
/// not played.
#[must_use]
pub fn page(before: &str, sections: &[String]) -> String {
    let mut page = HEAD.to_owned();
    for name in [KILLS, "Outages", "Deletions", "Upgrade", ODD] {
        let starts = |section: &&str| section.lines().next() == Some(heading(name).as_str());
        let old: Vec<String> =
            before.split("\n## ").skip(1).map(|section| format!("## {}", section.trim_end())).collect();
        let new = sections.iter().map(String::as_str).find(starts);
        let section = match (new, old.iter().map(String::as_str).find(starts)) {
            (Some(new), Some(old)) => Some(with_rows_of(old, new)),
            (new, old) => new.or(old).map(str::to_owned),
        };
        if let Some(section) = section {
            let _ = write!(page, "\n{}\n", section.trim_end());
        }
    }
    page
}

/// The new section, with the old one's rows of faults that were not played now.
fn with_rows_of(old: &str, new: &str) -> String {
    let fault = |row: &str| row.split('|').nth(1).unwrap_or_default().trim().to_owned();
    let is_row = |line: &&str| {
        line.starts_with("| ") && [" kept ", " kept, ", "**broken**"].iter().any(|one| line.contains(one))
    };
    let played: Vec<String> = new.lines().filter(is_row).map(fault).collect();
    let rows: Vec<&str> = old.lines().filter(is_row).filter(|row| !played.contains(&fault(row))).collect();
    [&[new.trim_end()][..], &rows].concat().join("\n")
}

fn heading(name: &str) -> String {
    format!("## {name}")
}

const HEAD: &str = "# Soak: faults on a real Kubernetes\n\n\
     On the lab. Each shop has a namespace, 2 pods and a client of its own that sends at a fixed rate through a gateway\n\
     (Traefik) and counts every answer. A failed answer is a 5xx or none at all; one is the candidate's own fault where a\n\
     bad candidate gave it. All others must not be. `cargo xtask soak faults --only PART --write` plays a part anew and\n\
     writes its section.\n";
const KILLS: &str = "The operator is killed";
const ODD: &str = "One hostile CanaryRelease among many";
const OUTAGES: &str = "One shop at each moment of a release, and the fault for all of them at once. Each release must go on to the end that\n\
     it would have had, no stage skipped or repeated; where nothing was under way, nothing may start. A release whose\n\
     numbers were missing for too long is held, and was resumed, as a person would. Where the fault came too late for a\n\
     moment, the step that it met is named. The network is slowed by loss: this\n\
     kernel has no netem. Where the API server is away for longer than 15 s the controller manager goes too, as one does\n\
     that cannot renew its lease, and comes back when the node has been heard of.";
const DELETIONS: &str = "The same moments. What is left must be a plain Deployment: the stable version's, or the new one's where the target had\n\
     begun to roll. `kubectl delete -k deploy` leaves the CanaryReleases: they must go on when the operator is installed\n\
     again. With a namespace its pods go, so that only the namespace's own end is looked at.";
const UPGRADE: &str = "The same moments, with CRDs, rights, policies and operator of the earlier commit, replaced by `kubectl apply` of these.";

fn of_kills(kills: &kills::Tally, page: &mut String) {
    let kills::Tally { kills: count, all_died, met, away, releases, seed, shops } = kills;
    let mut away = away.clone();
    away.sort_by(f64::total_cmp);
    let _ = writeln!(
        page,
        "{count} SIGKILLs (seed {seed}), {all_died} of them of both replicas, while {shops} shops got one release after the other: three stages of\n\
         6 s, half of the candidates good. Each kill comes up to 15 s after an operator leads, at a moment left to chance. A\n\
         good release must be promoted with each stage judged once, a bad one reverted. An operator led again after {:.1} s\n\
         (median), {:.1} s at the most.\n",
        away.get(away.len() / 2).unwrap_or(&0.0),
        away.last().unwrap_or(&0.0)
    );
    page.push_str("| candidates | releases | ended as they should | resumed | answers | failed by the candidate's fault | failed otherwise |\n|---|---:|---:|---:|---:|---:|---:|\n");
    let mut kinds: BTreeMap<&str, Vec<&kills::Release>> = BTreeMap::new();
    for release in releases {
        kinds.entry(release.candidate.name()).or_default().push(release);
    }
    for (kind, releases) in kinds {
        let sum = |of: fn(&kills::Release) -> u64| releases.iter().map(|release| of(release)).sum::<u64>();
        let _ = writeln!(
            page,
            "| {kind} | {} | {} | {} | {} | {} | {} |",
            releases.len(),
            releases.iter().filter(|release| release.wrong.is_none()).count(),
            releases.iter().map(|release| release.resumed).sum::<usize>(),
            sum(|release| release.requests),
            sum(|release| release.own),
            sum(|release| release.lost)
        );
    }
    let met: Vec<String> = met.iter().map(|(step, count)| format!("{step} {count}")).collect();
    let _ = writeln!(page, "\nSteps in which a kill met a release: {}.", met.join(", "));
}

/// Faults down, moments across.
fn of_trials(trials: &[Trial], made: &Made, page: &mut String) {
    let mut faults: Vec<&str> = Vec::new();
    for trial in trials {
        if !faults.contains(&trial.fault.as_str()) {
            faults.push(&trial.fault);
        }
    }
    let _ = writeln!(
        page,
        "| | {} | answers | failed by the candidate's fault | failed otherwise | played |",
        Moment::ALL.map(Moment::name).join(" | ")
    );
    let _ = writeln!(page, "|---|{}---:|---:|---:|---|", "---|".repeat(Moment::ALL.len()));
    for fault in faults {
        let of: Vec<&Trial> = trials.iter().filter(|trial| trial.fault == fault).collect();
        let cells = Moment::ALL.map(|moment| {
            of.iter().find(|trial| trial.moment == moment.name()).map_or_else(String::new, |trial| cell(trial))
        });
        let sum = |of_one: fn(&Trial) -> u64| of.iter().map(|trial| of_one(trial)).sum::<u64>();
        let _ = writeln!(
            page,
            "| {fault} | {} | {} | {} | {} | {}, {} |",
            cells.join(" | "),
            sum(|trial| trial.requests),
            sum(|trial| trial.own),
            sum(|trial| trial.lost),
            made.date,
            made.commit
        );
    }
}

fn cell(trial: &Trial) -> String {
    let kept = match (&trial.wrong, trial.resumed) {
        (Some(_), _) => "**broken**",
        (None, 0) => "kept",
        (None, _) => "kept, resumed",
    };
    if trial.missed { format!("{kept}, met in {}", trial.met) } else { kept.to_owned() }
}

fn of_odd(odd: &odd::Tally, page: &mut String) {
    let kept = odd.others.iter().filter(|one| one.wrong.is_none()).count();
    let (answers, lost) =
        odd.others.iter().fold((0, 0), |(answers, lost), one| (answers + one.requests, lost + one.lost));
    let _ = writeln!(
        page,
        "{} CanaryReleases. The others got a release each beside it: {kept} of {} were promoted with each stage judged once; {answers} answers, {lost} of\n\
         them failed. The hostile one took these shapes, as far as the API server and the policies let it:\n",
        odd.others.len() + 1,
        odd.others.len()
    );
    page.push_str("| shape | writes taken | writes refused |\n|---|---:|---:|\n");
    for (shape, taken, refused) in &odd.shapes {
        let _ = writeln!(page, "| {} | {taken} | {refused} |", shape.name());
    }
    let _ = writeln!(page, "\nAt last it said of itself: \"{}\"", first_line(&odd.said).replace('|', "\\|"));
    if odd.wrong.is_none() {
        page.push_str("Corrected, it was armed again.\n");
    }
}

fn first_line(text: &str) -> String {
    text.lines().next().unwrap_or_default().chars().take(300).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_that_is_played_anew_replaces_its_own_section_alone() {
        let (outages, upgrade) = ("## Outages\n\n1st".to_owned(), "## Upgrade\n\nkept".to_owned());
        let first = page("", &[upgrade, outages]);
        assert!(first.starts_with(HEAD) && first.ends_with("\n## Outages\n\n1st\n\n## Upgrade\n\nkept\n"), "{first}");
        let second = page(&first, &["## Outages\n\n2nd\n\n| a | kept |\n".to_owned()]);
        assert_eq!(second, first.replace("1st", "2nd\n\n| a | kept |"));
        let third = page(&second, &["## Outages\n\n3rd\n\n| b | kept |".to_owned()]);
        assert_eq!(third, second.replace("2nd", "3rd").replace("| a", "| b | kept |\n| a"));
        let fourth = page(&third, &["## Outages\n\n4th\n\n| a | **broken** |".to_owned()]);
        assert!(fourth.contains("4th\n\n| a | **broken** |\n| b | kept |\n\n##"), "{fourth}");
    }
}
