//! Text that people wrote, made harmless where it is shown: on a terminal, in Markdown, in HTML. It never drops a word:
//! what could do harm becomes a mark, is escaped, or stands in a block of code.

/// Whether a character may move the cursor, colour, hide or reorder text.
#[must_use]
pub fn harmful(character: char) -> bool {
    character.is_control()
        || matches!(character,
            '\u{00ad}' | '\u{061c}' | '\u{115f}' | '\u{1160}' | '\u{180e}' | '\u{200b}' | '\u{200e}' | '\u{200f}'
            | '\u{2028}' | '\u{2029}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{3164}' | '\u{feff}'
            | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

/// One line, character for character: a line break or tab becomes a space, anything else harmful a mark.
#[must_use]
pub fn unbroken(text: &str) -> String {
    let sign = |character| match character {
        '\n' | '\t' | '\r' => ' ',
        other if harmful(other) => '\u{fffd}',
        other => other,
    };
    text.chars().map(sign).collect()
}

/// As [`unbroken`], with no space at either end.
#[must_use]
pub fn line(text: &str) -> String {
    unbroken(text).trim().to_owned()
}

/// Lines that stay lines, each harmless; a tab becomes a space, and blanks at a line's end go.
#[must_use]
pub fn lines(text: &str) -> String {
    let indented = |part: &str| {
        let blanks = part.chars().take_while(|character| matches!(character, ' ' | '\t')).count();
        format!("{}{}", " ".repeat(blanks), line(part))
    };
    let shown: Vec<String> = text.lines().map(indented).map(|part| part.trim_end().to_owned()).collect();
    shown.join("\n").trim_matches('\n').to_owned()
}

/// One line as Markdown that says just this, wherever it is put: in a paragraph, a list, a cell of a table.
///
/// HTML can't begin in it: a `<` that is followed by anything but a blank or `=` becomes an entity.
#[must_use]
pub fn markdown(text: &str) -> String {
    let shown: Vec<char> = line(text).chars().collect();
    let mut out = String::new();
    for (index, sign) in shown.iter().enumerate() {
        let before = index.checked_sub(1).and_then(|index| shown.get(index)).copied();
        let after = shown.get(index.saturating_add(1)).copied();
        match sign {
            '<' if matches!(after, Some(' ' | '=')) => out.push('<'),
            '<' => out.push_str("&lt;"),
            '>' if before.is_some() && matches!(after, Some(' ' | '=')) => out.push('>'),
            '>' => out.push_str("&gt;"),
            '&' if entity(after, shown.get(index..)) => out.push_str("&amp;"),
            // Between letters it never sets anything off, and names and addresses stay readable.
            '_' if word(before) && word(after) => out.push('_'),
            '\\' | '`' | '*' | '_' | '[' | ']' | '|' | '~' | '^' | '$' | '{' | '}' => {
                out.push('\\');
                out.push(*sign);
            }
            sign if marks(&shown, index) => {
                out.push('\\');
                out.push(*sign);
            }
            sign => out.push(*sign),
        }
    }
    out
}

/// Whether a `&` may begin an entity.
fn entity(after: Option<char>, rest: Option<&[char]>) -> bool {
    after.is_some_and(|after| after == '#' || after.is_ascii_alphanumeric())
        && rest.is_some_and(|rest| rest.contains(&';'))
}

fn word(sign: Option<char>) -> bool {
    sign.is_some_and(char::is_alphanumeric)
}

/// Whether a sign would make a heading, a list, a rule or an underline of the line that begins with it.
fn marks(shown: &[char], index: usize) -> bool {
    let (Some(sign), after) = (shown.get(index), shown.get(index.saturating_add(1))) else { return false };
    match sign {
        '#' | '=' | ':' => index == 0,
        '-' | '+' => index == 0 && !after.is_some_and(|after| after.is_ascii_digit() || after.is_alphabetic()),
        '.' | ')' => {
            let number = shown.get(..index).unwrap_or_default();
            index <= 9 && number.iter().all(char::is_ascii_digit) && after.is_none_or(|after| *after == ' ')
        }
        _ => false,
    }
}

/// Text as a block of code in Markdown, whatever is in it; `language` may be empty. It has its line breaks, so that it
/// stands on lines of its own.
#[must_use]
pub fn code_block(text: &str, language: &str) -> String {
    let shown = lines(text);
    let longest = shown.split(|sign| sign != '`').map(str::len).max().unwrap_or(0);
    let fence = "`".repeat(longest.saturating_add(1).max(3));
    format!("{fence}{language}\n{shown}\n{fence}")
}

/// Text as a piece of code in a line of Markdown; never in a table, where a `|` would end the cell.
#[must_use]
pub fn code(text: &str) -> String {
    let shown = line(text);
    if shown.is_empty() {
        return String::new();
    }
    let longest = shown.split(|sign| sign != '`').map(str::len).max().unwrap_or(0);
    let fence = "`".repeat(longest.saturating_add(1));
    let gap = if shown.starts_with('`') || shown.ends_with('`') { " " } else { "" };
    format!("{fence}{gap}{shown}{gap}{fence}")
}

/// One line in HTML or SVG, as text or as the value of a quoted attribute.
#[must_use]
pub fn html(text: &str) -> String {
    let mut out = String::new();
    for sign in line(text).chars() {
        match sign {
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '&' => out.push_str("&amp;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            sign => out.push(sign),
        }
    }
    out
}

/// An address that a link may lead to: `http`, `https` or `mailto`, with every sign that could end it percent-encoded.
/// Nothing else is one: it is shown as text.
#[must_use]
pub fn address(text: &str) -> Option<String> {
    let shown = line(text);
    let lower = shown.to_ascii_lowercase();
    let rest = ["https://", "http://", "mailto:"].into_iter().find_map(|scheme| lower.strip_prefix(scheme))?;
    if rest.is_empty() || shown.contains(char::is_whitespace) || shown.contains('\u{fffd}') {
        return None;
    }
    let mut out = String::new();
    for sign in shown.chars() {
        if sign.is_ascii_alphanumeric() || "-._~:/?#@!$&+,;=%".contains(sign) {
            out.push(sign);
        } else {
            let mut bytes = [0; 4];
            sign.encode_utf8(&mut bytes).bytes().for_each(|byte| out.push_str(&format!("%{byte:02X}")));
        }
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_reaches_a_terminal_that_could_move_or_colour_it() {
        assert_eq!(line("a\u{1b}[31mb\nc"), "a\u{fffd}[31mb c");
        assert_eq!(line("a\u{9b}2Jb\u{202e}c\u{e0041}"), "a\u{fffd}2Jb\u{fffd}c\u{fffd}");
        assert_eq!(lines("one\r\n\ttwo \u{1b}x\n\n"), "one\n two \u{fffd}x");
    }

    #[test]
    fn ordinary_text_stays_as_it_is() {
        for text in [
            "Größe 5 %",
            "値 ≤ 1%",
            "registry.example.com/orders:2",
            "+3.1% (-2.0% to +8.4%)",
            "P95 < 200ms",
            "-5%",
            "v2.1.0",
            "<= 1%",
            "a_b_c",
            "2026-12-01",
            "R&D & more",
            "it's \"quoted\" (really)",
            "#",
        ] {
            let shown = if text == "#" { "\\#" } else { text };
            assert_eq!(markdown(text), shown);
        }
    }

    #[test]
    fn signs_that_mean_something_in_markdown_are_escaped() {
        for (text, shown) in [
            ("# head", "\\# head"),
            ("- item", "\\- item"),
            ("--- ", "\\---"),
            ("1. item", "1\\. item"),
            ("> quote", "&gt; quote"),
            ("a|b", "a\\|b"),
            ("*a* _b_ ~c~ `d`", "\\*a\\* \\_b\\_ \\~c\\~ \\`d\\`"),
            ("[x](javascript:alert)", "\\[x\\](javascript:alert)"),
            ("<b>&amp;&#60;", "&lt;b&gt;&amp;amp;&amp;#60;"),
            ("{{ 7*7 }}", "\\{\\{ 7\\*7 \\}\\}"),
            ("one\n\n# two", "one  # two"),
            ("c:\\", "c:\\\\"),
        ] {
            assert_eq!(markdown(text), shown, "{text:?}");
        }
    }

    #[test]
    fn code_is_fenced_by_more_than_it_holds() {
        assert_eq!(code_block("a\n```\nb", "bash"), "````bash\na\n```\nb\n````");
        assert_eq!(code("a`b``c"), "```a`b``c```");
        assert_eq!(code("`a`"), "`` `a` ``");
    }

    #[test]
    fn only_addresses_of_the_web_and_of_mail_are_links() {
        assert_eq!(address("https://a.example/x_(y)?q=1"), Some("https://a.example/x_%28y%29?q=1".to_owned()));
        assert_eq!(address("mailto:a@b.example"), Some("mailto:a@b.example".to_owned()));
        assert_eq!(address("https://a.example/\"<é"), Some("https://a.example/%22%3C%C3%A9".to_owned()));
        for text in
            ["javascript:alert(1)", "data:text/html,x", "https://", "https://a b", "//a", "#support", "file:///x"]
        {
            assert_eq!(address(text), None, "{text}");
        }
    }

    #[test]
    fn html_has_no_tag_and_ends_no_attribute() {
        assert_eq!(html("<a href='x\"'>&\u{1b}"), "&lt;a href=&#39;x&quot;&#39;&gt;&amp;\u{fffd}");
    }
}
