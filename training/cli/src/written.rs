//! What `dbb reparam` and `dbb export` say of the file they wrote.

use std::path::{Path, PathBuf};

use dbb_models::Classifier;
use serde::Serialize;

use crate::int8::Int8Report;
use dbb_training::deploy::fold::FoldReport;
use dbb_training::deploy::rounding::Rounding;
use dbb_training::text::{displayed, plural};

/// What was written, and its difference to the network it was made from: null where nothing was
/// compared.
#[derive(Serialize)]
pub struct Written {
    pub blocks_folded: usize,
    pub params_train: usize,
    pub params_deploy: usize,
    pub max_abs_diff: Option<f64>,
    pub max_rel_diff: Option<f64>,
    pub top1_agreement: Option<f64>,
    pub compared_on: Option<String>,
    #[serde(flatten)]
    pub rounding: Option<Rounding>,
    #[serde(flatten)]
    pub int8: Option<Int8Report>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub labels: Option<String>,
    #[serde(serialize_with = "displayed")]
    pub out: PathBuf,
}

impl Written {
    pub fn folded(report: FoldReport, rounding: Option<Rounding>, out: &Path) -> Self {
        Self {
            blocks_folded: report.blocks_folded,
            params_train: report.params_train,
            params_deploy: report.params_deploy,
            max_abs_diff: Some(report.max_abs_diff),
            max_rel_diff: Some(report.max_rel_diff),
            top1_agreement: Some(report.top1_agreement),
            compared_on: Some(report.compared_on),
            rounding,
            int8: None,
            labels: None,
            out: out.into(),
        }
    }

    /// A network in training form, as it is.
    pub fn unfolded(network: &Classifier, rounding: Option<Rounding>, out: &Path) -> Self {
        let params = dbb_models::summary::learnable_params(network);
        Self {
            blocks_folded: 0,
            params_train: params,
            params_deploy: params,
            max_abs_diff: None,
            max_rel_diff: None,
            top1_agreement: None,
            compared_on: None,
            rounding,
            int8: None,
            labels: None,
            out: out.into(),
        }
    }

    pub fn print(&self, json: bool) -> anyhow::Result<()> {
        crate::print(json, self, || {
            let rounding = self.rounding.as_ref().map(rounding_text).unwrap_or_default();
            let int8 = self.int8.as_ref().map(Int8Report::text).unwrap_or_default();
            let labels = self.labels.as_ref().map(|path| format!(", labels to {path}"));
            let labels = labels.unwrap_or_default();
            let out = self.out.display();
            format!("{}\n{rounding}{int8}written to {out}{labels}", self.comparison())
        })
    }

    fn comparison(&self) -> String {
        let Self { blocks_folded, params_train, params_deploy, .. } = self;
        let compared = self.max_abs_diff.zip(self.max_rel_diff).zip(self.top1_agreement);
        let (Some(((max_abs_diff, max_rel_diff), agreement)), Some(compared_on)) =
            (compared, &self.compared_on)
        else {
            return format!(
                "the training form of {params_train} parameters as it is: nothing was folded and \
                 nothing compared"
            );
        };
        format!(
            "{} folded: {params_train} parameters became {params_deploy}\n\
             largest difference of logits {max_abs_diff:.2e} ({max_rel_diff:.2e} of the largest), top-1 \
             agrees on {agreement:.2}%, compared on {compared_on}",
            plural(*blocks_folded, "block")
        )
    }
}

fn rounding_text(rounding: &Rounding) -> String {
    let top1 = match (rounding.top1, rounding.top1_dtype) {
        (Some(exact), Some(rounded)) => {
            format!("; top-1 {exact:.2}% before rounding, {rounded:.2}% after")
        }
        _ => String::new(),
    };
    format!(
        "weights in {}: logits differ by {:.2e} of the largest, top-1 agrees on {:.2}%{top1}\n",
        rounding.dtype, rounding.dtype_max_rel_diff, rounding.dtype_top1_agreement
    )
}
