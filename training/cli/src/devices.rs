//! `dbb devices`.

use dbb_training::device;

/// List the devices compiled into this program and present on this machine.
///
/// Example: dbb devices
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Print the result as one JSON object.
    #[arg(long)]
    json: bool,
}

pub fn run(args: &Args) -> anyhow::Result<()> {
    let devices = device::list();
    let result = serde_json::json!({ "devices": devices });
    crate::print(args.json, &result, || {
        let line = |device: &device::DeviceInfo| {
            let state = match (device.compiled, device.present.as_slice()) {
                (false, _) => format!("not compiled in (--features {})", device.kind),
                (true, []) => "compiled in, none present".to_string(),
                (true, present) => format!("present: {}", present.join(", ")),
            };
            format!("{:<8} {:<44} {state}", device.kind, device.description)
        };
        devices.iter().map(line).collect::<Vec<_>>().join("\n")
    })
}
