//! From the name of a device to the device; threads and instructions of the CPU.

use std::error::Error;
use std::sync::Mutex;

use burn::module::Module;
use burn::tensor::Device;
use dbb_models::{Classifier, Implementation};

/// The devices this program can name: name, cargo feature, what it is.
const KINDS: [(&str, &str); 8] = [
    ("flex", "CPU, Burn's portable SIMD backend"),
    ("ndarray", "CPU, the older backend; slow, for comparison"),
    ("wgpu", "any GPU through WebGPU"),
    ("cuda", "NVIDIA GPU"),
    ("rocm", "AMD GPU"),
    ("metal", "Apple GPU"),
    ("vulkan", "any GPU through Vulkan"),
    ("cpu", "CPU through CubeCL"),
];

/// A device that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DeviceError {
    /// No such name.
    #[error(
        "unknown device \"{0}\"; expected one of {names}", names = names()
    )]
    Unknown(String),
    /// The program was built without it.
    #[error(
        "the device \"{0}\" is not compiled into this program; build it with \
         `cargo build --release --features {1}`"
    )]
    NotCompiled(String, &'static str),
    /// It cannot train together with others.
    #[error(
        "the device \"{0}\" cannot train together with others: only cuda has Burn's collective \
         operations (NCCL); name cuda devices, for example cuda:0 and cuda:1, or one device"
    )]
    Alone(String),
    /// It is listed twice.
    #[error("the device \"{0}\" is named twice; the devices must be different")]
    Twice(String),
    /// The machine lacks it.
    #[error(
        "there is no device \"{0}\" on this machine ({1} of this kind found); `dbb devices` lists what is there"
    )]
    Absent(String, usize),
    /// The environment names an instruction set that does not exist.
    #[cfg(feature = "flex")]
    #[error(transparent)]
    InstructionSet(#[from] dbb_models::InstructionSetError),
    /// More threads than are useful.
    #[error(
        "{asked} threads were asked for; this machine runs {cores} at a time, and at most {most} are accepted"
    )]
    TooManyThreads {
        /// What was asked for.
        asked: usize,
        /// Threads that run at the same time.
        cores: usize,
        /// The bound.
        most: usize,
    },
    /// The system refuses threads.
    #[error(
        "the system does not give {asked} threads ({reason}); ask for fewer, or raise its \
         limit of processes (ulimit -u, pids.max of a container)"
    )]
    Threads {
        /// What was asked for.
        asked: usize,
        /// What the system says.
        reason: String,
    },
}

/// One line of `dbb devices`.
#[derive(Clone, Debug, serde::Serialize)]
pub struct DeviceInfo {
    /// Kind, also the cargo feature.
    pub kind: &'static str,
    /// What it is.
    pub description: &'static str,
    /// Whether the program was built with it.
    pub compiled: bool,
    /// Names of the devices found, as `--device` takes them.
    pub present: Vec<String>,
}

/// Threads accepted even on a machine with few cores: enough to repeat a run from a large machine.
const FEW_CORES: usize = 256;

/// Bytes of the stack of a thread, as many as that of the main thread: whole training steps run [there](on_pool).
const STACK: usize = 8 << 20;

/// Starts the threads of the CPU backends; `None` for one per core. Once in a process, before
/// anything is computed.
///
/// # Errors
/// More threads than both 256 and four per core, or than the system grants; an instruction set in
/// `DBB_INSTRUCTION_SET` that does not exist.
pub fn start_threads(threads: Option<usize>) -> Result<(), DeviceError> {
    #[cfg(feature = "flex")]
    dbb_models::InstructionSet::from_env()?;
    let cores = cores();
    let most = FEW_CORES.max(4 * cores);
    if let Some(asked) = threads.filter(|threads| *threads > most) {
        return Err(DeviceError::TooManyThreads { asked, cores, most });
    }
    // 0 lets rayon choose.
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads.unwrap_or(0));
    let pool = pool.stack_size(STACK);
    // Without a source the pool exists already, which is fine.
    match pool.build_global().as_ref().err().and_then(Error::source) {
        Some(reason) => Err(DeviceError::Threads {
            asked: threads.unwrap_or(cores),
            reason: reason.to_string(),
        }),
        None => Ok(()),
    }
}

/// Threads that run at the same time on this machine: the default of [`start_threads`].
pub fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// The instruction set of the CPU kernels, `none` in a program without them. Results are equal to the
/// bit with equal threads and an equal instruction set.
pub fn instruction_set() -> String {
    #[cfg(feature = "flex")]
    let name = dbb_models::InstructionSet::current().to_string();
    #[cfg(not(feature = "flex"))]
    let name = "none".to_string();
    name
}

/// Every kind of device, whether it is compiled in, and what this machine has of it.
pub fn list() -> Vec<DeviceInfo> {
    KINDS
        .into_iter()
        .map(|(kind, description)| {
            let found = count(kind);
            let name = |index| name_of(kind, index);
            let shown = found.map_or(0, |n| if is_numbered(kind) { n } else { n.min(1) });
            DeviceInfo {
                kind,
                description,
                compiled: found.is_some(),
                present: (0..shown).map(name).collect(),
            }
        })
        .collect()
}

/// The kinds of devices this program can name.
pub fn kinds() -> impl Iterator<Item = &'static str> {
    KINDS.into_iter().map(|(kind, _)| kind)
}

/// The names of devices that [`open`] takes, for messages; N stands for a number.
pub fn names() -> String {
    let name = |kind| format!("{kind}{}", if is_numbered(kind) { ":N" } else { "" });
    kinds().map(name).collect::<Vec<_>>().join(", ")
}

/// The name of a device, as [`open`] takes it.
pub fn name(device: &Device) -> String {
    let places = kinds().flat_map(|kind| {
        let indices = if is_numbered(kind) { count(kind).unwrap_or(0) } else { 1 };
        (0..indices).map(move |index| (kind, index))
    });
    for (kind, index) in places {
        if make(kind, index).as_ref() == Some(device) {
            return name_of(kind, index);
        }
    }
    // A device that was created elsewhere.
    format!("{device:?}")
}

fn name_of(kind: &str, index: usize) -> String {
    if is_numbered(kind) { format!("{kind}:{index}") } else { kind.to_string() }
}

/// The device a network is on.
pub fn of(network: &Classifier) -> Device {
    network.devices().into_iter().next().unwrap_or_default()
}

/// Whether a device computes on the processor, in the memory of the process.
pub fn is_cpu(device: &Device) -> bool {
    matches!(name(device).as_str(), "flex" | "ndarray" | "cpu")
}

/// Whether a device, with or without autodiff, is the backend that has this project's CPU kernels.
pub fn is_flex(device: &Device) -> bool {
    make("flex", 0).as_ref() == Some(device)
}

/// Runs a computation of training on the first thread of Rayon's pool, if the device is the backend that has this project's CPU
/// kernels: they divide their work from there, whereas the calling thread would hand every operation over to the pool
/// and sleep meanwhile. The computation must not wait for a thread that needs the pool. The
/// [`Implementation`] of the calling thread applies; profiles and counts of layers must begin inside.
pub fn on_pool<T: Send>(device: &Device, work: impl FnOnce() -> T + Send) -> T {
    if !is_flex(device) {
        return work();
    }
    let implementation = Implementation::current();
    // Always the same thread: what one thread frees, the allocator keeps for it.
    let work = Mutex::new(Some(work));
    let results = rayon::broadcast(|thread| {
        let work = (thread.index() == 0).then(|| work.lock().ok()?.take()).flatten()?;
        Some(implementation.during(work))
    });
    results.into_iter().flatten().next().expect("the first thread takes the work")
}

/// The kind of a device: its name without a number.
pub fn kind(device: &Device) -> String {
    let name = name(device);
    name.split(':').next().unwrap_or_default().to_string()
}

/// Whether several devices of a kind are distinguished by number.
pub(crate) fn is_numbered(kind: &str) -> bool {
    matches!(kind, "cuda" | "rocm")
}

/// The model of the processor, as Linux names it; elsewhere its architecture.
pub fn cpu_model() -> String {
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    model_name(&info).unwrap_or(std::env::consts::ARCH).to_string()
}

/// The first processor's name in the text of `/proc/cpuinfo`.
fn model_name(info: &str) -> Option<&str> {
    let values = info.lines().filter_map(|line| line.split_once(':'));
    let mut names =
        values.filter(|(key, _)| key.trim() == "model name").map(|(_, name)| name.trim());
    names.find(|name| !name.is_empty() && *name != "unknown")
}

/// The device of a name such as `flex` or `cuda:1`, without autodiff.
///
/// # Errors
/// A name that does not exist, is not compiled in, or is not on this machine.
pub fn open(name: &str) -> Result<Device, DeviceError> {
    let (kind, index) = match name.split_once(':') {
        Some((kind, index)) => (kind, index.parse().ok()),
        None => (name, Some(0)),
    };
    let known = KINDS.iter().find(|(known, _)| *known == kind);
    let (Some((kind, _)), Some(index)) = (known, index) else {
        return Err(DeviceError::Unknown(name.into()));
    };
    if index > 0 && !is_numbered(kind) {
        return Err(DeviceError::Unknown(name.into()));
    }
    match count(kind) {
        None => Err(DeviceError::NotCompiled(name.into(), kind)),
        Some(found) if index >= found => Err(DeviceError::Absent(name.into(), found)),
        Some(_) => make(kind, index).ok_or(DeviceError::NotCompiled(name.into(), kind)),
    }
}

/// How many devices of a kind there are; `None` if the program was built without it.
#[allow(unused_variables)] // depends on the features
fn count(kind: &str) -> Option<usize> {
    use burn::tensor::DeviceType;
    // Drivers that are absent make some runtimes panic rather than report no device.
    let enumerate = |kind: DeviceType| {
        std::panic::catch_unwind(|| Device::enumerate(kind).into_vec().len()).unwrap_or(0)
    };
    match kind {
        #[cfg(feature = "flex")]
        "flex" => Some(1),
        #[cfg(feature = "ndarray")]
        "ndarray" => Some(1),
        #[cfg(feature = "wgpu")]
        "wgpu" => Some(enumerate(DeviceType::Wgpu)),
        #[cfg(feature = "cuda")]
        "cuda" => Some(enumerate(DeviceType::Cuda)),
        #[cfg(feature = "rocm")]
        "rocm" => Some(enumerate(DeviceType::Rocm)),
        #[cfg(feature = "metal")]
        "metal" => Some(enumerate(DeviceType::Metal)),
        #[cfg(feature = "vulkan")]
        "vulkan" => Some(enumerate(DeviceType::Vulkan)),
        #[cfg(feature = "cpu")]
        "cpu" => Some(1),
        _ => None,
    }
}

#[allow(unused_variables)] // depends on the features
fn make(kind: &str, index: usize) -> Option<Device> {
    match kind {
        #[cfg(feature = "flex")]
        "flex" => Some(Device::flex()),
        #[cfg(feature = "ndarray")]
        #[allow(deprecated)] // still offered, for comparison
        "ndarray" => Some(Device::ndarray()),
        #[cfg(feature = "wgpu")]
        "wgpu" => Some(Device::wgpu(Default::default())),
        #[cfg(feature = "cuda")]
        "cuda" => Some(Device::cuda(index)),
        #[cfg(feature = "rocm")]
        "rocm" => Some(Device::rocm(index)),
        #[cfg(feature = "metal")]
        "metal" => Some(Device::metal(Default::default())),
        #[cfg(feature = "vulkan")]
        "vulkan" => Some(Device::vulkan(Default::default())),
        #[cfg(feature = "cpu")]
        "cpu" => Some(Device::cpu()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_have_the_names_that_open_them() {
        for name in list().into_iter().flat_map(|info| info.present) {
            assert_eq!(self::name(&open(&name).unwrap()), name);
        }
        #[cfg(feature = "flex")]
        assert_eq!(name(&Device::flex().autodiff()), "flex");
    }

    #[test]
    fn the_processor_has_a_name() {
        let text = "processor\t: 0\nmodel\t\t: 1\nmodel name\t: AMD EPYC 7571: two\nflags : fpu\n\n\
                    processor : 1\nmodel name : other\n";
        assert_eq!(model_name(text), Some("AMD EPYC 7571: two"));
        // As on 64-bit ARM, and on virtual machines without a name.
        assert_eq!(model_name("processor : 0\nBogoMIPS : 50\nmodel name : unknown\n"), None);
        assert!(!cpu_model().is_empty());
    }
}
