//! SIGINT, SIGTERM and SIGHUP: the first requests a stop. A second SIGINT or SIGTERM ends the
//! process at once; SIGHUP never does, since a terminal that closes sends several.

use std::io;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;

use dbb_training::cancel::CancelToken;

/// A [`CancelToken`] that the first signal sets.
pub fn stop() -> io::Result<CancelToken> {
    let stop = CancelToken::default();
    let again = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        // Handlers run in the order of their registration: the first signal finds `again` unset.
        flag::register_conditional_shutdown(signal, 128 + signal, Arc::clone(&again))?;
        flag::register(signal, Arc::clone(&again))?;
        flag::register_usize(signal, stop.cell(), signal as usize)?;
    }
    #[cfg(unix)]
    if !is_hangup_ignored() {
        let signal = signal_hook::consts::SIGHUP;
        flag::register_usize(signal, stop.cell(), signal as usize)?;
    }
    Ok(stop)
}

/// Whether the process was started to outlive its terminal, as by `nohup`; SIGHUP is then ignored.
#[cfg(unix)]
fn is_hangup_ignored() -> bool {
    use io::IsTerminal;

    let ignored = std::fs::read_to_string("/proc/self/status").ok().and_then(|status| {
        let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"))?;
        // Bit 0 is signal 1, SIGHUP.
        Some(u64::from_str_radix(mask.trim(), 16).ok()? & 1 == 1)
    });
    // Other systems do not tell; `nohup` leaves no terminal to write to.
    ignored.unwrap_or_else(|| !io::stdout().is_terminal() && !io::stderr().is_terminal())
}
