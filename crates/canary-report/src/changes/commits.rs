//! Conventional Commits (conventionalcommits.org, 1.0.0) into lists of changes: by the type of each commit, and by what
//! it says of breaking changes. It reads what `git log` printed; it never calls git.

use canary_api::Changes;

/// The format for `git log -z --format=...` whose output [`read`] takes: the commit's short name, then its message.
pub const FORMAT: &str = "%h%n%B";

/// What was read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Commits {
    /// What changed.
    pub changes: Changes,
    /// Commits of types that no reader of notes asks for, such as `test` or `refactor`, and that break nothing.
    pub left_out: usize,
    /// First lines of commits that are not in the form.
    pub others: Vec<String>,
}

/// One commit as its message says it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Commit<'a> {
    kind: String,
    scope: Option<&'a str>,
    breaks: bool,
    text: &'a str,
    /// What its footers say of breaking changes.
    breaking: Vec<String>,
}

/// Reads the output of `git log -z --format=%h%n%B`, newest first; the lists are oldest first. Merges belong left out
/// by git.
#[must_use]
pub fn read(log: &str) -> Commits {
    let mut all = Commits::default();
    for entry in log.split('\0').rev() {
        let (name, message) = entry.trim_start().split_once('\n').unwrap_or((entry.trim(), ""));
        if name.trim().is_empty() {
            continue;
        }
        match commit(message) {
            Some(commit) => add(&mut all, name.trim(), &commit),
            None => {
                all.others.push(message.lines().find(|line| !line.trim().is_empty()).unwrap_or_default().to_owned())
            }
        }
    }
    all
}

fn add(all: &mut Commits, name: &str, commit: &Commit<'_>) {
    let scope = commit.scope.map_or_else(String::new, |scope| format!("{scope}: "));
    let text = format!("{scope}{} ({name})", commit.text);
    let changes = &mut all.changes;
    let list = match commit.kind.as_str() {
        "feat" => Some(&mut changes.features),
        "fix" => Some(&mut changes.fixes),
        "improvement" | "improve" => Some(&mut changes.improvements),
        "perf" => Some(&mut changes.performance),
        "security" | "sec" => Some(&mut changes.security),
        "build" | "ci" | "infra" => Some(&mut changes.infrastructure),
        "docs" => Some(&mut changes.documentation),
        _ => None,
    };
    match list {
        Some(list) => list.push(text.clone()),
        None if !commit.breaks => all.left_out = all.left_out.saturating_add(1),
        None => {}
    }
    if !commit.breaking.is_empty() {
        let told = commit.breaking.iter().map(|why| format!("{scope}{why} ({name})"));
        all.changes.breaking.extend(told);
    } else if commit.breaks {
        all.changes.breaking.push(text);
    }
}

/// `type(scope)!: text`, and the footers; none where the first line is of another form.
fn commit(message: &str) -> Option<Commit<'_>> {
    let mut lines = message.lines().skip_while(|line| line.trim().is_empty());
    let (head, text) = lines.next()?.split_once(": ")?;
    let text = text.trim();
    let (head, breaks) = head.strip_suffix('!').map_or((head, false), |head| (head, true));
    let (kind, scope) = match head.split_once('(') {
        Some((kind, scope)) => (kind, Some(scope.strip_suffix(')')?.trim())),
        None => (head, None),
    };
    let is_word = |word: &str| !word.is_empty() && word.chars().all(|c| c.is_ascii_alphanumeric() || "-_".contains(c));
    if !is_word(kind) || text.is_empty() || scope.is_some_and(str::is_empty) {
        return None;
    }
    let breaking = footers(lines);
    let breaks = breaks || !breaking.is_empty();
    Some(Commit { kind: kind.to_ascii_lowercase(), scope, breaks, text, breaking })
}

/// What follows `BREAKING CHANGE: `, up to an empty line or the next footer.
fn footers<'a>(lines: impl Iterator<Item = &'a str>) -> Vec<String> {
    let mut found: Vec<String> = Vec::new();
    let mut open = false;
    for line in lines {
        let start = ["BREAKING CHANGE: ", "BREAKING-CHANGE: "].into_iter().find_map(|name| line.strip_prefix(name));
        if let Some(text) = start {
            found.push(text.trim().to_owned());
            open = true;
        } else if line.trim().is_empty() || is_footer(line) {
            open = false;
        } else if let Some(last) = found.last_mut().filter(|_| open) {
            last.push(' ');
            last.push_str(line.trim());
        }
    }
    found.retain(|text| !text.is_empty());
    found
}

/// `Word-word: text` or `Word-word #text`.
fn is_footer(line: &str) -> bool {
    let token = line.split_once(": ").or_else(|| line.split_once(" #")).map(|(token, _)| token);
    token.is_some_and(|token| {
        token.starts_with(|c: char| c.is_ascii_uppercase())
            && token.chars().all(|c| c.is_ascii_alphanumeric() || c == '-')
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn log(messages: &[&str]) -> String {
        let entries: Vec<String> =
            messages.iter().enumerate().map(|(index, message)| format!("c{index}\n{message}\n")).collect();
        entries.join("\0")
    }

    #[test]
    fn each_type_has_its_list_oldest_first() {
        let read = read(&log(&[
            "feat: newest",
            "feat(cart): gifts\n\nBody: with a colon.\n",
            "fix: a fault",
            "perf(db): half the queries",
            "Security: no old ciphers",
            "build: image from scratch",
            "ci: cache",
            "infra: three zones",
            "docs: manual of gifts",
            "improve: clearer errors",
            "refactor: names",
            "test: more",
        ]));
        let changes = read.changes;
        assert_eq!(changes.features, ["cart: gifts (c1)", "newest (c0)"]);
        assert_eq!(changes.fixes, ["a fault (c2)"]);
        assert_eq!(changes.performance, ["db: half the queries (c3)"]);
        assert_eq!(changes.security, ["no old ciphers (c4)"]);
        assert_eq!(changes.infrastructure.len(), 3);
        assert_eq!((changes.documentation.len(), changes.improvements.len()), (1, 1));
        assert_eq!((read.left_out, read.others.len(), changes.breaking.len()), (2, 0, 0));
    }

    #[test]
    fn what_breaks_is_said_by_the_mark_or_by_the_footer() {
        let read = read(&log(&[
            "feat!: carts expire",
            "refactor(api)!: v1 is gone",
            "fix: rounding\n\nLong body.\n\nBREAKING CHANGE: prices are in cents\n  from now on\nReviewed-by: Jane\n",
            "chore!: x\n\nBREAKING-CHANGE: the reason",
        ]));
        assert_eq!(
            read.changes.breaking,
            ["the reason (c3)", "prices are in cents from now on (c2)", "api: v1 is gone (c1)", "carts expire (c0)"]
        );
        assert_eq!((read.changes.features.len(), read.changes.fixes.len(), read.left_out), (1, 1, 0));
    }

    #[test]
    fn commits_of_another_form_are_named_and_never_guessed() {
        let messages =
            ["Merge branch 'x'", "feat:no blank", "fix(: x", "feat(): x", ": x", "feat: ", "two words: x", ""];
        let read = read(&log(&messages));
        assert_eq!(read.others.len(), messages.len());
        assert_eq!(read.changes, Changes::default());
        assert_eq!(super::read(""), Commits::default());
    }

    proptest! {
        #[test]
        fn no_log_makes_it_panic(log in "[\\x00-\\x7fé!:() \n]{0,200}") {
            let read = read(&log);
            prop_assert!(read.others.len() <= log.len());
        }
    }
}
