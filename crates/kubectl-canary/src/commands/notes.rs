//! `notes`: the release notes of a record, as Markdown. `-o json` and `-o yaml` give what a template sees.

use canary_api::Changes;
use canary_report::facts::facts;
use canary_report::{Style, notes};

use crate::args::{self, Global};
use crate::output::{Format, Output};
use crate::{Error, Exit, clean, records};

/// Runs `notes`.
///
/// # Errors
/// Where the record, the changes or the template cannot be read.
pub async fn run(what: &args::Notes, global: &Global, output: &Output) -> Result<Exit, Error> {
    let style = style(&what.template)?;
    let (record, found) = records::find(&what.of, global).await?;
    let changes: Changes = records::more(found, what.changes.changes.as_deref(), what.changes.git.as_deref())?;
    if output.format == Format::Text {
        let text = notes(&record, &changes, &style).map_err(|error| Error::Rendering(error.to_string()))?;
        output.write(&text)?;
    } else {
        output.answer(&facts(&record, &changes), |_| String::new())?;
    }
    Ok(Exit::Done)
}

/// One of the house's templates by its name, or a file.
fn style(template: &str) -> Result<Style, Error> {
    Ok(match template {
        "canary" => Style::Canary,
        "guide" => Style::Guide,
        file => Style::Own { name: clean::text(file), text: records::text_of(file)? },
    })
}
