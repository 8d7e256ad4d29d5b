//! The table of classes.

use super::findings::Findings;
use super::format::Quantity::Percent;
use super::page::{Html, paragraph, sortable_table};
use crate::classification::ClassCounts;
use crate::text::plural;

/// Precision and recall of every class that the data have images of.
pub(super) fn classes(findings: &Findings) -> Html {
    let all = findings.classification.confusion.classes();
    let (present, absent): (Vec<_>, Vec<_>) = all.into_iter().partition(|class| class.support > 0);
    let mut note = String::from(
        "Recall is the share of the images of a class that are found, precision the share of the images \
         taken for it that are of it, F1 their harmonic mean. A press on a heading sorts the table.",
    );
    if !absent.is_empty() {
        let images = absent.iter().map(|class| class.predicted).sum();
        note += &format!(
            " {} that the data have no image of: {} taken for {}.",
            plural(absent.len(), "further class"),
            plural(images, "image"),
            if absent.len() == 1 { "it" } else { "them" }
        );
    }
    let rows = present.iter().map(|class| {
        let percent = |value: Option<f64>| {
            (value.map_or_else(|| "-".into(), |value| Html::from(Percent.show(value))), value)
        };
        let count = |n: usize| (Html::from(n.to_string()), None);
        vec![
            (Html::from(findings.label(class.class)), None),
            percent(class.recall()),
            percent(class.precision()),
            percent(f1(class)),
            count(class.support),
            count(class.predicted),
            count(class.class),
        ]
    });
    let head = ["class", "recall", "precision", "F1", "images", "predicted", "output"];
    Html::from_iter([paragraph(note), sortable_table("Classes", &head, rows)])
}

fn f1(class: &ClassCounts) -> Option<f64> {
    let sum = class.support + class.predicted;
    (sum > 0).then(|| 200.0 * class.correct as f64 / sum as f64)
}

#[cfg(test)]
mod tests {
    use super::super::findings::tests::of;
    use super::*;

    #[test]
    fn classes_have_their_shares() {
        let counts = ClassCounts { class: 0, support: 3, predicted: 1, correct: 1 };
        // 2 * 1 * (1/3) / (1 + 1/3).
        assert!((f1(&counts).unwrap() - 50.0).abs() < 1e-12);
        let mut findings = of(4);
        findings.classification.add(99, 0, &[0.0, 0.0, 0.0, 0.0, 9.0]);
        let html = classes(&findings).to_string();
        // Two of the four classes of three images each were found once.
        for part in [
            "<th scope=\"row\">&lt;0&gt;</th>\
             <td data-value=\"33.333333333333336\">33.33 %</td><td data-value=\"100\">100.00 %</td>\
             <td data-value=\"50\">50.00 %</td><td>3</td><td>1</td><td>0</td>",
            "1 further class that the data have no image of: 1 image taken for it.",
        ] {
            assert!(html.contains(part), "no {part} in {html}");
        }
    }
}
