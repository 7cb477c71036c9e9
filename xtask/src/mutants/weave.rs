//! All mutants of a file in one text: each stands beside the original and is taken where its number is asked for at run
//! time, so that one build serves them all. It decides where a mutant goes in and which can't; what is mutated is
//! `cargo-mutants`' to say.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use anyhow::{Context as _, Result};
use quote::ToTokens as _;
use serde_json::Value;
use syn::spanned::Spanned as _;
use syn::visit::{self, Visit};

/// The module that the woven code asks.
pub(super) const ASKED: &str = "mutant";

/// One change, as `cargo-mutants` lists it.
#[derive(Debug, Clone)]
pub(super) struct Mutant {
    pub(super) name: String,
    /// The file, from the root of the checkout.
    pub(super) file: String,
    genre: String,
    replacement: String,
    /// Line and column where the text begins that is replaced, both from 1.
    at: (usize, usize),
}

impl Mutant {
    /// An entry of the list.
    pub(super) fn listed(entry: &Value) -> Result<Self> {
        let text = |pointer: &str| {
            let found = entry.pointer(pointer).and_then(Value::as_str);
            found.map(str::to_owned).with_context(|| format!("a mutant without {pointer}: {entry}"))
        };
        let number = |pointer: &str| {
            let found = entry.pointer(pointer).and_then(Value::as_u64).and_then(|number| usize::try_from(number).ok());
            found.with_context(|| format!("a mutant without {pointer}: {entry}"))
        };
        Ok(Self {
            name: text("/name")?,
            file: text("/file")?,
            genre: text("/genre")?,
            replacement: text("/replacement")?,
            at: (number("/span/start/line")?, number("/span/start/column")?),
        })
    }
}

/// A file with its mutants in it.
#[derive(Debug, Default)]
pub(super) struct Woven {
    pub(super) text: String,
    /// The numbers of mutants, and where each stands in the text; the shortest that has a place is meant by it.
    pub(super) marks: Vec<(usize, Range<usize>)>,
    /// Those that can't be chosen at run time: in constants, in literals of structs.
    pub(super) left: Vec<usize>,
    /// Those that can't be compiled anywhere: `||` beside a `let`.
    pub(super) unviable: Vec<usize>,
}

impl Woven {
    /// The mutant that is meant by a place of the text.
    pub(super) fn at(&self, offset: usize) -> Option<usize> {
        let there = self.marks.iter().filter(|(_, range)| range.contains(&offset));
        there.min_by_key(|(_, range)| range.len()).map(|(number, _)| *number)
    }
}

/// Puts these mutants, by number, into a file.
pub(super) fn weave(source: &str, mutants: &BTreeMap<usize, &Mutant>) -> Result<Woven> {
    let file = syn::parse_file(source).context("parse")?;
    let mut sites = Sites::default();
    sites.visit_file(&file);
    let lines = Lines::of(source);
    let mut woven = Woven::default();
    let mut edits = Edits::default();
    // Several mutants of one place are one choice.
    let mut choices: BTreeMap<(usize, usize), Choice> = BTreeMap::new();
    for (number, mutant) in mutants {
        let Some(at) = lines.offset(mutant.at) else { continue };
        match sites.place(mutant, at) {
            Place::Left => woven.left.push(*number),
            Place::Unviable => woven.unviable.push(*number),
            Place::Entry(open) => {
                let text = format!(" if crate::{ASKED}::on({number}) {{ return {}; }}", mutant.replacement);
                edits.entry(open, *number, text);
            }
            Place::Pattern(end) => edits.entry(end, *number, format!(" if !crate::{ASKED}::on({number})")),
            Place::Guarded(guard) => edits.guard(&guard, *number),
            Place::Expression { whole, instead } => {
                let choice = choices.entry((whole.start, whole.end)).or_default();
                choice.0.push((*number, instead.text(source, &mutant.replacement)));
            }
        }
    }
    for ((start, end), choice) in choices {
        edits.choice(start..end, choice);
    }
    edits.taken = sites.constant;
    let (text, marks) = edits.apply(source);
    (woven.text, woven.marks) = (text, marks);
    Ok(woven)
}

/// Alternatives for an expression: numbers and texts.
#[derive(Debug, Default)]
struct Choice(Vec<(usize, String)>);

/// Where a mutant goes in.
enum Place {
    /// At the beginning of a function's body.
    Entry(usize),
    /// After a pattern without a guard.
    Pattern(usize),
    /// Around a guard.
    Guarded(Range<usize>),
    /// Around an expression.
    Expression {
        whole: Range<usize>,
        instead: Instead,
    },
    Left,
    Unviable,
}

/// What stands there instead.
enum Instead {
    /// Another operator between the same operands.
    Operator(Range<usize>, Range<usize>),
    /// The operand alone.
    Operand(Range<usize>),
    /// The replacement itself.
    Replacement,
}

impl Instead {
    fn text(&self, source: &str, replacement: &str) -> String {
        let part = |range: &Range<usize>| source.get(range.clone()).unwrap_or_default();
        match self {
            Self::Operator(left, right)
                if replacement.ends_with('=') && replacement.len() > 1 && assigns(replacement) =>
            {
                format!("{} {replacement} {}", part(left), part(right))
            }
            Self::Operator(left, right) => format!("({}) {replacement} ({})", part(left), part(right)),
            Self::Operand(operand) => part(operand).to_owned(),
            Self::Replacement => replacement.to_owned(),
        }
    }
}

fn assigns(operator: &str) -> bool {
    !matches!(operator, "==" | "!=" | "<=" | ">=")
}

/// An infix expression.
struct Binary {
    whole: Range<usize>,
    left: Range<usize>,
    right: Range<usize>,
    binds: bool,
    frozen: bool,
}

/// Where mutants can go in, by where the text begins that they replace.
#[derive(Default)]
struct Sites {
    binary: BTreeMap<usize, Binary>,
    unary: BTreeMap<usize, (Range<usize>, Range<usize>, bool)>,
    guards: BTreeMap<usize, Range<usize>>,
    arms: BTreeMap<usize, (usize, Option<Range<usize>>)>,
    /// Arms without which their `match` would not be whole.
    whole: BTreeSet<usize>,
    /// With whether what it returns has no name.
    bodies: Vec<(Range<usize>, bool)>,
    /// The word `const` before functions: what they ask is known at run time only.
    constant: Vec<Range<usize>>,
    /// How deep in constants.
    frozen: usize,
}

impl Sites {
    fn place(&self, mutant: &Mutant, at: usize) -> Place {
        match mutant.genre.as_str() {
            "FnValue" => {
                let inside = self.bodies.iter().filter(|(body, _)| body.contains(&at));
                match inside.min_by_key(|(body, _)| body.len()) {
                    // A function has one type only that it does not name.
                    Some((body, false)) => Place::Entry(body.start + 1),
                    _ => Place::Left,
                }
            }
            "BinaryOperator" => match self.binary.get(&at) {
                Some(site) if site.binds => Place::Unviable,
                Some(Binary { whole, left, right, frozen: false, .. }) => {
                    Place::Expression { whole: whole.clone(), instead: Instead::Operator(left.clone(), right.clone()) }
                }
                _ => Place::Left,
            },
            "UnaryOperator" => match self.unary.get(&at) {
                Some((whole, operand, false)) => {
                    Place::Expression { whole: whole.clone(), instead: Instead::Operand(operand.clone()) }
                }
                _ => Place::Left,
            },
            "MatchArmGuard" => self
                .guards
                .get(&at)
                .map_or(Place::Left, |guard| Place::Expression { whole: guard.clone(), instead: Instead::Replacement }),
            "MatchArm" => match self.arms.get(&at) {
                Some((_, Some(guard))) => Place::Guarded(guard.clone()),
                Some((end, None)) if !self.whole.contains(&at) => Place::Pattern(*end),
                Some((_, None)) => Place::Unviable,
                None => Place::Left,
            },
            _ => Place::Left,
        }
    }

    /// What is visited here is worked out when it is compiled.
    fn constantly(&mut self, visit: impl FnOnce(&mut Self)) {
        self.frozen += 1;
        visit(self);
        self.frozen -= 1;
    }

    fn function(&mut self, signature: &syn::Signature, block: &syn::Block) {
        let nameless = match &signature.output {
            syn::ReturnType::Type(_, output) => {
                output.to_token_stream().into_iter().any(|word| word.to_string() == "impl")
            }
            syn::ReturnType::Default => false,
        };
        self.bodies.push((block.span().byte_range(), nameless));
        if let Some(word) = &signature.constness {
            self.constant.push(word.span.byte_range());
        }
    }
}

/// Whether a condition names what it finds: `let` binds in the whole chain.
fn binds(expression: &syn::Expr) -> bool {
    match expression {
        syn::Expr::Let(_) => true,
        syn::Expr::Binary(binary) => binds(&binary.left) || binds(&binary.right),
        _ => false,
    }
}

impl<'ast> Visit<'ast> for Sites {
    fn visit_expr_binary(&mut self, node: &'ast syn::ExprBinary) {
        let site = Binary {
            whole: node.span().byte_range(),
            left: node.left.span().byte_range(),
            right: node.right.span().byte_range(),
            binds: binds(&node.left) || binds(&node.right),
            frozen: self.frozen > 0,
        };
        self.binary.insert(node.op.span().byte_range().start, site);
        visit::visit_expr_binary(self, node);
    }

    fn visit_expr_unary(&mut self, node: &'ast syn::ExprUnary) {
        let (whole, operand) = (node.span().byte_range(), node.expr.span().byte_range());
        self.unary.insert(whole.start, (whole, operand, self.frozen > 0));
        visit::visit_expr_unary(self, node);
    }

    fn visit_expr_match(&mut self, node: &'ast syn::ExprMatch) {
        // A name in capitals is a variant.
        let binds = |name: &syn::Ident| name.to_string().starts_with(|first: char| first.is_lowercase());
        let all = |arm: &syn::Arm| {
            let any = match &arm.pat {
                syn::Pat::Wild(_) => true,
                syn::Pat::Ident(name) => name.subpat.is_none() && binds(&name.ident),
                _ => false,
            };
            any && arm.guard.is_none()
        };
        if !node.arms.iter().any(all) {
            self.whole.extend(node.arms.iter().map(|arm| arm.span().byte_range().start));
        }
        visit::visit_expr_match(self, node);
    }

    fn visit_arm(&mut self, node: &'ast syn::Arm) {
        let guard = node.guard.as_ref().map(|(_, guard)| guard.span().byte_range());
        if let Some(guard) = &guard {
            self.guards.insert(guard.start, guard.clone());
        }
        self.arms.insert(node.span().byte_range().start, (node.pat.span().byte_range().end, guard));
        visit::visit_arm(self, node);
    }

    fn visit_item_fn(&mut self, node: &'ast syn::ItemFn) {
        self.function(&node.sig, &node.block);
        visit::visit_item_fn(self, node);
    }

    fn visit_impl_item_fn(&mut self, node: &'ast syn::ImplItemFn) {
        self.function(&node.sig, &node.block);
        visit::visit_impl_item_fn(self, node);
    }

    fn visit_trait_item_fn(&mut self, node: &'ast syn::TraitItemFn) {
        if let Some(block) = &node.default {
            self.function(&node.sig, block);
        }
        visit::visit_trait_item_fn(self, node);
    }

    fn visit_item_const(&mut self, node: &'ast syn::ItemConst) {
        self.constantly(|sites| visit::visit_item_const(sites, node));
    }

    fn visit_impl_item_const(&mut self, node: &'ast syn::ImplItemConst) {
        self.constantly(|sites| visit::visit_impl_item_const(sites, node));
    }

    fn visit_item_static(&mut self, node: &'ast syn::ItemStatic) {
        self.constantly(|sites| visit::visit_item_static(sites, node));
    }

    fn visit_type_array(&mut self, node: &'ast syn::TypeArray) {
        self.constantly(|sites| visit::visit_type_array(sites, node));
    }
}

/// One text that goes in, with the mutants whose it is within it.
struct Insert {
    /// Among texts at one offset the lower comes first.
    rank: i64,
    text: String,
    marks: Vec<(usize, Range<usize>)>,
    /// A mutant whose mark begins, or ends, here.
    begins: Option<usize>,
    ends: Option<usize>,
}

/// What is done to a file: nothing of it is lost but words.
#[derive(Default)]
struct Edits {
    at: BTreeMap<usize, Vec<Insert>>,
    taken: Vec<Range<usize>>,
}

impl Edits {
    fn insert(&mut self, offset: usize, insert: Insert) {
        self.at.entry(offset).or_default().push(insert);
    }

    /// A text of one mutant.
    fn entry(&mut self, offset: usize, number: usize, text: String) {
        let marks = vec![(number, 0..text.len())];
        self.insert(offset, Insert { rank: 0, text, marks, begins: None, ends: None });
    }

    /// What goes around something: of two that begin together the longer is outside, and so where they end together.
    fn around(&mut self, range: &Range<usize>, within: i64, before: Insert, after: Insert) {
        let length = i64::try_from(range.len()).unwrap_or(i64::MAX / 8);
        self.insert(range.start, Insert { rank: within - 4 * length, ..before });
        // Ends come before beginnings.
        self.insert(range.end, Insert { rank: i64::MIN / 2 + 4 * length - within, ..after });
    }

    fn guard(&mut self, guard: &Range<usize>, number: usize) {
        let text = format!("!crate::{ASKED}::on({number}) && (");
        let marks = vec![(number, 0..text.len())];
        let before = Insert { rank: 0, text, marks, begins: None, ends: None };
        let after = Insert { rank: 0, text: ")".to_owned(), marks: Vec::new(), begins: None, ends: None };
        self.around(guard, 0, before, after);
    }

    fn choice(&mut self, whole: Range<usize>, Choice(alternatives): Choice) {
        let (mut text, mut marks) = ("(".to_owned(), Vec::new());
        let first = alternatives.first().map(|(number, _)| *number);
        for (number, instead) in alternatives {
            let start = text.len();
            text.push_str(&format!("if crate::{ASKED}::on({number}) {{ {instead} }} else "));
            marks.push((number, start..text.len()));
        }
        text.push_str("{ ");
        let before = Insert { rank: 0, text, marks, begins: first, ends: None };
        let after = Insert { rank: 0, text: " })".to_owned(), marks: Vec::new(), begins: None, ends: first };
        self.around(&whole, 1, before, after);
    }

    fn apply(mut self, source: &str) -> (String, Vec<(usize, Range<usize>)>) {
        let (mut text, mut marks, mut open) = (String::new(), Vec::new(), BTreeMap::new());
        let mut offsets: Vec<usize> = self.at.keys().copied().collect();
        offsets.extend(self.taken.iter().flat_map(|word| [word.start, word.end]));
        offsets.sort_unstable();
        offsets.dedup();
        let mut done = 0;
        for offset in offsets.into_iter().chain([source.len()]) {
            if !self.taken.iter().any(|word| word.start == done && word.end == offset) {
                text.push_str(source.get(done..offset).unwrap_or_default());
            }
            done = offset;
            let mut inserts = self.at.remove(&offset).unwrap_or_default();
            inserts.sort_by_key(|insert| insert.rank);
            for insert in inserts {
                let start = text.len();
                marks.extend(
                    insert.marks.into_iter().map(|(number, range)| (number, start + range.start..start + range.end)),
                );
                if let Some(number) = insert.begins {
                    open.insert(number, start);
                }
                text.push_str(&insert.text);
                if let Some(number) = insert.ends
                    && let Some(start) = open.remove(&number)
                {
                    marks.push((number, start..text.len()));
                }
            }
        }
        (text, marks)
    }
}

/// Where the lines of a text begin.
struct Lines<'a> {
    source: &'a str,
    begin: Vec<usize>,
}

impl<'a> Lines<'a> {
    fn of(source: &'a str) -> Self {
        let begin = [0].into_iter().chain(source.match_indices('\n').map(|(at, _)| at + 1)).collect();
        Self { source, begin }
    }

    /// The offset of a line and a column, both from 1 and the column in characters.
    fn offset(&self, (line, column): (usize, usize)) -> Option<usize> {
        let begin = *self.begin.get(line.checked_sub(1)?)?;
        let rest = self.source.get(begin..)?;
        rest.char_indices().nth(column.checked_sub(1)?).map(|(at, _)| begin + at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mutant(genre: &str, replacement: &str, at: (usize, usize)) -> Mutant {
        let (name, file) = (format!("{genre} {replacement}"), "a.rs".to_owned());
        Mutant { name, file, genre: genre.to_owned(), replacement: replacement.to_owned(), at }
    }

    fn woven(source: &str, mutants: &[Mutant]) -> Woven {
        let woven = weave(source, &mutants.iter().enumerate().collect()).unwrap();
        syn::parse_file(&woven.text).unwrap();
        woven
    }

    #[test]
    fn what_begins_together_is_nested_and_nothing_is_lost() {
        let source = "const fn f(a: u8, b: u8) -> bool {\n    a + b == 2 && !(a < b)\n}\n";
        let found = woven(
            source,
            &[
                mutant("FnValue", "true", (2, 5)),
                mutant("BinaryOperator", "-", (2, 7)),
                mutant("BinaryOperator", "!=", (2, 11)),
                mutant("BinaryOperator", "||", (2, 16)),
                mutant("UnaryOperator", "", (2, 19)),
                mutant("BinaryOperator", "==", (2, 23)),
                mutant("BinaryOperator", ">", (2, 23)),
            ],
        );
        let on = |number: usize| format!("crate::mutant::on({number})");
        let wanted = format!(
            " fn f(a: u8, b: u8) -> bool {{ if {} {{ return true; }}\n    \
             (if {} {{ (a + b == 2) || (!(a < b)) }} else {{ \
             (if {} {{ (a + b) != (2) }} else {{ \
             (if {} {{ (a) - (b) }} else {{ a + b }}) == 2 }}) && \
             (if {} {{ (a < b) }} else {{ !(\
             (if {} {{ (a) == (b) }} else if {} {{ (a) > (b) }} else {{ a < b }})) }}) }})\n}}\n",
            on(0),
            on(3),
            on(2),
            on(1),
            on(4),
            on(5),
            on(6)
        );
        assert_eq!(found.text, wanted);
        assert!(found.left.is_empty() && found.unviable.is_empty());
        for number in 0..7 {
            let at = found.text.find(&on(number)).unwrap();
            assert_eq!(found.at(at), Some(number));
        }
    }

    #[test]
    fn arms_and_guards_are_chosen_by_their_guards() {
        let source = "fn f(a: u8) -> u8 {\n    match a {\n        1 => 2,\n        3 if a > 2 => 4,\n        _ => 5,\n    }\n}\n";
        let found = woven(
            source,
            &[
                mutant("MatchArm", "", (3, 9)),
                mutant("MatchArm", "", (4, 9)),
                mutant("MatchArmGuard", "true", (4, 14)),
                mutant("MatchArmGuard", "false", (4, 14)),
            ],
        );
        assert!(found.text.contains("1 if !crate::mutant::on(0) => 2,"), "{}", found.text);
        let guard = "3 if !crate::mutant::on(1) && ((if crate::mutant::on(2) { true } else if crate::mutant::on(3) { false } else { a > 2 })) => 4,";
        assert!(found.text.contains(guard), "{}", found.text);
    }

    #[test]
    fn what_would_leave_a_match_open_or_give_a_function_two_types_is_not_woven() {
        let source = "fn f(a: Option<u8>) -> impl Iterator<Item = u8> {\n    match a {\n        _ if g() => 1,\n        Some(b) => b,\n        None => 2,\n    };\n    h()\n}\n";
        let found = woven(
            source,
            &[
                mutant("FnValue", "::std::iter::empty()", (2, 5)),
                mutant("MatchArm", "", (3, 9)),
                mutant("MatchArm", "", (4, 9)),
            ],
        );
        assert_eq!((found.left.as_slice(), found.unviable.as_slice()), (&[0][..], &[2][..]));
        assert!(found.text.contains("_ if !crate::mutant::on(1) && (g()) => 1,"), "{}", found.text);
    }

    #[test]
    fn what_can_not_be_chosen_at_run_time_is_said() {
        let source = "const A: u8 = 1 + 2;\nfn f(a: Option<u8>) {\n    if let Some(b) = a && b == 1 {\n        g();\n    }\n    let mut c = 1;\n    c += 2;\n}\n";
        let found = woven(
            source,
            &[
                mutant("BinaryOperator", "-", (1, 17)),
                mutant("BinaryOperator", "||", (3, 24)),
                mutant("BinaryOperator", "!=", (3, 29)),
                mutant("BinaryOperator", "-=", (7, 7)),
                mutant("StructField", "", (7, 5)),
            ],
        );
        assert_eq!((found.left.as_slice(), found.unviable.as_slice()), (&[0, 4][..], &[1][..]));
        assert!(found.text.contains("&& (if crate::mutant::on(2) { (b) != (1) } else { b == 1 }) {"), "{}", found.text);
        assert!(found.text.contains("(if crate::mutant::on(3) { c -= 2 } else { c += 2 });"), "{}", found.text);
    }
}
