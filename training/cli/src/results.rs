//! `dbb results`.

use std::path::{Path, PathBuf};

use dbb_models::weights::write_atomically;
use serde::Serialize;

use dbb_training::Error;
use dbb_training::results::{Filled, fill};
use dbb_training::text::{displayed, plural};

/// Fill the tables, numbers and pictures of Markdown pages from the compare.csv files of comparisons.
///
/// A part of a page stands between <!-- dbb KIND ... --> and <!-- /dbb -->, comments that Markdown does not
/// show; docs/compare.md lists the kinds. What is between them is written again; the rest of the page stays
/// as it is. Paths are relative to the page.
///
/// Example: dbb results docs/RESULTS.md
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Pages (Markdown).
    #[arg(required = true, value_name = "PAGE")]
    pages: Vec<PathBuf>,
    /// Write nothing; exit with code 3 if a page or a picture is not what its files give.
    #[arg(long)]
    check: bool,
    /// Print the result as one JSON object.
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Result {
    pages: Vec<Page>,
}

#[derive(Serialize)]
struct Page {
    #[serde(serialize_with = "displayed")]
    page: PathBuf,
    /// Parts of the page.
    parts: usize,
    /// What was not what the files give: `line 12`, or the path of a picture.
    changed: Vec<String>,
}

pub fn run(args: &Args) -> anyhow::Result<()> {
    // All are read before the first is written.
    let filled: Vec<Filled> =
        args.pages.iter().map(|page| fill(page)).collect::<dbb_training::Result<_>>()?;
    for page in &filled {
        anyhow::ensure!(
            page.parts > 0,
            "{} has no part to fill; expected <!-- dbb KIND ... --> and <!-- /dbb --> (see docs/compare.md)",
            page.path.display()
        );
    }
    let stale: Vec<String> = filled
        .iter()
        .filter(|page| !page.stale.is_empty())
        .map(|page| format!("{} is stale: {}", page.path.display(), page.stale.join(", ")))
        .collect();
    if args.check && !stale.is_empty() {
        return Err(Error::Stale(stale).into());
    }
    for page in filled.iter().filter(|page| !page.stale.is_empty()) {
        page.pictures.iter().try_for_each(|(path, svg)| write(path, svg))?;
        write(&page.path, &page.text)?;
    }
    let pages = filled.into_iter();
    let pages =
        pages.map(|Filled { path, parts, stale, .. }| Page { page: path, parts, changed: stale });
    let result = Result { pages: pages.collect() };
    crate::print(args.json, &result, || {
        let line = |page: &Page| {
            let changed = match &page.changed[..] {
                [] => "nothing has changed".to_string(),
                changed => format!("written again: {}", changed.join(", ")),
            };
            format!("{}: {}; {changed}", page.page.display(), plural(page.parts, "part"))
        };
        result.pages.iter().map(line).collect::<Vec<_>>().join("\n")
    })
}

fn write(path: &Path, text: &str) -> anyhow::Result<()> {
    write_atomically(path, text.as_bytes())
        .map_err(|error| anyhow::anyhow!("cannot write {}: {error}", path.display()))
}
