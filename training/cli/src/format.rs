//! The formats of written weights, and which file may be written.

use std::path::Path;

use clap::ValueEnum;
use dbb_datasets::is_image_name;

use dbb_training::deploy::timm_folder;
use dbb_training::run::directory::RunDir;

use crate::options::TargetOptions;

#[derive(Clone, Copy, Debug, PartialEq, ValueEnum)]
pub enum Format {
    /// Read by PyTorch, Hugging Face and many others.
    Safetensors,
    /// Burn's own; native names only.
    Burnpack,
    /// Read by onnxruntime and many compilers; folded, native names only.
    Onnx,
    /// A folder for timm and the Hugging Face Hub, with classes and preprocessing; folded, timm's
    /// names only.
    Timm,
}

impl Format {
    fn name(self) -> &'static str {
        match self {
            Self::Safetensors => "safetensors",
            Self::Burnpack => "burnpack",
            Self::Onnx => "onnx",
            Self::Timm => "timm",
        }
    }

    /// Refuses a path that is part of a run or the input, or whose name promises something else than
    /// this format.
    pub fn check(self, out: &Path, target: &TargetOptions) -> anyhow::Result<()> {
        refuse_part_of_run(out)?;
        match self {
            Self::Timm => target.refuse_as_output(&out.join(timm_folder::WEIGHTS))?,
            _ => target.refuse_as_output(out)?,
        }
        let extension = extension(out);
        let promised = match &*extension {
            "safetensors" => Some(Self::Safetensors),
            "bpk" => Some(Self::Burnpack),
            "onnx" => Some(Self::Onnx),
            _ => None,
        };
        let hint = match promised {
            Some(promised) if promised == self => return Ok(()),
            Some(promised) => format!("`dbb export --format {}` writes that", promised.name()),
            None if matches!(&*extension, "pth" | "pt") => "PyTorch loads safetensors".into(),
            None if OTHER_FILES.contains(&&*extension) || is_image_name(out) => {
                "give the file the ending of weights".into()
            }
            None => return Ok(()),
        };
        anyhow::bail!(
            "{} has the extension of another format; this command writes {}; {hint}",
            out.display(),
            self.name()
        )
    }
}

/// Endings of files that hold no weights.
const OTHER_FILES: [&str; 10] =
    ["toml", "json", "jsonl", "csv", "tsv", "md", "txt", "html", "tar", "lock"];

/// Refuses a path that is part of a run, or that does not end as a file of this kind does; `flag` names
/// the path and `writes` what is written there.
pub fn check_extension(
    flag: &str,
    out: &Path,
    extensions: &[&str],
    writes: &str,
) -> anyhow::Result<()> {
    refuse_part_of_run(out)?;
    anyhow::ensure!(
        extensions.contains(&&*extension(out)),
        "{} does not end in .{}; {flag} writes {writes}",
        out.display(),
        extensions[0]
    );
    Ok(())
}

/// The extension of a path in lower case, empty if it has none.
fn extension(path: &Path) -> String {
    path.extension().unwrap_or_default().to_string_lossy().to_lowercase()
}

/// Refuses to write over a file that a run reads back or reports.
pub fn refuse_part_of_run(out: &Path) -> anyhow::Result<()> {
    match RunDir::owner(out) {
        Some(run) => anyhow::bail!(
            "{} belongs to the run in {}, which it would damage; write to another file",
            out.display(),
            run.root().display()
        ),
        None => Ok(()),
    }
}
