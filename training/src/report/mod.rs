//! `report.html`: the results of a run or a comparison so far, for people.
//!
//! One file that loads nothing and needs no script, rewritten after every epoch or run, and every
//! [`INTERVAL`] in long ones. The pages know folders only as links; the caller writes them.
//!
//! ```text
//! format.rs    numbers as people read them
//! page.rs      markup, tables, sections
//! chart.rs     charts as inline SVG
//! scale.rs     their axes
//! steps.rs     the training loss by step
//! train.rs     the page of a run
//! ```

pub(crate) mod chart;
pub(crate) mod format;
pub(crate) mod page;
pub(crate) mod scale;
mod steps;
mod train;

pub use steps::Steps;
pub use train::train_page;

use std::time::{Duration, SystemTime};

use dbb_models::summary::Summary;
use serde_json::Value;

use crate::config::Config;
use crate::run::metrics::EpochRecord;
use chart::Chart;
use format::{Quantity, utc};
use page::{Html, Page, facts, paragraph};
use scale::Axis;

/// How often the page of a run is written within an epoch.
pub const INTERVAL: Duration = Duration::from_secs(30);

/// A run as a report shows it.
#[derive(Clone, Debug)]
pub struct Run {
    /// Its configuration.
    pub config: Config,
    /// What its network costs.
    pub summary: Summary,
    /// Program, device and data.
    pub env: Value,
    /// Every epoch so far.
    pub records: Vec<EpochRecord>,
    /// Its steps since it was started or resumed.
    pub steps: Steps,
}

/// Whether more is to come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// Yes: the page reads itself again.
    Running,
    /// No.
    Finished,
    /// No, and why.
    Stopped(String),
}

pub(crate) const EPOCH: Axis = Axis { name: "epoch", quantity: Quantity::Epoch, from_zero: false };
const STEP: Axis = Axis { name: "step", quantity: Quantity::Epoch, from_zero: false };
pub(crate) const TIME: Axis =
    Axis { name: "training time", quantity: Quantity::Duration, from_zero: true };
pub(crate) const LOSS: Axis = Axis { name: "loss", quantity: Quantity::Number, from_zero: false };
pub(crate) const TOP1: Axis = Axis { name: "top-1", quantity: Quantity::Percent, from_zero: false };

/// A page with its heading, and how far things have come: units done and planned, the finest last.
pub(crate) fn open(title: String, state: &State, progress: &[(&str, usize, usize)]) -> Page {
    let mut page = Page::new(title, *state == State::Running);
    let (class, text) = match state {
        State::Running => ("running", "running"),
        State::Finished => ("finished", "finished"),
        State::Stopped(_) => ("stopped", "stopped"),
    };
    let written = utc(SystemTime::now());
    let [done, planned] = progress.last().map_or([0, 1], |&(_, done, planned)| [done, planned]);
    let progress: Vec<_> = progress
        .iter()
        .map(|(unit, done, planned)| format!("{unit} {done} of {planned}"))
        .collect();
    let progress = progress.join(", ");
    page.add(Html::raw(format!(
        "<p class=\"state\"><span class=\"badge {class}\">{text}</span> \
         <progress value=\"{done}\" max=\"{planned}\" aria-label=\"progress\"></progress> \
         <span>{progress}</span> <span class=\"muted\">updated {written}</span></p>\n"
    )));
    if let State::Stopped(reason) = state {
        let reason = Html::from(reason.as_str());
        page.add(Html::raw(format!("<p class=\"note\" role=\"alert\">{reason}</p>\n")));
    }
    page
}

/// The charts that show more than points above one place; `epochs` are finished in the longest run.
pub(crate) fn figures(charts: &[Chart], epochs: usize) -> Html {
    let figures: Vec<Html> = charts.iter().filter(|c| c.is_wide()).map(Chart::figure).collect();
    let note = match epochs {
        0 => paragraph("No epoch is finished."),
        1 => paragraph("One epoch is finished; curves over epochs begin with the second."),
        _ => Html::default(),
    };
    if figures.is_empty() {
        return note;
    }
    let figures: Html = figures.into_iter().collect();
    Html::from_iter([note, Html::raw(format!("<div class=\"charts\">\n{figures}</div>\n"))])
}

/// Program, device and data, in the order of the file.
pub(crate) fn environment(env: &Value) -> Html {
    let Some(entries) = env.as_object() else { return page::paragraph("Unknown.") };
    facts(entries.iter().map(|(key, value)| {
        let text = value.as_str().map_or_else(|| value.to_string(), String::from);
        (key.replace('_', " "), text)
    }))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use dbb_models::{Arch, BlockKind, ModelConfig};

    /// Every tag is closed in its order, every attribute quoted, nothing is loaded or run.
    pub fn assert_well_formed(html: &str) {
        let mut open = Vec::new();
        let mut rest = html;
        while let Some(start) = rest.find('<') {
            let end = start + rest[start..].find('>').expect("a tag ends");
            let (tag, text) = (&rest[start + 1..end], &rest[..start]);
            assert!(!text.contains('>') || open.last() == Some(&"style"), "bare > in {text:?}");
            let name = tag.trim_start_matches('/').split([' ', '/']).next().unwrap_or_default();
            if tag.starts_with('/') {
                assert_eq!(open.pop(), Some(name), "in {}", &rest[..end]);
            } else if !tag.starts_with('!') && !tag.ends_with('/') {
                open.push(name);
            }
            assert_eq!(tag.matches('"').count() % 2, 0, "<{tag}>");
            rest = &rest[end + 1..];
        }
        assert!(open.is_empty(), "left open: {open:?}");
        for loading in ["<script", "http:", "https:", "src=", "url(", "@import", "<link", "<img"] {
            assert!(!html.contains(loading), "{loading}");
        }
    }

    pub fn record(epoch: usize, top1: f64) -> EpochRecord {
        EpochRecord {
            epoch,
            step: 8 * epoch,
            images: 512,
            lr: 0.05,
            train_loss: 1.2345,
            train_top1: top1 - 5.0,
            val_loss: 1.5,
            top1,
            top5: 99.25,
            fold_max_rel_diff: 4.7e-7,
            images_per_second: 533.25,
            seconds: 53.5,
            skipped: 0,
            spikes: 0,
        }
    }

    pub fn run(block: BlockKind, seed: u64, top1: &[f64]) -> Run {
        let text = format!(
            "seed = {seed}\n[model]\narch = \"resnet20\"\nblock = \"{block}\"\n[data]\n\
             source = \"a <folder> & more\"\n[train]\nepochs = 2\nbatch_size = 64\n[optim]\nlr = 0.05\n"
        );
        let model = ModelConfig::new(Arch::ResNet20, block, 10);
        Run {
            config: toml::from_str(&text).unwrap(),
            summary: Summary::new(&model, [28, 28]).unwrap(),
            env: serde_json::json!({"device": "Device<Flex>", "train_fingerprint": "0123abcd"}),
            steps: Steps::new(8 * top1.len(), 16),
            records: top1.iter().enumerate().map(|(i, &top1)| record(i + 1, top1)).collect(),
        }
    }
}
