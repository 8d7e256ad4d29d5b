//! SIGINT, SIGTERM and SIGHUP: the first requests a stop. A SIGINT or SIGTERM that follows a second or
//! more later ends the process at once, an earlier one does not: `timeout` sends one to the process and
//! one to its group. SIGHUP never does, since a terminal that closes sends several.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;

use dbb_training::cancel::CancelToken;

/// Time after the first signal in which further ones mean the same.
const ONE_REQUEST: Duration = Duration::from_secs(1);

/// Time between two looks for the first signal.
const INTERVAL: Duration = Duration::from_millis(50);

/// A [`CancelToken`] that the first signal sets.
pub fn stop() -> io::Result<CancelToken> {
    let stop = CancelToken::default();
    let again = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        flag::register_conditional_shutdown(signal, 128 + signal, Arc::clone(&again))?;
        flag::register_usize(signal, stop.cell(), signal as usize)?;
    }
    #[cfg(unix)]
    if !is_hangup_ignored() {
        let signal = signal_hook::consts::SIGHUP;
        flag::register_usize(signal, stop.cell(), signal as usize)?;
    }
    let requested = stop.clone();
    thread::spawn(move || {
        while requested.requested().is_none() {
            thread::sleep(INTERVAL);
        }
        thread::sleep(ONE_REQUEST);
        again.store(true, Ordering::Relaxed);
    });
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
