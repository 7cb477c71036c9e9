//! From the record of a release to what people read of it: release notes in Markdown, a report in one HTML file, and the
//! files of an evidence folder.
//!
//! All of it is computed from a `ReleaseRecord` alone, and from lists of changes: no I/O, no clock, and nothing that the
//! record does not say. What people wrote is shown as text, and can do no harm as Markdown, as HTML or on a terminal.
#![deny(missing_docs)]

pub mod changes;
pub mod evidence;
pub mod facts;
pub mod figure;
pub mod harmless;
pub mod jobs;
pub mod notes;
pub mod over_time;
pub mod report;

pub use notes::{Style, notes, notes_of};
pub use report::{report, report_of};

/// Why something could not be written.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A template that can't be read or does not fit.
    #[error("template {name}, line {line}: {why}")]
    Template {
        /// The template's name.
        name: String,
        /// The line, from 1; 0 where it is not known.
        line: usize,
        /// What is wrong, and what to do.
        why: String,
    },
    /// More text than a template may write.
    #[error("template {name} writes more than {most} bytes; does it loop?")]
    TooMuch {
        /// The template's name.
        name: String,
        /// What it may write.
        most: usize,
    },
}
