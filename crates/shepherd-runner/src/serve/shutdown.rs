//! The end: asked for by the shepherd or by a signal, and certain to come.

use std::io;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::{Handle, Signals};

use super::work::Work;

/// The exit code of a runner whose job did not end in time.
const ABANDONED: i32 = 1;

/// Has the runner end, within `grace` if a job is in work.
pub(super) fn begin(work: &Arc<Work>, grace: Duration) {
    if !work.shut_down(grace) {
        return;
    }
    let watched = Arc::clone(work);
    let watch = thread::Builder::new().name("shutdown".to_owned()).spawn(move || {
        // process() is the model's code: it cannot be interrupted, only left.
        if !watched.wait_finished() {
            let output = &watched.outlet().output;
            output.leave();
            output.say("the work did not end in time and is abandoned");
            std::process::exit(ABANDONED);
        }
    });
    if watch.is_err() && !work.is_finished() {
        std::process::exit(ABANDONED);
    }
}

/// Begins the end at the first signal and exits at the second.
pub(super) fn on_signals(work: &Arc<Work>, grace: Duration) -> io::Result<Handle> {
    let mut signals = Signals::new([SIGTERM, SIGINT])?;
    let handle = signals.handle();
    let work = Arc::clone(work);
    thread::Builder::new().name("signals".to_owned()).spawn(move || {
        let mut asked = false;
        for signal in signals.forever() {
            if asked {
                work.outlet().output.leave();
                std::process::exit(128 + signal);
            }
            asked = true;
            begin(&work, grace);
        }
    })?;
    Ok(handle)
}
