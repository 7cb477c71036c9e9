//! `report`: a record as one HTML file that opens from a disk. `-o FILE` says where to; `-o json` and `-o yaml` give the
//! facts in it.

use std::path::Path;

use canary_report::facts::facts;
use canary_report::report;

use crate::args::{self, Global};
use crate::output::{Format, Output, say};
use crate::{Error, Exit, records};

/// Runs `report`.
///
/// # Errors
/// Where the record or the changes cannot be read, or the file cannot be written.
pub async fn run(what: &args::Report, global: &Global, file: Option<&Path>, output: &Output) -> Result<Exit, Error> {
    if file.is_none() && output.format == Format::Text && output.terminal {
        return Err(Error::Usage("a terminal shows no HTML: give a file, such as -o report.html".to_owned()));
    }
    let (record, found) = records::find(&what.of, global).await?;
    let changes = records::more(found, what.changes.changes.as_deref(), what.changes.git.as_deref())?;
    if file.is_none() && output.format != Format::Text {
        output.answer(&facts(&record, &changes), |_| String::new())?;
        return Ok(Exit::Done);
    }
    let page = report(&record, &changes).map_err(|error| Error::Rendering(error.to_string()))?;
    match file {
        None => output.write(&page)?,
        Some(file) => {
            std::fs::write(file, page).map_err(|why| Error::Unwritable { file: file.display().to_string(), why })?;
            say(&format!("wrote {}", file.display()));
        }
    }
    Ok(Exit::Done)
}
