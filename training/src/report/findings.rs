//! What an evaluation found, as sections of a page.

use super::classes::classes;
use super::confusion::confusion;
use super::mistakes::mistakes;
use super::page::Page;
use super::reliability::reliability;
use crate::classification::Classification;
use crate::inference::pictures::Picture;

/// What an evaluation found, and what its page needs to show it.
#[derive(Clone, Debug)]
pub struct Findings {
    /// Confused classes, calibration, mistakes.
    pub classification: Classification,
    /// Readable names of the classes, by the outputs of the network.
    pub labels: Vec<String>,
    /// The pictures of the worst mistakes, in their order.
    pub pictures: Vec<Picture>,
}

impl Findings {
    /// The name of a class.
    pub(super) fn label(&self, class: usize) -> String {
        self.labels.get(class).cloned().unwrap_or_else(|| format!("class {class}"))
    }
}

/// Adds the sections of an evaluation.
pub(super) fn add_findings(page: &mut Page, findings: &Findings) {
    page.section("Worst mistakes", mistakes(findings));
    page.section("Confused classes", confusion(findings));
    page.section("Classes", classes(findings));
    page.section("Calibration", reliability(&findings.classification.calibration));
}

#[cfg(test)]
pub(super) mod tests {
    use dbb_datasets::Image;

    use super::super::testing::assert_well_formed;
    use super::*;

    /// Two images of each class: one right, one taken for the next class, or, every third, for the
    /// last.
    pub fn of(classes: usize) -> Findings {
        let mut classification = Classification::default();
        for image in 0..2 * classes {
            let label = image / 2;
            let wrong = if label % 3 == 0 { classes - 1 } else { (label + 1) % classes };
            let prediction = if image % 2 == 0 { label } else { wrong };
            let mut logits = vec![0.0; classes];
            logits[prediction] = 1.0 + image as f32 / classes as f32;
            classification.add(image, label, &logits);
        }
        let thumbnail = Image::new(2, 2, 1, vec![0, 80, 160, 240]).unwrap().thumbnail(64);
        let picture = |i: usize| Picture {
            thumbnail: (i > 0).then(|| thumbnail.clone()),
            file: (i == 1).then(|| "a & b.png".into()),
        };
        Findings {
            pictures: (0..classification.mistakes.worst().len()).map(picture).collect(),
            labels: (0..classes).map(|class| format!("<{class}>")).collect(),
            classification,
        }
    }

    fn page(findings: &Findings) -> String {
        let mut page = Page::new("t".into(), false);
        add_findings(&mut page, findings);
        page.render()
    }

    #[test]
    fn every_number_of_classes_has_a_page_of_bounded_size() {
        for (classes, most) in [(1, 40), (2, 40), (10, 60), (21, 80), (100, 120), (1000, 500)] {
            let page = page(&of(classes));
            assert_well_formed(&page);
            assert!(page.len() < most << 10, "{classes} classes: {} KiB", page.len() >> 10);
            assert_eq!(page.contains("class=\"matrix\""), classes > 20, "{classes}");
            assert!(page.contains("&lt;0&gt;") && !page.contains("<0>"), "names are escaped");
            assert!(page.contains("script-src 'sha256-"), "the table of classes can be sorted");
        }
    }

    #[test]
    fn nothing_evaluated_is_nothing_shown() {
        let nothing = Findings {
            classification: Classification::default(),
            labels: vec![],
            pictures: vec![],
        };
        assert_well_formed(&page(&nothing));
    }
}
