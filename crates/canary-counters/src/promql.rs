//! The one place where PromQL is parsed and written. Input is bounded before the parser sees it,
//! and every byte that goes out is written here, from the syntax tree: what a user wrote is never
//! pasted into a query.

use promql_parser::parser::Expr;

/// Longest accepted input, in bytes.
pub(crate) const MAX_LENGTH: usize = 4096;
/// Most operators, brackets and parentheses in one input. The tree's depth can't exceed it, so
/// that no input can exhaust the stack.
pub(crate) const MAX_OPERATORS: usize = 256;

/// Writes a double-quoted PromQL string.
pub(crate) fn quote(text: &str, out: &mut String) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if c.is_control() => {
                // Control characters end at U+009F, so four digits always do.
                out.push_str(&format!("\\u{:04x}", u32::from(c)));
            }
            c => out.push(c),
        }
    }
    out.push('"');
}

/// A classic label name: letters, digits, underscore; not beginning with a digit.
pub(crate) fn is_label_name(name: &str) -> bool {
    let mut bytes = name.bytes();
    bytes.next().is_some_and(|b| b.is_ascii_alphabetic() || b == b'_')
        && bytes.all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

/// A classic metric name: as a label name, with colons.
pub(crate) fn is_metric_name(name: &str) -> bool {
    let mut bytes = name.bytes();
    bytes.next().is_some_and(|b| b.is_ascii_alphabetic() || b == b'_' || b == b':')
        && bytes.all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b':')
}

/// Parses bounded input; a panic inside the parser is an ordinary refusal.
pub(crate) fn parse(text: &str) -> Result<Expr, String> {
    if text.trim().is_empty() {
        return Err("it is empty".to_owned());
    }
    if text.len() > MAX_LENGTH {
        return Err(format!("it is longer than {MAX_LENGTH} bytes"));
    }
    let symbols = text.bytes().filter(|b| b"([-+*/%^<>=!{".contains(b)).count();
    let words = text
        .split(|c: char| !c.is_ascii_alphanumeric() && c != '_')
        .filter(|word| ["and", "or", "unless", "atan2"].iter().any(|operator| word.eq_ignore_ascii_case(operator)))
        .count();
    if symbols.saturating_add(words) > MAX_OPERATORS {
        return Err(format!("it has more than {MAX_OPERATORS} operators and brackets"));
    }
    // The parser panics on a duration of more seconds than a Duration holds.
    let mut after_offset = false;
    for word in text.split(|c: char| !c.is_ascii_alphanumeric() && !matches!(c, '.' | '+' | '-')) {
        let number = word.trim_start_matches(['+', '-']);
        let digits = number.starts_with(|c: char| c.is_ascii_digit() || c == '.');
        let value = number.parse::<f64>().unwrap_or(0.0);
        if (digits && value >= 1e18) || (after_offset && !value.is_finite()) {
            return Err("it has a number of 1e18 or more".to_owned());
        }
        after_offset = word.eq_ignore_ascii_case("offset") || (after_offset && number.is_empty());
    }
    match std::panic::catch_unwind(|| promql_parser::parser::parse(text)) {
        Ok(Ok(expr)) => Ok(expr),
        Ok(Err(message)) => Err(message.lines().next().unwrap_or_default().to_owned()),
        Err(_) => Err("the parser gave up on it".to_owned()),
    }
}
