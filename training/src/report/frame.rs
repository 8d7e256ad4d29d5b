//! What the page of a run and that of a comparison share: the head with the progress, the charts, the
//! environment.

use serde_json::Value;

use super::chart::Chart;
use super::page::{Html, Page, facts, grid, paragraph};
use crate::calendar::Utc;

/// Whether the run or comparison is still going.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// It is; the page reloads itself.
    Running,
    /// It has finished.
    Finished,
    /// It has stopped, and why.
    Stopped(String),
}

/// A page with its heading and progress: units done and planned, the finest last.
pub(crate) fn open(title: String, state: &State, progress: &[(&str, usize, usize)]) -> Page {
    let mut page = Page::new(title, *state == State::Running);
    let badge = match state {
        State::Running => "running",
        State::Finished => "finished",
        State::Stopped(_) => "stopped",
    };
    let written = Utc::now();
    let [done, planned] = progress.last().map_or([0, 1], |&(_, done, planned)| [done, planned]);
    let progress: Vec<_> = progress
        .iter()
        .map(|(unit, done, planned)| format!("{unit} {done} of {planned}"))
        .collect();
    let progress = progress.join(", ");
    page.add(Html::raw(format!(
        "<p class=\"state\"><span class=\"badge {badge}\">{badge}</span> \
         <progress value=\"{done}\" max=\"{planned}\" aria-label=\"progress\"></progress> \
         <span>{progress}</span> <span class=\"muted\">updated {written}</span></p>\n"
    )));
    if let State::Stopped(reason) = state {
        let reason = Html::from(reason.as_str());
        page.add(Html::raw(format!("<p class=\"note\" role=\"alert\">{reason}</p>\n")));
    }
    page
}

/// The charts that have something to show; `epochs` are finished in the longest run.
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
    Html::from_iter([note, grid(figures)])
}

/// Program, device and data, in the order of the file.
pub(crate) fn environment(env: &Value) -> Html {
    let Some(entries) = env.as_object() else { return paragraph("Unknown.") };
    facts(entries.iter().map(|(key, value)| {
        let text = value.as_str().map_or_else(|| value.to_string(), String::from);
        (key.replace('_', " "), text)
    }))
}
