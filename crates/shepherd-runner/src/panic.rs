//! Panics as errors of the jobs that they happen in.
//!
//! What a panic leaves to whoever catches it says nothing of its place. That is known
//! to the panic hook alone, which runs on the thread that panics before anything is
//! caught; so a hook notes it there, and then does what the one before it did.

use std::any::Any;
use std::backtrace::{Backtrace, BacktraceStatus};
use std::cell::RefCell;
use std::panic::{self, AssertUnwindSafe, PanicHookInfo, catch_unwind};
use std::sync::Once;

use crate::RunError;

thread_local! {
    /// Where the latest panic of this thread was.
    static PLACE: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Has the places of panics noted from now on, once for the process.
pub(crate) fn watch() {
    static WATCHED: Once = Once::new();
    WATCHED.call_once(|| {
        let before = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            let place = place(info);
            // A thread that is being torn down has no place to note it in.
            let _ = PLACE.try_with(|noted| noted.replace(Some(place)));
            before(info);
        }));
    });
}

fn place(info: &PanicHookInfo<'_>) -> String {
    let mut text = match info.location() {
        Some(location) => format!("panicked at {location}"),
        None => "panicked".to_owned(),
    };
    // Only where RUST_BACKTRACE asks for it.
    let backtrace = Backtrace::capture();
    if backtrace.status() == BacktraceStatus::Captured {
        text.push('\n');
        text.push_str(backtrace.to_string().trim_end());
    }
    text
}

/// Calls `work`; a panic is an error with its message and its place.
pub(crate) fn caught<T>(work: impl FnOnce() -> T) -> Result<T, RunError> {
    PLACE.take();
    catch_unwind(AssertUnwindSafe(work)).map_err(|payload| {
        let error = RunError::new(message(&*payload)).with_type("panic");
        match PLACE.take() {
            Some(place) => error.with_traceback(place),
            None => error,
        }
    })
}

fn message(payload: &(dyn Any + Send)) -> String {
    let text = payload
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| payload.downcast_ref::<String>().map(String::as_str));
    format!("the runner panicked: {}", text.unwrap_or("no message"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_an_error_with_its_place() {
        watch();
        assert_eq!(caught(|| 5).unwrap(), 5);
        let line = line!() + 1;
        let error = caught(|| panic!("out of {}", "cheese")).unwrap_err().error;
        assert_eq!(error.message, "the runner panicked: out of cheese");
        assert_eq!(error.exception_type, "panic");
        let place = format!("panicked at {}:{line}:", file!());
        assert!(error.exception_traceback.starts_with(&place), "{}", error.exception_traceback);
        // One that is passed on was seen by no hook.
        let error = caught(|| panic::resume_unwind(Box::new(7))).unwrap_err().error;
        assert_eq!(error.message, "the runner panicked: no message");
        assert_eq!(error.exception_traceback, "");
    }
}
