//! Text from outside, made harmless for a terminal: no control character, no change of writing direction. It never
//! changes what is sent to a cluster.

use canary_report::harmless::harmful;
pub use canary_report::harmless::unbroken as text;
use serde_json::Value;

/// Harmless text that keeps its line breaks.
#[must_use]
pub fn lines(text: &str) -> String {
    text.lines().map(self::text).collect::<Vec<_>>().join("\n")
}

/// Every string of an object, made harmless in place.
pub fn value(value: &mut Value) {
    match value {
        Value::String(text) => {
            if text.chars().any(harmful) {
                *text = self::text(text);
            }
        }
        Value::Array(values) => values.iter_mut().for_each(self::value),
        Value::Object(fields) => fields.values_mut().for_each(self::value),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn nothing_reaches_the_terminal_that_could_move_or_colour_it() {
        assert_eq!(text("a\u{1b}[31mb\nc"), "a\u{fffd}[31mb c");
        assert_eq!(text("a\u{9b}2Jb\u{202e}c"), "a\u{fffd}2Jb\u{fffd}c");
        assert_eq!(lines("one\n\u{1b}two"), "one\n\u{fffd}two");
        let mut object = json!({"status": {"history": ["\u{1b}]0;x\u{7}"]}, "n": 1});
        value(&mut object);
        assert_eq!(object, json!({"status": {"history": ["\u{fffd}]0;x\u{fffd}"]}, "n": 1}));
    }

    #[test]
    fn ordinary_text_of_any_language_stays() {
        for line in ["Größe 5 %", "値 ≤ 1%", "registry.example.com/orders:2"] {
            assert_eq!(text(line), line);
        }
    }
}
