//! The page of `dbb eval`.

use super::findings::{Findings, add_findings};
use super::format::Quantity::{Count, Number, Percent};
use super::page::{Page, cards, facts};
use crate::run::metrics::Totals;

/// An evaluation as its page shows it.
#[derive(Clone, Debug)]
pub struct Evaluated<'a> {
    /// What was evaluated.
    pub target: String,
    /// Further facts, each with its name.
    pub facts: Vec<(String, String)>,
    /// Loss, top-1 and top-5.
    pub totals: &'a Totals,
    /// Images that were left out.
    pub skipped: usize,
    /// Everything else that was found.
    pub findings: &'a Findings,
}

/// The page of an evaluation.
pub fn eval_page(evaluated: &Evaluated<'_>) -> String {
    let Evaluated { target, totals, skipped, findings, .. } = evaluated;
    let mut page = Page::new(format!("Evaluation of {target}"), false);
    let images = totals.images() as f64;
    let mut shown = vec![
        ("Top-1", Percent.show(totals.top1()), "of the images".to_string()),
        ("Top-5", Percent.show(totals.top5()), "of the images".to_string()),
        ("Loss", Number.show(totals.loss()), "mean cross-entropy".to_string()),
    ];
    if let Some(ece) = findings.classification.calibration.ece() {
        shown.push(("Calibration error", Percent.show(ece), "expected, 15 bins".to_string()));
    }
    shown.push(("Images", Count.show(images), "evaluated".to_string()));
    if *skipped > 0 {
        shown.push(("Left out", skipped.to_string(), "images that cannot be read".to_string()));
    }
    page.add(cards(&shown));
    page.add(facts(evaluated.facts.iter().cloned()));
    add_findings(&mut page, findings);
    page.render()
}

#[cfg(test)]
mod tests {
    use super::super::findings::tests::of;
    use super::super::testing::assert_well_formed;
    use super::*;

    #[test]
    fn an_evaluation_is_told_with_its_numbers() {
        let mut totals = Totals::default();
        totals.add_values(&[0.0, 1.0, 2.0, 0.0], 2, &[1, 1], 0.75);
        let findings = of(10);
        let page = eval_page(&Evaluated {
            target: "a & b".into(),
            facts: vec![("Data".into(), "<val>".into())],
            totals: &totals,
            skipped: 3,
            findings: &findings,
        });
        assert_well_formed(&page);
        for part in [
            "Evaluation of a &amp; b",
            "<dt>Top-1</dt><dd>50.00 %",
            "<dt>Loss</dt><dd>0.7500",
            "<dt>Left out</dt><dd>3",
            "<dt>Data</dt><dd>&lt;val&gt;",
            "Confused classes",
            "Calibration error",
            "img-src data:",
        ] {
            assert!(page.contains(part), "no {part}");
        }
    }
}
